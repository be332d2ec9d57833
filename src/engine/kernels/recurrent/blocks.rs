//! Rows and units cut into the blocks that the loops over vectors work on.
//!
//! Invariant: pointers are made of slices whose lengths were checked on the way in, and stay within
//! them; a form runs only by a [`Form`](super::super::Form), which proves its instructions.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use super::{
    super::{Vectors, aligned::Aligned, bf16::Bf16, maps::Number},
    Cell, Kind, Turn,
    loops::{
        GRU_AVX2, GRU_AVX512, GRU_AVX512_BF16, LSTM_AVX2, LSTM_AVX512, LSTM_AVX512_BF16, Loops, Projection,
        Step, round,
    },
    packed::Panels,
};

/// The loops in f32.
fn loops(cell: &Cell) -> &'static Loops<f32> {
    match (cell.kind, cell.form.0 == Vectors::Avx2) {
        (Kind::Gru, false) => &GRU_AVX512,
        (Kind::Gru, true) => &GRU_AVX2,
        (Kind::Lstm, false) => &LSTM_AVX512,
        (Kind::Lstm, true) => &LSTM_AVX2,
    }
}

/// The loops in bf16.
fn rounded_loops(cell: &Cell) -> &'static Loops<Bf16> {
    match cell.kind {
        Kind::Gru => &GRU_AVX512_BF16,
        Kind::Lstm => &LSTM_AVX512_BF16,
    }
}

/// Makes what each of `n` inputs adds to the gates.
pub(super) fn project(cell: &Cell, panels: &Panels<f32>, n: usize, inputs: &[f32], gates: &mut [f32]) {
    project_by(loops(cell), cell, panels, n, inputs, gates);
}

/// [`project`], in bf16.
pub(super) fn project_rounded(
    cell: &Cell,
    panels: &Panels<Bf16>,
    n: usize,
    inputs: &[f32],
    gates: &mut [f32],
) {
    project_by(rounded_loops(cell), cell, panels, n, &rounded(inputs), gates);
}

fn project_by<N: Number>(
    loops: &Loops<N>,
    cell: &Cell,
    panels: &Panels<N>,
    n: usize,
    inputs: &[N],
    gates: &mut [f32],
) {
    assert!(inputs.len() == n * cell.n_inputs && gates.len() == n * cell.n_projected());
    let work = Projection { cell, panels, inputs: inputs.as_ptr(), gates: gates.as_mut_ptr() };
    for panel in 0..cell.n_padded / loops.n_lanes {
        // SAFETY: rows below `n` and panels of `cell` are within the slices, and the form is `cell`'s.
        even(n, loops.project.len(), |row, m| unsafe { loops.project[m - 1](&work, row, panel) });
    }
}

/// Runs one step of all rows.
pub(super) fn step(cell: &Cell, panels: &Panels<f32>, turn: Turn<'_>) {
    let (factors, next_factors) = (turn.now.as_ptr(), turn.next.as_mut_ptr());
    step_by(loops(cell), cell, panels, turn, factors, next_factors);
}

/// A run in bf16: the states rounded, [rows, padded], before the step and after it.
pub(super) struct Rounded<'a> {
    panels: &'a Panels<Bf16>,
    now: Aligned<Bf16>,
    next: Aligned<Bf16>,
}

impl<'a> Rounded<'a> {
    /// Begins with the states `start`, [rows, padded].
    pub(super) fn new(panels: &'a Panels<Bf16>, start: &Aligned) -> Self {
        Self { panels, now: rounded(start), next: Aligned::zeros(start.len()) }
    }

    /// Runs one step of all rows.
    pub(super) fn step(&mut self, cell: &Cell, turn: Turn<'_>) {
        assert!(turn.now.len() == self.now.len() && turn.next.len() == self.next.len());
        let (factors, next_factors) = (self.now.as_ptr(), self.next.as_mut_ptr());
        step_by(rounded_loops(cell), cell, self.panels, turn, factors, next_factors);
        std::mem::swap(&mut self.now, &mut self.next);
    }
}

/// Rounds numbers, for a cell with panels in bf16.
fn rounded(numbers: &[f32]) -> Aligned<Bf16> {
    let mut rounded = Aligned::zeros(numbers.len());
    // SAFETY: panels in bf16 are a proof of the instructions.
    unsafe { round(numbers, &mut rounded) };
    rounded
}

/// Runs one step of all rows, whose states as factors are as many as the states.
fn step_by<N: Number>(
    loops: &Loops<N>,
    cell: &Cell,
    panels: &Panels<N>,
    turn: Turn<'_>,
    factors: *const N,
    next_factors: *mut N,
) {
    let n_rows = turn.at[0].len();
    let work = Step {
        cell,
        panels,
        gates: turn.gates,
        at: turn.at[0].as_ptr(),
        at_next: turn.at[1].as_ptr(),
        now: turn.now.as_ptr(),
        next: turn.next.as_mut_ptr(),
        factors,
        next_factors,
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
