//! Numbers in shapes: what tasks hand to engines and get back.
//!
//! Invariant: `data.len()` equals the product of `shape`, row-major, for every [`Tensor`].

use thiserror::Error;

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    I64,
    I32,
    U8,
    Bool,
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::U8 => "u8",
            Self::Bool => "bool",
        })
    }
}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
}

impl Data {
    /// Counts the elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// Says whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names the element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::I64(_) => DType::I64,
            Self::I32(_) => DType::I32,
            Self::U8(_) => DType::U8,
            Self::Bool(_) => DType::Bool,
        }
    }

    /// Makes room for `n` elements of the same type.
    fn empty_like(&self, n: usize) -> Self {
        match self {
            Self::F32(_) => Self::F32(Vec::with_capacity(n)),
            Self::I64(_) => Self::I64(Vec::with_capacity(n)),
            Self::I32(_) => Self::I32(Vec::with_capacity(n)),
            Self::U8(_) => Self::U8(Vec::with_capacity(n)),
            Self::Bool(_) => Self::Bool(Vec::with_capacity(n)),
        }
    }

    /// Appends elements `range` of `other`; false where the types differ.
    #[must_use]
    fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a.extend_from_slice(&b[range]),
            (Self::I64(a), Self::I64(b)) => a.extend_from_slice(&b[range]),
            (Self::I32(a), Self::I32(b)) => a.extend_from_slice(&b[range]),
            (Self::U8(a), Self::U8(b)) => a.extend_from_slice(&b[range]),
            (Self::Bool(a), Self::Bool(b)) => a.extend_from_slice(&b[range]),
            _ => return false,
        }
        true
    }
}

/// What does not fit about a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorError {
    #[error("shape {shape:?} holds {want} elements, but {got} were given")]
    Count { shape: Vec<usize>, want: String, got: usize },
    #[error("rows of different shape or type cannot be stacked: {first} and {other}")]
    Ragged { first: String, other: String },
    #[error("no rows to stack")]
    NoRows,
    #[error("an output of {rows} rows cannot be split into {want}")]
    Split { rows: usize, want: usize },
    #[error("expected {want} elements, found {got}")]
    Type { want: DType, got: DType },
}

/// A dense, row-major tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// Wraps `data` in `shape`; refuses a shape whose product is another number, or overflows.
    pub fn new(shape: Vec<usize>, data: Data) -> Result<Self, TensorError> {
        let want = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if want == Some(data.len()) {
            return Ok(Self { shape, data });
        }
        let got = data.len();
        let want = want.map_or_else(|| "too many".to_owned(), |n| n.to_string());
        Err(TensorError::Count { shape, want, got })
    }

    /// The extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Takes the elements out.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The bytes that the elements take.
    pub fn n_bytes(&self) -> usize {
        match &self.data {
            Data::F32(values) => size_of_val(values.as_slice()),
            Data::I64(values) => size_of_val(values.as_slice()),
            Data::I32(values) => size_of_val(values.as_slice()),
            Data::U8(values) => values.len(),
            Data::Bool(values) => values.len(),
        }
    }

    /// The elements as `f32`, or which type they have instead.
    pub fn as_f32(&self) -> Result<&[f32], TensorError> {
        match &self.data {
            Data::F32(v) => Ok(v),
            other => Err(TensorError::Type { want: DType::F32, got: other.dtype() }),
        }
    }

    /// Stacks rows of one shape and type along a new leading axis.
    pub fn stack<'a>(rows: impl ExactSizeIterator<Item = &'a Tensor>) -> Result<Self, TensorError> {
        let n_rows = rows.len();
        let mut rows = rows.peekable();
        let Some(&first) = rows.peek() else { return Err(TensorError::NoRows) };
        let n = first.data.len();
        let mut data = first.data.empty_like(n * n_rows);
        for row in rows {
            if row.shape != first.shape || !data.extend_from(&row.data, 0..n) {
                return Err(TensorError::Ragged { first: first.describe(), other: row.describe() });
            }
        }
        let mut shape = Vec::with_capacity(first.shape.len() + 1);
        shape.push(n_rows);
        shape.extend_from_slice(&first.shape);
        Ok(Self { shape, data })
    }

    /// Splits along the leading axis into `n_rows` tensors that lack that axis.
    pub fn split(&self, n_rows: usize) -> Result<Vec<Self>, TensorError> {
        let rows = self.shape.first().copied().unwrap_or(0);
        if rows != n_rows {
            return Err(TensorError::Split { rows, want: n_rows });
        }
        let shape = &self.shape[1..];
        let n = self.data.len().checked_div(rows).unwrap_or(0);
        let row = |i: usize| {
            let mut data = self.data.empty_like(n);
            let same_type = data.extend_from(&self.data, i * n..(i + 1) * n);
            debug_assert!(same_type, "empty_like keeps the type");
            Self { shape: shape.to_vec(), data }
        };
        Ok((0..rows).map(row).collect())
    }

    /// Names shape and type, as in `f32 [1, 48, 48]`.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.dtype(), self.shape)
    }
}

/// The tensors of one run, in the order of the network's signature.
pub type Tensors = Vec<Tensor>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shape_of_another_size_is_refused_with_both_numbers() {
        let error = Tensor::new(vec![2, 3], Data::F32(vec![0.0; 5])).unwrap_err();
        assert_eq!(error.to_string(), "shape [2, 3] holds 6 elements, but 5 were given");
    }

    #[test]
    fn a_shape_whose_product_overflows_is_refused() {
        assert!(Tensor::new(vec![usize::MAX, 2], Data::U8(vec![])).is_err());
    }

    #[test]
    fn rows_of_different_type_do_not_stack() {
        let a = Tensor::new(vec![1], Data::F32(vec![1.0])).unwrap();
        let b = Tensor::new(vec![1], Data::I64(vec![1])).unwrap();
        assert!(Tensor::stack([&a, &b].into_iter()).is_err());
        assert_eq!(Tensor::stack([].into_iter()), Err(TensorError::NoRows));
    }

    proptest! {
        #[test]
        fn split_undoes_stack(shape in prop::collection::vec(0usize..4, 0..4), n_rows in 1usize..6) {
            let n: usize = shape.iter().product();
            let rows: Vec<Tensor> = (0..n_rows)
                .map(|r| Tensor::new(shape.clone(), Data::I64((0..n).map(|i| (r * n + i) as i64).collect())).unwrap())
                .collect();
            let stacked = Tensor::stack(rows.iter()).unwrap();
            prop_assert_eq!(stacked.shape()[0], n_rows);
            prop_assert_eq!(stacked.split(n_rows).unwrap(), rows);
            prop_assert!(stacked.split(n_rows + 1).is_err());
        }
    }
}
