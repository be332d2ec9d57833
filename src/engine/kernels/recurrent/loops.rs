//! The loops over vectors: blocks of rows by registers of units.
//!
//! Invariant: every function's caller has checked that the processor has its instructions, and that the
//! rows and panels which it names are there.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use std::arch::x86_64::{__m256, __m512};

use super::{
    super::{
        bf16::Bf16,
        lanes::Lanes,
        maps::Number,
        products::{Pairs, Products, Singles},
    },
    Cell,
    arithmetic::{Arithmetic, Gru, Lstm, Place},
    packed::Panels,
};

/// One step of all rows.
pub(super) struct Step<'a, N: Number> {
    pub(super) cell: &'a Cell,
    pub(super) panels: &'a Panels<N>,
    pub(super) gates: *const f32,
    /// How far from there each row's input is, at this step and at the next.
    pub(super) at: *const usize,
    pub(super) at_next: *const usize,
    pub(super) now: *const f32,
    pub(super) next: *mut f32,
    /// The states as factors: in f32 they are the states themselves, and the next ones are not written.
    pub(super) factors: *const N,
    pub(super) next_factors: *mut N,
    pub(super) memory: *mut f32,
}

/// Inputs on their way to the gates.
pub(super) struct Projection<'a, N: Number> {
    pub(super) cell: &'a Cell,
    pub(super) panels: &'a Panels<N>,
    pub(super) inputs: *const N,
    pub(super) gates: *mut f32,
}

/// The loops of one form and kind. Entry `m - 1` of a list is for blocks of `m` rows.
pub(super) struct Loops<N: Number> {
    pub(super) n_lanes: usize,
    pub(super) step: &'static [StepLoops<N>],
    pub(super) project: &'static [for<'a> unsafe fn(&Projection<'a, N>, usize, usize)],
}

/// The loops of a step for blocks of some rows.
pub(super) struct StepLoops<N: Number> {
    /// How many registers of units a wide block has: with few rows, it keeps the multipliers busy.
    pub(super) n_wide: usize,
    pub(super) wide: for<'a> unsafe fn(&Step<'a, N>, usize, usize),
    /// For one register of units.
    pub(super) narrow: for<'a> unsafe fn(&Step<'a, N>, usize, usize),
}

/// Lists the loops of one form and kind, by the rows and registers of a wide block.
macro_rules! loops {
    ($lanes:ty, $step:ident, $project:ident, $kind:ty, $gates:literal, [$($m:literal by $n:literal),*]) => {
        Loops {
            n_lanes: <$lanes as Lanes>::N,
            step: &[$(StepLoops {
                n_wide: $n,
                wide: $step::<$kind, $gates, $m, $n>,
                narrow: $step::<$kind, $gates, $m, 1>,
            }),*],
            project: &[$($project::<$gates, $m>),*],
        }
    };
}

pub(super) static GRU_AVX512: Loops<f32> = loops!(
    __m512, step_avx512, project_avx512, Gru, 3,
    [1 by 2, 2 by 4, 3 by 2, 4 by 2, 5 by 1, 6 by 1, 7 by 1, 8 by 1]
);
pub(super) static GRU_AVX512_BF16: Loops<Bf16> = loops!(
    __m512, step_avx512_bf16, project_avx512_bf16, Gru, 3,
    [1 by 2, 2 by 4, 3 by 2, 4 by 2, 5 by 1, 6 by 1, 7 by 1, 8 by 1]
);
pub(super) static GRU_AVX2: Loops<f32> =
    loops!(__m256, step_avx2, project_avx2, Gru, 3, [1 by 4, 2 by 2, 3 by 1]);
