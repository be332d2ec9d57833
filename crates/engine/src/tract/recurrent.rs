//! Recurrences of a network, run by the kernel of
//! [`kernels::recurrent`](lepton_kernels::recurrent) as one operator.
//!
//! Invariant: a recurrence is taken where the kernel computes what ONNX says, and left to tract
//! otherwise, which then computes it too: what neither does is refused when the file is read. The
//! weights are packed once, and all plans of the network share them.

use std::sync::{Arc, OnceLock};

use tract_onnx::{
    Onnx,
    ops::rec::{common::CommonRec, gru, lstm, rnn},
    pb::NodeProto,
    prelude::{DatumType, InferenceModel, SpecialOps, Tensor, TractError, TractResult},
    tract_core::{
        internal::{OutletId, StaticName, TVec, TypedModel, TypedNode, Validation},
        ops::array::{Slice, TypedConcat},
    },
    tract_hir::internal::{Expansion, InferenceOp, InferenceResult, Solver, TensorProxy, expand},
};

mod attributes;
mod op;
mod words;

pub(super) use self::attributes::check;
use self::{
    attributes::Reading,
    op::{Answer, Given, Recurrence},
    words::{Order, Words, vocabulary},
};
use lepton_kernels::{
    Form,
    recurrent::{Cell, Kind, Weights},
};

/// The form that runs a node, where it is a recurrence of the kernel.
pub(super) fn form(node: &TypedNode) -> Option<Form> {
    Some(node.op_as::<Recurrence>()?.cells[0].form())
}

/// Makes tract read recurrences with the direction that it would leave unread.
pub(super) fn register(onnx: &mut Onnx) {
    let operators = &mut onnx.op_register;
    operators.insert("GRU", |context, node| read(node, gru::gru(context, node)?));
    operators.insert("LSTM", |context, node| read(node, lstm::lstm(context, node)?));
    operators.insert("RNN", |context, node| read(node, rnn::rnn(context, node)?));
}

/// An operator as the parser wants it, and the values of an outer graph that it reads.
type Parsed = (Box<dyn InferenceOp>, Vec<String>);

fn read(node: &NodeProto, (stock, closures): Parsed) -> TractResult<Parsed> {
    let expansion = stock.as_op().downcast_ref::<Box<dyn Expansion>>();
    let stock = expansion.and_then(|op| (**op).as_any().downcast_ref::<CommonRec>());
    let stock = stock.ok_or_else(|| TractError::msg("tract reads recurrences in another way"))?.clone();
    let reading = Reading::of(node).ok_or_else(|| TractError::msg("a direction that ONNX does not know"))?;
    Ok((expand(RecurrentNode { stock, reading, form: None, packed: Arc::default() }), closures))
}

/// Hands the recurrences of a network to the kernel, where it can run them.
pub(super) fn take(network: &mut InferenceModel, form: Form) {
    for node in &mut network.nodes {
        let expansion = node.op.as_op().downcast_ref::<Box<dyn Expansion>>();
        let found = expansion.and_then(|op| (**op).as_any().downcast_ref::<RecurrentNode>());
        if let Some(found) = found {
            node.op = expand(RecurrentNode { form: Some(form), ..found.clone() });
        }
    }
}

/// Says whether a typed network has a recurrence that the kernel runs.
pub(super) fn is_taken(network: &TypedModel) -> bool {
    network.nodes().iter().any(|node| node.op_is::<Recurrence>())
}

/// A recurrence of the file, before its inputs are known.
#[derive(Debug, Clone)]
struct RecurrentNode {
    stock: CommonRec,
    reading: Reading,
    /// Nothing where tract does the work.
    form: Option<Form>,
    /// Shared by the clones of the network that plans are made of; nothing where it cannot be packed.
    packed: Arc<OnceLock<Option<Packed>>>,
}

/// The cells of one recurrence, one for each direction, and their tables where words come in.
#[derive(Debug, Clone)]
struct Packed {
    cells: Arc<[Arc<Cell>]>,
    words: Arc<OnceLock<Option<Words>>>,
}

impl Expansion for RecurrentNode {
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
        match (self.packed(target, inputs)?, self.reading) {
            (Some(packed), _) => self.wire_kernel(prefix, target, inputs, packed),
            (None, Reading::Reverse) => self.wire_reversed(prefix, target, inputs),
            (None, Reading::Forward | Reading::Both) => self.stock.wire(prefix, target, inputs),
        }
    }
}

