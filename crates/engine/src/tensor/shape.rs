//! The extents of a tensor's axes.

use std::fmt;

use super::TensorError;

/// Most axes that a tensor has.
pub const MAX_RANK: usize = 8;

/// The extent of each axis, the outermost first; kept without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    extents: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// # Errors
    /// [`TensorError::Rank`] where there are more than [`MAX_RANK`] axes.
    pub(super) fn new(shape: &[usize]) -> Result<Self, TensorError> {
        let mut extents = [0; MAX_RANK];
        match extents.get_mut(..shape.len()) {
            Some(head) => head.copy_from_slice(shape),
            None => return Err(TensorError::Rank { rank: shape.len() }),
        }
        Ok(Self { extents, rank: shape.len() })
    }

    pub(super) fn extents(&self) -> &[usize] {
        &self.extents[..self.rank]
    }

    /// Counts the elements; `None` where the count overflows.
    pub(super) fn n_elements(&self) -> Option<usize> {
        self.extents().iter().try_fold(1usize, |n, extent| n.checked_mul(*extent))
    }

    /// Puts an axis of `n` before all others.
    pub(super) fn under(&self, n: usize) -> Result<Self, TensorError> {
        if self.rank == MAX_RANK {
            return Err(TensorError::Rank { rank: MAX_RANK + 1 });
        }
        let mut extents = [0; MAX_RANK];
        extents[0] = n;
        extents[1..=self.rank].copy_from_slice(self.extents());
        Ok(Self { extents, rank: self.rank + 1 })
    }

    /// Takes the outermost axis off: its extent and the shape of what lies below it. `None` for a single element.
    pub(super) fn split_first(&self) -> Option<(usize, Self)> {
        let (first, rest) = self.extents().split_first()?;
        let mut extents = [0; MAX_RANK];
        extents[..rest.len()].copy_from_slice(rest);
        Some((*first, Self { extents, rank: rest.len() }))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.extents().fmt(f)
    }
}
