//! The inner loops of [`Conv`] over tiles: two tiles of pixels by two of output channels.
//!
//! Invariant: pointers are made of slices whose lengths were checked against their layouts on the way
//! in, and stay within them: a tile of pixels has as many numbers in a row as divide its run, so that
//! nothing beside a run is ever loaded, let alone multiplied by zero.

#![expect(unsafe_code, reason = "tiles and vector instructions over pointers into checked slices")]

use std::{
    arch::x86_64::{
        __m512, _mm_maskz_loadu_epi16, _mm_storeu_epi16, _mm256_maskz_loadu_epi16, _mm256_storeu_epi16,
        _mm512_maskz_loadu_epi16, _mm512_storeu_epi16,
    },
    mem::MaybeUninit,
    ptr,
};

use self::program::{Machine, Product};
use super::{
    super::{
        aligned::Aligned,
        amx::{Shapes, Tiles},
        bf16::Bf16,
        lanes::Lanes,
        maps::Layout,
    },
    Activation, Conv, Run,
    packed::{Group, MOST_DEEP, Reading, Runs, TILE_OUTPUTS, Tiled, groups},
    products::{Pairs, Products},
    strips::{Picture, Strip, Strips},
};

#[cfg(test)]
pub(super) mod emulated;
mod program;

/// Runs over `n_pictures`; the slices fit their layouts, and the form has tiles.
pub(super) fn run(conv: &Conv, tiled: &Tiled, n_pictures: usize, run: Run<'_, Bf16>) {
    let work = Work::new(conv, tiled, &run);
    // SAFETY: weights in tiles are a proof that they are usable, and this room makes no others while
    // these live.
    let mut tiles = unsafe { Tiles::shape(&work.shapes()) };
    // SAFETY: weights in tiles are a proof of the instructions, and `work` was made of `run`.
    unsafe { work.run_on(&mut tiles, n_pictures, run) }
}

/// What is the same for all pictures of a run.
struct Work<'a> {
    conv: &'a Conv,
    tiled: &'a Tiled,
    to: Layout,
    activation: Activation,
    reading: Reading,
    strips: Strips,
    /// From one pixel to the next, in numbers of the input.
    step: usize,
    /// From one row of pixels to the next, and from the beginning of a picture to the first tap.
    row: usize,
    first: usize,
    /// Where the runs to gather begin, seen from the first tap, and how many numbers each has.
    starts: Vec<usize>,
    run_len: usize,
    /// Bytes from a row of a tile of pixels to what each product reads.
    steps: Vec<usize>,
}

impl<'a> Work<'a> {
    fn new(conv: &'a Conv, tiled: &'a Tiled, run: &Run<'_, Bf16>) -> Self {
        let (shape, from, to) = (conv.shape(), run.input_layout, run.output_layout);
        let (row, step) = (shape.strides[0] * from.row(), shape.strides[1] * from.pixel);
        let strips = Strips::of(Picture { height: to.height, width: to.width, step, row });
        let first = (from.border - shape.padding[0][0]) * from.row()
            + (from.border - shape.padding[0][1]) * from.pixel;
        let runs = Runs::over(&shape, from.pixel);
        let reading = Reading::of(runs);
        let starts = runs.starts(&shape, from.row(), from.pixel);
        let mut steps = Vec::with_capacity(runs.n * runs.len / reading.depth() + 1);
        let mut cut = |start: usize, len: usize| {
            steps.extend((start..start + len).step_by(reading.depth()).map(|at| at * size_of::<Bf16>()));
        };
        let mut kept = Vec::new();
        match reading {
            Reading::InPlace { .. } => starts.for_each(|start| cut(start, runs.len)),
            Reading::Gathered => {
                cut(0, runs.n * runs.len);
                kept.extend(starts);
            }
        }
        let activation = run.activation;
        let (starts, run_len) = (kept, runs.len);
        Self { conv, tiled, to, activation, reading, strips, step, row, first, starts, run_len, steps }
    }

    /// Where a strip is.
    #[inline]
    fn place(&self, Strip { y, x }: Strip) -> Place {
        Place { input: self.first + y * self.row + x * self.step, row: self.to.at(y, 0), x }
    }

    /// The tiles: 0 to 3 for sums, 4 and 5 for pixels, 6 and 7 for weights.
    fn shapes(&self) -> Shapes {
        // There are 16 rows at most, and 32 numbers in each.
        let (m, depth) = (self.strips.len as u8, self.reading.depth());
        let (pairs, bytes) = ((depth / 2) as u8, (depth * size_of::<Bf16>()) as u16);
        Shapes::of([m, m, m, m, m, m, pairs, pairs]).narrow(4, bytes).narrow(5, bytes)
    }

