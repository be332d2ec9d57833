//! What a connection does at present, as its socket, its service and whoever looks for a place see it.
//!
//! Invariant: a connection whose request is being answered is never asked to make way.

use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, OwnedSemaphorePermit};

/// A connection's place. Dropping it gives the place back.
pub(super) struct ConnectionPermit {
    pub(super) kind: PermitKind,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPermit {
    pub(super) fn new(kind: PermitKind, permit: OwnedSemaphorePermit) -> Self {
        Self { kind, _permit: permit }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PermitKind {
    Regular,
    /// Beyond the limit: one request is answered.
    Reserve,
}

/// How long a connection holds its place without progress before it may be asked to make way, where it is not
/// between two requests: then it may at once.
const REGULAR_GRACE: Duration = Duration::from_secs(1);
const RESERVE_GRACE: Duration = Duration::from_millis(50);

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the first byte of its first request.
    First,
    /// Waits for the first byte of its next request.
    Next,
    /// Waits for the rest of a request's head.
    Head,
    /// Answers a request.
    Answer,
    /// Waits for the caller to take some of its answer.
    Stalled,
    /// Is closed on this side, and reads on for a caller that is still sending.
    Lingering,
}

const PHASES: [Phase; 6] =
    [Phase::First, Phase::Next, Phase::Head, Phase::Answer, Phase::Stalled, Phase::Lingering];

/// Bits of a phase beside its time.
const PHASE_BITS: u32 = 3;

/// Times are told from here: an atomic number holds them.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Shared by a connection's socket and its service, and by the places.
pub(super) struct ConnectionState {
    /// How often a request has begun or ended.
    count: AtomicU64,
    /// Requests whose answers are being made, and those whose answers are not handed on whole.
    handled: AtomicUsize,
    open: AtomicUsize,
    /// Bytes of their heads, where many of them share a connection.
    heads: AtomicUsize,
    /// Requests that may still be abandoned.
    resets: AtomicI64,
    linger: AtomicBool,
    closes: AtomicBool,
    timed_out: AtomicBool,
    /// When bytes last went either way, in microseconds.
    moved: AtomicU64,
    /// Bytes have come from the socket since the last head was read.
    fed: AtomicBool,
    /// The phase, and since when in microseconds.
    phase: AtomicU64,
    kind: PermitKind,
    permit: Mutex<Option<ConnectionPermit>>,
    makes_way: AtomicBool,
    asked: Notify,
}

impl ConnectionState {
    /// Of a connection that has just been accepted.
    pub(super) fn new(permit: ConnectionPermit) -> Self {
        let state = Self {
            count: AtomicU64::new(0),
            handled: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            resets: AtomicI64::new(RESETS),
            linger: AtomicBool::new(false),
            closes: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            fed: AtomicBool::new(false),
            phase: AtomicU64::new(0),
            kind: permit.kind,
            permit: Mutex::new(Some(permit)),
            makes_way: AtomicBool::new(false),
            asked: Notify::new(),
        };
        state.enter(Phase::First, Instant::now());
        state
    }

    /// The place that it was accepted with.
    pub(super) fn kind(&self) -> PermitKind {
        self.kind
    }

    /// Begins a request, whose head of so many bytes has been read.
    pub(super) fn begin(self: &Arc<Self>, head: usize) -> Exchange {
        self.handled.fetch_add(1, Ordering::AcqRel);
        self.open.fetch_add(1, Ordering::AcqRel);
        self.heads.fetch_add(head, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
        self.phase.store(Phase::Answer as u64, Ordering::Relaxed);
        let came = if self.fed.swap(false, Ordering::Relaxed) { Came::Now } else { Came::Before };
        Exchange { state: Arc::clone(self), head, came, is_answered: false }
    }

    /// Requests whose answers are not handed on whole.
    pub(super) fn n_open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Bytes of their heads.
    pub(super) fn heads(&self) -> usize {
        self.heads.load(Ordering::Relaxed)
    }

    /// Whether the caller has abandoned more requests than it had answered.
    pub(super) fn is_flooded(&self) -> bool {
        self.resets.load(Ordering::Relaxed) < 0
    }

    /// Asks the connection to end in order: what is open is answered.
    pub(super) fn close(&self) {
        if !self.closes.swap(true, Ordering::AcqRel) {
            self.asked.notify_one();
        }
    }

    /// Whether the connection is to end in order.
    pub(super) fn closes(&self) -> bool {
        self.closes.load(Ordering::Acquire) || self.makes_way()
    }

    /// Has the connection look at its state.
    pub(super) fn nudge(&self) {
        self.asked.notify_one();
    }

    /// A wait on the caller was over.
    pub(super) fn time_out(&self) {
        self.timed_out.store(true, Ordering::Relaxed);
    }

    pub(super) fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Bytes went either way.
    pub(super) fn moved(&self, now: Instant) {
        let since = now.saturating_duration_since(*EPOCH).as_micros() as u64;
        self.moved.store(since, Ordering::Relaxed);
    }

    /// For how long no byte has gone either way.
    pub(super) fn still(&self, now: Instant) -> Duration {
        let moved = *EPOCH + Duration::from_micros(self.moved.load(Ordering::Relaxed));
        now.saturating_duration_since(moved)
    }

    /// How often a request has begun or ended.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Bytes have come.
    pub(super) fn feed(&self) {
        self.fed.store(true, Ordering::Relaxed);
    }

    /// Some of a request's body will never be read.
    pub(super) fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Ordering::Relaxed)
    }

    /// Enters a phase.
    pub(super) fn enter(&self, phase: Phase, now: Instant) {
        let since = now.saturating_duration_since(*EPOCH).as_micros() as u64;
        self.phase.store(since << PHASE_BITS | phase as u64, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        let packed = self.phase.load(Ordering::Relaxed);
        PHASES[(packed & ((1 << PHASE_BITS) - 1)) as usize % PHASES.len()]
    }

    /// For how long the connection has held its place for nothing; `None` while it should be left alone.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        if self.makes_way() || (self.n_open() > 0 && self.phase() != Phase::Stalled) {
            return None;
        }
        let packed = self.phase.load(Ordering::Relaxed);
        let since = *EPOCH + Duration::from_micros(packed >> PHASE_BITS);
        let idle = now.saturating_duration_since(since);
        let grace = match self.kind {
            PermitKind::Regular => REGULAR_GRACE,
            PermitKind::Reserve => RESERVE_GRACE,
        };
        match self.phase() {
            Phase::Answer => None,
            // Some answers are not taken while others are made.
            Phase::Stalled if self.handled.load(Ordering::Acquire) > 0 => None,
            Phase::Next => Some(idle),
            Phase::First | Phase::Head | Phase::Stalled | Phase::Lingering => {
                Some(idle).filter(|idle| *idle >= grace)
            }
        }
    }

