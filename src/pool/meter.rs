//! Wall and CPU time that a piece of work took on this thread.
//!
//! Reading a thread's CPU time is a system call, and dearer than small networks are to run: it is read
//! once a stage of a batch, and divided among the rows by their wall time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a piece of work took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl Spent {
    /// The part of it that took `wall` wall time.
    pub(super) fn part(&self, wall: Duration) -> Self {
        let whole = self.wall.as_secs_f64();
        let share = if whole > 0.0 { (wall.as_secs_f64() / whole).min(1.0) } else { 0.0 };
        Self { wall, cpu: self.cpu.mul_f64(share) }
    }
}

/// Measures from where it is started.
pub(super) struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { wall: Instant::now(), cpu: thread_cpu() }
    }

    pub(super) fn read(&self) -> Spent {
        Spent { wall: self.wall.elapsed(), cpu: thread_cpu().saturating_sub(self.cpu) }
    }

    /// Leaves out what took `time` of the processor, and is counted elsewhere.
    pub(super) fn leave_out(&mut self, time: Duration) {
        self.wall += time;
        self.cpu += time;
    }

    /// Reads, and measures from here on.
    pub(super) fn lap(&mut self) -> Spent {
        let now = Self::start();
        let spent = Spent { wall: now.wall - self.wall, cpu: now.cpu.saturating_sub(self.cpu) };
        *self = now;
        spent
    }
}

/// CPU time of the calling thread so far.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
