//! The inner loops of [`Conv`] over vectors: neighbouring pixels by registers of output channels.
//!
//! Invariant: pointers are made of slices whose lengths were checked against their layouts on the way
//! in, and stay within them; a form runs only by a [`Form`](super::super::Form), which proves its
//! instructions.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use std::{
    arch::x86_64::{__m256, __m512},
    ptr,
};

use super::{
    super::{
        bf16::Bf16,
        lanes::Lanes,
        maps::Number,
        products::{Pairs, Products, Singles},
    },
    Activation, Conv, Run,
    packed::{Panels, Runs, groups},
};

/// One group of output channels.
struct Block<'a, N> {
    /// Where in the input each unbroken run begins, seen from the first tap, and how many numbers it has.
    runs: &'a [usize],
    run_len: usize,
    /// From one pixel to the next: in the input by the stride, in the output by one.
    input_step: usize,
    output_step: usize,
    /// From one row of pixels to the next.
    input_row: usize,
    output_row: usize,
    weights: *const N,
    bias: *const f32,
    activation: Activation,
}

/// A block at its first pixel: the first tap, the summand or null, the answer.
type Work<N> = unsafe fn(&Block<'_, N>, *const N, *const N, *mut N);

/// The loops of one form by groups of one and of two registers, for so many pixels of a row as the entry
/// is behind the first. Narrow pictures are worked on two rows at a time: each weight that comes from a
/// far cache then serves as many pixels as it does in wide ones.
pub(super) struct Loops<N: 'static> {
    n_lanes: usize,
    one_row: [&'static [Work<N>]; 2],
    two_rows: [&'static [Work<N>]; 2],
}

macro_rules! works {
    ($work:ident, $rows:literal by $n:literal: $($m:literal)*) => { &[$($work::<$rows, $m, $n>),*] };
}

pub(super) static AVX512: Loops<f32> = Loops {
    n_lanes: 16,
    one_row: [
        works!(avx512, 1 by 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        works!(avx512, 1 by 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    ],
    two_rows: [works!(avx512, 2 by 1: 1 2 3 4 5 6 7), works!(avx512, 2 by 2: 1 2 3 4 5 6 7)],
};

pub(super) static AVX512_BF16: Loops<Bf16> = Loops {
    n_lanes: 16,
    one_row: [
        works!(avx512_bf16, 1 by 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        works!(avx512_bf16, 1 by 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    ],
    two_rows: [works!(avx512_bf16, 2 by 1: 1 2 3 4 5 6 7), works!(avx512_bf16, 2 by 2: 1 2 3 4 5 6 7)],
};

pub(super) static AVX2: Loops<f32> = Loops {
    n_lanes: 8,
    one_row: [works!(avx2, 1 by 1: 1 2 3 4 5 6 7 8 9 10 11 12), works!(avx2, 1 by 2: 1 2 3 4 5 6)],
    two_rows: [works!(avx2, 2 by 1: 1 2 3 4 5 6), works!(avx2, 2 by 2: 1 2 3)],
};

/// Runs over `n_pictures`; the slices fit their layouts, and the loops are those of the form.
pub(super) fn run<N: Number>(
    conv: &Conv,
    loops: &Loops<N>,
    panels: &Panels<N>,
    n_pictures: usize,
    run: Run<'_, N>,
) {
    let Run { input, input_layout: from, summand, activation, output, output_layout: to } = run;
    let shape = conv.shape();
    let runs = Runs::over(&shape, from.pixel);
    let starts: Vec<usize> = runs.starts(&shape, from.row(), from.pixel).collect();
    let [above, left] = shape.padding[0];
    let first = (from.border[0] - above) * from.row() + (from.border[1] - left) * from.pixel;
    for group in groups(shape.n_outputs.div_ceil(loops.n_lanes)) {
        let [one_row, two_rows] = [loops.one_row, loops.two_rows].map(|by| by[group.n_registers - 1]);
        let n_rows = if to.width <= two_rows.len() { 2 } else { 1 };
        let channel = group.first * loops.n_lanes;
        let block = Block {
            runs: &starts,
            run_len: runs.len,
            input_step: shape.strides[1] * from.pixel,
            output_step: to.pixel,
            input_row: shape.strides[0] * from.row(),
            output_row: to.row(),
            weights: panels.of(group, runs).as_ptr(),
            bias: conv.bias[channel..].as_ptr(),
            activation,
        };
        for picture in 0..n_pictures {
            let input = &input[picture * from.picture()..][..from.picture()];
            let summand = summand.map(|summand| &summand[picture * to.picture()..][..to.picture()]);
            let output = &mut output[picture * to.picture()..][..to.picture()];
            for y in (0..to.height).step_by(n_rows) {
                // The last row may be alone.
                let works = if y + 2 <= to.height && n_rows == 2 { two_rows } else { one_row };
                let n_blocks = to.width.div_ceil(works.len());
                for i in 0..n_blocks {
                    let (x, end) = (i * to.width / n_blocks, (i + 1) * to.width / n_blocks);
                    let tap = first + y * block.input_row + x * block.input_step;
                    let at = to.at(y, x) + channel;
                    let summand = summand.map_or(ptr::null(), |summand| summand[at..].as_ptr());
                    // SAFETY: the last pixel's last tap is inside the border of the input, which is as
                    // wide as the padding; the channels of a group are inside a pixel of the output;
                    // the form is `conv`'s.
                    unsafe {
                        works[end - x - 1](&block, input[tap..].as_ptr(), summand, output[at..].as_mut_ptr())
                    };
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize, const C: usize, const N: usize>(
    block: &Block<'_, f32>,
    input: *const f32,
    summand: *const f32,
    output: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe { pixels::<Singles<__m512>, R, C, N>(block, input, summand, output) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn avx512_bf16<const R: usize, const C: usize, const N: usize>(
    block: &Block<'_, Bf16>,
    input: *const Bf16,
    summand: *const Bf16,
    output: *mut Bf16,
) {
    // SAFETY: the caller's.
    unsafe { pixels::<Pairs, R, C, N>(block, input, summand, output) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize, const C: usize, const N: usize>(
    block: &Block<'_, f32>,
    input: *const f32,
    summand: *const f32,
    output: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe { pixels::<Singles<__m256>, R, C, N>(block, input, summand, output) }
}

/// `N` registers of output channels of `C` pixels in each of `R` rows.
///
/// # Safety
/// The instructions of `P`; the pixels from `input`, `output` and, unless it is null, `summand` on, in the
/// steps and runs of `block`; weights for each run and `N` registers of bias.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "what runs through an iterator leaves its registers")]
unsafe fn pixels<P: Products, const R: usize, const C: usize, const N: usize>(
    block: &Block<'_, P::Number>,
    input: *const P::Number,
    summand: *const P::Number,
    output: *mut P::Number,
) {
    let n_lanes = P::Sums::N;
    let steps = [block.input_row, block.input_step];
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[[P::Sums::splat(0.0); N]; C]; R];
        let mut weights = block.weights;
        for run in block.runs {
            let mut inputs = input.add(*run);
            for _ in 0..block.run_len / P::DEPTH {
                multiply::<P, R, C, N>(P::inputs, inputs, steps, weights, &mut sums);
                weights = weights.add(N * n_lanes * P::DEPTH);
                inputs = inputs.add(P::DEPTH);
            }
            if !block.run_len.is_multiple_of(P::DEPTH) {
                multiply::<P, R, C, N>(P::last_input, inputs, steps, weights, &mut sums);
                weights = weights.add(N * n_lanes * P::DEPTH);
            }
        }
        // Short loops one after the other are unrolled, so that the sums stay in registers, where one
        // long one is not.
        let at = |r: usize, c: usize, n: usize| r * block.output_row + c * block.output_step + n * n_lanes;
        for r in 0..R {
            for c in 0..C {
                for n in 0..N {
                    sums[r][c][n] = sums[r][c][n].add(P::Sums::load(block.bias.add(n * n_lanes)));
                }
            }
        }
        if !summand.is_null() {
            for r in 0..R {
                for c in 0..C {
                    for n in 0..N {
                        sums[r][c][n] = sums[r][c][n].add(P::load(summand.add(at(r, c, n))));
                    }
                }
            }
        }
        if block.activation == Activation::Relu {
            for sum in sums.as_flattened_mut().as_flattened_mut() {
                *sum = sum.at_least(P::Sums::splat(0.0));
            }
        }
        for r in 0..R {
            for c in 0..C {
                for n in 0..N {
                    P::store(sums[r][c][n], output.add(at(r, c, n)));
                }
            }
        }
    }
}

/// Adds one product to the sums of each pixel, its inputs read by `read`.
///
/// # Safety
/// The instructions of `P`; the inputs of the pixels, which are `steps` apart, and weights for `N`
/// registers.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "what runs through an iterator leaves its registers")]
unsafe fn multiply<P: Products, const R: usize, const C: usize, const N: usize>(
    read: unsafe fn(*const P::Number) -> P::Factors,
    inputs: *const P::Number,
    [row, pixel]: [usize; 2],
    weights: *const P::Number,
    sums: &mut [[[P::Sums; N]; C]; R],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut weight = [P::weights(weights); N];
        for n in 1..N {
            weight[n] = P::weights(weights.add(n * P::Sums::N * P::DEPTH));
        }
        for r in 0..R {
            for c in 0..C {
                let input = read(inputs.add(r * row + c * pixel));
                for n in 0..N {
                    sums[r][c][n] = P::multiply_add(input, weight[n], sums[r][c][n]);
                }
            }
        }
    }
}
