//! Gated recurrent units and long short-term memories over a sequence, the gates of a step computed
//! together (Cho et al. 2014, with the reset gate behind the recurrent product, as ONNX's
//! `linear_before_reset` and PyTorch have it; Hochreiter and Schmidhuber 1997 with the forget gate of
//! Gers et al. 2000).
//!
//! For an input x and a state h, a GRU's gates in ONNX's order z, r, n:
//! z = sigmoid(Wz x + Rz h + bz), r = sigmoid(Wr x + Rr h + br),
//! n = tanh(Wn x + bwn + r (Rn h + brn)), h' = n + z (h - n).
//! An LSTM's in ONNX's order i, o, f, g, with a memory c beside the state:
//! i, o, f = sigmoid(W x + R h + b), g = tanh(Wg x + Rg h + bg), c' = f c + i g, h' = o tanh(c').
//!
//! Invariant: each number is made by the same sums in the same order whatever the batch, so a row
//! alone and the row in any batch agree to the last bit within one form. In bf16 the weights, the
//! inputs and, for the product alone, the state are rounded; sums, gates and states stay in f32.

use super::{Form, aligned::Aligned};

#[cfg(target_arch = "x86_64")]
mod arithmetic;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod factors;
mod gates;
mod packed;
#[cfg(target_arch = "x86_64")]
mod sums;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use self::gates::{Gates, Table};
use self::packed::Matrix;

/// What a cell computes of its gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Gru,
    Lstm,
}

impl Kind {
    /// How many gates it has.
    pub const fn n_gates(self) -> usize {
        match self {
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }
}

/// Which way a recurrence reads its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Forward,
    Backward,
}

/// The weights of a cell as ONNX's operators lay them out: a GRU's gates in the order z, r, n, and an
/// LSTM's in the order i, o, f, g.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    pub kind: Kind,
    pub n_inputs: usize,
    pub n_hidden: usize,
    /// W, [gates * hidden, inputs].
    pub input: &'a [f32],
    /// R, [gates * hidden, hidden].
    pub recurrent: &'a [f32],
    /// The biases of W and then those of R, [2 * gates * hidden]; nothing where there are none.
    pub bias: Option<&'a [f32]>,
}

/// A cell packed for one form. It serves any number of rows and steps, on any number of threads.
pub struct Cell {
    kind: Kind,
    form: Form,
    n_inputs: usize,
    n_hidden: usize,
    /// `n_hidden` rounded up to whole registers. The padding has weights of zero.
    n_padded: usize,
    input: Matrix,
    recurrent: Matrix,
    /// What is added to the products of the input, [gates, padded].
    gate_bias: Aligned,
    /// What is added to the recurrent product of a GRU's n, [padded].
    new_bias: Aligned,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({} to {}, {})", self.kind, self.n_inputs, self.n_hidden, self.form)
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
    /// An LSTM's memory, [rows, hidden]: that to begin with, and after the run that of the step which
    /// was read last. A GRU has none and leaves it alone.
    pub memory: &'a mut [f32],
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

impl Cell {
    /// Packs a cell, or answers nothing where the sizes of its weights contradict each other.
    pub fn pack(form: Form, weights: &Weights<'_>) -> Option<Self> {
        let &Weights { kind, n_inputs, n_hidden, input, recurrent, bias } = weights;
        let n_gates = kind.n_gates().checked_mul(n_hidden)?;
        let fits = n_hidden > 0
            && Some(input.len()) == n_gates.checked_mul(n_inputs)
            && Some(recurrent.len()) == n_gates.checked_mul(n_hidden)
            && bias.is_none_or(|bias| bias.len() == 2 * n_gates);
        if !fits {
            return None;
        }
        let n_padded = n_hidden.next_multiple_of(form.n_lanes());
        let mut cell = Self {
            kind,
            form,
            n_inputs,
            n_hidden,
            n_padded,
            input: Matrix::pack(form, kind, input, n_hidden),
            recurrent: Matrix::pack(form, kind, recurrent, n_hidden),
            gate_bias: Aligned::zeros(kind.n_gates() * n_padded),
            new_bias: Aligned::zeros(n_padded),
        };
        if let Some((of_input, of_state)) = bias.map(|bias| bias.split_at(n_gates)) {
            for (at, (of_input, of_state)) in of_input.iter().zip(of_state).enumerate() {
                let (gate, unit) = (at / n_hidden, at % n_hidden);
                // The biases of a gate are a sum; that of n's recurrent product is behind the gate r.
                let is_behind = kind == Kind::Gru && gate == 2;
                if is_behind {
                    cell.new_bias[unit] = *of_state;
                }
                cell.gate_bias[gate * n_padded + unit] = of_input + if is_behind { 0.0 } else { *of_state };
            }
        }
        Some(cell)
    }

