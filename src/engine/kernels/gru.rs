//! A gated recurrent unit over a sequence, its three gates computed together (Cho et al. 2014, with
//! the reset gate behind the recurrent product, as ONNX's `linear_before_reset` and PyTorch have it).
//!
//! For an input x and a state h, gates in ONNX's order z, r, n:
//! z = sigmoid(Wz x + Rz h + bz), r = sigmoid(Wr x + Rr h + br),
//! n = tanh(Wn x + bwn + r (Rn h + brn)), h' = n + z (h - n).
//!
//! Invariant: each number is made by the same sums in the same order whatever the batch, so a row
//! alone and the row in any batch agree to the last bit within one form.

use super::{Form, aligned::Aligned};

#[cfg(target_arch = "x86_64")]
mod cells;
mod gates;
#[cfg(test)]
mod tests;

pub use self::gates::{Gates, Table};

/// The gates of a cell.
const GATES: usize = 3;

/// Which way a recurrence reads its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Forward,
    Backward,
}

/// The weights of a cell as ONNX's operator GRU lays them out, gates in the order z, r, n.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    pub n_inputs: usize,
    pub n_hidden: usize,
    /// W, [3 * hidden, inputs].
    pub input: &'a [f32],
    /// R, [3 * hidden, hidden].
    pub recurrent: &'a [f32],
    /// The biases of W and then those of R, [6 * hidden]; nothing where there are none.
    pub bias: Option<&'a [f32]>,
}

/// A cell packed for one form. It serves any number of rows and steps, on any number of threads.
pub struct Gru {
    form: Form,
    n_inputs: usize,
    n_hidden: usize,
    /// `n_hidden` rounded up to whole registers. The padding has weights of zero.
    n_padded: usize,
    /// Panels of one register of units each: for each input, the weights of the three gates.
    input: Aligned,
    recurrent: Aligned,
    /// What is added to the products of the input, [3, padded].
    gate_bias: Aligned,
    /// What is added to the recurrent product of n, [padded].
    new_bias: Aligned,
}

impl std::fmt::Debug for Gru {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gru({} to {}, {})", self.n_inputs, self.n_hidden, self.form)
    }
}

/// What a cell reads and writes in one run.
#[derive(Debug)]
pub struct Sequence<'a> {
    pub n_rows: usize,
    pub n_steps: usize,
    pub direction: Direction,
    /// What the inputs add to the gates, a place for each row of each step; the first step in time
    /// first, whichever way they are read.
    pub gates: Gates<'a>,
    /// The states to begin with, [rows, hidden].
    pub start: &'a [f32],
    /// The state after every step, where it is wanted.
    pub states: Option<States<'a>>,
    /// The states after the step that was read last, [rows, hidden].
    pub last: &'a mut [f32],
}

/// Where the states go: that of a row after a step begins at `row * row_stride + step * step_stride`.
#[derive(Debug)]
pub struct States<'a> {
    pub data: &'a mut [f32],
    pub row_stride: usize,
    pub step_stride: usize,
}

impl Gru {
    /// Packs a cell, or answers nothing where the sizes of its weights contradict each other.
    pub fn pack(form: Form, weights: &Weights<'_>) -> Option<Self> {
        let &Weights { n_inputs, n_hidden, input, recurrent, bias } = weights;
        let n_gates = GATES.checked_mul(n_hidden)?;
        let fits = n_hidden > 0
            && Some(input.len()) == n_gates.checked_mul(n_inputs)
            && Some(recurrent.len()) == n_gates.checked_mul(n_hidden)
            && bias.is_none_or(|bias| bias.len() == 2 * n_gates);
        if !fits {
            return None;
        }
        let n_padded = n_hidden.next_multiple_of(form.n_lanes());
        let mut gru = Self {
            form,
            n_inputs,
            n_hidden,
            n_padded,
            input: panels(form, input, n_hidden, n_inputs),
            recurrent: panels(form, recurrent, n_hidden, n_hidden),
            gate_bias: Aligned::zeros(GATES * n_padded),
            new_bias: Aligned::zeros(n_padded),
        };
        if let Some((of_input, of_state)) = bias.map(|bias| bias.split_at(n_gates)) {
            for unit in 0..n_hidden {
                let of = |gate: usize| (of_input[gate * n_hidden + unit], of_state[gate * n_hidden + unit]);
                // The biases of z and r are sums; that of n's recurrent product is behind the gate r.
                for gate in 0..2 {
                    gru.gate_bias[gate * n_padded + unit] = of(gate).0 + of(gate).1;
                }
                gru.gate_bias[2 * n_padded + unit] = of(2).0;
                gru.new_bias[unit] = of(2).1;
            }
        }
        Some(gru)
    }

