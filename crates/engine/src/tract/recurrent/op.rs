//! The operator of a recurrence in tract's model, run by the kernel.

use std::sync::Arc;

use tract_onnx::{
    prelude::{DatumType, IntoTValue, Tensor, TractError, TractResult, tvec},
    tract_core::internal::{
        Cost, EvalContext, EvalOp, Op, StaticName, TDim, TValue, TVec, ToDim, TypedFact, TypedOp, Validation,
    },
};

use super::{
    attributes::Reading,
    words::{Order, Words},
};
use lepton_kernels::recurrent::{Cell, Gates, Kind, Sequence, States};

/// What of the states is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    States,
    LastOnly,
}

/// What is given to begin with, in this order behind the input; the rest is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) start: bool,
    pub(super) memory: bool,
}

/// The operator in tract's model: `x` f32 [steps, rows, inputs] or numbers of words i64, and the states
/// and memories to begin with, [directions, rows, hidden], to all states, [steps, directions, rows,
/// hidden], and the last states and an LSTM's last memories, [directions, rows, hidden].
#[derive(Debug, Clone)]
pub(super) struct Recurrence {
    /// One for each direction, all of one kind and size.
    pub(super) cells: Arc<[Arc<Cell>]>,
    pub(super) reading: Reading,
    pub(super) words: Option<Words>,
    pub(super) order: Order,
    pub(super) given: Given,
    pub(super) states: Answer,
}

impl PartialEq for Recurrence {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cells, &other.cells)
            && self.words.is_some() == other.words.is_some()
            && (self.reading, self.order) == (other.reading, other.order)
            && (self.given, self.states) == (other.given, other.states)
    }
}

impl Eq for Recurrence {}

impl Op for Recurrence {
    fn name(&self) -> StaticName {
        match self.kind() {
            Kind::Gru => "LeptonGru".into(),
            Kind::Lstm => "LeptonLstm".into(),
        }
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        Some(self)
    }
}

impl EvalOp for Recurrence {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        Ok(Some(self.eval(&EvalContext::out_of_plan(), inputs)?))
    }

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (n_steps, n_rows) = self.sizes(inputs[0].shape());
        let n_hidden = self.cells[0].n_hidden();
        let n_directions = self.cells.len();
        let n_states = match self.states {
            Answer::States => n_steps,
            Answer::LastOnly => 0,
        };
        let mut given = inputs[1..].iter();
        let mut begin = |is_given: bool| match is_given.then(|| given.next()).flatten() {
            Some(value) if value.shape() == [n_directions, n_rows, n_hidden] => {
                Ok(value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            }
            Some(value) => Err(TractError::msg(format!(
                "states to begin with have the shape {:?} for {n_directions} directions of {n_rows} rows",
                value.shape()
            ))),
            None => Ok(vec![0.0; n_directions * n_rows * n_hidden]),
        };
        let start = begin(self.given.start)?;
        let mut memory = match self.kind() {
            Kind::Gru => Vec::new(),
            Kind::Lstm => begin(self.given.memory)?,
        };
        let mut states = Tensor::zero::<f32>(&[n_states, n_directions, n_rows, n_hidden])?;
        let mut last = Tensor::zero::<f32>(&[n_directions, n_rows, n_hidden])?;
        {
            let mut states = states.try_as_plain_ram_mut()?;
            let states = states.as_slice_mut::<f32>()?;
            let mut last = last.try_as_plain_ram_mut()?;
            let last = last.as_slice_mut::<f32>()?;
            let n_state = n_rows * n_hidden;
            for (at, (cell, direction)) in self.cells.iter().zip(self.reading.directions()).enumerate() {
                let projected;
                let gates = match &self.words {
                    Some(words) => words.gates(at, &inputs[0], self.order)?,
                    None => {
                        projected = project(cell, &inputs[0])?;
                        Gates::of(cell, &projected, 0..n_steps * n_rows)
                    }
                };
                let range = at * n_state..(at + 1) * n_state;
                let states = match self.states {
                    Answer::LastOnly => None,
                    Answer::States => Some(States {
                        data: &mut states[(at * n_state).min(n_steps * n_state)..],
                        row_stride: n_hidden,
                        step_stride: n_directions * n_state,
                    }),
                };
                cell.run(Sequence {
                    n_rows,
                    n_steps,
                    direction: *direction,
                    gates,
                    start: &start[range.clone()],
                    memory: memory.get_mut(range.clone()).unwrap_or_default(),
                    states,
                    last: &mut last[range],
                });
            }
        }
        let mut answers = tvec!(states.into_tvalue(), last.into_tvalue());
        if self.kind() == Kind::Lstm {
            answers.push(Tensor::from_shape(&[n_directions, n_rows, n_hidden], &memory)?.into_tvalue());
        }
        Ok(answers)
    }
}

/// What the vectors of `x`, [steps, rows, inputs], add to the gates.
fn project(cell: &Cell, x: &Tensor) -> TractResult<Vec<f32>> {
    let &[n_steps, n_rows, n_inputs] = x.shape() else {
        return Err(TractError::msg(format!("vectors of the shape {:?}", x.shape())));
    };
    if n_inputs != cell.n_inputs() {
        return Err(TractError::msg(format!("vectors of {n_inputs} numbers for {cell:?}")));
    }
    let mut gates = vec![0.0; n_steps * n_rows * cell.n_projected()];
    cell.project(x.try_as_plain_ram()?.as_slice::<f32>()?, &mut gates);
    Ok(gates)
}

impl Recurrence {
    fn kind(&self) -> Kind {
        self.cells[0].kind()
    }

    /// Steps and rows of an input of this shape.
    fn sizes<D: Clone>(&self, shape: &[D]) -> (D, D) {
        match self.order {
            Order::StepsFirst => (shape[0].clone(), shape[1].clone()),
            Order::RowsFirst => (shape[1].clone(), shape[0].clone()),
        }
    }
}

impl TypedOp for Recurrence {
    fn as_op(&self) -> &dyn Op {
        self
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (n_steps, n_rows) = self.sizes(&inputs[0].shape.to_tvec());
        let (n_directions, n_hidden) = (self.cells.len().to_dim(), self.cells[0].n_hidden().to_dim());
        let n_states = match self.states {
            Answer::States => n_steps,
            Answer::LastOnly => 0.to_dim(),
        };
        let last = [n_directions.clone(), n_rows.clone(), n_hidden.clone()];
        let mut facts = tvec!(fact(&[n_states, n_directions, n_rows, n_hidden]), fact(&last));
        if self.kind() == Kind::Lstm {
            facts.push(fact(&last));
        }
        Ok(facts)
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let (n_steps, n_rows) = self.sizes(&inputs[0].shape.to_tvec());
        let of =
            |cell: &Arc<Cell>| cell.kind().n_gates() * cell.n_hidden() * (cell.n_inputs() + cell.n_hidden());
        let per_step: usize = self.cells.iter().map(of).sum();
        Ok(tvec!((Cost::FMA(DatumType::F32), n_steps * n_rows * per_step)))
    }
}

fn fact(shape: &[TDim]) -> TypedFact {
    TypedFact::dt_shape(DatumType::F32, shape)
}
