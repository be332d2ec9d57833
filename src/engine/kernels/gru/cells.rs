//! The inner loops of [`Gru`]: blocks of rows by registers of units.
//!
//! Invariant: pointers are made of slices whose lengths were checked on the way in, and stay within
//! them; a form runs only by a [`Form`](super::super::Form), which proves its instructions.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use std::arch::x86_64::{__m256, __m512};

use super::{
    super::{Vectors, aligned::Aligned, lanes::Lanes},
    GATES, Gates, Gru, panel_stride,
};

/// One step of all rows.
struct Step {
    gates: *const f32,
    /// How far from there each row's input is, at this step and at the next.
    at: *const usize,
    at_next: *const usize,
    now: *const f32,
    next: *mut f32,
}

/// Inputs on their way to the gates.
struct Projection {
    inputs: *const f32,
    gates: *mut f32,
}

type Work<T> = unsafe fn(&Gru, &T, usize, usize);

/// The loops of one form. Entry `m - 1` of a list is for `m` rows.
struct Loops {
    n_lanes: usize,
    /// How many registers of units a block has that holds all rows of the batch, and its loop: with
    /// few rows, wide blocks keep the multipliers busy.
    alone: &'static [(usize, Work<Step>)],
    /// Loops for one register of units.
    step: &'static [Work<Step>],
    project: &'static [Work<Projection>],
}

static AVX512: Loops = Loops {
    n_lanes: 16,
    alone: &[
        (8, step_avx512::<1, 8>),
        (4, step_avx512::<2, 4>),
        (2, step_avx512::<3, 2>),
        (2, step_avx512::<4, 2>),
        (1, step_avx512::<5, 1>),
        (1, step_avx512::<6, 1>),
        (1, step_avx512::<7, 1>),
        (1, step_avx512::<8, 1>),
    ],
    step: &[
        step_avx512::<1, 1>,
        step_avx512::<2, 1>,
        step_avx512::<3, 1>,
        step_avx512::<4, 1>,
        step_avx512::<5, 1>,
        step_avx512::<6, 1>,
        step_avx512::<7, 1>,
        step_avx512::<8, 1>,
    ],
    project: &[
        project_avx512::<1>,
        project_avx512::<2>,
        project_avx512::<3>,
        project_avx512::<4>,
        project_avx512::<5>,
        project_avx512::<6>,
        project_avx512::<7>,
        project_avx512::<8>,
    ],
};

static AVX2: Loops = Loops {
    n_lanes: 8,
    alone: &[(4, step_avx2::<1, 4>), (2, step_avx2::<2, 2>), (1, step_avx2::<3, 1>), (1, step_avx2::<4, 1>)],
    step: &[step_avx2::<1, 1>, step_avx2::<2, 1>, step_avx2::<3, 1>, step_avx2::<4, 1>],
    project: &[project_avx2::<1>, project_avx2::<2>, project_avx2::<3>, project_avx2::<4>],
};

fn loops(gru: &Gru) -> &'static Loops {
    match gru.form.0 {
        Vectors::Avx512 => &AVX512,
        Vectors::Avx2 => &AVX2,
    }
}

/// Makes what each of `n` inputs adds to the gates.
pub(super) fn project(gru: &Gru, n: usize, inputs: &[f32], gates: &mut [f32]) {
    assert!(inputs.len() == n * gru.n_inputs && gates.len() == n * gru.n_projected());
    let loops = loops(gru);
    let work = Projection { inputs: inputs.as_ptr(), gates: gates.as_mut_ptr() };
    for panel in 0..gru.n_padded / loops.n_lanes {
        // SAFETY: rows below `n` and panels of `gru` are within the slices, and the form is `gru`'s.
        blocks(n, loops.project.len(), |row, m| unsafe { loops.project[m - 1](gru, &work, row, panel) });
    }
}

/// Runs one step: the states `now` of all rows become `next`. `steps` are the one to run and the one
/// that will be run after it.
pub(super) fn step(gru: &Gru, gates: &Gates<'_>, steps: [usize; 2], now: &Aligned, next: &mut Aligned) {
    let n_rows = now.len() / gru.n_padded;
    assert!(next.len() == now.len() && gates.n_projected() == gru.n_projected());
    let [at, at_next] = steps.map(|step| &gates.at()[step * n_rows..][..n_rows]);
    let loops = loops(gru);
    let work = Step {
        gates: gates.start(),
        at: at.as_ptr(),
        at_next: at_next.as_ptr(),
        now: now.as_ptr(),
        next: next.as_mut_ptr(),
    };
    let n_panels = gru.n_padded / loops.n_lanes;
    let mut panel = 0;
    if let Some((n_wide, wide)) = n_rows.checked_sub(1).and_then(|m| loops.alone.get(m)) {
        while panel + n_wide <= n_panels {
            // SAFETY: all rows and `n_wide` panels from `panel` on are within the slices.
            unsafe { wide(gru, &work, 0, panel) };
            panel += n_wide;
        }
    }
    for panel in panel..n_panels {
        // SAFETY: rows below `n_rows` and panels of `gru` are within the slices.
        blocks(n_rows, loops.step.len(), |row, m| unsafe { loops.step[m - 1](gru, &work, row, panel) });
    }
}