    /// Asks the connection to end as soon as no request is in it, and takes its place, if it has one.
    pub(super) fn make_way(&self) -> Option<ConnectionPermit> {
        self.makes_way.store(true, Ordering::Release);
        self.asked.notify_one();
        self.leave()
    }

    /// Whether the connection has been asked to end.
    pub(super) fn makes_way(&self) -> bool {
        self.makes_way.load(Ordering::Acquire)
    }

    /// Waits until the connection is asked to end, or to look at its state.
    pub(super) async fn nudged(&self) {
        self.asked.notified().await;
    }

    /// Takes the connection's place, if it has one.
    pub(super) fn leave(&self) -> Option<ConnectionPermit> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Requests of a connection that may be abandoned (reset) beyond those that were answered: what a page cancels at
/// once, and no more, for beginning a request costs the caller less than the server (CVE-2023-44487).
const RESETS: i64 = 200;

/// One request, from its head until its answer is handed on. One that is dropped before was abandoned.
pub(super) struct Exchange {
    state: Arc<ConnectionState>,
    head: usize,
    /// When the bytes of its head came: where they lay ready, the caller pipelines.
    pub(super) came: Came,
    is_answered: bool,
}

impl Exchange {
    /// The answer is made.
    pub(super) fn answered(&mut self) {
        if self.is_answered {
            return;
        }
        self.is_answered = true;
        self.leave_handler();
        let one_more = |resets: i64| (resets < RESETS).then_some(resets + 1);
        // An error says that there are as many as there may be.
        let _ = self.state.resets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    fn leave_handler(&self) {
        self.state.handled.fetch_sub(1, Ordering::AcqRel);
        self.state.heads.fetch_sub(self.head, Ordering::Relaxed);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.is_answered {
            self.leave_handler();
            self.state.resets.fetch_sub(1, Ordering::Relaxed);
        }
        self.state.open.fetch_sub(1, Ordering::AcqRel);
        self.state.count.fetch_add(1, Ordering::Release);
    }
}

/// When the bytes of a head came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Since the last head was read.
    Now,
    /// With an earlier request.
    Before,
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn state(kind: PermitKind) -> Arc<ConnectionState> {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Arc::new(ConnectionState::new(ConnectionPermit::new(kind, permit)))
    }

    #[test]
    fn only_what_makes_no_progress_is_idle() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        for (kind, grace) in [(PermitKind::Regular, REGULAR_GRACE), (PermitKind::Reserve, RESERVE_GRACE)] {
            let state = state(kind);
            for phase in PHASES {
                state.enter(phase, now);
                assert_eq!(state.phase(), phase);
                let at_once = state.idle(now + Duration::from_micros(10));
                assert_eq!(at_once.is_some(), phase == Phase::Next, "{phase:?}");
                assert_eq!(state.idle(later).is_some(), phase != Phase::Answer, "{phase:?}");
                assert_eq!(state.idle(now + grace).is_some(), phase != Phase::Answer, "{phase:?}");
            }
            let _exchange = state.begin(0);
            assert_eq!(state.idle(later), None);
        }
    }

    #[test]
    fn a_place_is_given_up_once() {
        let state = state(PermitKind::Regular);
        state.enter(Phase::Next, Instant::now());
        assert!(state.make_way().is_some() && state.makes_way());
        assert!(state.make_way().is_none() && state.leave().is_none());
        assert_eq!(state.idle(Instant::now()), None, "it has none to give");
    }

    #[test]
    fn a_head_that_lay_ready_came_before() {
        let state = state(PermitKind::Regular);
        state.feed();
        assert_eq!([state.begin(0).came, state.begin(0).came], [Came::Now, Came::Before]);
        state.feed();
        assert_eq!(state.begin(0).came, Came::Now);
    }

    #[test]
    fn who_abandons_more_than_it_has_answered_floods() {
        let state = state(PermitKind::Regular);
        let answer = || state.begin(10).answered();
        let reset = || drop(state.begin(10));
        (0..RESETS).for_each(|_| reset());
        assert!(!state.is_flooded());
        answer();
        reset();
        assert!(!state.is_flooded());
        reset();
        assert!(state.is_flooded());
        assert_eq!((state.n_open(), state.heads()), (0, 0));
    }
}
