//! What one block of rows by registers of units computes: the sums of its products, and what becomes
//! of them.
//!
//! Invariant: every function is inlined into one that has the instructions of its products, and touches
//! no row or panel but those of its block.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use super::{
    super::{lanes::Lanes, maps::Number, products::Products},
    Cell,
    arithmetic::{Arithmetic, Place},
    factors::Keeping,
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
    /// The states as factors, rows as long as those of the states: in f32 `now` and `next` themselves.
    pub(super) factors: *const N,
    pub(super) next_factors: *mut N,
    pub(super) memory: *mut f32,
}

/// Inputs on their way to the gates.
pub(super) struct Projection<'a, N: Number> {
    pub(super) cell: &'a Cell,
    pub(super) panels: &'a Panels<N>,
    /// Rows of factors, `row_len` apart.
    pub(super) inputs: *const N,
    pub(super) row_len: usize,
    pub(super) gates: *mut f32,
}

/// The products of `M` rows of factors, `stride` apart, with `N` panels from `panel` on,
/// gate by gate.
///
/// # Safety
/// The instructions of `P`; factors for the panel's products at each row; `N` panels from `panel` on.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "what runs through an iterator leaves its registers")]
unsafe fn products<P: Products, const G: usize, const M: usize, const N: usize>(
    panels: &Panels<P::Number>,
    panel: usize,
    rows: *const P::Number,
    stride: usize,
) -> [[[P::Sums; G]; N]; M] {
    // From one register of weights to the next.
    let register = P::Sums::N * P::DEPTH;
    // SAFETY: the caller's; every place is below the ends that it names.
    unsafe {
        let mut sums = [[[P::Sums::splat(0.0); G]; N]; M];
        let (mut weights, mut numbers) = (panels.data.as_ptr().add(panel * panels.stride), rows);
        for _ in 0..panels.n_products {
            // The fewer of numbers and weights wait in registers for the others to come by one by one.
            // Counted, not iterated: an adapter that is not inlined has no vector instructions, and sums
            // that pass through it leave their registers.
            if M <= N * G {
                let mut number = [P::inputs(numbers); M];
                for m in 1..M {
                    number[m] = P::inputs(numbers.add(m * stride));
                }
                for n in 0..N {
                    for gate in 0..G {
                        let weight = P::weights(weights.add(n * panels.stride + gate * register));
                        // With few rows the weights come as fast as the second cache gives them.
                        if M <= 2 {
                            let soon = weights.wrapping_add(n * panels.stride + (gate + 8 * G) * register);
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
                        weight[n][gate] = P::weights(weights.add(n * panels.stride + gate * register));
                    }
                }
                for m in 0..M {
                    let number = P::inputs(numbers.add(m * stride));
                    for n in 0..N {
                        for gate in 0..G {
                            sums[m][n][gate] = P::multiply_add(number, weight[n][gate], sums[m][n][gate]);
                        }
                    }
                }
            }
            weights = weights.add(G * register);
            numbers = numbers.add(P::DEPTH);
        }
        sums
    }
}

/// The next states of `M` rows from `row` on, in the units of `N` panels from `panel` on.
///
/// # Safety
/// The instructions of `P`; rows and panels that the slices behind `step` hold.
#[inline(always)]
pub(super) unsafe fn cells<P: Keeping, A: Arithmetic<G>, const G: usize, const M: usize, const N: usize>(
    step: &Step<'_, P::Number>,
    row: usize,
    panel: usize,
) {
    let Cell { n_hidden, n_padded: padded, .. } = *step.cell;
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
                P::keep(state, n_hidden - lane, step.next_factors.add(at));
            }
        }
    }
}

/// What `M` inputs from `row` on add to the gates, in the units of `panel`.
///
/// # Safety
/// The instructions of `P`; rows and a panel that the slices behind `work` hold.
#[inline(always)]
pub(super) unsafe fn projected<P: Products, const G: usize, const M: usize>(
    work: &Projection<'_, P::Number>,
    row: usize,
    panel: usize,
) {
    let (row_len, padded) = (work.row_len, work.cell.n_padded);
    // SAFETY: the caller's; a panel's lanes are below `padded`.
    unsafe {
        let sums = products::<P, G, M, 1>(work.panels, panel, work.inputs.add(row * row_len), row_len);
        for (m, [sums]) in sums.iter().enumerate() {
            for (gate, sum) in sums.iter().enumerate() {
                let lane = gate * padded + panel * P::Sums::N;
                let bias = P::Sums::load(work.cell.gate_bias.as_ptr().add(lane));
                sum.add(bias).store(work.gates.add((row + m) * G * padded + lane));
            }
        }
    }
}
