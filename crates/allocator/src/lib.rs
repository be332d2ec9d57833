//! The allocator: counts the memory of a decode, and gives freed memory back to the system at good moments.
//!
//! Invariant: counting changes no allocation and fails none. A budget that is exceeded is a fact that whoever
//! feeds the decoder asks for ([`is_over_budget`]); returning null would end the process, and unwinding out of
//! an allocator is undefined.
//!
//! Whoever gives memory back is between two requests. Left alone, mimalloc gives back once a second at most,
//! when some thread next takes or frees pages: in the middle of a request, most likely, which then takes ten
//! milliseconds longer after a start or a burst of photographs.

#![expect(unsafe_code, reason = "the allocator's library is C, and `GlobalAlloc` is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
};

use mimalloc::MiMalloc;

/// Small allocations that another thread frees are a seventh of a request's CPU time with the C library's
/// own allocator.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Constant and without a destructor, so that it may be read by any allocation, also the first and the last
    /// ones of a thread.
    static BOOK: Book = const { Book::closed() };
}

/// What this thread allocates while a count is open. Bytes freed that were held before count as negative.
struct Book {
    is_open: Cell<bool>,
    held: Cell<i64>,
    peak: Cell<i64>,
    budget: Cell<i64>,
}

impl Book {
    const fn closed() -> Self {
        Self {
            is_open: Cell::new(false),
            held: Cell::new(0),
            peak: Cell::new(0),
            budget: Cell::new(i64::MAX),
        }
    }

    /// Counts `held` bytes more, and `passing` on top of them for a moment.
    fn count(&self, held: i64, passing: i64) {
        let held = self.held.get() + held;
        self.held.set(held);
        self.peak.set(self.peak.get().max(held + passing));
    }
}

/// mimalloc, and a count of what a thread holds.
struct Counting;

/// A layout's size never exceeds `isize::MAX`.
fn counted_size(bytes: usize) -> i64 {
    bytes as i64
}

fn count(held: i64, passing: i64) {
    BOOK.with(|book| {
        if book.is_open.get() {
            book.count(held, passing);
        }
    });
}

// SAFETY: each method hands its arguments to mimalloc's method of the same name and returns its result; what is
// counted on the way touches thread-local numbers only, allocates nothing and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(counted_size(layout.size()), 0);
        // SAFETY: the caller's contract is mimalloc's.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(counted_size(layout.size()), 0);
        // SAFETY: the caller's contract is mimalloc's.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-counted_size(layout.size()), 0);
        // SAFETY: the caller's contract is mimalloc's.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is mimalloc's.
        let moved = unsafe { MiMalloc.realloc(block, layout, new_size) };
        // A block that moves is there twice while it is copied.
        let (old, new) = (counted_size(layout.size()), counted_size(new_size));
        count(new - old, if moved == block { 0 } else { old });
        moved
    }
}

/// Runs `work` and counts what this thread allocates meanwhile. Returns its result and the most bytes that were
/// held at once, beyond what was held before. Counts nest; an inner one is part of the outer one.
///
/// `budget`, in bytes, changes nothing by itself: see [`is_over_budget`].
pub fn counted<T>(budget: u64, work: impl FnOnce() -> T) -> (T, u64) {
    /// Continues the outer count, also where `work` panics.
    struct Outer {
        is_open: bool,
        held: i64,
        peak: i64,
        budget: i64,
    }
    impl Drop for Outer {
        fn drop(&mut self) {
            BOOK.with(|book| {
                book.peak.set(self.peak.max(self.held + book.peak.get()));
                book.held.set(self.held + book.held.get());
                book.budget.set(self.budget);
                book.is_open.set(self.is_open);
            });
        }
    }
    let outer = BOOK.with(|book| Outer {
        is_open: book.is_open.replace(true),
        held: book.held.replace(0),
        peak: book.peak.replace(0),
        budget: book.budget.replace(i64::try_from(budget).unwrap_or(i64::MAX)),
    });
    let result = work();
    let peak = BOOK.with(|book| book.peak.get());
    drop(outer);
    (result, peak.unsigned_abs())
}

/// Returns whether the innermost count of this thread has exceeded its budget.
pub fn is_over_budget() -> bool {
    BOOK.with(|book| book.is_open.get() && book.peak.get() > book.budget.get())
}

/// What is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveBack {
    /// What was freed long ago: for mimalloc, a second (its option `purge_delay`).
    Old,
    /// All that is free: what is needed again soon costs a page fault for each four kilobytes.
    All,
}

/// Gives back what this thread or, of whole pages, any thread has freed.
pub fn give_back(what: GiveBack) {
    // SAFETY: any thread may call it at any time; it asks for no pointer and gives none.
    unsafe { libmimalloc_sys::mi_collect(what == GiveBack::All) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_the_most_that_was_held_at_once() {
        let (kept, peak) = counted(u64::MAX, || {
            let first = vec![1u8; 50_000];
            drop(vec![1u8; 30_000]);
            let second = vec![0u8; 10_000];
            (first.len(), second)
        });
        assert_eq!((kept.0, kept.1.len(), peak), (50_000, 10_000, 80_000));
    }

    #[test]
    fn a_block_that_moves_counts_twice_and_one_that_was_held_before_is_no_new_one() {
        let before = vec![1u8; 40_000];
        let ((), peak) = counted(u64::MAX, || {
            drop(before);
            let mut growing = vec![1u8; 4_000_000];
            growing.reserve_exact(40_000_000);
        });
        assert!((40_000_000..=48_000_000).contains(&peak), "{peak}");
        let ((), peak) = counted(u64::MAX, || ());
        assert_eq!(peak, 0);
    }

    #[test]
    fn counts_nest_and_each_has_its_own_budget() {
        let ((), outer) = counted(50_000, || {
            let held = vec![1u8; 40_000];
            let ((), inner) = counted(5_000, || {
                assert!(!is_over_budget());
                drop(vec![1u8; 6_000]);
                assert!(is_over_budget(), "freed again, and still over");
            });
            assert_eq!(inner, 6_000);
            assert!(!is_over_budget());
            drop(held);
            drop(vec![1u8; 51_000]);
            assert!(is_over_budget());
        });
        assert_eq!(outer, 51_000);
        assert!(!is_over_budget());
    }

    #[test]
    fn a_panic_closes_the_count() {
        let caught = std::panic::catch_unwind(|| counted(10, || panic!("{}", "long enough ".repeat(9))));
        assert!(caught.is_err());
        assert!(!is_over_budget());
        let ((), peak) = counted(u64::MAX, || drop(vec![1u8; 10]));
        assert_eq!(peak, 10);
    }
}
