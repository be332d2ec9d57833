//! GRUs of a network, run by the kernel of [`kernels::gru`](crate::engine::kernels::gru) as one operator.
//!
//! Invariant: a GRU is taken where tract's own fused form would mean the same, and left to tract
//! otherwise. The weights are packed once, and all plans of the network share them.

use std::sync::{Arc, OnceLock};

use tract_onnx::{
    ops::rec::common::CommonRec,
    prelude::{
        DatumType, InferenceModel, IntoTValue, SpecialOps, Tensor, TractError, TractResult, f16, tvec,
    },
    tract_core::{
        internal::{
            AxisOp, Cost, EvalContext, EvalOp, Op, OutletId, StaticName, TDim, TValue, TVec, ToDim,
            TypedFact, TypedModel, TypedOp, Validation,
        },
        ops::{array::Gather, cast::Cast},
    },
    tract_hir::internal::{Expansion, InferenceResult, Solver, TensorProxy, expand},
};

use crate::engine::kernels::{
    Form,
    gru::{Direction, Gates, Gru, Sequence, States, Table, Weights},
};

/// Most bytes that the table of one vocabulary and cell may grow to.
const TABLE_BYTES: usize = 64 << 20;

/// Hands the GRUs of a network to the kernel, where it can run them.
pub(super) fn take(network: &mut InferenceModel, form: Form) {
    for node in &mut network.nodes {
        let expansion = node.op.as_op().downcast_ref::<Box<dyn Expansion>>();
        let Some(stock) = expansion.and_then(|op| (**op).as_any().downcast_ref::<CommonRec>()) else {
            continue;
        };
        // Of a cell whose activations and order of products are others, tract has no fused form either.
        let fused = stock.body.fused_sequence_op(1, false, 1, 64, true).is_some();
        let plain = stock.optional_sequence_lens_input.is_none()
            && stock.optional_p_input.is_none()
            && stock.optional_y_c_output.is_none()
            && !stock.batch_first;
        if stock.body.name() == "GRU" && fused && plain {
            let node_op = GruNode { stock: stock.clone(), form, packed: Arc::default() };
            node.op = expand(node_op);
        }
    }
}

/// Says whether a typed network has a GRU that the kernel runs.
pub(super) fn is_taken(network: &TypedModel) -> bool {
    network.nodes().iter().any(|node| node.op_is::<GruOp>())
}

/// A GRU of the file, before its inputs are known.
#[derive(Debug, Clone)]
struct GruNode {
    stock: CommonRec,
    form: Form,
    /// Shared by the clones of the network that plans are made of; nothing where it cannot be packed.
    packed: Arc<OnceLock<Option<Packed>>>,
}

/// The cells of one GRU, one for each direction, and their tables where words come in.
#[derive(Debug, Clone)]
struct Packed {
    cells: Arc<[Arc<Gru>]>,
    words: Arc<OnceLock<Option<Words>>>,
}

/// Words by number instead of vectors: the vectors of a vocabulary, [words, inputs], and what each adds
/// to the gates of each cell.
#[derive(Debug, Clone)]
struct Words {
    vectors: Arc<Tensor>,
    tables: Arc<[Table]>,
}

impl Expansion for GruNode {
    fn name(&self) -> StaticName {
        self.stock.name()
    }

    fn validation(&self) -> Validation {
        self.stock.validation()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.stock.nboutputs()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.stock.rules(solver, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        target: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        match self.packed(target, inputs)? {
            Some(packed) => self.wire_kernel(prefix, target, inputs, packed),
            None => self.stock.wire(prefix, target, inputs),
        }
    }
}

impl GruNode {
    /// The packed cells, where all weights are constants of f32.
    fn packed(&self, target: &TypedModel, inputs: &[OutletId]) -> TractResult<Option<Packed>> {
        let constant = |slot: usize| -> TractResult<Option<Arc<Tensor>>> {
            let fact = target.outlet_fact(inputs[slot])?;
            Ok(fact.konst.clone().filter(|tensor| tensor.datum_type() == DatumType::F32))
        };
        if target.outlet_fact(inputs[0])?.datum_type != DatumType::F32 {
            return Ok(None);
        }
        let (Some(input), Some(recurrent)) = (constant(1)?, constant(2)?) else { return Ok(None) };
        let bias = match self.stock.optional_bias_input {
            Some(slot) => match constant(slot)? {
                Some(bias) => Some(bias),
                None => return Ok(None),
            },
            None => None,
        };
        if let Some(packed) = self.packed.get() {
            return Ok(packed.clone());
        }
        let packed = pack(self.form, &input, &recurrent, bias.as_deref())?;
        Ok(self.packed.get_or_init(|| packed).clone())
    }

