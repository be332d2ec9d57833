//! The inner loops of [`Conv`]: neighbouring pixels of a row by registers of output channels.
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
    super::{Vectors, lanes::Lanes},
    Activation, Conv, Group, Run,
};

/// One group of output channels in one row of pixels.
struct Block<'a> {
    /// Where in the input each unbroken run of taps begins, seen from the first tap.
    runs: &'a [usize],
    /// How many numbers a run has.
    run_len: usize,
    /// From one pixel to the next: in the input by the stride, in the output by one.
    input_step: usize,
    output_step: usize,
    weights: *const f32,
    bias: *const f32,
    activation: Activation,
}

/// A block at its first pixel: the first tap, the summand or null, the answer.
type Work = unsafe fn(&Block<'_>, *const f32, *const f32, *mut f32);

/// The loops of one form for `m` pixels at entry `m - 1`, by groups of one and of two registers.
struct Loops {
    n_lanes: usize,
    by_group: [&'static [Work]; 2],
}

macro_rules! works {
    ($work:ident, $n:literal: $($m:literal)*) => { &[$($work::<$m, $n>),*] };
}

static AVX512: Loops = Loops {
    n_lanes: 16,
    by_group: [
        works!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        works!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    ],
};

static AVX2: Loops = Loops {
    n_lanes: 8,
    by_group: [works!(avx2, 1: 1 2 3 4 5 6 7 8 9 10 11 12), works!(avx2, 2: 1 2 3 4 5 6)],
};

/// Runs over `n_pictures`; the slices fit their layouts.
pub(super) fn run(conv: &Conv, n_pictures: usize, run: Run<'_, f32>) {
    let Run { input, input_layout: from, summand, activation, output, output_layout: to } = run;
    let loops = match conv.form.0 {
        Vectors::Amx | Vectors::Avx512 => &AVX512,
        Vectors::Avx2 => &AVX2,
    };
    let shape = conv.shape();
    let [height, width] = shape.kernel;
    // Where pixels have no room to spare, the taps of a row are one run.
    let dense = from.pixel == from.n_channels;
    let (n_runs, run_len) = if dense { (1, width * from.pixel) } else { (width, from.n_channels) };
    let runs: Vec<usize> =
        (0..height).flat_map(|y| (0..n_runs).map(move |x| y * from.row() + x * from.pixel)).collect();
    let first = [from.border - shape.padding[0][0], from.border - shape.padding[0][1]];
    for Group { register, n_registers, weights } in conv.groups() {
        let works = loops.by_group[n_registers - 1];
        let channel = register * loops.n_lanes;
        let block = Block {
            runs: &runs,
            run_len,
            input_step: shape.strides[1] * from.pixel,
            output_step: to.pixel,
            weights: conv.weights[weights..].as_ptr(),
            bias: conv.bias[channel..].as_ptr(),
            activation,
        };
        for picture in 0..n_pictures {
            let input = &input[picture * from.picture()..][..from.picture()];
            let summand = summand.map(|summand| &summand[picture * to.picture()..][..to.picture()]);
            let output = &mut output[picture * to.picture()..][..to.picture()];
            for y in 0..to.height {
                let n_blocks = to.width.div_ceil(works.len());
                for i in 0..n_blocks {
                    let (x, end) = (i * to.width / n_blocks, (i + 1) * to.width / n_blocks);
                    let tap = (y * shape.strides[0] + first[0]) * from.row()
                        + (x * shape.strides[1] + first[1]) * from.pixel;
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
unsafe fn avx512<const M: usize, const N: usize>(
    block: &Block<'_>,
    input: *const f32,
    summand: *const f32,
    output: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe { pixels::<__m512, M, N>(block, input, summand, output) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const M: usize, const N: usize>(
    block: &Block<'_>,
    input: *const f32,
    summand: *const f32,
    output: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe { pixels::<__m256, M, N>(block, input, summand, output) }
}

/// `N` registers of output channels of `M` pixels.
///
/// # Safety
/// The instructions of `V`; `M` pixels from `input`, `output` and, unless it is null, `summand` on, in
/// the steps and runs of `block`; weights for each run and `N` registers of bias.
#[inline(always)]
unsafe fn pixels<V: Lanes, const M: usize, const N: usize>(
    block: &Block<'_>,
    input: *const f32,
    summand: *const f32,
    output: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        let mut weights = block.weights;
        for run in block.runs {
            let mut taps = input.add(*run);
            for _ in 0..block.run_len {
                let mut weight = [V::splat(0.0); N];
                for (n, weight) in weight.iter_mut().enumerate() {
                    *weight = V::load(weights.add(n * V::N));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let tap = V::splat(*taps.add(m * block.input_step));
                    for (sum, weight) in sums.iter_mut().zip(weight) {
                        *sum = tap.mul_add(weight, *sum);
                    }
                }
                weights = weights.add(N * V::N);
                taps = taps.add(1);
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let at = m * block.output_step + n * V::N;
                let mut answer = sum.add(V::load(block.bias.add(n * V::N)));
                if !summand.is_null() {
                    answer = answer.add(V::load(summand.add(at)));
                }
                if block.activation == Activation::Relu {
                    answer = answer.at_least(V::splat(0.0));
                }
                answer.store(output.add(at));
            }
        }
    }
}
