//! The inner loops of [`Conv`] over tiles: two tiles of pixels by two of output channels.
//!
//! Invariant: pointers are made of slices whose lengths were checked against their layouts on the way
//! in, and stay within them: a tile of pixels has as many numbers in a row as divide its run, so that
//! nothing beside a run is ever loaded, let alone multiplied by zero.

#![expect(unsafe_code, reason = "tiles and vector instructions over pointers into checked slices")]

use std::{arch::x86_64::__m512, mem::MaybeUninit, ptr};

use self::{
    gathered::Gathered,
    program::{Machine, Product},
};
use super::{
    super::{
        amx::{Shapes, Tiles},
        bf16::Bf16,
        lanes::Lanes,
        maps::Layout,
        products::{Pairs, Products},
    },
    Activation, Conv, Run,
    packed::{Group, Reading, Runs, TILE_OUTPUTS, Tiled, groups},
    strips::{Picture, Strip, Strips},
};

#[cfg(test)]
pub(super) mod emulated;
mod gathered;
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
        let first = (from.border[0] - shape.padding[0][0]) * from.row()
            + (from.border[1] - shape.padding[0][1]) * from.pixel;
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
        let mut room = Sums([MaybeUninit::uninit(); N_SUMS * SUMS]);
        let mut blocks = Blocks { work: self, machine, sums: room.0.as_mut_ptr().cast() };
        let mut gathered = (self.reading == Reading::Gathered).then(|| Gathered::new(self));
        let groups: Vec<Group> = groups(self.conv.shape().n_outputs.div_ceil(TILE_OUTPUTS)).collect();
        let output = output.as_mut_ptr();
        let pictures = (0..n_pictures).map(|picture| {
            let input = &input[picture * from.picture()..][..from.picture()];
            let summand = summand.map_or(ptr::null(), |all| all[picture * self.to.picture()..].as_ptr());
            (input, summand, output.wrapping_add(picture * self.to.picture()))
        });
        let pairs = self.strips.pairs().map(|pair| pair.map(|strip| self.place(strip)));
        let pointers = |input: &[Bf16], pair: [Place; 2]| pair.map(|place| input[place.input..].as_ptr());
        // SAFETY: the caller's; each pixel of a strip has its taps in the picture, and gathered rows are as
        // many as a strip has pixels.
        unsafe {
            match &mut gathered {
                // Pixels pass by the weights of one group after the other, which then stay near.
                None => {
                    for &group in &groups {
                        for (input, summand, output) in pictures.clone() {
                            for pair in pairs.clone() {
                                let block = Block { group, pair, summand, output };
                                blocks.make(block, pointers(input, pair), self.step);
                            }
                        }
                    }
                }
                Some(gathered) => {
                    for (input, summand, output) in pictures {
                        for pair in pairs.clone() {
                            gathered.fill(self, pointers(input, pair));
                            let (pixels, step) = gathered.pixels();
                            for &group in &groups {
                                blocks.make(Block { group, pair, summand, output }, pixels, step);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where blocks are made: their sums are still near when they are finished.
struct Blocks<'a, M> {
    work: &'a Work<'a>,
    machine: &'a mut M,
    /// Places for the sums of a block.
    sums: *mut f32,
}

impl<M: Machine> Blocks<'_, M> {
    /// Makes the answer of a block of pixels, whose inputs are `step` numbers apart.
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
                1 => {
                    self.machine.multiply::<1>(&product);
                    block.answers::<1>(self.work, self.sums);
                }
                _ => {
                    self.machine.multiply::<2>(&product);
                    block.answers::<2>(self.work, self.sums);
                }
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

#[repr(align(64))]
struct Sums([MaybeUninit<f32>; N_SUMS * SUMS]);

/// A group of output channels of two strips of pixels.
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
            let mut finish = Finish {
                bias: [__m512::splat(0.0); N],
                least: match work.activation {
                    Activation::Relu => __m512::splat(0.0),
                    Activation::Linear => __m512::splat(f32::NEG_INFINITY),
                },
                pixel: work.to.pixel,
            };
            for (n, bias) in finish.bias.iter_mut().enumerate() {
                *bias = __m512::load(work.conv.bias.as_ptr().add(channel + n * TILE_OUTPUTS));
            }
            for (strip, Place { mut row, mut x, .. }) in self.pair.into_iter().enumerate() {
                let mut sums = sums.add(2 * strip * SUMS);
                let mut left = work.strips.len;
                while left > 0 {
                    let n_pixels = work.to.width.saturating_sub(x).min(left);
                    let at = row + x * work.to.pixel + channel;
                    if n_pixels > 0 && self.summand.is_null() {
                        finish.pixels(n_pixels, sums, self.output.add(at));
                    } else if n_pixels > 0 {
                        finish.pixels_with(self.summand.add(at), n_pixels, sums, self.output.add(at));
                    }
                    let n_passed = left.min(work.strips.pitch - x);
                    sums = sums.add(n_passed * TILE_OUTPUTS);
                    left -= n_passed;
                    (row, x) = (row + work.to.row(), 0);
                }
            }
        }
    }
}

/// What is done to the sums of `N` tiles of output channels.
#[derive(Clone, Copy)]
struct Finish<const N: usize> {
    bias: [__m512; N],
    /// What an answer is at least.
    least: __m512,
    /// From one pixel of the answer to the next.
    pixel: usize,
}

impl<const N: usize> Finish<N> {
    /// Makes the answers of neighbouring pixels of a row.
    ///
    /// # Safety
    /// AVX-512 with bf16; so many pixels at `sums` and `output`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn pixels(self, n_pixels: usize, sums: *const f32, output: *mut Bf16) {
        for pixel in 0..n_pixels {
            for n in 0..N {
                // SAFETY: the caller's.
                unsafe {
                    let sum = __m512::load(sums.add(pixel * TILE_OUTPUTS + n * SUMS));
                    let answer = sum.add(self.bias[n]).at_least(self.least);
                    Pairs::store(answer, output.add(pixel * self.pixel + n * TILE_OUTPUTS));
                }
            }
        }
    }

    /// [`Finish::pixels`] with a summand.
    ///
    /// # Safety
    /// As there, and so many pixels at `summand`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn pixels_with(self, summand: *const Bf16, n_pixels: usize, sums: *const f32, output: *mut Bf16) {
        for pixel in 0..n_pixels {
            for n in 0..N {
                // SAFETY: the caller's.
                unsafe {
                    let at = pixel * self.pixel + n * TILE_OUTPUTS;
                    let sum = __m512::load(sums.add(pixel * TILE_OUTPUTS + n * SUMS)).add(self.bias[n]);
                    let answer = sum.add(Pairs::load(summand.add(at))).at_least(self.least);
                    Pairs::store(answer, output.add(at));
                }
            }
        }
    }
}