    fn wire_kernel(
        &self,
        prefix: &str,
        target: &mut TypedModel,
        inputs: &[OutletId],
        packed: Packed,
    ) -> TractResult<TVec<OutletId>> {
        let (input, order, words) = match vocabulary(target, inputs[0], &packed)? {
            Some((ids, order, words)) => (ids, order, Some(words)),
            None => (inputs[0], Order::StepsFirst, None),
        };
        let states = match self.stock.optional_y_output {
            Some(_) => Answer::States,
            None => Answer::LastOnly,
        };
        let op = GruOp { cells: packed.cells, words, order, states };
        let start = self.stock.optional_initial_h_input.map(|slot| inputs[slot]);
        let wired: Vec<OutletId> = std::iter::once(input).chain(start).collect();
        let outputs = target.wire_node(prefix, op, &wired)?;
        let slots =
            [(self.stock.optional_y_output, outputs[0]), (self.stock.optional_y_h_output, outputs[1])];
        let mut taken: Vec<_> =
            slots.into_iter().filter_map(|(slot, output)| Some((slot?, output))).collect();
        taken.sort_by_key(|(slot, _)| *slot);
        Ok(taken.into_iter().map(|(_, output)| output).collect())
    }
}

fn pack(
    form: Form,
    input: &Tensor,
    recurrent: &Tensor,
    bias: Option<&Tensor>,
) -> TractResult<Option<Packed>> {
    let (&[n_directions, n_gates, n_inputs], &[_, _, n_hidden]) = (input.shape(), recurrent.shape()) else {
        return Ok(None);
    };
    let input = input.try_as_plain_ram()?;
    let recurrent = recurrent.try_as_plain_ram()?;
    let bias = bias.map(|bias| bias.try_as_plain_ram()).transpose()?;
    let bias = bias.as_ref().map(|bias| bias.as_slice::<f32>()).transpose()?;
    let (input, recurrent) = (input.as_slice::<f32>()?, recurrent.as_slice::<f32>()?);
    let cell = |direction: usize| {
        let of = |all: &'_ [f32], len: usize| direction * len..all.len().min((direction + 1) * len);
        let weights = Weights {
            n_inputs,
            n_hidden,
            input: &input[of(input, n_gates * n_inputs)],
            recurrent: &recurrent[of(recurrent, n_gates * n_hidden)],
            bias: bias.map(|bias| &bias[of(bias, 2 * n_gates)]),
        };
        Gru::pack(form, &weights).map(Arc::new)
    };
    let cells: Option<Arc<[Arc<Gru>]>> = (0..n_directions).map(cell).collect();
    let cells = cells.filter(|cells| (1..=2).contains(&cells.len()));
    Ok(cells.map(|cells| Packed { cells, words: Arc::default() }))
}

/// The axes of the words that come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    StepsFirst,
    RowsFirst,
}

/// Looks whether `vectors` are rows of a constant table: answers the numbers of the rows, the order of
/// their axes, and the table.
fn vocabulary(
    model: &TypedModel,
    mut vectors: OutletId,
    packed: &Packed,
) -> TractResult<Option<(OutletId, Order, Words)>> {
    let mut order = Order::StepsFirst;
    let gather = loop {
        let node = model.node(vectors.node);
        if let Some(gather) = node.op_as::<Gather>() {
            break gather;
        }
        match node.op_as::<AxisOp>() {
            Some(AxisOp::Move(0, 1) | AxisOp::Move(1, 0)) => {
                order = match order {
                    Order::StepsFirst => Order::RowsFirst,
                    Order::RowsFirst => Order::StepsFirst,
                };
            }
            // Widening loses nothing.
            None if node.op_as::<Cast>().is_some_and(|cast| cast.to == DatumType::F32) => {}
            _ => return Ok(None),
        }
        vectors = node.inputs[0];
    };
    let node = model.node(vectors.node);
    let (table, ids) = (node.inputs[0], node.inputs[1]);
    let ids_fact = model.outlet_fact(ids)?;
    let Some(table) = model.outlet_fact(table)?.konst.clone() else { return Ok(None) };
    let fits = gather.axis == 0
        && table.rank() == 2
        && table.shape()[1] == packed.cells[0].n_inputs()
        && matches!(table.datum_type(), DatumType::F16 | DatumType::F32)
        && ids_fact.datum_type == DatumType::I64
        && ids_fact.rank() == 2;
    if !fits {
        return Ok(None);
    }
    let make = || {
        let n_words = table.shape()[0];
        let tables: Option<Arc<[Table]>> =
            packed.cells.iter().map(|cell| Table::new(Arc::clone(cell), n_words, TABLE_BYTES)).collect();
        Some(Words { vectors: Arc::clone(&table), tables: tables? })
    };
    let words = packed.words.get_or_init(make).clone();
    Ok(words.filter(|words| words.vectors.shape() == table.shape()).map(|words| (ids, order, words)))
}

/// What of the states is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    States,
    LastOnly,
}

/// The operator in tract's model: `x` f32 [steps, rows, inputs] or numbers of words i64, and the states
/// to begin with, [directions, rows, hidden], to all states, [steps, directions, rows, hidden], and the
/// last ones, [directions, rows, hidden].
#[derive(Debug, Clone)]
struct GruOp {
    cells: Arc<[Arc<Gru>]>,
    words: Option<Words>,
    order: Order,
    states: Answer,
}

impl PartialEq for GruOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cells, &other.cells)
            && self.words.is_some() == other.words.is_some()
            && (self.order, self.states) == (other.order, other.states)
    }
}

