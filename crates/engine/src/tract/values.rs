//! Tensors into tract's, and its values into tensors.
//!
//! Invariant: a way in is one copy, a way out none, and no type is taken for another.

use bytes::Bytes;
use half::f16;
use tract_onnx::prelude::{
    Datum, DatumType, IntoTValue, TValue, Tensor as TractTensor, TractError, TractResult, tensor1,
};

use crate::{
    EngineError,
    tensor::{DType, Element, Tensor, Tensors},
};

/// Returns the type that tract has for elements of `dtype`.
///
/// # Errors
/// tract has no bf16.
pub(super) fn datum_type(dtype: DType) -> TractResult<DatumType> {
    Ok(match dtype {
        DType::Bool => DatumType::Bool,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::F16 => DatumType::F16,
        DType::Bf16 => return Err(TractError::msg("tract has no tensors of bf16")),
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::Bytes => DatumType::String,
    })
}

/// Copies a tensor.
pub(super) fn value_of(tensor: &Tensor) -> TractResult<TValue> {
    fn plain<T: Element + Datum>(tensor: &Tensor) -> TractResult<TractTensor> {
        TractTensor::from_shape(tensor.shape(), tensor.as_slice::<T>().map_err(TractError::msg)?)
    }
    let value = match tensor.dtype() {
        DType::Bool => plain::<bool>(tensor),
        DType::U8 => plain::<u8>(tensor),
        DType::U16 => plain::<u16>(tensor),
        DType::U32 => plain::<u32>(tensor),
        DType::U64 => plain::<u64>(tensor),
        DType::I8 => plain::<i8>(tensor),
        DType::I16 => plain::<i16>(tensor),
        DType::I32 => plain::<i32>(tensor),
        DType::I64 => plain::<i64>(tensor),
        DType::F16 => plain::<f16>(tensor),
        DType::F32 => plain::<f32>(tensor),
        DType::F64 => plain::<f64>(tensor),
        DType::Bf16 => Err(TractError::msg("tract has no tensors of bf16")),
        DType::Bytes => texts(tensor),
    };
    Ok(value?.into_tvalue())
}

fn texts(tensor: &Tensor) -> TractResult<TractTensor> {
    let texts = tensor.strings().map_err(TractError::msg)?;
    let texts = texts.map(|text| Ok(std::str::from_utf8(text)?.to_owned()));
    let texts: Vec<String> = texts.collect::<TractResult<_>>()?;
    tensor1(&texts).into_shape(tensor.shape())
}

/// Takes a value of elements of `dtype` as it is; refuses one of another type.
pub(super) fn tensor_of(value: TValue, dtype: DType) -> TractResult<Tensor> {
    if value.datum_type() == DatumType::String && dtype == DType::Bytes {
        let texts = value.try_as_plain_ram()?;
        return Tensor::of_strings(value.shape(), texts.as_slice::<String>()?).map_err(TractError::msg);
    }
    // Sizes that a network computes of shapes are of a type of tract's own; ONNX calls it i64.
    let value = match value.datum_type() {
        DatumType::TDim => value.cast_to::<i64>()?.into_owned().into_tvalue(),
        _ => value,
    };
    let found = value.datum_type().unquantized();
    if found != datum_type(dtype)? {
        return Err(TractError::msg(format!("elements are {found:?} where {dtype} is declared")));
    }
    value.try_as_plain_ram()?;
    let shape = value.shape().to_vec();
    Tensor::from_bytes(dtype, shape, Bytes::from_owner(Owner(value))).map_err(TractError::msg)
}

/// A value of tract's whose bytes are a tensor's.
struct Owner(TValue);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        // Looked at before: a value that is elsewhere was brought to memory.
        self.0.try_as_plain_ram().map_or(&[], |plain| plain.as_bytes())
    }
}

/// One output of a run, put together from the outputs of its parts.
pub(super) struct Gathered {
    dtype: DType,
    parts: Tensors,
}

impl Gathered {
    /// Starts an output of elements of `dtype`.
    pub(super) fn new(dtype: DType) -> Self {
        Self { dtype, parts: Vec::with_capacity(1) }
    }

    /// Appends `n_rows` rows; refuses a value of another type, shape or number of rows.
    pub(super) fn append(&mut self, value: TValue, n_rows: usize) -> Result<(), EngineError> {
        let part = tensor_of(value, self.dtype)
            .map_err(|error| EngineError::Run(format!("an output: {error:#}")))?;
        let Some((&found, row_shape)) = part.shape().split_first() else {
            return Err(EngineError::Run("an output is a single number, not a row for each row".to_owned()));
        };
        if found != n_rows {
            return Err(EngineError::Run(format!("an output has {found} rows for a run of {n_rows}")));
        }
        if let Some(first) = self.parts.first().map(|first| &first.shape()[1..])
            && first != row_shape
        {
            let text = format!("an output's rows have shape {first:?} and {row_shape:?} in one batch");
            return Err(EngineError::Run(text));
        }
        self.parts.push(part);
        Ok(())
    }

    /// The whole output, its rows as leading axis.
    pub(super) fn finish(self) -> Result<Tensor, EngineError> {
        Tensor::concat(self.parts.iter()).map_err(|error| EngineError::Run(error.to_string()))
    }
}
