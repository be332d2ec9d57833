//! tract behind [`Engine`] and [`Session`]; the only room that names tract.
//!
//! Invariant: every run starts from fresh state. A run goes through `plan.run()`, which makes its own
//! state and drops it; a kept state would carry one caller's recurrence into the next caller's answer.

mod cache;
mod census;
mod conv;
mod ending;
mod footprint;
mod network;
mod recurrent;
mod regions;
mod rows;
mod taken;
mod values;
mod windows;

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
};

use tract_onnx::{
    prelude::{
        DatumTypeExt, InferenceModel, InferenceModelExt, IntoRunnable, SymbolValues, TValue, TVec, ToDim,
        TractError, TractResult, TypedModel, TypedNode, TypedRunnableModel,
    },
    tract_core::internal::EvalContext,
    tract_hir::internal::DimLike,
};

use self::{
    cache::Cache,
    census::{LIMITS, Limits},
    footprint::Footprint,
    network::{Network, Rows, one_line, refused},
    taken::Taken,
    values::{Gathered, datum_type, value_of},
};
use crate::{
    Dim, Ending, Engine, EngineError, KernelUse, Session, Signature,
    kernels::{Form, Precision},
    tensor::{Tensor, Tensors},
};

/// Rows that one run takes, where a network takes any number: a batch is cut into these. One length
/// of text needs a plan for each, and four rows have nearly all that a batch gains in speed.
const RUNS: [usize; 2] = [4, 1];

/// Most rows that one run of a plan for any number of rows takes: what a batch has between two
/// operators then stays in the cache. And the largest axis of a row.
const MOST_ROWS: usize = 8;
const MOST_EXTENT: usize = 4096;

/// Plans that one network keeps at most, and at least; between them, [`PLAN_BYTES`] decides.
const MOST_PLANS: usize = 48;
const FEWEST_PLANS: usize = 4;

/// Bytes of weights that the plans of one network may copy: each plan packs its own.
const PLAN_BYTES: usize = 48 << 20;

type Plan = Arc<TypedRunnableModel>;

/// A network that tract runs. Weights and plans are shared by all its sessions.
pub struct TractEngine {
    network: Arc<Loaded>,
}

impl std::fmt::Debug for TractEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TractEngine").field("signature", &self.network.signature).finish_non_exhaustive()
    }
}

impl TractEngine {
    /// Reads an ONNX file. Weights that the file keeps in other files are read from below `folder`;
    /// without a folder such a file is refused.
    ///
    /// # Errors
    /// [`EngineError::Load`] where the bytes are broken, demand too much or cannot be planned;
    /// [`EngineError::Unsupported`] where they are sound but not served. It never panics.
    pub fn load(bytes: &[u8], folder: Option<&Path>) -> Result<Self, EngineError> {
        Self::load_with(bytes, folder, Form::best(Precision::F32))
    }

    /// As [`TractEngine::load`], with the kernels of one form, or with none of them.
    ///
    /// # Errors
    /// As [`TractEngine::load`].
    pub fn load_with(bytes: &[u8], folder: Option<&Path>, form: Option<Form>) -> Result<Self, EngineError> {
        Self::load_within(bytes, folder, form, LIMITS)
    }

    fn load_within(
        bytes: &[u8],
        folder: Option<&Path>,
        form: Option<Form>,
        limits: Limits,
    ) -> Result<Self, EngineError> {
        let mut network = unwound(|| Network::read(bytes, folder, limits))?;
        if let Some(form) = form {
            recurrent::take(&mut network.model, form);
        }
        Ok(Self { network: Arc::new(Loaded::new(network, Taken::new(form))?) })
    }
}

impl Engine for TractEngine {
    fn signature(&self) -> &Signature {
        &self.network.signature
    }

    fn ending(&self, output: usize) -> Ending {
        self.network.endings.get(output).copied().unwrap_or(Ending::Open)
    }

    fn kernels(&self) -> &[KernelUse] {
        self.network.taken.uses()
    }

    fn open(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(TractSession { network: Arc::clone(&self.network) }))
    }
}

