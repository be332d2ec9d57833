//! Operators around a recurrence that tract runs number by number, run here row by row.
//!
//! Invariant: each answers to the last bit what the operators answer that it replaces.

use std::sync::Arc;

use tract_onnx::{
    prelude::{
        DatumType, IntoTValue, Tensor, TractError, TractResult, TypedModel, TypedModelPatch, f16, tvec,
    },
    tract_core::tract_data::half::slice::HalfFloatSliceExt,
    tract_core::{
        internal::{EvalContext, EvalOp, Op, StaticName, TValue, TVec, TypedFact, TypedOp},
        ops::{
            array::Gather,
            cast::Cast,
            nn::{Reduce, Reducer},
        },
    },
};

/// Puts the operators of this room in the place of tract's.
pub(super) fn take(model: &mut TypedModel) -> TractResult<()> {
    for id in model.eval_order()? {
        let node = model.node(id);
        let inputs: TVec<TypedFact> = model.node_input_facts(id)?.into_iter().cloned().collect();
        let patch = if let Some(gather) = node.op_as::<Gather>() {
            let next = model.single_succ(id)?.filter(|next| {
                next.op_as::<Cast>().is_some_and(|cast| cast.to == DatumType::F32)
                    && !model.outputs.contains(&node.id.into())
            });
            let table = inputs[0].konst.clone().filter(|table| {
                table.datum_type() == DatumType::F16 && table.rank() == 2 && gather.axis == 0
            });
            match (next, table) {
                (Some(next), Some(table)) if inputs[1].datum_type == DatumType::I64 => {
                    let mut patch = TypedModelPatch::default();
                    let ids = patch.tap_model(model, node.inputs[1])?;
                    let found = patch.wire_node(&next.name, Lookup { table }, &[ids])?[0];
                    patch.shunt_outside(model, next.id.into(), found)?;
                    Some(patch)
                }
                _ => None,
            }
        } else if let Some(extreme) = node.op_as::<Reduce>().and_then(|op| Extreme::of(op, &inputs[0])) {
            Some(TypedModelPatch::replace_single_op(model, node, &node.inputs, extreme)?)
        } else {
            None
        };
        if let Some(patch) = patch {
            patch.apply(model)?;
        }
    }
    Ok(())
}

/// Rows of a table of half precision, widened as they are copied: Gather and Cast in one.
#[derive(Debug, Clone)]
struct Lookup {
    /// f16 [rows, width].
    table: Arc<Tensor>,
}

impl PartialEq for Lookup {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.table, &other.table)
    }
}

impl Eq for Lookup {}

impl Op for Lookup {
    fn name(&self) -> StaticName {
        "LeptonLookup".into()
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        Some(self)
    }
}

impl EvalOp for Lookup {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        Ok(Some(self.eval(&EvalContext::out_of_plan(), inputs)?))
    }

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (n_rows, width) = (self.table.shape()[0], self.table.shape()[1]);
        let table = self.table.try_as_plain_ram()?;
        let table = table.as_slice::<f16>()?;
        let ids = inputs[0].try_as_plain_ram()?;
        let ids = ids.as_slice::<i64>()?;
        let shape: TVec<usize> = inputs[0].shape().iter().copied().chain([width]).collect();
        let mut found = Tensor::zero::<f32>(&shape)?;
        {
            let mut found = found.try_as_plain_ram_mut()?;
            let rows = found.as_slice_mut::<f32>()?.chunks_exact_mut(width.max(1));
            for (id, row) in ids.iter().zip(rows) {
                // Numbers below zero count from the end.
                let at = if *id < 0 { id.saturating_add_unsigned(n_rows as u64) } else { *id };
                let at = usize::try_from(at).ok().filter(|at| *at < n_rows).ok_or_else(|| {
                    TractError::msg(format!("row {id} of a table of {n_rows} rows was asked for"))
                })?;
                table[at * width..(at + 1) * width].convert_to_f32_slice(row);
            }
        }
        Ok(tvec!(found.into_tvalue()))
    }
}

impl TypedOp for Lookup {
    fn as_op(&self) -> &dyn Op {
        self
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        shape.push(self.table.shape()[1].into());
        Ok(tvec!(TypedFact::dt_shape(DatumType::F32, shape)))
    }
}

/// The greatest or least of f32 along one axis that is not the last, which keeps an extent of 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Extreme {
    axis: usize,
    of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Greatest,
    Least,
}

impl Extreme {
    fn of(op: &Reduce, input: &TypedFact) -> Option<Self> {
        let of = match op.reducer {
            Reducer::Max => Of::Greatest,
            Reducer::Min => Of::Least,
            _ => return None,
        };
        // Numbers that lie side by side tract compares well.
        let &[axis] = op.axes.as_slice() else { return None };
        let apart = input.shape[axis + 1..].iter().any(|extent| *extent != 1.into());
        (input.datum_type == DatumType::F32 && apart).then_some(Self { axis, of })
    }
}

impl Op for Extreme {
    fn name(&self) -> StaticName {
        "LeptonExtreme".into()
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        Some(self)
    }
}

impl EvalOp for Extreme {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        Ok(Some(self.eval(&EvalContext::out_of_plan(), inputs)?))
    }

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut shape: TVec<usize> = inputs[0].shape().into();
        let (n, n_inner) = (shape[self.axis], shape[self.axis + 1..].iter().product::<usize>());
        shape[self.axis] = 1;
        let numbers = inputs[0].try_as_plain_ram()?;
        let numbers = numbers.as_slice::<f32>()?;
        let n_found: usize = shape.iter().product();
        let mut found = match self.of {
            Of::Greatest => vec![f32::MIN; n_found],
            Of::Least => vec![f32::MAX; n_found],
        };
        if n * n_inner > 0 {
            for (found, numbers) in found.chunks_exact_mut(n_inner).zip(numbers.chunks_exact(n * n_inner)) {
                for row in numbers.chunks_exact(n_inner) {
                    match self.of {
                        Of::Greatest => keep(found, row, |kept, x| if kept > x { kept } else { x }),
                        Of::Least => keep(found, row, |kept, x| if kept < x { kept } else { x }),
                    }
                }
            }
        }
        Ok(tvec!(Tensor::from_shape(&shape, &found)?.into_tvalue()))
    }
}

fn keep(kept: &mut [f32], row: &[f32], choose: impl Fn(f32, f32) -> f32) {
    kept.iter_mut().zip(row).for_each(|(kept, x)| *kept = choose(*kept, *x));
}

impl TypedOp for Extreme {
    fn as_op(&self) -> &dyn Op {
        self
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        shape[self.axis] = 1.into();
        Ok(tvec!(TypedFact::dt_shape(DatumType::F32, shape)))
    }
}
