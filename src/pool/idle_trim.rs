//! When a worker with nothing to do has freed memory go back to the system.
//!
//! Invariant: plain data, with no clock of its own.
//!
//! Between two requests once a second, so that none pays for it (see `allocator`), and once after the last.

use std::time::{Duration, Instant};

/// A little longer than mimalloc keeps what was freed (its option `purge_delay`, a second).
const AFTER: Duration = Duration::from_millis(1050);

/// When one worker next has memory go back.
#[derive(Debug, Default)]
pub(super) struct IdleTrim {
    last_work: Option<Instant>,
    due: Option<Instant>,
}

impl IdleTrim {
    /// Records that the worker has worked until `now`.
    pub(super) fn worked(&mut self, now: Instant) {
        self.last_work = Some(now);
        self.due.get_or_insert(now + AFTER);
    }

    /// Returns whether it is time, which it then is not any more until more was freed or kept long enough.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = self.last_work.map(|last| last + AFTER).filter(|due| now < *due);
        true
    }

    /// When a worker that has nothing to do is to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn memory_goes_back_once_a_second_and_once_after_the_last_work() {
        let (mut trim, epoch) = (IdleTrim::default(), Instant::now());
        assert!(!trim.is_due(epoch) && trim.due().is_none(), "nothing was freed");
        let mut times = Vec::new();
        for ms in 0..5000 {
            let now = epoch + ms * MS;
            if ms <= 2500 && ms % 10 == 0 {
                trim.worked(now);
            } else if trim.is_due(now) {
                times.push(ms);
            }
        }
        assert_eq!(times, [1051, 2101, 3150, 3550]);
        assert_eq!(trim.due(), None, "nobody is woken for nothing");
    }
}