/// One thread's way to run the network. It holds nothing of its own, so nothing can leak.
struct TractSession {
    network: Arc<Loaded>,
}

impl Session for TractSession {
    fn run(&mut self, batch: Tensors) -> Result<Tensors, EngineError> {
        self.network.run(&batch)
    }
}

/// A loaded network: its signature, and the plans that run it.
struct Loaded {
    signature: Signature,
    endings: Vec<Ending>,
    plans: Plans,
    taken: Taken,
    footprint: Footprint,
}

/// What plans are made of.
#[derive(Clone, Copy)]
struct Origin<'a> {
    network: &'a InferenceModel,
    signature: &'a Signature,
    taken: &'a Taken,
    footprint: Footprint,
}

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PlanKey {
    n_rows: usize,
    /// The shape of a row of each input.
    row_shapes: Vec<Vec<usize>>,
}

enum Plans {
    /// The one plan that this network can need: rows of one shape, run one by one or, where kernels do
    /// all the work, a few together. The parsed network is gone, so its weights exist once.
    One { plan: Plan, most_rows: usize },
    /// Plans made on demand of the parsed network. They share its tables; the weights of matrix
    /// products are packed into each, and so the number of plans is bounded.
    Many {
        network: Box<InferenceModel>,
        runs: &'static [usize],
        made: Cache<PlanKey, Result<Plan, String>>,
        /// One plan for any rows, where kernels that take any do the work.
        any: Option<Plan>,
    },
}

impl Loaded {
    fn new(network: Network, taken: Taken) -> Result<Self, EngineError> {
        let only_row_shapes = network.only_row_shapes();
        let Network { model, mut signature, rows, packed_bytes, footprint, endings } = network;
        let origin = Origin { network: &model, signature: &signature, taken: &taken, footprint };
        let plans = match (rows, only_row_shapes) {
            (Rows::One, Some(row_shapes)) => {
                let (plan, most_rows) = match any_plan(origin, regions::are_all) {
                    Some(plan) => (plan, MOST_ROWS),
                    None => {
                        let key = PlanKey { n_rows: 1, row_shapes };
                        (build(origin, &key).map_err(refused)?, 1)
                    }
                };
                signature = checked_outputs(signature, &plan)?;
                Plans::One { plan, most_rows }
            }
            _ => {
                let n_plans = (PLAN_BYTES / packed_bytes.max(1)).clamp(FEWEST_PLANS, MOST_PLANS);
                let runs = match rows {
                    Rows::One => &RUNS[RUNS.len() - 1..],
                    Rows::Any => &RUNS,
                };
                let any = any_plan(origin, |model| Ok(recurrent::is_taken(model)));
                Plans::Many { network: Box::new(model), runs, made: Cache::new(n_plans), any }
            }
        };
        match signature.outputs.iter().find(|port| port.shape.is_empty()) {
            Some(port) => {
                let found = format!("`{}` is a single number; it needs the rows as leading axis", port.name);
                Err(EngineError::Unsupported { what: "output", found })
            }
            None => Ok(Self { signature, endings, plans, taken, footprint }),
        }
    }

    fn run(&self, batch: &[Tensor]) -> Result<Tensors, EngineError> {
        let (n_rows, row_shapes) = self.check(batch)?;
        let mut outputs: Vec<Gathered> =
            self.signature.outputs.iter().map(|port| Gathered::new(port.dtype)).collect();
        let mut n_done = 0;
        while n_done < n_rows {
            let (n, plan) = self.next(n_rows - n_done, &row_shapes)?;
            let rows = |tensor: &Tensor| value_of(&tensor.rows(n_done..n_done + n).map_err(TractError::msg)?);
            let inputs: TractResult<_> = batch.iter().map(rows).collect();
            let values = inputs.and_then(|inputs| plan.run(inputs));
            let values = values.map_err(|error| EngineError::Run(one_line(&error)))?;
            append(&mut outputs, values, n)?;
            n_done += n;
        }
        outputs.into_iter().map(Gathered::finish).collect()
    }