impl RecurrentNode {
    /// The kind of the kernel's cell that this is, where it has one.
    fn kind(&self) -> Option<Kind> {
        let plain = self.stock.optional_sequence_lens_input.is_none()
            && self.stock.optional_p_input.is_none()
            && !self.stock.batch_first;
        // Of a cell whose activations and order of products are others, tract has no fused form either.
        let is_fused = || self.stock.body.fused_sequence_op(1, false, 1, 64, true).is_some();
        match self.stock.body.name() {
            "GRU" if plain && is_fused() && self.stock.optional_y_c_output.is_none() => Some(Kind::Gru),
            "LSTM" if plain => Some(Kind::Lstm),
            _ => None,
        }
    }

    /// The packed cells, where all weights are constants of f32.
    fn packed(&self, target: &TypedModel, inputs: &[OutletId]) -> TractResult<Option<Packed>> {
        let constant = |slot: usize| -> TractResult<Option<Arc<Tensor>>> {
            let fact = target.outlet_fact(inputs[slot])?;
            Ok(fact.konst.clone().filter(|tensor| tensor.datum_type() == DatumType::F32))
        };
        let (Some(form), Some(kind)) = (self.form, self.kind()) else { return Ok(None) };
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
        let packed = pack(form, kind, &input, &recurrent, bias.as_deref())?;
        let packed = packed.filter(|packed| packed.cells.len() == self.reading.directions().len());
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
        let begin = [self.stock.optional_initial_h_input, self.stock.optional_initial_c_input];
        let given = Given { start: begin[0].is_some(), memory: begin[1].is_some() };
        let op = Recurrence { cells: packed.cells, reading: self.reading, words, order, given, states };
        let begin = begin.into_iter().flatten().map(|slot| inputs[slot]);
        let wired: Vec<OutletId> = std::iter::once(input).chain(begin).collect();
        let outputs = target.wire_node(prefix, op, &wired)?;
        let slots =
            [self.stock.optional_y_output, self.stock.optional_y_h_output, self.stock.optional_y_c_output];
        let mut taken: Vec<_> =
            slots.into_iter().zip(outputs).filter_map(|(slot, output)| Some((slot?, output))).collect();
        taken.sort_by_key(|(slot, _)| *slot);
        Ok(taken.into_iter().map(|(_, output)| output).collect())
    }

    /// Has tract read backwards, which it does in the second of two directions only: both get the
    /// weights of the one, and the answers of the first are left.
    fn wire_reversed(
        &self,
        prefix: &str,
        target: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let stock = &self.stock;
        let by_direction = [
            Some(1),
            Some(2),
            stock.optional_bias_input,
            stock.optional_initial_h_input,
            stock.optional_initial_c_input,
            stock.optional_p_input,
        ];
        let mut both = inputs.to_vec();
        for slot in by_direction.into_iter().flatten() {
            let twice = [inputs[slot], inputs[slot]];
            both[slot] = target.wire_node(format!("{prefix}.twice_{slot}"), TypedConcat::new(0), &twice)?[0];
        }
        let outputs = stock.wire(prefix, target, &both)?;
        let second = |(slot, output): (usize, OutletId)| {
            let axis = usize::from(stock.optional_y_output == Some(slot));
            let name = format!("{prefix}.second_{slot}");
            Ok(target.wire_node(name, Slice::new(axis, 1, 2), &[output])?[0])
        };
        outputs.into_iter().enumerate().map(second).collect()
    }
}

fn pack(
    form: Form,
    kind: Kind,
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
            kind,
            n_inputs,
            n_hidden,
            input: &input[of(input, n_gates * n_inputs)],
            recurrent: &recurrent[of(recurrent, n_gates * n_hidden)],
            bias: bias.map(|bias| &bias[of(bias, 2 * n_gates)]),
        };
        Cell::pack(form, &weights).map(Arc::new)
    };
    let cells: Option<Arc<[Arc<Cell>]>> = (0..n_directions).map(cell).collect();
    let cells = cells.filter(|cells| !cells.is_empty());
    Ok(cells.map(|cells| Packed { cells, words: Arc::default() }))
}
