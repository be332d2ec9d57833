//! Elements of [`DType::Bytes`](super::DType::Bytes), as the Open Inference Protocol writes them: each is its length, four
//! bytes with the least first, and then as many bytes.

use super::TensorError;

/// Bytes of the length before an element.
const PREFIX: usize = size_of::<u32>();

/// Writes elements one after the other.
///
/// # Errors
/// [`TensorError::Long`] where an element has 4 GiB or more.
pub(super) fn written<B: AsRef<[u8]>>(elements: &[B]) -> Result<Vec<u8>, TensorError> {
    let n_bytes = elements.iter().map(|element| PREFIX + element.as_ref().len()).sum();
    let mut written = Vec::with_capacity(n_bytes);
    for element in elements {
        let element = element.as_ref();
        let length = u32::try_from(element.len()).map_err(|_| TensorError::Long { length: element.len() })?;
        written.extend_from_slice(&length.to_le_bytes());
        written.extend_from_slice(element);
    }
    Ok(written)
}

/// Counts the elements of `bytes`.
///
/// # Errors
/// [`TensorError::Cut`] where the last of them is not whole.
pub(super) fn count(bytes: &[u8]) -> Result<usize, TensorError> {
    let mut elements = Strings::new(bytes);
    let n = elements.by_ref().count();
    match elements.rest {
        [] => Ok(n),
        rest => Err(TensorError::Cut { rest: rest.len(), element: n }),
    }
}

/// The elements, each without its length.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Strings<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that the next `n` elements take, their lengths included.
    pub(super) fn skip_bytes(&mut self, n: usize) -> usize {
        let before = self.rest.len();
        self.by_ref().take(n).for_each(drop);
        before - self.rest.len()
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<PREFIX>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (element, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(element)
    }
}
