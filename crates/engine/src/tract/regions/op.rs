//! The operator of a region in tract's model, run by its program.

use std::sync::Arc;

use tract_onnx::{
    prelude::{DatumType, IntoTValue, TDim, TValue, TVec, Tensor, ToDim, TractResult, TypedFact, tvec},
    tract_core::internal::{Cost, EvalContext, EvalOp, Op, StaticName, TypedOp, Validation},
};

use lepton_kernels::{Form, chain::Program};

/// A part of a region's work, and the form that does it.
#[derive(Debug, Clone)]
pub(in super::super) struct Part {
    /// The name of tract's operator for it.
    pub(in super::super) operator: StaticName,
    pub(in super::super) form: Form,
    /// Products of one row.
    pub(in super::super) products: usize,
}

/// The operator: pictures f32 [n, channels, height, width], one or more, to what the region answers.
#[derive(Debug, Clone)]
pub(super) struct Convolutions {
    program: Arc<Program>,
    /// Of each answer, the extents behind the rows.
    answers: TVec<TVec<usize>>,
    parts: Arc<[Part]>,
}

impl Convolutions {
    pub(super) fn new(program: Program, answers: TVec<TVec<usize>>, parts: Vec<Part>) -> Self {
        Self { program: Arc::new(program), answers, parts: parts.into() }
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl PartialEq for Convolutions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.program, &other.program)
    }
}

impl Eq for Convolutions {}

impl Op for Convolutions {
    fn name(&self) -> StaticName {
        "LeptonConvolutions".into()
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        Some(self)
    }
}

impl EvalOp for Convolutions {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        Ok(Some(self.eval(&EvalContext::out_of_plan(), inputs)?))
    }

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let n_rows = inputs[0].shape()[0];
        let answer = |extents: &TVec<usize>| {
            let shape: TVec<usize> = [n_rows].into_iter().chain(extents.iter().copied()).collect();
            Tensor::zero::<f32>(&shape)
        };
        let mut answers: TVec<Tensor> = self.answers.iter().map(answer).collect::<TractResult<_>>()?;
        {
            let read: TVec<_> = inputs.iter().map(|it| it.try_as_plain_ram()).collect::<TractResult<_>>()?;
            let read: TVec<&[f32]> = read.iter().map(|it| it.as_slice()).collect::<TractResult<_>>()?;
            let written = answers.iter_mut().map(|it| it.try_as_plain_ram_mut());
            let mut written: TVec<_> = written.collect::<TractResult<_>>()?;
            let mut written: TVec<&mut [f32]> =
                written.iter_mut().map(|it| it.as_slice_mut()).collect::<TractResult<_>>()?;
            self.program.run(&read, &mut written);
        }
        Ok(answers.into_iter().map(IntoTValue::into_tvalue).collect())
    }
}

impl TypedOp for Convolutions {
    fn as_op(&self) -> &dyn Op {
        self
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let fact = |extents: &TVec<usize>| {
            let rows = inputs[0].shape.iter().take(1).cloned();
            let shape: TVec<TDim> = rows.chain(extents.iter().map(|n| n.to_dim())).collect();
            TypedFact::dt_shape(DatumType::F32, shape)
        };
        Ok(self.answers.iter().map(fact).collect())
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let products: usize = self.parts.iter().map(|part| part.products).sum();
        Ok(tvec!((Cost::FMA(DatumType::F32), inputs[0].shape[0].clone() * products)))
    }
}