    /// How many of `n_left` rows the next run takes, and the plan for it.
    fn next(&self, n_left: usize, row_shapes: &[Vec<usize>]) -> Result<(usize, Plan), EngineError> {
        match &self.plans {
            Plans::One { plan, most_rows } => Ok((even(n_left, *most_rows), Arc::clone(plan))),
            Plans::Many { any: Some(plan), .. }
                if row_shapes.iter().flatten().all(|extent| *extent <= MOST_EXTENT) =>
            {
                Ok((even(n_left, MOST_ROWS), Arc::clone(plan)))
            }
            Plans::Many { network, runs, made, .. } => {
                let n_rows = runs.iter().copied().find(|n| *n <= n_left).unwrap_or(1);
                let key = PlanKey { n_rows, row_shapes: row_shapes.to_vec() };
                let (signature, taken, footprint) = (&self.signature, &self.taken, self.footprint);
                let origin = Origin { network, signature, taken, footprint };
                let plan = made.get(&key, || build(origin, &key));
                Ok((n_rows, plan.map_err(EngineError::Run)?))
            }
        }
    }

    /// Checks a batch against the signature; answers its number of rows and the shape of a row.
    fn check(&self, batch: &[Tensor]) -> Result<(usize, Vec<Vec<usize>>), EngineError> {
        let inputs = &self.signature.inputs;
        if batch.len() != inputs.len() {
            let text = format!("{} tensors were given for {} inputs", batch.len(), inputs.len());
            return Err(EngineError::Batch(text));
        }
        let n_rows = batch[0].shape().first().copied().unwrap_or(0);
        for (tensor, port) in batch.iter().zip(inputs) {
            let fits = |(size, dim): (&usize, &Dim)| match dim {
                Dim::Fixed(n) => size == n,
                Dim::Free(_) => *size > 0,
            };
            let same_rank = tensor.shape().len() == port.shape.len();
            let rows = tensor.shape().iter().zip(&port.shape).skip(1);
            if tensor.dtype() != port.dtype || !same_rank || !rows.into_iter().all(fits) {
                let (given, wanted) = (tensor.describe(), port.describe());
                return Err(EngineError::Batch(format!("`{}` takes {wanted}, {given} was given", port.name)));
            }
            if n_rows == 0 || tensor.shape()[0] != n_rows {
                let given = tensor.shape()[0];
                let text = format!("`{}` has {given} rows where {} are expected", port.name, n_rows.max(1));
                return Err(EngineError::Batch(text));
            }
        }
        Ok((n_rows, batch.iter().map(|tensor| tensor.shape()[1..].to_vec()).collect()))
    }
}

/// How many of `n_left` rows the next run takes, so that runs of at most `most` are of about the same
/// size: one row alone is the dearest.
fn even(n_left: usize, most: usize) -> usize {
    n_left.div_ceil(n_left.div_ceil(most))
}

fn append(outputs: &mut [Gathered], values: TVec<TValue>, n_rows: usize) -> Result<(), EngineError> {
    if values.len() != outputs.len() {
        let text = format!("it gave {} outputs of {}", values.len(), outputs.len());
        return Err(EngineError::Run(text));
    }
    outputs.iter_mut().zip(values).try_for_each(|(output, value)| output.append(value, n_rows))
}

/// Makes a plan. The texts of its failures are for the log.
fn build(origin: Origin<'_>, key: &PlanKey) -> Result<Plan, String> {
    let Origin { network, signature, taken, footprint } = origin;
    let work = || {
        let mut network = network.clone();
        for (position, (port, row_shape)) in signature.inputs.iter().zip(&key.row_shapes).enumerate() {
            let shape: Vec<usize> = std::iter::once(key.n_rows).chain(row_shape.iter().copied()).collect();
            let fact = datum_type(port.dtype)?.fact(shape);
            network.set_input_fact(position, fact.into())?;
        }
        let network = network.into_typed()?;
        footprint.check(&network, &SymbolValues::default())?;
        windows::check(&network)?;
        decluttered(network, taken)?.into_optimized()?.into_runnable()
    };
    unwound(|| work().map_err(|error| EngineError::Load(one_line(&error)))).map_err(|error| match error {
        EngineError::Load(text) => text,
        other => other.to_string(),
    })
}

