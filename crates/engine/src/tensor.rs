//! Numbers, truth values and strings in shapes: what tasks and callers hand to engines and get back.
//!
//! Invariant: the bytes of a [`Tensor`] are as many elements of its type, row-major, as its shape says, and aligned for
//! them.

mod buffer;
mod element;
mod shape;
mod strings;

use std::fmt;

use bytes::Bytes;
pub use half::{bf16, f16};
use thiserror::Error;

use self::shape::Shape;
pub use self::{
    element::{DType, Element},
    shape::MAX_RANK,
    strings::Strings,
};

/// Why numbers and a shape make no tensor, or a tensor is not what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorError {
    #[error("shape {shape:?} holds {want} elements, but {got} were given")]
    Count { shape: Vec<usize>, want: String, got: usize },
    #[error("{dtype} {shape:?} takes {want} bytes, but {got} were given")]
    Size { dtype: DType, shape: Vec<usize>, want: String, got: usize },
    #[error("a shape has {rank} axes; at most {MAX_RANK} are allowed")]
    Rank { rank: usize },
    #[error("a bool is a byte that is neither 0 nor 1")]
    Bool,
    #[error(
        "element {element} of {} is cut off: {rest} bytes are left for its length and its bytes",
        DType::Bytes
    )]
    Cut { element: usize, rest: usize },
    #[error("an element has {length} bytes; at most {} are allowed", u32::MAX)]
    Long { length: usize },
    #[error("rows of different shape or type cannot be stacked: {first} and {other}")]
    Ragged { first: String, other: String },
    #[error("no rows to stack")]
    NoRows,
    #[error("an output of {rows} rows cannot be split into {want}")]
    Split { rows: usize, want: usize },
    #[error("expected {want} elements, found {got}")]
    Type { want: DType, got: DType },
}

/// A dense, row-major tensor of at most [`MAX_RANK`] axes.
///
/// Its bytes are in native order, which is the least first on every platform that is served, and shared: a clone, a row
/// of [`Tensor::split`] and a range of [`Tensor::rows`] copy none of them. Elements of [`DType::Bytes`] lie in the
/// layout of the Open Inference Protocol: four bytes of length, the least first, before each.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    data: Bytes,
}

impl Tensor {
    /// Puts `elements` in a shape; their memory becomes the tensor's.
    ///
    /// # Errors
    /// [`TensorError::Count`] where the product of the shape is another number, or overflows;
    /// [`TensorError::Rank`] where it has too many axes.
    pub fn new<T: Element>(shape: impl AsRef<[usize]>, elements: Vec<T>) -> Result<Self, TensorError> {
        let shape = counted(shape.as_ref(), elements.len())?;
        Ok(Self { dtype: T::DTYPE, shape, data: buffer::owned(elements) })
    }

    /// Puts strings of bytes, each of any length, in a shape.
    ///
    /// # Errors
    /// As [`Tensor::new`]; [`TensorError::Long`] where one has 4 GiB or more.
    pub fn of_strings<B: AsRef<[u8]>>(
        shape: impl AsRef<[usize]>,
        elements: &[B],
    ) -> Result<Self, TensorError> {
        let shape = counted(shape.as_ref(), elements.len())?;
        Ok(Self { dtype: DType::Bytes, shape, data: strings::written(elements)?.into() })
    }

    /// Takes bytes in the layout of the Open Inference Protocol as they are. They are copied only where they are not
    /// aligned for their type.
    ///
    /// # Errors
    /// [`TensorError::Size`] or, for strings, [`TensorError::Count`] where the shape asks for another number;
    /// [`TensorError::Rank`], [`TensorError::Bool`] and [`TensorError::Cut`] as they say.
    pub fn from_bytes(
        dtype: DType,
        shape: impl AsRef<[usize]>,
        mut data: Bytes,
    ) -> Result<Self, TensorError> {
        let shape = shape.as_ref();
        let Some(size) = dtype.size() else {
            return Ok(Self { dtype, shape: counted(shape, strings::count(&data)?)?, data });
        };
        let extents = Shape::new(shape)?;
        let want = extents.n_elements().and_then(|n| n.checked_mul(size));
        if want != Some(data.len()) {
            let (shape, want, got) = (shape.to_vec(), number(want), data.len());
            return Err(TensorError::Size { dtype, shape, want, got });
        }
        if dtype == DType::Bool && data.iter().any(|byte| *byte > 1) {
            return Err(TensorError::Bool);
        }
        if !data.as_ptr().addr().is_multiple_of(size) {
            data = buffer::gathered(size, std::iter::once(&data[..]));
        }
        Ok(Self { dtype, shape: extents, data })
    }

