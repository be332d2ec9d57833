//! The loops over vectors: blocks of rows by registers of units.
//!
//! Invariant: pointers are made of slices whose lengths were checked on the way in, and stay within
//! them; a form runs only by a [`Form`](super::super::Form), which proves its instructions.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use std::arch::x86_64::{__m256, __m512};

use super::{
    super::{
        Vectors,
        aligned::Aligned,
        bf16::Bf16,
        lanes::Lanes,
        maps::Number,
        products::{Pairs, Products, Singles},
    },
    Cell, Kind, Turn,
    arithmetic::{Arithmetic, Gru, Lstm},
    factors::{self, round_rows},
    packed::Panels,
    sums::{Projection, Step, cells, projected},
};

/// The loops of one form and kind. Entry `m - 1` of a list is for blocks of `m` rows.
struct Loops<N: Number + 'static> {
    n_lanes: usize,
    step: &'static [StepLoops<N>],
    project: &'static [unsafe fn(&Projection<'_, N>, usize, usize)],
}

/// The loops of a step for blocks of some rows.
struct StepLoops<N: Number> {
    /// How many registers of units a wide block has: with few rows, it keeps the multipliers busy.
    n_wide: usize,
    wide: unsafe fn(&Step<'_, N>, usize, usize),
    /// For one register of units.
    narrow: unsafe fn(&Step<'_, N>, usize, usize),
}

/// The loops of a form, and the instructions that it proves.
macro_rules! form {
    ($step:ident, $project:ident, $products:ty, $features:literal) => {
        #[target_feature(enable = $features)]
        unsafe fn $step<A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
            step: &Step<'_, <$products as Products>::Number>,
            row: usize,
            panel: usize,
        ) {
            // SAFETY: the caller's.
            unsafe { cells::<$products, A, G, M, N>(step, row, panel) }
        }

        #[target_feature(enable = $features)]
        unsafe fn $project<const G: usize, const M: usize>(
            work: &Projection<'_, <$products as Products>::Number>,
            row: usize,
            panel: usize,
        ) {
            // SAFETY: the caller's.
            unsafe { projected::<$products, G, M>(work, row, panel) }
        }
    };
}

form!(step_avx512_bf16, project_avx512_bf16, Pairs, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16");
form!(step_avx512, project_avx512, Singles<__m512>, "avx512f,avx512dq");
form!(step_avx2, project_avx2, Singles<__m256>, "avx2,fma");

/// Lists the loops of one form and kind, by the rows and registers of a wide block.
macro_rules! loops {
    ($sums:ty, $step:ident, $project:ident, $kind:ty, $gates:literal, [$($m:literal by $n:literal),*]) => {
        Loops {
            n_lanes: <$sums as Lanes>::N,
            step: &[$(StepLoops {
                n_wide: $n,
                wide: $step::<$kind, $gates, $m, $n>,
                narrow: $step::<$kind, $gates, $m, 1>,
            }),*],
            project: &[$($project::<$gates, $m>),*],
        }
    };
}

static GRU_AVX512_BF16: Loops<Bf16> = loops!(
    __m512, step_avx512_bf16, project_avx512_bf16, Gru, 3,
    [1 by 2, 2 by 2, 3 by 2, 4 by 1, 5 by 1, 6 by 1]
);
static GRU_AVX512: Loops<f32> = loops!(
    __m512, step_avx512, project_avx512, Gru, 3,
    [1 by 2, 2 by 4, 3 by 2, 4 by 2, 5 by 1, 6 by 1, 7 by 1, 8 by 1]
);
static GRU_AVX2: Loops<f32> = loops!(__m256, step_avx2, project_avx2, Gru, 3, [1 by 4, 2 by 2, 3 by 1]);
static LSTM_AVX512_BF16: Loops<Bf16> = loops!(
    __m512, step_avx512_bf16, project_avx512_bf16, Lstm, 4,
    [1 by 2, 2 by 2, 3 by 2, 4 by 1, 5 by 1, 6 by 1]
);
static LSTM_AVX512: Loops<f32> = loops!(
    __m512, step_avx512, project_avx512, Lstm, 4,
    [1 by 2, 2 by 2, 3 by 2, 4 by 1, 5 by 1, 6 by 1]
);
static LSTM_AVX2: Loops<f32> = loops!(__m256, step_avx2, project_avx2, Lstm, 4, [1 by 2, 2 by 1, 3 by 1]);

/// The loops over panels in f32.
fn singles(cell: &Cell) -> &'static Loops<f32> {
    match (cell.kind, cell.form.0 == Vectors::Avx2) {
        (Kind::Gru, false) => &GRU_AVX512,
        (Kind::Gru, true) => &GRU_AVX2,
        (Kind::Lstm, false) => &LSTM_AVX512,
        (Kind::Lstm, true) => &LSTM_AVX2,
    }
}

/// The loops over panels in bf16.
fn pairs(cell: &Cell) -> &'static Loops<Bf16> {
    match cell.kind {
        Kind::Gru => &GRU_AVX512_BF16,
        Kind::Lstm => &LSTM_AVX512_BF16,
    }
}

