//! The plans that run a network, made at load or when a shape is first met.
//!
//! Invariant: a plan is kept only where its values fit in memory, and it never changes once it is made.

use std::sync::Arc;

use tract_onnx::{
    prelude::{
        DatumTypeExt, InferenceModel, InferenceModelExt, IntoRunnable, SymbolValues, TValue, TVec, ToDim,
        TractError, TractResult, TypedModel, TypedNode, TypedRunnableModel,
    },
    tract_core::internal::EvalContext,
    tract_hir::internal::DimLike,
};

use super::{
    cache::Cache,
    footprint::Footprint,
    network::{Network, Rows, one_line, refused},
    recurrent, regions, rows,
    taken::Taken,
    unwound,
    values::{Gathered, datum_type, tensor_of, value_of},
    windows,
};
use crate::{
    Dim, Ending, EngineError, KernelUse, Signature,
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
pub(super) const MOST_PLANS: usize = 48;
const FEWEST_PLANS: usize = 4;

/// Bytes of weights that the plans of one network may copy: each plan packs its own.
const PLAN_BYTES: usize = 48 << 20;

pub(super) type Runnable = Arc<TypedRunnableModel>;

/// A loaded network: its signature, and the plans that run it.
pub(super) struct Planned {
    signature: Signature,
    endings: Vec<Ending>,
    pub(super) plans: Plans,
    taken: Taken,
    footprint: Footprint,
}

/// What plans are made of.
#[derive(Clone, Copy)]
struct Recipe<'a> {
    network: &'a InferenceModel,
    signature: &'a Signature,
    taken: &'a Taken,
    footprint: Footprint,
}

/// What a plan is for: the shape of each input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    shapes: Vec<Vec<usize>>,
}

impl PlanKey {
    /// A run of `n_rows` rows of these shapes.
    fn of_rows(n_rows: usize, row_shapes: &[Vec<usize>]) -> Self {
        let whole = |row: &Vec<usize>| std::iter::once(n_rows).chain(row.iter().copied()).collect();
        Self { shapes: row_shapes.iter().map(whole).collect() }
    }
}

pub(super) enum Plans {
    /// The one plan that this network can need: tensors of one shape, or rows of one shape, run one by one or, where
    /// kernels do all the work, a few together. The parsed network is gone, so its weights exist once.
    One { plan: Runnable, most_rows: usize },
    /// Plans made on demand of the parsed network. They share its tables; the weights of matrix
    /// products are packed into each, and so the number of plans is bounded.
    Many {
        network: Box<InferenceModel>,
        runs: &'static [usize],
        made: Cache<PlanKey, Result<Runnable, String>>,
        /// One plan for any rows, where kernels that take any do the work.
        any: Option<Runnable>,
    },
}

impl Planned {
    pub(super) fn new(network: Network, taken: Taken) -> Result<Self, EngineError> {
        let only_shapes = network.only_shapes();
        let Network { model, mut signature, rows, packed_bytes, footprint, endings } = network;
        let recipe = Recipe { network: &model, signature: &signature, taken: &taken, footprint };
        let plans = match (rows, only_shapes) {
            (Rows::One, Some(row_shapes)) => {
                let (plan, most_rows) = match any_plan(recipe, regions::are_all) {
                    Some(plan) => (plan, MOST_ROWS),
                    None => {
                        let key = PlanKey::of_rows(1, &row_shapes);
                        (build(recipe, &key).map_err(refused)?, 1)
                    }
                };
                signature = checked_outputs(signature, &plan)?;
                Plans::One { plan, most_rows }
            }
            (Rows::None, Some(shapes)) => {
                let plan = build(recipe, &PlanKey { shapes }).map_err(refused)?;
                signature = fixed_outputs(signature, &plan)?;
                Plans::One { plan, most_rows: 1 }
            }
            (rows, _) => {
                let n_plans = (PLAN_BYTES / packed_bytes.max(1)).clamp(FEWEST_PLANS, MOST_PLANS);
                let runs = match rows {
                    Rows::Any => &RUNS[..],
                    Rows::One | Rows::None => &RUNS[RUNS.len() - 1..],
                };
                let any = match rows {
                    Rows::None => None,
                    Rows::One | Rows::Any => any_plan(recipe, |model| Ok(recurrent::is_taken(model))),
                };
                Plans::Many { network: Box::new(model), runs, made: Cache::new(n_plans), any }
            }
        };
        let single = signature.outputs.iter().find(|port| port.batch_axis.is_some() && port.shape.is_empty());
        match single {
            Some(port) => {
                let found = format!("`{}` is a single number; it needs the rows as leading axis", port.name);
                Err(EngineError::Unsupported { what: "output", found })
            }
            None => Ok(Self { signature, endings, plans, taken, footprint }),
        }
    }

