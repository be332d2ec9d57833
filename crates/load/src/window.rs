//! The measured part of a run, as every caller sees it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Not known yet.
const UNKNOWN: u64 = u64::MAX;

/// From when until when requests are measured, in nanoseconds since the start of the run. Either end may
/// become known only as the run goes.
pub(super) struct Window {
    pub(super) began: Instant,
    from: AtomicU64,
    until: AtomicU64,
}

impl Window {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, from: AtomicU64::new(UNKNOWN), until: AtomicU64::new(UNKNOWN) }
    }

    /// Measuring starts so long after the start of the run.
    pub(super) fn opens(&self, at: Duration) {
        self.from.store(nanoseconds(at), Ordering::Release);
    }

    /// Measuring ends so long after the start of the run.
    pub(super) fn closes(&self, at: Duration) {
        self.until.store(nanoseconds(at), Ordering::Release);
    }

    pub(super) fn from(&self) -> Option<Duration> {
        known(self.from.load(Ordering::Acquire))
    }

    pub(super) fn until(&self) -> Option<Duration> {
        known(self.until.load(Ordering::Acquire))
    }

    /// How long after the start of the run `moment` is.
    pub(super) fn offset(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.began)
    }

    /// Whether nothing is sent at that time any more.
    pub(super) fn is_over(&self, at: Duration) -> bool {
        nanoseconds(at) >= self.until.load(Ordering::Acquire)
    }

    /// Whether what happens at that time is measured.
    pub(super) fn holds(&self, at: Duration) -> bool {
        self.from().is_some_and(|from| at >= from) && !self.is_over(at)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(UNKNOWN - 1)
}

fn known(nanoseconds: u64) -> Option<Duration> {
    (nanoseconds != UNKNOWN).then(|| Duration::from_nanos(nanoseconds))
}