impl Eq for GruOp {}

impl Op for GruOp {
    fn name(&self) -> StaticName {
        "LeptonGru".into()
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        Some(self)
    }
}

impl EvalOp for GruOp {
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
        let mut states = Tensor::zero::<f32>(&[n_states, n_directions, n_rows, n_hidden])?;
        let mut last = Tensor::zero::<f32>(&[n_directions, n_rows, n_hidden])?;
        {
            let zeros;
            let start = match inputs.get(1) {
                Some(start) => start.try_as_plain_ram()?,
                None => {
                    zeros = Tensor::zero::<f32>(last.shape())?;
                    zeros.try_as_plain_ram()?
                }
            };
            let start = start.as_slice::<f32>()?;
            let mut states = states.try_as_plain_ram_mut()?;
            let states = states.as_slice_mut::<f32>()?;
            let mut last = last.try_as_plain_ram_mut()?;
            let last = last.as_slice_mut::<f32>()?;
            let n_state = n_rows * n_hidden;
            for (direction, cell) in self.cells.iter().enumerate() {
                let projected;
                let gates = match &self.words {
                    Some(words) => words.gates(direction, &inputs[0], self.order)?,
                    None => {
                        let x = inputs[0].try_as_plain_ram()?;
                        let mut gates = vec![0.0; n_steps * n_rows * cell.n_projected()];
                        cell.project(x.as_slice::<f32>()?, &mut gates);
                        projected = gates;
                        Gates::of(cell, &projected, 0..n_steps * n_rows)
                    }
                };
                let range = direction * n_state..(direction + 1) * n_state;
                let states = match self.states {
                    Answer::LastOnly => None,
                    Answer::States => Some(States {
                        data: &mut states[(direction * n_state).min(n_steps * n_state)..],
                        row_stride: n_hidden,
                        step_stride: n_directions * n_state,
                    }),
                };
                cell.run(Sequence {
                    n_rows,
                    n_steps,
                    direction: if direction == 0 { Direction::Forward } else { Direction::Backward },
                    gates,
                    start: &start[range.clone()],
                    states,
                    last: &mut last[range],
                });
            }
        }
        Ok(tvec!(states.into_tvalue(), last.into_tvalue()))
    }
}

impl GruOp {
    /// Steps and rows of an input of this shape.
    fn sizes<D: Clone>(&self, shape: &[D]) -> (D, D) {
        match self.order {
            Order::StepsFirst => (shape[0].clone(), shape[1].clone()),
            Order::RowsFirst => (shape[1].clone(), shape[0].clone()),
        }
    }
}

impl TypedOp for GruOp {
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
        Ok(tvec!(fact(&[n_states, n_directions, n_rows, n_hidden]), fact(&last)))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let (n_steps, n_rows) = self.sizes(&inputs[0].shape.to_tvec());
        let per_step: usize =
            self.cells.iter().map(|cell| 3 * cell.n_hidden() * (cell.n_inputs() + cell.n_hidden())).sum();
        Ok(tvec!((Cost::FMA(DatumType::F32), n_steps * n_rows * per_step)))
    }
}

fn fact(shape: &[TDim]) -> TypedFact {
    TypedFact::dt_shape(DatumType::F32, shape)
}

impl Words {
    /// Finds what the words of `ids` add to the gates of a direction's cell, by step and row.
    fn gates(&self, direction: usize, ids: &Tensor, order: Order) -> TractResult<Gates<'_>> {
        let n_words = self.vectors.shape()[0];
        let (n_outer, n_inner) = (ids.shape()[0], ids.shape()[1]);
        let ids = ids.try_as_plain_ram()?;
        let ids = ids.as_slice::<i64>()?;
        // Numbers below zero count from the end, as ONNX's Gather has it.
        let word = |id: i64| {
            let id = if id < 0 { id.saturating_add_unsigned(n_words as u64) } else { id };
            usize::try_from(id).unwrap_or(usize::MAX)
        };
        let table = &self.tables[direction];
        let vectors = self.vectors.try_as_plain_ram()?;
        let n_inputs = self.vectors.shape()[1];
        let f32s = vectors.as_slice::<f32>().ok();
        let f16s = vectors.as_slice::<f16>().ok();
        let vector = |word: usize, to: &mut [f32]| {
            let range = word * n_inputs..(word + 1) * n_inputs;
            match (f32s, f16s) {
                (Some(all), _) => to.copy_from_slice(&all[range]),
                (None, Some(all)) => {
                    to.iter_mut().zip(&all[range]).for_each(|(to, x)| *to = x.to_f32());
                }
                (None, None) => to.fill(f32::NAN),
            }
        };
        let found = match order {
            Order::StepsFirst => table.gates(ids.iter().map(|id| word(*id)), vector),
            Order::RowsFirst => {
                let by_step = (0..n_inner).flat_map(|step| (0..n_outer).map(move |row| row * n_inner + step));
                table.gates(by_step.map(|at| word(ids[at])), vector)
            }
        };
        found.map_err(|_| {
            let text = format!("a word's number is not below {n_words}, the size of the vocabulary");
            TractError::msg(text)
        })
    }
}
