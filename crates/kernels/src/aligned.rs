//! Plains that begin at a cache line.
//!
//! Invariant: the memory is owned, zeroed when it is made, and as long as the slice says. In tests
//! buffers end at a protected page, so that every test finds a kernel that reads too far.

#![expect(unsafe_code, reason = "alignment beyond that of the element is asked of the allocator itself")]

use std::{
    any::TypeId,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

#[cfg(test)]
use self::guarded as allocator;
use super::bf16::Bf16;
#[cfg(test)]
use super::guarded;

/// Bits that stand for themselves. No other room can name it, so that it seals what asks for it.
///
/// # Safety
/// All bits zero is a value, and no value owns anything.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

// SAFETY: it is plain.
unsafe impl Plain for f32 {}
// SAFETY: it is two plain bytes.
unsafe impl Plain for Bf16 {}

/// The same slice under the other name of its numbers.
///
/// # Panics
/// Where they are others.
pub(super) fn same<A: Plain, B: Plain>(slice: &[A]) -> &[B] {
    assert!(TypeId::of::<A>() == TypeId::of::<B>(), "two names of one number");
    // SAFETY: the types are one, and the borrow goes on.
    unsafe { std::slice::from_raw_parts(slice.as_ptr().cast(), slice.len()) }
}

/// [`same`], to write to.
///
/// # Panics
/// Where they are others.
pub(super) fn same_mut<A: Plain, B: Plain>(slice: &mut [A]) -> &mut [B] {
    assert!(TypeId::of::<A>() == TypeId::of::<B>(), "two names of one number");
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast(), slice.len()) }
}

/// A zeroed slice of numbers that begins at a cache line.
pub(super) struct Aligned<T: Plain = f32> {
    start: NonNull<T>,
    len: usize,
    memory: Memory,
}

/// Whose memory it is.
#[derive(Debug, Clone, Copy)]
enum Memory {
    Allocated,
    /// Pages of the kernel, which lends them as they are written.
    Lent,
}

// SAFETY: it owns its memory as a `Vec` does, and hands it out by the borrow of itself only.
unsafe impl<T: Plain> Send for Aligned<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Aligned<T> {}

impl<T: Plain> Aligned<T> {
    /// Makes `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self { start: allocator::map(len), len, memory: Memory::Allocated }
    }

    /// Makes `len` zeros that take memory as they are written: for buffers that are large, are kept for
    /// long and may stay empty. Pages are small: huge ones would gain a few percent, and fill an idle
    /// server's memory with the neighbours of the few words that it has met.
    pub(super) fn lent(len: usize) -> Self {
        match pages::map(len) {
            Some(start) => Self { start, len, memory: Memory::Lent },
            None => Self::zeros(len),
        }
    }

    /// Copies numbers.
    #[cfg(test)]
    pub(super) fn of(numbers: &[T]) -> Self {
        let mut copy = Self::zeros(numbers.len());
        copy.copy_from_slice(numbers);
        copy
    }

    /// The first number, for a kernel that writes parts while others are read.
    pub(super) fn start(&self) -> *mut T {
        self.start.as_ptr()
    }
}

#[cfg(not(test))]
mod allocator {
    use std::{
        alloc::{self, Layout},
        ptr::NonNull,
    };

    use super::Plain;

    /// The size of a cache line, and of the widest register.
    const LINE: usize = 64;

    /// A size that overflows is one that no allocator has either.
    fn layout<T>(len: usize) -> Layout {
        let bytes = len.max(1).saturating_mul(size_of::<T>());
        Layout::from_size_align(bytes, LINE).unwrap_or_else(|_| alloc::handle_alloc_error(Layout::new::<T>()))
    }

    /// Allocates `len` zeros.
    pub(super) fn map<T: Plain>(len: usize) -> NonNull<T> {
        let layout = layout::<T>(len);
        // SAFETY: the layout has at least one number, so its size is not zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        NonNull::new(start.cast()).unwrap_or_else(|| alloc::handle_alloc_error(layout))
    }

