//! Rows into tract's tensors, and its tensors into rows.
//!
//! Each way is one copy; nothing is reinterpreted, so no type can be taken for another.

use std::ops::Range;

use tract_onnx::prelude::{DatumType, IntoTValue, TValue, TractResult};

use crate::{
    EngineError,
    tensor::{DType, Data, Tensor},
};

/// The type tract has for elements of `dtype`.
pub(super) fn datum_type(dtype: DType) -> DatumType {
    match dtype {
        DType::F32 => DatumType::F32,
        DType::I64 => DatumType::I64,
        DType::I32 => DatumType::I32,
        DType::U8 => DatumType::U8,
        DType::Bool => DatumType::Bool,
    }
}

/// Copies rows `range` of `tensor`, whose leading axis is the rows.
pub(super) fn rows_of(tensor: &Tensor, range: Range<usize>) -> TractResult<TValue> {
    let mut shape = tensor.shape().to_vec();
    let n_per_row: usize = shape[1..].iter().product();
    shape[0] = range.len();
    let elements = range.start * n_per_row..range.end * n_per_row;
    let value = match tensor.data() {
        Data::F32(data) => tract_onnx::prelude::Tensor::from_shape(&shape, &data[elements]),
        Data::I64(data) => tract_onnx::prelude::Tensor::from_shape(&shape, &data[elements]),
        Data::I32(data) => tract_onnx::prelude::Tensor::from_shape(&shape, &data[elements]),
        Data::U8(data) => tract_onnx::prelude::Tensor::from_shape(&shape, &data[elements]),
        Data::Bool(data) => tract_onnx::prelude::Tensor::from_shape(&shape, &data[elements]),
    };
    Ok(value?.into_tvalue())
}

/// One output of a run, put together from the outputs of its parts.
pub(super) struct Gathered {
    row_shape: Option<Vec<usize>>,
    n_rows: usize,
    data: Data,
}

impl Gathered {
    /// Starts an output of elements of `dtype`.
    pub(super) fn new(dtype: DType) -> Self {
        let data = match dtype {
            DType::F32 => Data::F32(Vec::new()),
            DType::I64 => Data::I64(Vec::new()),
            DType::I32 => Data::I32(Vec::new()),
            DType::U8 => Data::U8(Vec::new()),
            DType::Bool => Data::Bool(Vec::new()),
        };
        Self { row_shape: None, n_rows: 0, data }
    }

    /// Appends `n_rows` rows; refuses a value of another type, shape or number of rows.
    pub(super) fn append(&mut self, value: &TValue, n_rows: usize) -> Result<(), EngineError> {
        let Some((&found, row_shape)) = value.shape().split_first() else {
            return Err(EngineError::Run("an output is a single number, not a row for each row".to_owned()));
        };
        if found != n_rows {
            return Err(EngineError::Run(format!("an output has {found} rows for a run of {n_rows}")));
        }
        match &self.row_shape {
            None => self.row_shape = Some(row_shape.to_vec()),
            Some(first) if first == row_shape => {}
            Some(first) => {
                let text = format!("an output's rows have shape {first:?} and {row_shape:?} in one batch");
                return Err(EngineError::Run(text));
            }
        }
        self.n_rows += n_rows;
        self.extend(value).map_err(|error| EngineError::Run(format!("an output: {error:#}")))
    }

    fn extend(&mut self, value: &TValue) -> TractResult<()> {
        // Sizes that a network computes of shapes are of a type of tract's own; ONNX calls it i64.
        let whole = value.datum_type() == DatumType::TDim;
        let widened = if whole { Some(value.cast_to::<i64>()?) } else { None };
        let view = widened.as_deref().unwrap_or(value).try_as_plain_ram()?;
        match &mut self.data {
            Data::F32(data) => data.extend_from_slice(view.as_slice()?),
            Data::I64(data) => data.extend_from_slice(view.as_slice()?),
            Data::I32(data) => data.extend_from_slice(view.as_slice()?),
            Data::U8(data) => data.extend_from_slice(view.as_slice()?),
            Data::Bool(data) => data.extend_from_slice(view.as_slice()?),
        }
        Ok(())
    }

    /// The whole output, its rows as leading axis.
    pub(super) fn finish(self) -> Result<Tensor, EngineError> {
        let mut shape = vec![self.n_rows];
        shape.extend(self.row_shape.unwrap_or_default());
        Tensor::new(shape, self.data).map_err(|error| EngineError::Run(error.to_string()))
    }
}