    pub(super) fn signature(&self) -> &Signature {
        &self.signature
    }

    pub(super) fn ending(&self, output: usize) -> Ending {
        self.endings.get(output).copied().unwrap_or(Ending::Open)
    }

    pub(super) fn uses(&self) -> &[KernelUse] {
        self.taken.uses()
    }

    /// Runs tensors that fit the signature: by rows where it has them, or as they are.
    pub(super) fn run(&self, inputs: &[Tensor]) -> Result<Tensors, EngineError> {
        self.check(inputs)?;
        if !self.signature.is_batched() {
            return self.run_once(inputs);
        }
        let (n_rows, row_shapes) = rows_of(inputs)?;
        let mut outputs: Vec<Gathered> =
            self.signature.outputs.iter().map(|port| Gathered::new(port.dtype)).collect();
        let mut n_done = 0;
        while n_done < n_rows {
            let (n, plan) = self.next(n_rows - n_done, &row_shapes)?;
            let rows = |tensor: &Tensor| value_of(&tensor.rows(n_done..n_done + n).map_err(TractError::msg)?);
            let values = self.values(&plan, inputs.iter().map(rows))?;
            outputs.iter_mut().zip(values).try_for_each(|(output, value)| output.append(value, n))?;
            n_done += n;
        }
        outputs.into_iter().map(Gathered::finish).collect()
    }

    fn run_once(&self, inputs: &[Tensor]) -> Result<Tensors, EngineError> {
        let plan = match &self.plans {
            Plans::One { plan, .. } => Arc::clone(plan),
            Plans::Many { network, made, .. } => {
                let key = PlanKey { shapes: inputs.iter().map(|tensor| tensor.shape().to_vec()).collect() };
                made.get(&key, || build(self.recipe(network), &key)).map_err(EngineError::Run)?
            }
        };
        let values = self.values(&plan, inputs.iter().map(value_of))?;
        let output = |(value, dtype)| {
            tensor_of(value, dtype).map_err(|error| EngineError::Run(format!("an output: {error:#}")))
        };
        values.into_iter().zip(self.signature.outputs.iter().map(|port| port.dtype)).map(output).collect()
    }

    /// Runs a plan, and checks that it gave a value for each output.
    fn values(
        &self,
        plan: &Runnable,
        inputs: impl Iterator<Item = TractResult<TValue>>,
    ) -> Result<TVec<TValue>, EngineError> {
        let values = inputs.collect::<TractResult<_>>().and_then(|inputs| plan.run(inputs));
        let values = values.map_err(|error| EngineError::Run(one_line(&error)))?;
        if values.len() != self.signature.outputs.len() {
            let text = format!("it gave {} outputs of {}", values.len(), self.signature.outputs.len());
            return Err(EngineError::Run(text));
        }
        Ok(values)
    }

    /// How many of `n_left` rows the next run takes, and the plan for it.
    pub(super) fn next(
        &self,
        n_left: usize,
        row_shapes: &[Vec<usize>],
    ) -> Result<(usize, Runnable), EngineError> {
        match &self.plans {
            Plans::One { plan, most_rows } => Ok((even(n_left, *most_rows), Arc::clone(plan))),
            Plans::Many { any: Some(plan), .. }
                if row_shapes.iter().flatten().all(|extent| *extent <= MOST_EXTENT) =>
            {
                Ok((even(n_left, MOST_ROWS), Arc::clone(plan)))
            }
            Plans::Many { network, runs, made, .. } => {
                let n_rows = runs.iter().copied().find(|n| *n <= n_left).unwrap_or(1);
                let key = PlanKey::of_rows(n_rows, row_shapes);
                let plan = made.get(&key, || build(self.recipe(network), &key));
                Ok((n_rows, plan.map_err(EngineError::Run)?))
            }
        }
    }

