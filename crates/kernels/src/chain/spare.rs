//! Buffers of programs that no run uses just now.
//!
//! Invariant: what all of them take together is bounded, whatever sizes of pictures are asked for; those
//! that were used last are kept.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Scratch;
use crate::{bf16::Bf16, maps::Number};

/// Most bytes that are kept: the buffers of two large pictures, and of many small ones.
const MOST: usize = 24 << 20;

static KEPT: Mutex<Kept> = Mutex::new(Kept { bytes: 0, buffers: VecDeque::new() });

/// All that is kept, of all programs of the process: those used last at the back.
struct Kept {
    bytes: usize,
    buffers: VecDeque<Buffer>,
}

struct Buffer {
    program: u64,
    bytes: usize,
    scratch: Any,
}

pub(super) enum Any {
    F32(Scratch<f32>),
    Bf16(Scratch<Bf16>),
}

/// Numbers whose buffers are kept.
pub(super) trait Keep: Number {
    fn keep(scratch: Scratch<Self>) -> Any;
    fn kept(any: Any) -> Option<Scratch<Self>>;
}

impl Keep for f32 {
    fn keep(scratch: Scratch<Self>) -> Any {
        Any::F32(scratch)
    }

    fn kept(any: Any) -> Option<Scratch<Self>> {
        match any {
            Any::F32(scratch) => Some(scratch),
            Any::Bf16(_) => None,
        }
    }
}

impl Keep for Bf16 {
    fn keep(scratch: Scratch<Self>) -> Any {
        Any::Bf16(scratch)
    }

    fn kept(any: Any) -> Option<Scratch<Self>> {
        match any {
            Any::Bf16(scratch) => Some(scratch),
            Any::F32(_) => None,
        }
    }
}

/// The buffers of one program. They go with it.
pub(super) struct Spare(u64);

impl Spare {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// A buffer that another run of the program has left.
    pub(super) fn take<N: Keep>(&self) -> Option<Scratch<N>> {
        lock().take(self.0).and_then(N::kept)
    }

    /// Keeps a buffer that takes so many bytes for the program's next run.
    pub(super) fn give<N: Keep>(&self, bytes: usize, scratch: Scratch<N>) {
        let over = lock().give(Buffer { program: self.0, bytes, scratch: N::keep(scratch) });
        // Nothing is given back to the system under the lock.
        drop(over);
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        let gone = lock().part(|buffer| buffer.program == self.0);
        drop(gone);
    }
}

impl Kept {
    fn take(&mut self, program: u64) -> Option<Any> {
        let at = self.buffers.iter().rposition(|buffer| buffer.program == program)?;
        let Buffer { bytes, scratch, .. } = self.buffers.remove(at)?;
        self.bytes -= bytes;
        Some(scratch)
    }

    /// Keeps a buffer; answers those that are too many now.
    fn give(&mut self, buffer: Buffer) -> Vec<Buffer> {
        self.bytes += buffer.bytes;
        self.buffers.push_back(buffer);
        let mut over = Vec::new();
        while self.bytes > MOST
            && let Some(oldest) = self.buffers.pop_front()
        {
            self.bytes -= oldest.bytes;
            over.push(oldest);
        }
        over
    }

    /// Takes out the buffers that are meant.
    fn part(&mut self, is_meant: impl Fn(&Buffer) -> bool) -> Vec<Buffer> {
        let (gone, left): (Vec<_>, Vec<_>) = self.buffers.drain(..).partition(is_meant);
        self.buffers.extend(left);
        self.bytes -= gone.iter().map(|buffer| buffer.bytes).sum::<usize>();
        gone
    }
}

fn lock() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aligned::Aligned;

    fn buffer(program: u64, bytes: usize) -> Buffer {
        let scratch = Any::F32(Scratch { maps: Aligned::zeros(1), rows: Aligned::zeros(1) });
        Buffer { program, bytes, scratch }
    }

    fn none() -> Kept {
        Kept { bytes: 0, buffers: VecDeque::new() }
    }

    #[test]
    fn a_buffer_comes_back_to_its_own_program_alone_and_once() {
        let mut kept = none();
        assert!(kept.give(buffer(1, 5)).is_empty());
        assert!(kept.take(2).is_none());
        assert!(kept.take(1).is_some());
        assert!(kept.take(1).is_none());
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn what_was_used_longest_ago_goes_where_it_is_too_much() {
        let mut kept = none();
        (1..=3).for_each(|program| assert!(kept.give(buffer(program, MOST / 3)).is_empty()));
        let again = kept.take(1).map(|scratch| Buffer { program: 1, bytes: MOST / 3, scratch });
        assert!(again.is_some_and(|buffer| kept.give(buffer).is_empty()));
        let over: Vec<u64> = kept.give(buffer(4, MOST / 2)).iter().map(|buffer| buffer.program).collect();
        assert_eq!(over, [2, 3]);
        assert!(kept.bytes <= MOST);
        assert_eq!(kept.give(buffer(5, MOST + 1)).len(), 3, "more than all is not kept");
        assert_eq!((kept.bytes, kept.buffers.len()), (0, 0));
    }

    #[test]
    fn the_buffers_of_a_program_go_with_it() {
        let mut kept = none();
        (1..=4).for_each(|program| drop(kept.give(buffer(program % 2, 7))));
        assert_eq!(kept.part(|buffer| buffer.program == 0).len(), 2);
        assert_eq!((kept.bytes, kept.buffers.len()), (14, 2));
    }
}
