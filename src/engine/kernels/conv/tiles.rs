//! The inner loops of [`Conv`] over tiles: two tiles of pixels by two of output channels.
//!
//! Invariant: pointers are made of slices whose lengths were checked against their layouts on the way
//! in, and stay within them: a tile of pixels has as many numbers in a row as divide its run, so that
//! nothing beside a run is ever loaded, let alone multiplied by zero.

#![expect(unsafe_code, reason = "tiles and vector instructions over pointers into checked slices")]

use std::{
    arch::x86_64::{__m512, _mm512_maskz_loadu_epi16, _mm512_storeu_epi16},
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
    /// The strips of a picture, two by two.
    pairs: Vec<[Place; 2]>,
    /// Where each run begins, seen from the first tap, and how many numbers it has.
    starts: Vec<usize>,
    run_len: usize,
    /// Bytes from a row of a tile of pixels to what each product reads.
    steps: Vec<usize>,
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

impl<'a> Work<'a> {
    fn new(conv: &'a Conv, tiled: &'a Tiled, run: &Run<'_, Bf16>) -> Self {
        let (shape, from, to) = (conv.shape(), run.input_layout, run.output_layout);
        let (row, step) = (shape.strides[0] * from.row(), shape.strides[1] * from.pixel);
        let strips = Strips::of(Picture { height: to.height, width: to.width, step, row });
        let first = (from.border - shape.padding[0][0]) * from.row()
            + (from.border - shape.padding[0][1]) * from.pixel;
        let place = |Strip { y, x }| Place { input: first + y * row + x * step, row: to.at(y, 0), x };
        let runs = Runs::over(&shape, from.pixel);
        let reading = Reading::of(runs);
        let starts: Vec<usize> = runs.starts(&shape, from.row(), from.pixel).collect();
        let cut = |start: usize, len: usize| (start..start + len).step_by(reading.depth());
        let steps: Vec<usize> = match reading {
            Reading::InPlace { .. } => starts.iter().flat_map(|start| cut(*start, runs.len)).collect(),
            Reading::Gathered => cut(0, runs.n * runs.len).collect(),
        };
        Self {
            conv,
            tiled,
            to,
            activation: run.activation,
            reading,
            strips,
            step,
            pairs: strips.pairs().map(|pair| pair.map(place)).collect(),
            starts,
            run_len: runs.len,
            steps: steps.into_iter().map(|numbers| numbers * size_of::<Bf16>()).collect(),
        }
    }

    /// The tiles: 0 to 3 for sums, 4 and 5 for pixels, 6 and 7 for weights.
    fn shapes(&self) -> Shapes {
        // There are 16 rows at most, and 32 numbers in each.
        let (m, depth) = (self.strips.len as u8, self.reading.depth());
        let (pairs, bytes) = ((depth / 2) as u8, (depth * size_of::<Bf16>()) as u16);
        Shapes::of([m, m, m, m, m, m, pairs, pairs]).narrow(4, bytes).narrow(5, bytes)
    }

    /// Runs over `n_pictures`, block by block. The sums of a block are finished after the next block was
    /// begun: vectors and tiles then have work at the same time.
    ///
    /// # Safety
    /// AVX-512 with bf16; a machine shaped as [`Work::shapes`] says, and the run that `self` was made of,
    /// its slices as long as `n_pictures` of their layouts.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn run_on(&self, machine: &mut impl Machine, n_pictures: usize, run: Run<'_, Bf16>) {
        let Run { input, input_layout: from, summand, output, .. } = run;
        let mut room = Sums([[MaybeUninit::uninit(); N_SUMS * SUMS]; 2]);
        let [mut sums, mut other] = room.0.each_mut().map(|sums| sums.as_mut_ptr().cast::<f32>());
        let mut gathered = Gathered::new(self);
        let groups: Vec<Group> = groups(self.conv.shape().n_outputs.div_ceil(TILE_OUTPUTS)).collect();
        // What is read in place passes by the weights of one group after the other, which then stay near;
        // what is gathered is gathered once for all groups.
        let (n_outer, n_inner) = match self.reading {
            Reading::InPlace { .. } => (groups.len(), self.pairs.len()),
            Reading::Gathered => (self.pairs.len(), groups.len()),
        };
        let mut before: Option<Block<'_>> = None;
        for picture in 0..n_pictures {
            let input = &input[picture * from.picture()..][..from.picture()];
            let summand = summand.map_or(ptr::null(), |all| all[picture * self.to.picture()..].as_ptr());
            let output = output[picture * self.to.picture()..].as_mut_ptr();
            for (outer, inner) in (0..n_outer).flat_map(|outer| (0..n_inner).map(move |inner| (outer, inner)))
            {
                let (group, pair) = match self.reading {
                    Reading::InPlace { .. } => (groups[outer], &self.pairs[inner]),
                    Reading::Gathered => (groups[inner], &self.pairs[outer]),
                };
                let (pixels, step) = match self.reading {
                    Reading::InPlace { .. } => (pair.map(|it| input[it.input..].as_ptr()), self.step),
                    Reading::Gathered => {
                        if inner == 0 {
                            // SAFETY: the caller's; each pixel of a strip has its taps in the picture.
                            unsafe { gathered.fill(self, pair.map(|it| input[it.input..].as_ptr())) };
                        }
                        gathered.pixels()
                    }
                };
                let product = Product {
                    pixels,
                    stride: step * size_of::<Bf16>(),
                    steps: self.steps.as_ptr(),
                    n_steps: self.steps.len(),
                    weights: self.tiled.of(group, self.reading.depth()).as_ptr(),
                    sums,
                };
                // SAFETY: the caller's; each pixel of a strip has its taps in the picture, a group has a
                // tile of weights for each step, and there are places for four tiles of sums.
                unsafe {
                    match group.n_registers {
                        1 => machine.multiply::<1>(&product),
                        _ => machine.multiply::<2>(&product),
                    }
                }
                if let Some(block) = before {
                    // SAFETY: the caller's; `other` holds the sums of the block.
                    unsafe { block.finish(self, other) };
                }
                before = Some(Block { group, pair, summand, output });
                std::mem::swap(&mut sums, &mut other);
            }
        }
        if let Some(block) = before {
            // SAFETY: as above.
            unsafe { block.finish(self, other) };
        }
    }
}