    /// Runs over `n_pictures`, block by block.
    ///
    /// # Safety
    /// AVX-512 with bf16; a machine shaped as [`Work::shapes`] says, and the run that `self` was made of,
    /// its slices as long as `n_pictures` of their layouts.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn run_on(&self, machine: &mut impl Machine, n_pictures: usize, run: Run<'_, Bf16>) {
        let Run { input, input_layout: from, summand, output, .. } = run;
        let mut room = Sums([[MaybeUninit::uninit(); N_SUMS * SUMS]; 2]);
        let [sums, other] = room.0.each_mut().map(|sums| sums.as_mut_ptr().cast::<f32>());
        let mut blocks = Blocks { work: self, machine, sums, other, before: None };
        let mut gathered = (self.reading == Reading::Gathered).then(|| Gathered::new(self));
        let groups: Vec<Group> = groups(self.conv.shape().n_outputs.div_ceil(TILE_OUTPUTS)).collect();
        for picture in 0..n_pictures {
            let input = &input[picture * from.picture()..][..from.picture()];
            let summand = summand.map_or(ptr::null(), |all| all[picture * self.to.picture()..].as_ptr());
            let output = output[picture * self.to.picture()..].as_mut_ptr();
            let block = |group: Group, pair: [Place; 2]| Block { group, pair, summand, output };
            let pairs = self.strips.pairs().map(|pair| pair.map(|strip| self.place(strip)));
            let in_place = |pair: [Place; 2]| pair.map(|place| input[place.input..].as_ptr());
            // SAFETY: the caller's; each pixel of a strip has its taps in the picture, and gathered rows
            // are as many as a strip has pixels.
            unsafe {
                match &mut gathered {
                    // Pixels pass by the weights of one group after the other, which then stay near.
                    None => {
                        for &group in &groups {
                            for pair in pairs.clone() {
                                blocks.make(block(group, pair), in_place(pair), self.step);
                            }
                        }
                    }
                    Some(gathered) => {
                        for pair in pairs {
                            gathered.fill(self, in_place(pair));
                            let (pixels, step) = gathered.pixels();
                            groups.iter().for_each(|&group| blocks.make(block(group, pair), pixels, step));
                        }
                    }
                }
            }
        }
        // SAFETY: the caller's.
        unsafe { blocks.finish() };
    }
}

/// Blocks on their way through the tiles. The sums of one are finished after the next was begun: vectors
/// and tiles then have work at the same time.
struct Blocks<'a, M> {
    work: &'a Work<'a>,
    machine: &'a mut M,
    /// Places for the sums of a block, and those of the block before.
    sums: *mut f32,
    other: *mut f32,
    before: Option<Block>,
}

impl<M: Machine> Blocks<'_, M> {
    /// Makes the sums of a block of pixels, whose inputs are `step` numbers apart, and the answer of the
    /// block before.
    ///
    /// # Safety
    /// AVX-512 with bf16; a machine shaped as [`Work::shapes`] says, rows of pixels for it, and pictures
    /// in the layout of the answer.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn make(&mut self, block: Block, pixels: [*const Bf16; 2], step: usize) {
        let product = Product {
            pixels,
            stride: step * size_of::<Bf16>(),
            steps: self.work.steps.as_ptr(),
            n_steps: self.work.steps.len(),
            weights: self.work.tiled.of(block.group, self.work.reading.depth()).as_ptr(),
            sums: self.sums,
        };
        // SAFETY: the caller's; a group has a tile of weights for each step, and there are places for four
        // tiles of sums.
        unsafe {
            match block.group.n_registers {
                1 => self.machine.multiply::<1>(&product),
                _ => self.machine.multiply::<2>(&product),
            }
            self.finish();
        }
        self.before = Some(block);
        std::mem::swap(&mut self.sums, &mut self.other);
    }

    /// Makes the answer of the block before, where there is one.
    ///
    /// # Safety
    /// As for [`Blocks::make`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn finish(&mut self) {
        let Some(block) = self.before.take() else { return };
        // SAFETY: the caller's; its sums were the last to be made.
        unsafe {
            match block.group.n_registers {
                1 => block.answers::<1>(self.work, self.other),
                _ => block.answers::<2>(self.work, self.other),
            }
        }
    }
}

/// Where a strip is.
#[derive(Clone, Copy)]
struct Place {
    /// From the beginning of a picture to the first tap of its first pixel.
    input: usize,
    /// From the beginning of an answer to the row of its first pixel, and which of that row it is.
    row: usize,
    x: usize,
}

/// Numbers of a tile of sums, and how many such tiles a block has.
const SUMS: usize = 16 * TILE_OUTPUTS;
const N_SUMS: usize = 4;

/// Sums of two blocks in turn: one is written while the other is read.
#[repr(align(64))]
struct Sums([[MaybeUninit<f32>; N_SUMS * SUMS]; 2]);

/// A block whose sums are made.
#[derive(Clone, Copy)]
struct Block {
    group: Group,
    pair: [Place; 2],
    /// The picture to add, or null, and the answer.
    summand: *const Bf16,
    output: *mut Bf16,
}