    /// What it computes of its gates.
    pub fn kind(&self) -> Kind {
        self.kind
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

    /// How many numbers [`Cell::project`] makes of one input.
    pub fn n_projected(&self) -> usize {
        self.kind.n_gates() * self.n_padded
    }

    /// Makes of inputs, [n, inputs], what a run adds to its gates, [n, [`Cell::n_projected`]].
    ///
    /// # Panics
    /// Where the lengths are not those of one `n`.
    pub fn project(&self, inputs: &[f32], gates: &mut [f32]) {
        let n = gates.len() / self.n_projected();
        assert!(n * self.n_projected() == gates.len() && n * self.n_inputs == inputs.len(), "whole inputs");
        if n > 0 {
            #[cfg(target_arch = "x86_64")]
            match &self.input {
                Matrix::Singles(panels) => blocks::project(self, panels, n, inputs, gates),
                Matrix::Pairs(panels) => blocks::project_rounded(self, panels, n, inputs, gates),
                Matrix::Tiles(tiled) => tiles::project(self, tiled, n, inputs, gates),
            }
        }
    }

    /// Runs the cell over `n_steps` steps of `n_rows` rows.
    ///
    /// # Panics
    /// Where a slice is shorter than its description says, or the gates are those of another cell.
    pub fn run(&self, sequence: Sequence<'_>) {
        let Sequence { n_rows, n_steps, direction, gates, start, memory, mut states, last } = sequence;
        let (n_hidden, n_padded) = (self.n_hidden, self.n_padded);
        assert!(gates.len() == n_rows * n_steps, "a place for each row and step");
        assert!(gates.n_projected() == self.n_projected(), "the gates of this cell");
        assert!(start.len() == n_rows * n_hidden && last.len() == start.len(), "a state for each row");
        assert!(self.kind == Kind::Gru || memory.len() == start.len(), "a memory for each row");
        if n_rows == 0 {
            return;
        }
        let pad = |rows: &[f32]| {
            let mut padded = Aligned::zeros(n_rows * n_padded);
            for (to, from) in padded.chunks_exact_mut(n_padded).zip(rows.chunks_exact(n_hidden)) {
                to[..n_hidden].copy_from_slice(from);
            }
            padded
        };
        let has_memory = self.kind == Kind::Lstm;
        let mut now = pad(start);
        let mut next = Aligned::zeros(now.len());
        let mut cells = if has_memory { pad(memory) } else { Aligned::zeros(0) };
        #[cfg(target_arch = "x86_64")]
        let mut loops = Loops::of(self, &now);
        let in_time = |read: usize| match direction {
            Direction::Forward => read,
            Direction::Backward => n_steps - 1 - read,
        };
        for read in 0..n_steps {
            let step = in_time(read);
            #[cfg(target_arch = "x86_64")]
            {
                let steps = [step, in_time((read + 1).min(n_steps - 1))];
                let at = steps.map(|step| &gates.at()[step * n_rows..][..n_rows]);
                let gates = gates.start();
                let turn = Turn { read, gates, at, now: &now, next: &mut next, memory: &mut cells };
                match &mut loops {
                    Loops::Singles(panels) => blocks::step(self, panels, turn),
                    Loops::Pairs(run) => run.step(self, turn),
                    Loops::Tiles(tiles) => tiles.step(self, turn),
                }
            }
            std::mem::swap(&mut now, &mut next);
            if let Some(states) = &mut states {
                for (row, state) in now.chunks_exact(n_padded).enumerate() {
                    let at = row * states.row_stride + step * states.step_stride;
                    states.data[at..at + n_hidden].copy_from_slice(&state[..n_hidden]);
                }
            }
        }
        let unpad = |rows: &mut [f32], padded: &[f32]| {
            for (to, from) in rows.chunks_exact_mut(n_hidden).zip(padded.chunks_exact(n_padded)) {
                to.copy_from_slice(&from[..n_hidden]);
            }
        };
        unpad(last, &now);
        if has_memory {
            unpad(memory, &cells);
        }
    }
}

/// One step of a run: the states `now` of all rows become `next`.
struct Turn<'a> {
    /// How many steps were read before.
    read: usize,
    gates: *const f32,
    /// How far from `gates` each row's input is, at this step and at the one that is read after it.
    at: [&'a [usize]; 2],
    now: &'a Aligned,
    next: &'a mut Aligned,
    memory: &'a mut Aligned,
}

/// The loops of a run, and what they keep between its steps.
#[cfg(target_arch = "x86_64")]
enum Loops<'a> {
    Singles(&'a packed::Panels<f32>),
    Pairs(blocks::Rounded<'a>),
    Tiles(tiles::Run<'a>),
}

#[cfg(target_arch = "x86_64")]
impl<'a> Loops<'a> {
    fn of(cell: &'a Cell, start: &Aligned) -> Self {
        match &cell.recurrent {
            Matrix::Singles(panels) => Self::Singles(panels),
            Matrix::Pairs(panels) => Self::Pairs(blocks::Rounded::new(cell, panels, start)),
            Matrix::Tiles(tiled) => Self::Tiles(tiles::Run::new(cell, tiled, start)),
        }
    }
}