/// Numbers of a tile of sums, and how many such tiles a block has.
const SUMS: usize = 16 * TILE_OUTPUTS;
const N_SUMS: usize = 4;

/// Sums of two blocks in turn: one is written while the other is read.
#[repr(align(64))]
struct Sums([[MaybeUninit<f32>; N_SUMS * SUMS]; 2]);

/// A block whose sums are made.
#[derive(Clone, Copy)]
struct Block<'a> {
    group: Group,
    pair: &'a [Place; 2],
    /// The picture to add, or null, and the answer.
    summand: *const Bf16,
    output: *mut Bf16,
}

impl Block<'_> {
    /// Makes the answer of the sums.
    ///
    /// # Safety
    /// AVX-512 with bf16; the sums of the block at `sums`, and pictures in the layout of the answer.
    #[inline(always)]
    unsafe fn finish(self, work: &Work<'_>, sums: *const f32) {
        // SAFETY: the caller's.
        unsafe {
            match self.group.n_registers {
                1 => self.answers::<1>(work, sums),
                _ => self.answers::<2>(work, sums),
            }
        }
    }

    /// [`Block::finish`] for `N` tiles of output channels.
    ///
    /// # Safety
    /// As there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn answers<const N: usize>(self, work: &Work<'_>, sums: *const f32) {
        let channel = self.group.first * TILE_OUTPUTS;
        let pitch = work.strips.pitch.unwrap_or(usize::MAX);
        // SAFETY: the caller's; a group has its biases, its channels are inside a pixel, and positions
        // beyond the width of the answer are passed by.
        unsafe {
            let mut bias = [__m512::splat(0.0); N];
            for (n, bias) in bias.iter_mut().enumerate() {
                *bias = __m512::load(work.conv.bias.as_ptr().add(channel + n * TILE_OUTPUTS));
            }
            for (strip, Place { mut row, mut x, .. }) in self.pair.iter().copied().enumerate() {
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
                    if x == pitch {
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
        if work.reading != Reading::Gathered {
            return Self { numbers: Aligned::zeros(0), strip: 0, pixel: 0 };
        }
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
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn fill(&mut self, work: &Work<'_>, strips: [*const Bf16; 2]) {
        for (strip, from) in strips.into_iter().enumerate() {
            for pixel in 0..work.strips.len {
                let to = self.numbers[strip * self.strip + pixel * self.pixel..].as_mut_ptr();
                for (run, start) in work.starts.iter().enumerate() {
                    for at in (0..work.run_len).step_by(MOST_DEEP) {
                        let mask = u32::MAX >> (MOST_DEEP - MOST_DEEP.min(work.run_len - at));
                        // SAFETY: the caller's; what is behind the mask is not read. A register is within
                        // the room: zeros behind a run are where the next one comes, or where zeros are.
                        unsafe {
                            let numbers = from.add(pixel * work.step + start + at).cast();
                            let numbers = _mm512_maskz_loadu_epi16(mask, numbers);
                            _mm512_storeu_epi16(to.add(run * work.run_len + at).cast(), numbers);
                        }
                    }
                }
            }
        }
    }
}
