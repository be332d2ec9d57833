//! The loops in f32: blocks of rows by registers of units.
//!
//! Invariant: pointers are made of slices whose lengths were checked on the way in, and stay within
//! them; a form runs only by a [`Form`](super::super::Form), which proves its instructions.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use std::arch::x86_64::{__m256, __m512};

use super::{
    super::{Vectors, lanes::Lanes},
    Cell, Kind, Turn,
    arithmetic::{Arithmetic, Gru, Lstm, Place},
    packed::Panels,
};

/// One step of all rows.
struct Step<'a> {
    cell: &'a Cell,
    panels: &'a Panels,
    gates: *const f32,
    /// How far from there each row's input is, at this step and at the next.
    at: *const usize,
    at_next: *const usize,
    now: *const f32,
    next: *mut f32,
    memory: *mut f32,
}

/// Inputs on their way to the gates.
struct Projection<'a> {
    cell: &'a Cell,
    panels: &'a Panels,
    inputs: *const f32,
    gates: *mut f32,
}

/// The loops of one form and kind. Entry `m - 1` of a list is for blocks of `m` rows.
struct Loops {
    n_lanes: usize,
    step: &'static [StepLoops],
    project: &'static [for<'a> unsafe fn(&Projection<'a>, usize, usize)],
}

/// The loops of a step for blocks of some rows.
struct StepLoops {
    /// How many registers of units a wide block has: with few rows, it keeps the multipliers busy.
    n_wide: usize,
    wide: for<'a> unsafe fn(&Step<'a>, usize, usize),
    /// For one register of units.
    narrow: for<'a> unsafe fn(&Step<'a>, usize, usize),
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

static GRU_AVX512: Loops = loops!(
    __m512, step_avx512, project_avx512, Gru, 3,
    [1 by 2, 2 by 4, 3 by 2, 4 by 2, 5 by 1, 6 by 1, 7 by 1, 8 by 1]
);
static GRU_AVX2: Loops = loops!(__m256, step_avx2, project_avx2, Gru, 3, [1 by 4, 2 by 2, 3 by 1]);
static LSTM_AVX512: Loops = loops!(
    __m512, step_avx512, project_avx512, Lstm, 4,
    [1 by 2, 2 by 2, 3 by 2, 4 by 1, 5 by 1, 6 by 1]
);
static LSTM_AVX2: Loops = loops!(__m256, step_avx2, project_avx2, Lstm, 4, [1 by 2, 2 by 1, 3 by 1]);

fn loops(cell: &Cell) -> &'static Loops {
    match (cell.kind, cell.form.0) {
        (Kind::Gru, Vectors::Amx | Vectors::Avx512Bf16 | Vectors::Avx512) => &GRU_AVX512,
        (Kind::Gru, Vectors::Avx2) => &GRU_AVX2,
        (Kind::Lstm, Vectors::Amx | Vectors::Avx512Bf16 | Vectors::Avx512) => &LSTM_AVX512,
        (Kind::Lstm, Vectors::Avx2) => &LSTM_AVX2,
    }
}

/// Makes what each of `n` inputs adds to the gates.
pub(super) fn project(cell: &Cell, panels: &Panels, n: usize, inputs: &[f32], gates: &mut [f32]) {
    assert!(inputs.len() == n * cell.n_inputs && gates.len() == n * cell.n_projected());
    let loops = loops(cell);
    let work = Projection { cell, panels, inputs: inputs.as_ptr(), gates: gates.as_mut_ptr() };
    for panel in 0..cell.n_padded / loops.n_lanes {
        // SAFETY: rows below `n` and panels of `cell` are within the slices, and the form is `cell`'s.
        even(n, loops.project.len(), |row, m| unsafe { loops.project[m - 1](&work, row, panel) });
    }
}

/// Runs one step of all rows.
pub(super) fn step(cell: &Cell, panels: &Panels, turn: Turn<'_>) {
    let n_rows = turn.at[0].len();
    let loops = loops(cell);
    let work = Step {
        cell,
        panels,
        gates: turn.gates,
        at: turn.at[0].as_ptr(),
        at_next: turn.at[1].as_ptr(),
        now: turn.now.as_ptr(),
        next: turn.next.as_mut_ptr(),
        memory: turn.memory.as_mut_ptr(),
    };
    let n_panels = cell.n_padded / loops.n_lanes;
    let most = loops.step.len();
    // The smallest block decides how many panels are worked on at once.
    let n_wide = loops.step[n_rows / n_rows.div_ceil(most) - 1].n_wide;
    let n_groups = n_panels / n_wide + n_panels % n_wide;
    for group in 0..n_groups {
        // Every other step goes the other way through the weights: those read last are still near.
        let group = if turn.read.is_multiple_of(2) { group } else { n_groups - 1 - group };
        let panels = match group.checked_sub(n_panels / n_wide) {
            None => group * n_wide..(group + 1) * n_wide,
            Some(rest) => n_panels - rest - 1..n_panels - rest,
        };
        even(n_rows, most, |row, m| {
            let loops = &loops.step[m - 1];
            if loops.n_wide == panels.len() {
                // SAFETY: rows below `n_rows` and panels of `cell` are within the slices.
                unsafe { (loops.wide)(&work, row, panels.start) };
            } else {
                for panel in panels.clone() {
                    // SAFETY: as above.
                    unsafe { (loops.narrow)(&work, row, panel) };
                }
            }
        });
    }
}