    /// The form that it is packed for.
    pub fn form(&self) -> Form {
        self.form
    }

    /// How many numbers an input has.
    pub fn n_inputs(&self) -> usize {
        self.n_inputs
    }

    /// How many numbers a state has.
    pub fn n_hidden(&self) -> usize {
        self.n_hidden
    }

    /// How many numbers [`Gru::project`] makes of one input.
    pub fn n_projected(&self) -> usize {
        GATES * self.n_padded
    }

    /// Makes of inputs, [n, inputs], what a run adds to its gates, [n, [`Gru::n_projected`]].
    ///
    /// # Panics
    /// Where the lengths are not those of one `n`.
    pub fn project(&self, inputs: &[f32], gates: &mut [f32]) {
        let n = gates.len() / self.n_projected();
        assert!(n * self.n_projected() == gates.len() && n * self.n_inputs == inputs.len(), "whole inputs");
        if n > 0 {
            #[cfg(target_arch = "x86_64")]
            cells::project(self, n, inputs, gates);
        }
    }

    /// Runs the cell over `n_steps` steps of `n_rows` rows.
    ///
    /// # Panics
    /// Where a slice is shorter than its description says, or the gates are those of another cell.
    pub fn run(&self, sequence: Sequence<'_>) {
        let Sequence { n_rows, n_steps, direction, gates, start, mut states, last } = sequence;
        let (n_hidden, n_padded) = (self.n_hidden, self.n_padded);
        assert!(gates.len() == n_rows * n_steps, "a place for each row and step");
        assert!(start.len() == n_rows * n_hidden && last.len() == start.len(), "a state for each row");
        let mut now = Aligned::zeros(n_rows * n_padded);
        let mut next = Aligned::zeros(n_rows * n_padded);
        for (now, start) in now.chunks_exact_mut(n_padded).zip(start.chunks_exact(n_hidden)) {
            now[..n_hidden].copy_from_slice(start);
        }
        let in_time = |read: usize| match direction {
            Direction::Forward => read,
            Direction::Backward => n_steps - 1 - read,
        };
        for read in 0..n_steps {
            let step = in_time(read);
            #[cfg(target_arch = "x86_64")]
            cells::step(self, &gates, [step, in_time((read + 1).min(n_steps - 1))], &now, &mut next);
            std::mem::swap(&mut now, &mut next);
            if let Some(states) = &mut states {
                for (row, state) in now.chunks_exact(n_padded).enumerate() {
                    let at = row * states.row_stride + step * states.step_stride;
                    states.data[at..at + n_hidden].copy_from_slice(&state[..n_hidden]);
                }
            }
        }
        for (last, state) in last.chunks_exact_mut(n_hidden).zip(now.chunks_exact(n_padded)) {
            last.copy_from_slice(&state[..n_hidden]);
        }
    }
}

/// How far the panels of a matrix with `n` columns are apart. Where several are read at once, they
/// must not begin at the same place of a page, or their lines would drive each other out of the cache.
fn panel_stride(form: Form, n: usize) -> usize {
    const PAGE: usize = 4096 / size_of::<f32>();
    let len = n * GATES * form.n_lanes();
    len + (PAGE / 8 + PAGE - len % PAGE) % PAGE
}

/// Lays a matrix [3 * hidden, n] out in panels: [units / lanes, n, 3, lanes].
fn panels(form: Form, matrix: &[f32], n_hidden: usize, n: usize) -> Aligned {
    let n_lanes = form.n_lanes();
    let n_panels = n_hidden.div_ceil(n_lanes);
    let stride = panel_stride(form, n);
    let mut packed = Aligned::zeros(n_panels * stride);
    for gate in 0..GATES {
        for unit in 0..n_hidden {
            let (panel, lane) = (unit / n_lanes, unit % n_lanes);
            let row = &matrix[(gate * n_hidden + unit) * n..][..n];
            for (k, weight) in row.iter().enumerate() {
                packed[panel * stride + (k * GATES + gate) * n_lanes + lane] = *weight;
            }
        }
    }
    packed
}
