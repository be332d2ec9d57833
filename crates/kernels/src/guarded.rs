//! Memory for tests that ends at a protected page: to read or write one number too far ends the test.

#![expect(unsafe_code, reason = "pages are asked of the kernel")]

use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE: usize = 4096;

/// Bytes of the pages that `len` numbers and the protected page take.
fn mapped<T>(len: usize) -> usize {
    (len * size_of::<T>()).next_multiple_of(PAGE) + PAGE
}

/// Maps `len` zeros, the last of which ends at a protected page.
pub(super) fn map<T>(len: usize) -> NonNull<T> {
    let bytes = mapped::<T>(len);
    // SAFETY: new pages, where the kernel wants them; the last one holds nothing yet.
    unsafe {
        let pages =
            mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
                .unwrap();
        let guard = pages.byte_add(bytes - PAGE);
        mprotect(guard, PAGE, MprotectFlags::empty()).unwrap();
        NonNull::new(guard.byte_sub(len * size_of::<T>()).cast()).unwrap()
    }
}

/// Gives back what [`map`] made.
///
/// # Safety
/// `start` came of [`map`] with the same `len`, and nothing borrows it any more.
pub(super) unsafe fn unmap<T>(start: NonNull<T>, len: usize) {
    let bytes = mapped::<T>(len);
    // SAFETY: the caller's; the pages begin so far before their end.
    unsafe {
        let pages = start.as_ptr().byte_add(len * size_of::<T>() + PAGE).byte_sub(bytes);
        munmap(pages.cast(), bytes).unwrap();
    }
}
