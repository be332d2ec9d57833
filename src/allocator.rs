//! The allocator, and the moments at which it gives freed memory back to the system.
//!
//! Invariant: whoever calls is between two requests. Left alone, mimalloc gives back once a second at most,
//! when some thread next takes or frees pages: in the middle of a request, most likely, which then takes ten
//! milliseconds longer after a start or a burst of photographs.

#![expect(unsafe_code, reason = "the allocator's library is C")]

/// Small allocations that another thread frees are a seventh of a request's CPU time with the C library's
/// own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveBack {
    /// What was freed long ago: for mimalloc, a second (its option `purge_delay`).
    Old,
    /// All that is free: what is needed again soon costs a page fault for each four kilobytes.
    All,
}

/// Gives back what this thread or, of whole pages, any thread has freed.
pub(crate) fn give_back(what: GiveBack) {
    // SAFETY: any thread may call it at any time; it asks for no pointer and gives none.
    unsafe { libmimalloc_sys::mi_collect(what == GiveBack::All) }
}