pub(super) static LSTM_AVX512: Loops<f32> = loops!(
    __m512, step_avx512, project_avx512, Lstm, 4,
    [1 by 2, 2 by 2, 3 by 2, 4 by 1, 5 by 1, 6 by 1]
);
pub(super) static LSTM_AVX512_BF16: Loops<Bf16> = loops!(
    __m512, step_avx512_bf16, project_avx512_bf16, Lstm, 4,
    [1 by 2, 2 by 2, 3 by 2, 4 by 1, 5 by 1, 6 by 1]
);
pub(super) static LSTM_AVX2: Loops<f32> =
    loops!(__m256, step_avx2, project_avx2, Lstm, 4, [1 by 2, 2 by 1, 3 by 1]);

#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn step_avx512<A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_, f32>,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's.
    unsafe { cells::<Singles<__m512>, A, G, M, N>(step, row, panel) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn step_avx512_bf16<A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_, Bf16>,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's.
    unsafe { cells::<Pairs, A, G, M, N>(step, row, panel) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn step_avx2<A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_, f32>,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's.
    unsafe { cells::<Singles<__m256>, A, G, M, N>(step, row, panel) }
}

#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn project_avx512<const G: usize, const M: usize>(
    work: &Projection<'_, f32>,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's.
    unsafe { projected::<Singles<__m512>, G, M>(work, row, panel) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn project_avx512_bf16<const G: usize, const M: usize>(
    work: &Projection<'_, Bf16>,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's.
    unsafe { projected::<Pairs, G, M>(work, row, panel) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn project_avx2<const G: usize, const M: usize>(work: &Projection<'_, f32>, row: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe { projected::<Singles<__m256>, G, M>(work, row, panel) }
}

/// The products of `M` vectors of a panel's inputs, `stride` apart, with `N` panels from `panel` on,
/// gate by gate.
///
/// # Safety
/// The instructions of `P`; the panel's inputs at each vector; `N` panels from `panel` on.
#[inline(always)]
unsafe fn products<P: Products, const G: usize, const M: usize, const N: usize>(
    panels: &Panels<P::Number>,
    panel: usize,
    vectors: *const P::Number,
    stride: usize,
) -> [[[P::Sums; G]; N]; M] {
    // SAFETY: the caller's; every place is below the ends that it names.
    unsafe {
        let mut sums = [[[P::Sums::splat(0.0); G]; N]; M];
        let (mut weights, mut numbers) = (panels.data.as_ptr().add(panel * panels.stride), vectors);
        for _ in 0..panels.n_inputs / P::DEPTH {
            multiply::<P, G, M, N>(P::inputs, numbers, stride, weights, panels.stride, &mut sums);
            weights = weights.add(G * P::Sums::N * P::DEPTH);
            numbers = numbers.add(P::DEPTH);
        }
        if !panels.n_inputs.is_multiple_of(P::DEPTH) {
            multiply::<P, G, M, N>(P::last_input, numbers, stride, weights, panels.stride, &mut sums);
        }
        sums
    }
}

/// Adds one product to the sums of each vector, its inputs read by `read`.
///
/// # Safety
/// The instructions of `P`; the inputs of `M` vectors, `stride` apart, and weights for each gate of `N`
/// panels, `panel` apart.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "what runs through an iterator leaves its registers")]
unsafe fn multiply<P: Products, const G: usize, const M: usize, const N: usize>(
    read: unsafe fn(*const P::Number) -> P::Factors,
    numbers: *const P::Number,
    stride: usize,
    weights: *const P::Number,
    panel: usize,
    sums: &mut [[[P::Sums; G]; N]; M],
) {
    let register = P::Sums::N * P::DEPTH;
    // SAFETY: the caller's.
    unsafe {
        // The fewer of numbers and weights wait in registers for the others to come by one by one.
        // Counted, not iterated: an adapter that is not inlined has no vector instructions, and sums
        // that pass through it leave their registers.
        if M <= N * G {
            let mut number = [read(numbers); M];
            for m in 1..M {
                number[m] = read(numbers.add(m * stride));
            }
            for n in 0..N {
                for gate in 0..G {
                    let weight = P::weights(weights.add(n * panel + gate * register));
                    // With few rows the weights come as fast as the second cache gives them.
                    if M <= 2 {
                        let soon = weights.wrapping_add(n * panel + (gate + 8 * G) * register);
                        P::Sums::prefetch(soon.cast());
                    }
                    for m in 0..M {
                        sums[m][n][gate] = P::multiply_add(number[m], weight, sums[m][n][gate]);
                    }
                }
            }
        } else {
            let mut weight = [[P::weights(weights); G]; N];
            for n in 0..N {
                for gate in 0..G {
                    weight[n][gate] = P::weights(weights.add(n * panel + gate * register));
                }
            }
            for m in 0..M {
                let number = read(numbers.add(m * stride));
                for n in 0..N {
                    for gate in 0..G {
                        sums[m][n][gate] = P::multiply_add(number, weight[n][gate], sums[m][n][gate]);
                    }
                }
            }
        }
    }
}

/// The next states of `M` rows from `row` on, in the units of `N` panels from `panel` on.
///
/// # Safety
/// The instructions of `P`; rows and panels that the slices behind `step` hold.
#[inline(always)]
unsafe fn cells<P: Products, A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_, P::Number>,
    row: usize,
    panel: usize,
) {
    let padded = step.cell.n_padded;
    // SAFETY: the caller's; a panel's lanes are below `padded`, and `at` leads to `G` times as many.
    unsafe {
        let sums = products::<P, G, M, N>(step.panels, panel, step.factors.add(row * padded), padded);
        for (m, sums) in sums.iter().enumerate() {
            let gates = step.gates.add(*step.at.add(row + m));
            let soon = step.gates.wrapping_add(*step.at_next.add(row + m));
            for (n, sums) in sums.iter().enumerate() {
                let lane = (panel + n) * P::Sums::N;
                let mut input = [P::Sums::splat(0.0); G];
                for (gate, input) in input.iter_mut().enumerate() {
                    *input = P::Sums::load(gates.add(gate * padded + lane));
                    // A table's row is read once and lies anywhere: memory is asked for it a step before.
                    P::Sums::prefetch(soon.wrapping_add(gate * padded + lane));
                }
                let at = (row + m) * padded + lane;
                let place = Place {
                    new_bias: step.cell.new_bias.as_ptr().add(lane),
                    now: step.now.add(at),
                    memory: step.memory.wrapping_add(at),
                };
                let state = A::state(*sums, input, place);
                state.store(step.next.add(at));
                if P::DEPTH > 1 {
                    P::store(state, step.next_factors.add(at));
                }
            }
        }
    }
}

/// What `M` inputs from `row` on add to the gates, in the units of `panel`.
///
/// # Safety
/// The instructions of `P`; rows and a panel that the slices behind `work` hold.
#[inline(always)]
unsafe fn projected<P: Products, const G: usize, const M: usize>(
    work: &Projection<'_, P::Number>,
    row: usize,
    panel: usize,
) {
    let (k, padded) = (work.panels.n_inputs, work.cell.n_padded);
    // SAFETY: the caller's; a panel's lanes are below `padded`.
    unsafe {
        let sums = products::<P, G, M, 1>(work.panels, panel, work.inputs.add(row * k), k);
        for (m, [sums]) in sums.iter().enumerate() {
            for (gate, sum) in sums.iter().enumerate() {
                let lane = gate * padded + panel * P::Sums::N;
                let bias = P::Sums::load(work.cell.gate_bias.as_ptr().add(lane));
                sum.add(bias).store(work.gates.add((row + m) * G * padded + lane));
            }
        }
    }
}

/// Rounds numbers to as many places.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn round(numbers: &[f32], rounded: &mut [Bf16]) {
    assert!(numbers.len() == rounded.len(), "a place for each number");
    let (from, from_rest) = numbers.as_chunks::<16>();
    let (to, to_rest) = rounded.as_chunks_mut::<16>();
    for (from, to) in from.iter().zip(to) {
        // SAFETY: there are as many as a register has.
        unsafe { Pairs::store(__m512::load(from.as_ptr()), to.as_mut_ptr()) };
    }
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = Bf16::of(*from));
}
