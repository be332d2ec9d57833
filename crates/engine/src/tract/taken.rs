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

use super::{
    conv, recurrent,
    regions::{self, Part},
};
use crate::{
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
            let mut add = |operator: &str, form: Option<Form>, share: f64, reason| {
                let kernel = form.map_or_else(|| "tract".to_owned(), |form| form.to_string());
                let precision = form.map_or(Precision::F32, Form::precision);
                let operator = operator.to_owned();
                let part = KernelUse { operator, kernel, precision, share, reason };
                let same = |use_: &&mut KernelUse| KernelUse { share, ..(**use_).clone() } == part;
                match uses.iter_mut().find(same) {
                    Some(known) => known.share += share,
                    None if share > 0.0 => uses.push(part),
                    None => {}
                }
            };
            if let Some(parts) = regions::parts(node) {
                for Part { operator, form, products } in parts {
                    add(operator, Some(*form), *products as f64 * number(&inputs[0].shape[0]), None);
                }
                continue;
            }
            let share = products(node, &inputs)?;
            let name = node.op.name();
            match (name.strip_prefix("Lepton"), &self.packed) {
                (Some(name), Some(packed)) => {
                    let form = recurrent::form(node).unwrap_or(packed.form);
                    add(name, Some(form), share, None);
                }
                (_, None) => {
                    add(&name, None, share, Some("this processor runs no form of the kernels"));
                }
                (None, Some(_)) => add(&name, None, share, Some(conv::why_not(model, node))),
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
    /// The form that the network's convolutions are packed for.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The form for what is small and stays in f32: products of one vector a row.
    pub(super) fn form_of_rows(&self) -> Option<Form> {
        match self.form.precision() {
            Precision::F32 => Some(self.form),
            Precision::Bf16 => Form::best(Precision::F32),
        }
    }

    /// The convolution `name`, packed if it is not yet; nothing where its weights contradict its shape.
    pub(super) fn conv(
        &self,
        name: &str,
        form: Form,
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
        let conv = Conv::pack(form, shape, weights, bias).map(Arc::new);
        if let Some(conv) = &conv {
            convs.insert(name.to_owned(), Arc::clone(conv));
        }
        Ok(conv)
    }
}
