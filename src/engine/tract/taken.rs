//! What the kernels take of a network: packed weights, shared by its plans, and the shares of the work.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tract_onnx::{
    prelude::{SymbolValues, TDim, Tensor, TractResult, TypedFact, TypedModel, TypedNode},
    tract_core::{
        internal::Cost,
        ops::{gru_seq::GruSeq, scan, scan::Scan},
    },
};

use super::{conv, recurrent};
use crate::engine::{
    KernelUse,
    kernels::{
        Form, Precision,
        conv::{Conv, Shape},
    },
};

/// What the kernels take of one network.
pub(super) struct Taken {
    /// Nothing where tract does all the work.
    pub(super) packed: Option<Packed>,
    uses: OnceLock<Vec<KernelUse>>,
}

impl Taken {
    pub(super) fn new(form: Option<Form>) -> Self {
        Self { packed: form.map(|form| Packed { form, convs: Mutex::default() }), uses: OnceLock::new() }
    }

    /// The shares of the work, once they were told.
    pub(super) fn uses(&self) -> &[KernelUse] {
        self.uses.get().map_or(&[], Vec::as_slice)
    }

    /// Tells the shares from a typed network that the kernels took their part of.
    pub(super) fn tell(&self, model: &TypedModel) -> TractResult<()> {
        if self.uses.get().is_none() {
            let uses = self.shares(model)?;
            self.uses.get_or_init(|| uses);
        }
        Ok(())
    }

    fn shares(&self, model: &TypedModel) -> TractResult<Vec<KernelUse>> {
        let mut uses: Vec<KernelUse> = Vec::new();
        for id in model.eval_order()? {
            let node = model.node(id);
            let inputs = model.node_input_facts(id)?;
            let share = products(node, &inputs)?;
            if share == 0.0 {
                continue;
            }
            let name = node.op.name();
            let (operator, kernel, reason) = match (name.strip_prefix("Lepton"), &self.packed) {
                (Some(name), Some(packed)) => (name, packed.form_of(node).to_string(), None),
                (_, None) => (&*name, "tract".to_owned(), Some("this processor runs no form of the kernels")),
                (None, Some(_)) => (&*name, "tract".to_owned(), Some(conv::why_not(model, node))),
            };
            let operator = operator.to_owned();
            let part = KernelUse { operator, kernel, share, reason };
            let same = |use_: &&mut KernelUse| KernelUse { share, ..(**use_).clone() } == part;
            match uses.iter_mut().find(same) {
                Some(known) => known.share += share,
                None => uses.push(part),
            }
        }
        let total: f64 = uses.iter().map(|part| part.share).sum();
        uses.iter_mut().for_each(|part| part.share /= total);
        uses.sort_by(|one, other| other.share.total_cmp(&one.share));
        Ok(uses)
    }
}

/// Counts the products of a node; an extent that is not known counts as 16.
fn products(node: &TypedNode, inputs: &[&TypedFact]) -> TractResult<f64> {
    if let Some(scan) = node.op_as::<Scan>() {
        let body = scan
            .body
            .eval_order()?
            .into_iter()
            .map(|id| products(scan.body.node(id), &scan.body.node_input_facts(id)?));
        let turns = scan::iteration_count(&scan.input_mapping, inputs);
        return Ok(body.sum::<TractResult<f64>>()? * turns.map_or(1.0, |turns| number(&turns)));
    }
    if let Some(gru) = node.op_as::<GruSeq>() {
        let steps: f64 = inputs[0].shape.iter().map(number).product();
        return Ok(steps * (3 * gru.hidden) as f64 * (1.0 + gru.hidden as f64 / number(&inputs[0].shape[2])));
    }
    let costs = node.op.cost(inputs)?;
    Ok(costs.iter().filter(|(cost, _)| matches!(cost, Cost::FMA(_))).map(|(_, n)| number(n)).sum())
}

fn number(dim: &TDim) -> f64 {
    let symbols = dim.symbols().into_iter();
    let values = symbols.fold(SymbolValues::default(), |values, symbol| values.with(&symbol, 16));
    dim.eval(&values).to_i64().map_or(0.0, |n| n as f64)
}

/// The convolutions of one network, packed once for all its plans.
pub(super) struct Packed {
    form: Form,
    /// By the name of the node, which is the same in every plan.
    convs: Mutex<HashMap<String, Arc<Conv>>>,
}

impl Packed {
    /// The form that runs a node of the kernels.
    fn form_of(&self, node: &TypedNode) -> Form {
        recurrent::form(node).unwrap_or_else(|| self.form_of_convs())
    }

    /// The form of convolutions: maps are handed on in f32, and so are the factors of their products.
    fn form_of_convs(&self) -> Form {
        match self.form.precision() {
            Precision::F32 => self.form,
            Precision::Bf16 => Form::best(Precision::F32).unwrap_or(self.form),
        }
    }

    /// The convolution `name`, packed if it is not yet; nothing where its weights contradict its shape.
    pub(super) fn conv(
        &self,
        name: &str,
        shape: Shape,
        weights: &Tensor,
        bias: &Tensor,
    ) -> TractResult<Option<Arc<Conv>>> {
        let mut convs = self.convs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conv) = convs.get(name).filter(|conv| conv.shape() == shape) {
            return Ok(Some(Arc::clone(conv)));
        }
        let (weights, bias) = (weights.try_as_plain_ram()?, bias.try_as_plain_ram()?);
        let (weights, bias) = (weights.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        // One bias stands for all channels, as tract has it where the file gives none.
        let spread = vec![bias.first().copied().unwrap_or(0.0); shape.n_outputs];
        let bias = if bias.len() == 1 { &spread } else { bias };
        let conv = Conv::pack(self.form_of_convs(), shape, weights, bias).map(Arc::new);
        if let Some(conv) = &conv {
            convs.insert(name.to_owned(), Arc::clone(conv));
        }
        Ok(conv)
    }
}
