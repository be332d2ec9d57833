//! Numbers that begin at a cache line.
//!
//! Invariant: the memory is owned, zeroed when it is made, and as long as the slice says. Large
//! buffers cost nothing until they are written: the kernel lends their pages one by one. In tests
//! buffers end at a protected page instead, so that every test finds a kernel that reads too far.

#![expect(unsafe_code, reason = "alignment beyond that of the element is asked of the allocator itself")]

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

#[cfg(test)]
use super::guarded::{map, unmap};

/// A zeroed slice of numbers that begins at a cache line.
pub(super) struct Aligned {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: it owns its memory as a `Vec` does, and hands it out by the borrow of itself only.
unsafe impl Send for Aligned {}
// SAFETY: as above.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// Makes `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self { start: map(len), len }
    }

    /// Copies numbers.
    #[cfg(test)]
    pub(super) fn of(numbers: &[f32]) -> Self {
        let mut copy = Self::zeros(numbers.len());
        copy.copy_from_slice(numbers);
        copy
    }

    /// The first number, for a kernel that writes parts while others are read.
    pub(super) fn start(&self) -> *mut f32 {
        self.start.as_ptr()
    }
}

#[cfg(not(test))]
use self::allocator::{map, unmap};

#[cfg(not(test))]
mod allocator {
    use std::{
        alloc::{self, Layout},
        ptr::NonNull,
    };

    /// The size of a cache line, and of the widest register.
    const LINE: usize = 64;

    /// A size that overflows is one that no allocator has either.
    fn layout(len: usize) -> Layout {
        let bytes = len.max(1).saturating_mul(size_of::<f32>());
        Layout::from_size_align(bytes, LINE)
            .unwrap_or_else(|_| alloc::handle_alloc_error(Layout::new::<[f32; 16]>()))
    }

    /// Allocates `len` zeros.
    pub(super) fn map(len: usize) -> NonNull<f32> {
        let layout = layout(len);
        // SAFETY: the layout has at least one number, so its size is not zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        NonNull::new(start.cast()).unwrap_or_else(|| alloc::handle_alloc_error(layout))
    }

    /// Gives back what [`map`] made.
    ///
    /// # Safety
    /// `start` came of [`map`] with the same `len`, and nothing borrows it any more.
    pub(super) unsafe fn unmap(start: NonNull<f32>, len: usize) {
        // SAFETY: the caller's.
        unsafe { alloc::dealloc(start.as_ptr().cast(), layout(len)) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: it was made with this length, and nothing borrows it any more.
        unsafe { unmap(self.start, self.len) }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` numbers were allocated and zeroed, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}