/// Cuts `n` rows into blocks of at most `most`, as even as they can be.
fn blocks(n: usize, most: usize, mut block: impl FnMut(usize, usize)) {
    let n_blocks = n.div_ceil(most);
    for i in 0..n_blocks {
        let (from, to) = (i * n / n_blocks, (i + 1) * n / n_blocks);
        block(from, to - from);
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn step_avx512<const M: usize, const N: usize>(gru: &Gru, step: &Step, row: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe { cells::<__m512, M, N>(gru, step, row, panel) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn step_avx2<const M: usize, const N: usize>(gru: &Gru, step: &Step, row: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe { cells::<__m256, M, N>(gru, step, row, panel) }
}

#[target_feature(enable = "avx512f")]
unsafe fn project_avx512<const M: usize>(gru: &Gru, work: &Projection, row: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe { projected::<__m512, M>(gru, work, row, panel) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn project_avx2<const M: usize>(gru: &Gru, work: &Projection, row: usize, panel: usize) {
    // SAFETY: the caller's.
    unsafe { projected::<__m256, M>(gru, work, row, panel) }
}

/// The products of `M` vectors of `k` numbers, `stride` apart, with `N` panels, gate by gate.
///
/// # Safety
/// The instructions of `V`; `k` numbers at each vector; `N` panels of `k` times three registers.
#[inline(always)]
unsafe fn products<V: Lanes, const M: usize, const N: usize>(
    panels: *const f32,
    vectors: *const f32,
    stride: usize,
    k: usize,
    panel_stride: usize,
) -> [[[V; GATES]; N]; M] {
    // SAFETY: the caller's; every place is below the ends that it names.
    unsafe {
        let mut sums = [[[V::splat(0.0); GATES]; N]; M];
        let (mut weights, mut numbers) = (panels, vectors);
        for _ in 0..k {
            for n in 0..N {
                for gate in 0..GATES {
                    let weight = V::load(weights.add(n * panel_stride + gate * V::N));
                    // With few rows the weights come as fast as the second cache gives them.
                    if M <= 2 {
                        V::prefetch(weights.wrapping_add(n * panel_stride + (gate + 8 * GATES) * V::N));
                    }
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let number = V::splat(*numbers.add(m * stride));
                        sums[n][gate] = number.mul_add(weight, sums[n][gate]);
                    }
                }
            }
            weights = weights.add(GATES * V::N);
            numbers = numbers.add(1);
        }
        sums
    }
}

/// The next states of `M` rows from `row` on, in the units of `N` panels from `panel` on.
///
/// # Safety
/// The instructions of `V`; rows and panels that the slices behind `step` and `gru` hold.
#[inline(always)]
unsafe fn cells<V: Lanes, const M: usize, const N: usize>(gru: &Gru, step: &Step, row: usize, panel: usize) {
    let (k, padded) = (gru.n_hidden, gru.n_padded);
    // SAFETY: the caller's; a panel's lanes are below `padded`, and `at` leads to three times as many.
    unsafe {
        let stride = panel_stride(gru.form, k);
        let panels = gru.recurrent.as_ptr().add(panel * stride);
        let sums = products::<V, M, N>(panels, step.now.add(row * padded), padded, k, stride);
        for (m, sums) in sums.iter().enumerate() {
            let gates = step.gates.add(*step.at.add(row + m));
            let soon = step.gates.wrapping_add(*step.at_next.add(row + m));
            for (n, &[z, r, new]) in sums.iter().enumerate() {
                let lane = (panel + n) * V::N;
                let z = V::load(gates.add(lane)).add(z).sigmoid();
                let r = V::load(gates.add(padded + lane)).add(r).sigmoid();
                let new = new.add(V::load(gru.new_bias.as_ptr().add(lane)));
                let new = r.mul_add(new, V::load(gates.add(2 * padded + lane))).tanh();
                let at = (row + m) * padded + lane;
                let state = z.mul_add(V::load(step.now.add(at)).sub(new), new);
                state.store(step.next.add(at));
                // A table's row is read once and lies anywhere: memory is asked for it a step before.
                for gate in 0..GATES {
                    V::prefetch(soon.wrapping_add(gate * padded + lane));
                }
            }
        }
    }
}

/// What `M` inputs from `row` on add to the gates, in the units of `panel`.
///
/// # Safety
/// The instructions of `V`; rows and a panel that the slices behind `work` and `gru` hold.
#[inline(always)]
unsafe fn projected<V: Lanes, const M: usize>(gru: &Gru, work: &Projection, row: usize, panel: usize) {
    let (k, padded) = (gru.n_inputs, gru.n_padded);
    // SAFETY: the caller's; a panel's lanes are below `padded`.
    unsafe {
        let stride = panel_stride(gru.form, k);
        let panels = gru.input.as_ptr().add(panel * stride);
        let sums = products::<V, M, 1>(panels, work.inputs.add(row * k), k, k, stride);
        for (m, [sums]) in sums.iter().enumerate() {
            for (gate, sum) in sums.iter().enumerate() {
                let lane = gate * padded + panel * V::N;
                let bias = V::load(gru.gate_bias.as_ptr().add(lane));
                sum.add(bias).store(work.gates.add((row + m) * GATES * padded + lane));
            }
        }
    }
}