impl Block {
    /// Makes the answer of the sums with `N` tiles of output channels.
    ///
    /// # Safety
    /// AVX-512 with bf16; the sums of the block at `sums`, and pictures in the layout of the answer.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn answers<const N: usize>(self, work: &Work<'_>, sums: *const f32) {
        let channel = self.group.first * TILE_OUTPUTS;
        // SAFETY: the caller's; a group has its biases, its channels are inside a pixel, and positions
        // beyond the width of the answer are passed by.
        unsafe {
            let mut bias = [__m512::splat(0.0); N];
            for (n, bias) in bias.iter_mut().enumerate() {
                *bias = __m512::load(work.conv.bias.as_ptr().add(channel + n * TILE_OUTPUTS));
            }
            for (strip, Place { mut row, mut x, .. }) in self.pair.into_iter().enumerate() {
                for pixel in 0..work.strips.len {
                    if x < work.to.width {
                        let at = row + x * work.to.pixel + channel;
                        for (n, bias) in bias.into_iter().enumerate() {
                            let sum = sums.add((2 * strip + n) * SUMS + pixel * TILE_OUTPUTS);
                            let mut answer = __m512::load(sum).add(bias);
                            if !self.summand.is_null() {
                                answer = answer.add(Pairs::load(self.summand.add(at + n * TILE_OUTPUTS)));
                            }
                            if work.activation == Activation::Relu {
                                answer = answer.at_least(__m512::splat(0.0));
                            }
                            Pairs::store(answer, self.output.add(at + n * TILE_OUTPUTS));
                        }
                    }
                    x += 1;
                    if x == work.strips.pitch {
                        (row, x) = (row + work.to.row(), 0);
                    }
                }
            }
        }
    }
}

/// The runs of each pixel of two strips, one behind the other.
struct Gathered {
    /// Zero wherever no run's number is.
    numbers: Aligned<Bf16>,
    strip: usize,
    pixel: usize,
}

impl Gathered {
    fn new(work: &Work<'_>) -> Self {
        let pixel = work.steps.len() * MOST_DEEP;
        let strip = work.strips.len * pixel;
        // The last run is written with what fills up a register behind it.
        Self { numbers: Aligned::zeros(2 * strip + MOST_DEEP), strip, pixel }
    }

    /// The first row of each strip, and numbers from one row to the next.
    fn pixels(&self) -> ([*const Bf16; 2], usize) {
        ([0, self.strip].map(|at| self.numbers[at..].as_ptr()), self.pixel)
    }

    /// Copies the runs of the pixels that begin at `strips`.
    ///
    /// # Safety
    /// AVX-512; as many pixels as a strip has from each pointer on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn fill(&mut self, work: &Work<'_>, strips: [*const Bf16; 2]) {
        // SAFETY: the caller's.
        unsafe {
            match work.run_len {
                ..=8 => self.copy::<8>(work, strips),
                9..=16 => self.copy::<16>(work, strips),
                _ => self.copy::<32>(work, strips),
            }
        }
    }

    /// [`Gathered::fill`] by registers of `W` numbers: 8, 16 or 32.
    ///
    /// # Safety
    /// As there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn copy<const W: usize>(&mut self, work: &Work<'_>, strips: [*const Bf16; 2]) {
        let (n_whole, rest) = (work.run_len / W, work.run_len % W);
        let mask = (1u32 << rest) - 1;
        for (strip, from) in strips.into_iter().enumerate() {
            for pixel in 0..work.strips.len {
                let mut to = self.numbers[strip * self.strip + pixel * self.pixel..].as_mut_ptr();
                for start in &work.starts {
                    // SAFETY: the caller's; what is behind the mask is not read. A register is within the
                    // room: zeros behind a run are where the next one comes, or where zeros are.
                    unsafe {
                        let run = from.add(pixel * work.step + start);
                        for whole in 0..n_whole {
                            copy_register::<W>(u32::MAX, run.add(whole * W), to.add(whole * W));
                        }
                        if rest > 0 {
                            copy_register::<W>(mask, run.add(n_whole * W), to.add(n_whole * W));
                        }
                        to = to.add(work.run_len);
                    }
                }
            }
        }
    }
}

/// Copies those of `W` numbers that the mask names, and makes zeros of the others.
///
/// # Safety
/// AVX-512; the numbers that are named at `from`, and `W` at `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn copy_register<const W: usize>(mask: u32, from: *const Bf16, to: *mut Bf16) {
    let (from, to) = (from.cast(), to.cast());
    // SAFETY: the caller's; a mask has a bit for each of `W` numbers.
    unsafe {
        match W {
            8 => _mm_storeu_epi16(to, _mm_maskz_loadu_epi16(mask as u8, from)),
            16 => _mm256_storeu_epi16(to, _mm256_maskz_loadu_epi16(mask as u16, from)),
            _ => _mm512_storeu_epi16(to, _mm512_maskz_loadu_epi16(mask, from)),
        }
    }
}