    /// The extent of each axis.
    pub fn shape(&self) -> &[usize] {
        self.shape.extents()
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Counts the elements.
    pub fn n_elements(&self) -> usize {
        self.shape().iter().product()
    }

    /// Counts the bytes that the elements take.
    pub fn n_bytes(&self) -> usize {
        self.data.len()
    }

    /// The elements, row-major, where they are of type `T`.
    ///
    /// # Errors
    /// [`TensorError::Type`] where they are of another.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        if self.dtype != T::DTYPE {
            return Err(TensorError::Type { want: T::DTYPE, got: self.dtype });
        }
        if self.data.is_empty() {
            return Ok(&[]);
        }
        // The constructors hold alignment, size and values, so that only a bool can be found wanting.
        T::of_bytes(&self.data).ok_or(TensorError::Bool)
    }

    /// The elements, row-major, where they are strings of bytes.
    ///
    /// # Errors
    /// [`TensorError::Type`] where they are something else.
    pub fn strings(&self) -> Result<Strings<'_>, TensorError> {
        match self.dtype {
            DType::Bytes => Ok(Strings::new(&self.data)),
            got => Err(TensorError::Type { want: DType::Bytes, got }),
        }
    }

    /// The bytes, as [`Tensor::from_bytes`] takes them.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// Stacks rows of one shape and type along a new leading axis. A single row is not copied.
    ///
    /// # Errors
    /// [`TensorError::NoRows`], [`TensorError::Ragged`] and [`TensorError::Rank`] as they say.
    pub fn stack<'a>(rows: impl ExactSizeIterator<Item = &'a Tensor> + Clone) -> Result<Self, TensorError> {
        let first = same(rows.clone(), |first, other| first.shape == other.shape)?;
        let shape = first.shape.under(rows.len())?;
        Ok(Self { dtype: first.dtype, shape, data: first.with(rows) })
    }

    /// Joins tensors along their leading axis, below which they are of one shape and type. A single one is not copied.
    ///
    /// # Errors
    /// As [`Tensor::stack`]; [`TensorError::Split`] where one is a single element.
    pub fn concat<'a>(parts: impl ExactSizeIterator<Item = &'a Tensor> + Clone) -> Result<Self, TensorError> {
        let below = |tensor: &Tensor| tensor.shape.split_first().map(|(_, below)| below);
        let first = same(parts.clone(), |first, other| below(first) == below(other))?;
        let shape = below(first).ok_or(TensorError::Split { rows: 0, want: 1 })?;
        let n_rows = parts.clone().filter_map(|part| part.shape().first()).sum();
        Ok(Self { dtype: first.dtype, shape: shape.under(n_rows)?, data: first.with(parts) })
    }

    /// Splits along the leading axis into `n_rows` tensors that lack that axis, without a copy.
    ///
    /// # Errors
    /// [`TensorError::Split`] where the leading axis has another extent.
    pub fn split(&self, n_rows: usize) -> Result<Vec<Self>, TensorError> {
        let Some((rows, shape)) = self.shape.split_first().filter(|(rows, _)| *rows == n_rows) else {
            let rows = self.shape().first().copied().unwrap_or(0);
            return Err(TensorError::Split { rows, want: n_rows });
        };
        let n_each = shape.n_elements().unwrap_or(0);
        let mut cursor = Cursor::new(self);
        let row = |_| Self { dtype: self.dtype, shape, data: cursor.next(n_each) };
        Ok((0..rows).map(row).collect())
    }

    /// Returns rows `range` of the leading axis, without a copy.
    ///
    /// # Errors
    /// [`TensorError::Split`] where there are fewer.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Result<Self, TensorError> {
        let split =
            self.shape.split_first().filter(|(rows, _)| range.start <= range.end && range.end <= *rows);
        let Some((rows, below)) = split else {
            let rows = self.shape().first().copied().unwrap_or(0);
            return Err(TensorError::Split { rows, want: range.end });
        };
        if range == (0..rows) {
            return Ok(self.clone());
        }
        let n_each = below.n_elements().unwrap_or(0);
        let mut cursor = Cursor::new(self);
        cursor.next(range.start * n_each);
        let data = cursor.next(range.len() * n_each);
        Ok(Self { dtype: self.dtype, shape: below.under(range.len())?, data })
    }

    /// Names type and shape, as in `f32 [1, 48, 48]`.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.dtype, self.shape)
    }

    /// The bytes of tensors of this one's type, one after the other.
    fn with<'a>(&self, parts: impl ExactSizeIterator<Item = &'a Tensor> + Clone) -> Bytes {
        match parts.len() {
            1 => self.data.clone(),
            _ => buffer::gathered(self.dtype.size().unwrap_or(1), parts.map(|part| &part.data[..])),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// What is shown of a tensor's bytes.
        const SHOWN: usize = 64;
        let shown = &self.data[..self.data.len().min(SHOWN)];
        write!(f, "{} {shown:?}", self.describe())?;
        if shown.len() < self.data.len() { write!(f, " of {} bytes", self.data.len()) } else { Ok(()) }
    }
}

/// The tensors of one run, in the order of the network's signature.
pub type Tensors = Vec<Tensor>;

/// Walks over a tensor's elements.
struct Cursor<'a> {
    tensor: &'a Tensor,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(tensor: &'a Tensor) -> Self {
        Self { tensor, at: 0 }
    }

    /// The bytes of the next `n` elements.
    fn next(&mut self, n: usize) -> Bytes {
        let data = &self.tensor.data;
        let n_bytes = match self.tensor.dtype.size() {
            Some(size) => n * size,
            None => Strings::new(&data[self.at..]).skip_bytes(n),
        };
        let start = self.at;
        self.at += n_bytes;
        data.slice(start..self.at)
    }
}

/// Checks that a shape holds `n` elements.
fn counted(shape: &[usize], n: usize) -> Result<Shape, TensorError> {
    let extents = Shape::new(shape)?;
    let want = extents.n_elements();
    if want == Some(n) {
        return Ok(extents);
    }
    Err(TensorError::Count { shape: shape.to_vec(), want: number(want), got: n })
}

fn number(n: Option<usize>) -> String {
    n.map_or_else(|| "too many".to_owned(), |n| n.to_string())
}

/// The first of `tensors`, where all have its type and `fit` it.
fn same<'a>(
    mut tensors: impl Iterator<Item = &'a Tensor>,
    fit: impl Fn(&Tensor, &Tensor) -> bool,
) -> Result<&'a Tensor, TensorError> {
    let first = tensors.next().ok_or(TensorError::NoRows)?;
    match tensors.find(|other| other.dtype != first.dtype || !fit(first, other)) {
        Some(other) => Err(TensorError::Ragged { first: first.describe(), other: other.describe() }),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests;
