//! Constants of a file: how large they are, and whether their data are as many as their shape says.

use tract_onnx::pb::{
    self,
    tensor_proto::{DataLocation, DataType},
};

use super::{MOST_AXES, names, refused, short};
use crate::EngineError;

/// Counts the bytes of a tensor that the file itself holds; refuses one whose data contradict its shape.
pub(super) fn check(tensor: &pb::TensorProto) -> Result<usize, EngineError> {
    names::length(&tensor.name)?;
    let n = elements(&tensor.name, &tensor.dims)?;
    let typed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ];
    let n_typed = typed.into_iter().max().unwrap_or(0);
    let is_external = tensor.data_location == Some(DataLocation::External as i32);
    let misfit = |found: usize, expected: usize, unit: &str| {
        let (name, dims) = (short(&tensor.name), &tensor.dims);
        Err(refused(format!(
            "the tensor `{name}` of shape {dims:?} holds {found} {unit}, it needs {expected}"
        )))
    };
    let width = DataType::try_from(tensor.data_type).ok().and_then(width);
    if !tensor.raw_data.is_empty() {
        if let Some(expected) = width.map(|width| n.saturating_mul(width))
            && tensor.raw_data.len() != expected
        {
            return misfit(tensor.raw_data.len(), expected, "bytes");
        }
    } else if is_external {
        external(tensor, width.map(|width| n.saturating_mul(width)))?;
    } else if let Some(width) = width {
        // A complex number is two.
        let expected = if width == 16 || tensor.data_type == DataType::Complex64 as i32 { 2 * n } else { n };
        if n_typed != expected {
            return misfit(n_typed, expected, "numbers");
        }
    }
    let narrow = tensor.float_data.len() + tensor.int32_data.len();
    let wide = tensor.int64_data.len() + tensor.double_data.len() + tensor.uint64_data.len();
    let texts: usize = tensor.string_data.iter().map(|text| size_of::<Vec<u8>>() + text.len()).sum();
    Ok(tensor.raw_data.len() + 4 * narrow + 8 * wide + texts)
}

/// Holds the length that a tensor in another file declares against its shape.
fn external(tensor: &pb::TensorProto, expected: Option<usize>) -> Result<(), EngineError> {
    let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key);
    let number = |key: &str| match entry(key).map(|entry| entry.value.parse::<u64>()) {
        None => Ok(None),
        Some(Ok(n)) => Ok(Some(n)),
        Some(Err(_)) => Err(refused(format!(
            "the {key} of the tensor `{}` in another file is no number",
            short(&tensor.name)
        ))),
    };
    let (offset, length) = (number("offset")?, number("length")?);
    if offset.unwrap_or(0).checked_add(length.unwrap_or(0)).is_none_or(|end| end > i64::MAX as u64) {
        return Err(refused(format!("the tensor `{}` ends beyond any file", short(&tensor.name))));
    }
    match (length, expected) {
        (Some(length), Some(expected)) if length != expected as u64 => Err(refused(format!(
            "the tensor `{}` of shape {:?} takes {length} bytes of another file, it needs {expected}",
            short(&tensor.name),
            tensor.dims
        ))),
        _ => Ok(()),
    }
}

/// How many elements a tensor of these extents has.
pub(super) fn elements(name: &str, dims: &[i64]) -> Result<usize, EngineError> {
    if dims.len() > MOST_AXES {
        let n = dims.len();
        return Err(refused(format!("the tensor `{}` has {n} axes, {MOST_AXES} are allowed", short(name))));
    }
    let n = dims.iter().try_fold(1usize, |n, dim| n.checked_mul(usize::try_from(*dim).ok()?));
    // What comes of it is counted in bytes, sixteen for one element at most.
    n.filter(|n| *n <= usize::MAX >> 5).ok_or_else(|| {
        refused(format!("the tensor `{}` has the shape {dims:?}, which no memory holds", short(name)))
    })
}

/// Bytes of an element; `None` where the type packs elements closer, or is none that is served.
fn width(data_type: DataType) -> Option<usize> {
    Some(match data_type {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => 1,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 2,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64 => 8,
        DataType::Complex128 => 16,
        _ => return None,
    })
}