/// Makes one plan for any number of rows of any extent, for a network that it `suits`: recurrences of
/// the kernels and regions ask no number of rows beforehand, where tract's own pictures are slower for
/// it. Answers nothing where tract cannot plan the network so, or something in it carries state.
fn any_plan(origin: Origin<'_>, suits: impl Fn(&TypedModel) -> TractResult<bool>) -> Option<Plan> {
    let Origin { network, signature, taken, footprint } = origin;
    let work = || {
        let mut network = network.clone();
        let leading = network.symbols.sym("lepton_rows");
        for (position, port) in signature.inputs.iter().enumerate() {
            let mut shape = vec![leading.to_dim()];
            shape.extend(port.shape[1..].iter().map(|dim| match dim {
                Dim::Fixed(n) => n.to_dim(),
                // A name that the signature made up says nothing of another input's axis.
                Dim::Free(name) if name.starts_with("axis_") => {
                    network.symbols.sym(&format!("lepton_{position}_{name}")).to_dim()
                }
                Dim::Free(name) => network.symbols.sym(name).to_dim(),
            }));
            network.set_input_fact(position, datum_type(port.dtype)?.fact(shape).into())?;
        }
        let mut network = network.into_typed()?;
        network.prop_consts()?;
        let carries =
            |node: &TypedNode| node.op.state(&EvalContext::out_of_plan()).map(|state| state.is_some());
        if taken.packed.is_none()
            || !suits(&network)?
            || network.nodes().iter().map(carries).collect::<TractResult<Vec<_>>>()?.contains(&true)
        {
            return Ok(None);
        }
        let symbols = network.symbols.all_symbols();
        let largest = symbols.into_iter().fold(SymbolValues::default(), |values, symbol| {
            let extent = if symbol == leading { MOST_ROWS } else { MOST_EXTENT };
            values.with(&symbol, extent as i64)
        });
        footprint.check(&network, &largest)?;
        let plan = decluttered(network, taken)?.into_optimized()?.into_runnable()?;
        for position in 0..signature.outputs.len() {
            let fact = plan.model().output_fact(position)?;
            if fact.shape.first() != Some(&leading.to_dim()) {
                return Ok(None);
            }
        }
        Ok(Some(plan))
    };
    unwound(|| work().map_err(|error: TractError| EngineError::Load(one_line(&error)))).ok().flatten()
}

/// Lets the kernels take their part of a typed network, and tract tidy up the rest.
fn decluttered(mut network: TypedModel, taken: &Taken) -> TractResult<TypedModel> {
    network.prop_consts()?;
    if let Some(packed) = &taken.packed {
        regions::take(&mut network, packed)?;
    }
    taken.tell(&network)?;
    network.declutter()?;
    if taken.packed.is_some() {
        rows::take(&mut network)?;
    }
    Ok(network)
}

/// Replaces what the file declares about the outputs by what its one plan gives for a row.
fn checked_outputs(mut signature: Signature, plan: &Plan) -> Result<Signature, EngineError> {
    let leading = signature.inputs[0].shape[0].clone();
    for (position, port) in signature.outputs.iter_mut().enumerate() {
        let fact = plan.model().output_fact(position).map_err(|error| refused(one_line(&error)))?;
        if let Some(shape) = fact.shape.as_concrete().filter(|shape| shape.first() != Some(&1)) {
            let found =
                format!("{shape:?} of `{}` for one row; its leading axis must be the rows", port.name);
            return Err(EngineError::Unsupported { what: "output shape", found });
        }
        let rest = fact.shape.iter().skip(1).map(|dim| Some(Dim::Fixed(dim.to_usize().ok()?)));
        let Some(rest) = rest.collect::<Option<Vec<Dim>>>() else { continue };
        port.shape = std::iter::once(leading.clone()).chain(rest).collect();
    }
    Ok(signature)
}

/// Runs `work`, and turns a panic inside tract, which has many for files that it does not expect,
/// into an error. Nothing that `work` touches outlives a panic.
fn unwound<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(refused(text_of(&*panic))))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("tract panicked: {}", text.unwrap_or("no reason given"))
}

#[cfg(test)]
pub(crate) mod tests;