    /// Gives back what [`map`] made.
    ///
    /// # Safety
    /// `start` came of [`map`] with the same `len`, and nothing borrows it any more.
    pub(super) unsafe fn unmap<T: Plain>(start: NonNull<T>, len: usize) {
        // SAFETY: the caller's.
        unsafe { alloc::dealloc(start.as_ptr().cast(), layout::<T>(len)) }
    }
}

#[cfg(target_os = "linux")]
mod pages {
    use std::ptr::{self, NonNull};

    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    use super::Plain;

    fn bytes<T>(len: usize) -> Option<usize> {
        len.max(1).checked_mul(size_of::<T>())
    }

    /// Maps `len` zeros from the beginning of a page on; nothing where the kernel has no room.
    pub(super) fn map<T: Plain>(len: usize) -> Option<NonNull<T>> {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new pages, where the kernel wants them.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes::<T>(len)?, flags, MapFlags::PRIVATE) };
        NonNull::new(start.ok()?.cast())
    }

    /// Gives back what [`map`] made.
    ///
    /// # Safety
    /// `start` came of [`map`] with the same `len`, and nothing borrows it any more.
    pub(super) unsafe fn unmap<T: Plain>(start: NonNull<T>, len: usize) {
        // It had a size when it was made; pages that the kernel keeps are lost, and nothing else.
        // SAFETY: the caller's.
        let _kept = bytes::<T>(len).map(|bytes| unsafe { munmap(start.as_ptr().cast(), bytes) });
    }
}

/// Elsewhere all memory is allocated.
#[cfg(not(target_os = "linux"))]
mod pages {
    use std::ptr::NonNull;

    use super::Plain;

    pub(super) fn map<T: Plain>(_len: usize) -> Option<NonNull<T>> {
        None
    }

    /// Gives back nothing: nothing was made.
    ///
    /// # Safety
    /// It is never called.
    pub(super) unsafe fn unmap<T: Plain>(_start: NonNull<T>, _len: usize) {}
}

impl<T: Plain> Drop for Aligned<T> {
    fn drop(&mut self) {
        // SAFETY: it was made with this length in this way, and nothing borrows it any more.
        unsafe {
            match self.memory {
                Memory::Allocated => allocator::unmap(self.start, self.len),
                Memory::Lent => pages::unmap(self.start, self.len),
            }
        }
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` numbers were allocated and zeroed, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Kilobytes of this process that lie in memory, between the bounds of a buffer.
    fn resident(buffer: &Aligned) -> usize {
        let start = buffer.start() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_inside = false;
        let mut total = 0;
        for line in maps.lines() {
            let bounds = line.split(' ').next().and_then(|bounds| bounds.split_once('-'));
            let bounds = bounds.and_then(|(from, to)| {
                Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
            });
            if let Some((from, to)) = bounds {
                is_inside = start < to && from < start + size_of_val(&**buffer);
            } else if let Some(n) = line.strip_prefix("Rss:").filter(|_| is_inside) {
                total += n.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            }
        }
        total
    }

    #[test]
    fn lent_zeros_take_memory_as_they_are_written() {
        let mut buffer: Aligned = Aligned::lent(100 << 20);
        assert_eq!(buffer.start() as usize % 4096, 0);
        assert!(
            resident(&buffer) <= 8 << 10,
            "{} kB of 400 MB before anything is written",
            resident(&buffer)
        );
        let last = buffer.len() - 1;
        assert!(buffer[0] == 0.0 && buffer[last / 2] == 0.0 && buffer[last] == 0.0);
        (buffer[0], buffer[last]) = (1.0, 2.0);
        assert!(resident(&buffer) <= 16 << 10, "{} kB for two numbers", resident(&buffer));
        assert!(buffer[0] == 1.0 && buffer[last] == 2.0 && buffer[1] == 0.0);
    }
}