/// Makes what each of `n` inputs adds to the gates.
pub(super) fn project(cell: &Cell, panels: &Panels<f32>, n: usize, inputs: &[f32], gates: &mut [f32]) {
    assert!(inputs.len() == n * cell.n_inputs && gates.len() == n * cell.n_projected());
    let (inputs, row_len, gates) = (inputs.as_ptr(), cell.n_inputs, gates.as_mut_ptr());
    project_all(singles(cell), n, &Projection { cell, panels, inputs, row_len, gates });
}

/// [`project`], of inputs that are rounded for it.
pub(super) fn project_rounded(
    cell: &Cell,
    panels: &Panels<Bf16>,
    n: usize,
    inputs: &[f32],
    gates: &mut [f32],
) {
    assert!(inputs.len() == n * cell.n_inputs && gates.len() == n * cell.n_projected());
    let row_len = cell.n_inputs.next_multiple_of(factors::AT_ONCE);
    let mut rounded = Aligned::zeros(n * row_len);
    if cell.n_inputs > 0 {
        // SAFETY: a matrix in pairs is a proof of the instructions.
        unsafe { round_rows(inputs, cell.n_inputs, cell.n_inputs, &mut rounded, row_len) };
    }
    let (inputs, gates) = (rounded.as_ptr(), gates.as_mut_ptr());
    project_all(pairs(cell), n, &Projection { cell, panels, inputs, row_len, gates });
}

/// Projects `n` inputs, for which `work` has room and loops of its cell's form.
fn project_all<N: Number>(loops: &Loops<N>, n: usize, work: &Projection<'_, N>) {
    for panel in 0..work.cell.n_padded / loops.n_lanes {
        // SAFETY: rows below `n` and panels of the cell are within the slices, and the form is the cell's.
        even(n, loops.project.len(), |row, m| unsafe { loops.project[m - 1](work, row, panel) });
    }
}

/// Runs one step of all rows.
pub(super) fn step(cell: &Cell, panels: &Panels<f32>, turn: Turn<'_>) {
    let factors = Factors { panels, now: turn.now.as_ptr(), next: turn.next.as_mut_ptr() };
    step_all(singles(cell), cell, turn, factors);
}

/// What a run in bf16 keeps between its steps.
pub(super) struct Rounded<'a> {
    panels: &'a Panels<Bf16>,
    /// The states rounded, [rows, padded], before the step and after it.
    now: Aligned<Bf16>,
    next: Aligned<Bf16>,
}

impl<'a> Rounded<'a> {
    /// Begins with the states `start`, [rows, padded].
    pub(super) fn new(cell: &Cell, panels: &'a Panels<Bf16>, start: &Aligned) -> Self {
        let (mut now, next) = (Aligned::zeros(start.len()), Aligned::zeros(start.len()));
        // SAFETY: a matrix in pairs is a proof of the instructions.
        unsafe { round_rows(start, cell.n_padded, cell.n_hidden, &mut now, cell.n_padded) };
        Self { panels, now, next }
    }

    /// Runs one step of all rows.
    pub(super) fn step(&mut self, cell: &Cell, turn: Turn<'_>) {
        assert!(self.now.len() == turn.now.len() && self.next.len() == turn.next.len());
        let factors = Factors { panels: self.panels, now: self.now.as_ptr(), next: self.next.as_mut_ptr() };
        step_all(pairs(cell), cell, turn, factors);
        std::mem::swap(&mut self.now, &mut self.next);
    }
}

/// The factors of a step's products: weights, and the states before it and after it, as many as there are
/// of those in f32.
struct Factors<'a, N: Number> {
    panels: &'a Panels<N>,
    now: *const N,
    next: *mut N,
}

/// Runs one step of all rows by the loops of the cell's form.
fn step_all<N: Number>(loops: &Loops<N>, cell: &Cell, turn: Turn<'_>, factors: Factors<'_, N>) {
    let n_rows = turn.at[0].len();
    let work = Step {
        cell,
        panels: factors.panels,
        gates: turn.gates,
        at: turn.at[0].as_ptr(),
        at_next: turn.at[1].as_ptr(),
        now: turn.now.as_ptr(),
        next: turn.next.as_mut_ptr(),
        factors: factors.now,
        next_factors: factors.next,
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