/// Cuts `n` rows into blocks of at most `most`, as even as they can be.
fn even(n: usize, most: usize, mut block: impl FnMut(usize, usize)) {
    let n_blocks = n.div_ceil(most);
    for i in 0..n_blocks {
        let (from, to) = (i * n / n_blocks, (i + 1) * n / n_blocks);
        block(from, to - from);
    }
}

#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn step_avx512<A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_>,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's.
    unsafe { cells::<__m512, A, G, M, N>(step, row, panel) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn step_avx2<A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_>,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's.
    unsafe { cells::<__m256, A, G, M, N>(step, row, panel) }
}

#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn project_avx512<const G: usize, const M: usize>(work: &Projection<'_>, row: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe { projected::<__m512, G, M>(work, row, panel) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn project_avx2<const G: usize, const M: usize>(work: &Projection<'_>, row: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe { projected::<__m256, G, M>(work, row, panel) }
}

/// The products of `M` vectors of a panel's inputs, `stride` apart, with `N` panels from `panel` on,
/// gate by gate.
///
/// # Safety
/// The instructions of `V`; the panel's inputs at each vector; `N` panels from `panel` on.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "what runs through an iterator leaves its registers")]
unsafe fn products<V: Lanes, const G: usize, const M: usize, const N: usize>(
    panels: &Panels,
    panel: usize,
    vectors: *const f32,
    stride: usize,
) -> [[[V; G]; N]; M] {
    // SAFETY: the caller's; every place is below the ends that it names.
    unsafe {
        let mut sums = [[[V::splat(0.0); G]; N]; M];
        let (mut weights, mut numbers) = (panels.data.as_ptr().add(panel * panels.stride), vectors);
        for _ in 0..panels.n_inputs {
            // The fewer of numbers and weights wait in registers for the others to come by one by one.
            // Counted, not iterated: an adapter that is not inlined has no vector instructions, and sums
            // that pass through it leave their registers.
            if M <= N * G {
                let mut number = [V::splat(0.0); M];
                for m in 0..M {
                    number[m] = V::splat(*numbers.add(m * stride));
                }
                for n in 0..N {
                    for gate in 0..G {
                        let weight = V::load(weights.add(n * panels.stride + gate * V::N));
                        // With few rows the weights come as fast as the second cache gives them.
                        if M <= 2 {
                            V::prefetch(weights.wrapping_add(n * panels.stride + (gate + 8 * G) * V::N));
                        }
                        for m in 0..M {
                            sums[m][n][gate] = number[m].mul_add(weight, sums[m][n][gate]);
                        }
                    }
                }
            } else {
                let mut weight = [[V::splat(0.0); G]; N];
                for n in 0..N {
                    for gate in 0..G {
                        weight[n][gate] = V::load(weights.add(n * panels.stride + gate * V::N));
                    }
                }
                for m in 0..M {
                    let number = V::splat(*numbers.add(m * stride));
                    for n in 0..N {
                        for gate in 0..G {
                            sums[m][n][gate] = number.mul_add(weight[n][gate], sums[m][n][gate]);
                        }
                    }
                }
            }
            weights = weights.add(G * V::N);
            numbers = numbers.add(1);
        }
        sums
    }
}

/// The next states of `M` rows from `row` on, in the units of `N` panels from `panel` on.
///
/// # Safety
/// The instructions of `V`; rows and panels that the slices behind `step` hold.
#[inline(always)]
unsafe fn cells<V: Lanes, A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_>,
    row: usize,
    panel: usize,
) {
    let padded = step.cell.n_padded;
    // SAFETY: the caller's; a panel's lanes are below `padded`, and `at` leads to `G` times as many.
    unsafe {
        let sums = products::<V, G, M, N>(step.panels, panel, step.now.add(row * padded), padded);
        for (m, sums) in sums.iter().enumerate() {
            let gates = step.gates.add(*step.at.add(row + m));
            let soon = step.gates.wrapping_add(*step.at_next.add(row + m));
            for (n, sums) in sums.iter().enumerate() {
                let lane = (panel + n) * V::N;
                let mut input = [V::splat(0.0); G];
                for (gate, input) in input.iter_mut().enumerate() {
                    *input = V::load(gates.add(gate * padded + lane));
                    // A table's row is read once and lies anywhere: memory is asked for it a step before.
                    V::prefetch(soon.wrapping_add(gate * padded + lane));
                }
                let at = (row + m) * padded + lane;
                let place = Place {
                    new_bias: step.cell.new_bias.as_ptr().add(lane),
                    now: step.now.add(at),
                    memory: step.memory.wrapping_add(at),
                };
                A::state(*sums, input, place).store(step.next.add(at));
            }
        }
    }
}

/// What `M` inputs from `row` on add to the gates, in the units of `panel`.
///
/// # Safety
/// The instructions of `V`; rows and a panel that the slices behind `work` hold.
#[inline(always)]
unsafe fn projected<V: Lanes, const G: usize, const M: usize>(
    work: &Projection<'_>,
    row: usize,
    panel: usize,
) {
    let (k, padded) = (work.panels.n_inputs, work.cell.n_padded);
    // SAFETY: the caller's; a panel's lanes are below `padded`.
    unsafe {
        let sums = products::<V, G, M, 1>(work.panels, panel, work.inputs.add(row * k), k);
        for (m, [sums]) in sums.iter().enumerate() {
            for (gate, sum) in sums.iter().enumerate() {
                let lane = gate * padded + panel * V::N;
                let bias = V::load(work.cell.gate_bias.as_ptr().add(lane));
                sum.add(bias).store(work.gates.add((row + m) * G * padded + lane));
            }
        }
    }
}