    fn recipe<'a>(&'a self, network: &'a InferenceModel) -> Recipe<'a> {
        Recipe { network, signature: &self.signature, taken: &self.taken, footprint: self.footprint }
    }

    /// Checks tensors against the signature, except for how many rows there are.
    fn check(&self, tensors: &[Tensor]) -> Result<(), EngineError> {
        let inputs = &self.signature.inputs;
        if tensors.len() != inputs.len() {
            let text = format!("{} tensors were given for {} inputs", tensors.len(), inputs.len());
            return Err(EngineError::Batch(text));
        }
        for (tensor, port) in tensors.iter().zip(inputs) {
            let fits = |(size, dim): (&usize, &Dim)| match dim {
                Dim::Fixed(n) => size == n,
                Dim::Free(_) => *size > 0,
            };
            let same_rank = tensor.shape().len() == port.shape.len();
            let n_skipped = usize::from(port.batch_axis.is_some());
            let mut axes = tensor.shape().iter().zip(&port.shape).skip(n_skipped);
            if tensor.dtype() != port.dtype || !same_rank || !axes.all(fits) {
                let (given, wanted) = (tensor.describe(), port.describe());
                return Err(EngineError::Batch(format!("`{}` takes {wanted}, {given} was given", port.name)));
            }
        }
        let n_rows = |tensor: &Tensor| tensor.shape().first().copied().unwrap_or(0);
        let first = tensors.first().map_or(0, n_rows);
        for (tensor, port) in tensors.iter().zip(inputs).filter(|(_, port)| port.batch_axis.is_some()) {
            let given = n_rows(tensor);
            if given == 0 || given != first {
                let text = format!("`{}` has {given} rows where {} are expected", port.name, first.max(1));
                return Err(EngineError::Batch(text));
            }
        }
        Ok(())
    }
}

/// The number of rows of checked tensors, and the shape of a row of each.
fn rows_of(tensors: &[Tensor]) -> Result<(usize, Vec<Vec<usize>>), EngineError> {
    let split = |tensor: &Tensor| tensor.shape().split_first().map(|(n, row)| (*n, row.to_vec()));
    let rows: Option<Vec<(usize, Vec<usize>)>> = tensors.iter().map(split).collect();
    let rows = rows.unwrap_or_default();
    let n_rows = rows.first().map(|(n, _)| *n);
    let n_rows = n_rows.ok_or_else(|| EngineError::Batch("an input has no rows".to_owned()))?;
    Ok((n_rows, rows.into_iter().map(|(_, row)| row).collect()))
}

/// How many of `n_left` rows the next run takes, so that runs of at most `most` are of about the same
/// size: one row alone is the dearest.
fn even(n_left: usize, most: usize) -> usize {
    n_left.div_ceil(n_left.div_ceil(most))
}

/// Makes a plan. The texts of its failures are for the log.
fn build(recipe: Recipe<'_>, key: &PlanKey) -> Result<Runnable, String> {
    let Recipe { network, signature, taken, footprint } = recipe;
    let work = || {
        let mut network = network.clone();
        for (position, (port, shape)) in signature.inputs.iter().zip(&key.shapes).enumerate() {
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
fn any_plan(recipe: Recipe<'_>, suits: impl Fn(&TypedModel) -> TractResult<bool>) -> Option<Runnable> {
    let Recipe { network, signature, taken, footprint } = recipe;
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
fn checked_outputs(mut signature: Signature, plan: &Runnable) -> Result<Signature, EngineError> {
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

/// Replaces what the file declares about the outputs of a network without rows by what its one plan gives.
fn fixed_outputs(mut signature: Signature, plan: &Runnable) -> Result<Signature, EngineError> {
    for (position, port) in signature.outputs.iter_mut().enumerate() {
        let fact = plan.model().output_fact(position).map_err(|error| refused(one_line(&error)))?;
        if let Some(shape) = fact.shape.as_concrete() {
            port.shape = shape.iter().copied().map(Dim::Fixed).collect();
        }
    }
    Ok(signature)
}
