//! What came of the requests.
//!
//! Invariant: of the requests that were intended in the measured time, each is counted under exactly one
//! status, fault, `unsent` or `cut_off`.
//!
//! Two counts stand side by side. The fate of a request belongs to the time when it was *intended*. Rates
//! are of what was *completed* in the measured time, since a server behind an overload goes on answering
//! what came before.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{client::Fault, desk::Job, latencies::Latencies, window::Window};

/// What was completed in the measured time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Completions {
    /// Whatever the status.
    pub answered: u64,
    /// With a status of 2xx.
    pub ok: u64,
    /// With a status of 2xx and within the deadline, if there is one.
    pub good: u64,
}

/// The requests of the measured time.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Requests that were meant to be sent.
    pub intended: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by why.
    pub faults: BTreeMap<Fault, u64>,
    /// Requests that still waited in the generator at the end, because all connections were busy.
    pub unsent: u64,
    /// Requests whose answers nobody waited for after an interruption.
    pub cut_off: u64,
    /// What was completed in this time, whenever it was intended.
    pub completed: Completions,
    /// From the intended time to the last byte, of answers of 2xx.
    pub ok: Latencies,
    /// The same of other answers.
    pub refused: Latencies,
    /// From the time of sending to the last byte, of answers of 2xx: what the server alone took.
    pub service: Latencies,
    /// From the intended time to that of sending.
    pub lag: Latencies,
    /// From the intended time to that when the generator took notice: its own fault.
    pub own_lag: Latencies,
    /// Bytes of all requests that were sent and all answers.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Answers with `Retry-After`, and its least and most seconds.
    pub retry_after: Option<RetryAfter>,
}

/// What answers with `Retry-After` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    pub answers: u64,
    pub least_s: u64,
    pub most_s: u64,
}

impl Tally {
    /// A tally of nothing.
    pub fn empty() -> Self {
        Self {
            intended: 0,
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            unsent: 0,
            cut_off: 0,
            completed: Completions::default(),
            ok: Latencies::new(),
            refused: Latencies::new(),
            service: Latencies::new(),
            lag: Latencies::new(),
            own_lag: Latencies::new(),
            bytes_sent: 0,
            bytes_received: 0,
            retry_after: None,
        }
    }

    /// Answers of any status.
    pub fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Answers that are not 2xx, by status.
    pub fn refusals(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.statuses.iter().filter(|(status, _)| !is_ok(**status)).map(|(status, n)| (*status, *n))
    }

    /// Answers that are not 2xx.
    pub fn n_refused(&self) -> u64 {
        self.refusals().map(|(_, n)| n).sum()
    }

    /// Requests that have no answer.
    pub fn n_failed(&self) -> u64 {
        self.faults.values().sum()
    }

    fn accounted(&self) -> u64 {
        self.answered() + self.n_failed() + self.unsent + self.cut_off
    }
}

/// Whether a status says that the request was answered as it was meant.
pub(super) fn is_ok(status: u16) -> bool {
    (200..300).contains(&status)
}

/// A short part of the measured time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slice {
    /// Answers of 2xx that came in.
    pub ok: u64,
    /// Other answers that came in, and faults.
    pub other: u64,
    /// The sum of the latencies of the answers of 2xx, in seconds.
    pub latency_s: f64,
}

impl Slice {
    /// How long a slice is.
    pub const LENGTH: Duration = Duration::from_millis(100);

    /// How far into the measured time the slice of this number begins.
    pub fn begins(number: usize) -> Duration {
        Self::LENGTH * u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// Mean latency of the answers of 2xx, in seconds; `None` where there is none.
    pub fn mean_latency_s(&self) -> Option<f64> {
        (self.ok > 0).then(|| self.latency_s / self.ok as f64)
    }
}

/// What a second was like, for whoever watches.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Whether this still is the warm-up.
    pub warming_up: Option<Duration>,
    /// How long will be measured, where that is known.
    pub duration: Option<Duration>,
    /// Answers of 2xx, others, and faults in the last `over`.
    pub ok: u64,
    pub refused: u64,
    pub failed: u64,
    pub over: Duration,
    /// Medians and 99th percentiles of the 2xx of the last `over`.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
    /// Callers there are.
    pub callers: usize,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) what: What,
    /// When it was sent; `None` where it was not.
    pub(super) sent: Option<Instant>,
    pub(super) at: Instant,
    pub(super) request_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Answered { status: u16, retry_after: Option<u64>, received: u64 },
    Failed(Fault),
}

/// Where all callers write down what came of their requests.
pub(super) struct Recorder(Mutex<State>);

struct State {
    deadline: Option<Duration>,
    tally: Tally,
    /// Since the start of the run, the warm-up included.
    slices: Vec<Slice>,
    last: Last,
}

/// What happened since somebody looked.
struct Last {
    ok: Latencies,
    refused: u64,
    failed: u64,
    since: Instant,
}

impl Recorder {
    pub(super) fn new(deadline: Option<Duration>, began: Instant) -> Self {
        let last = Last { ok: Latencies::new(), refused: 0, failed: 0, since: began };
        Self(Mutex::new(State { deadline, tally: Tally::empty(), slices: Vec::new(), last }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics with the lock held, so what it guards is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that is due, `noticed` being when the generator found that it is.
    pub(super) fn intend(&self, window: &Window, intended: Instant, noticed: Instant) {
        if window.holds(window.offset(intended)) {
            let mut state = self.state();
            state.tally.intended += 1;
            state.tally.own_lag.record(noticed.saturating_duration_since(intended));
        }
    }

    /// Counts requests that were never sent.
    pub(super) fn unsent(&self, window: &Window, jobs: &[Job]) {
        let n = jobs.iter().filter(|job| window.holds(window.offset(job.intended))).count();
        self.state().tally.unsent += n as u64;
    }

    /// Counts what came of a request.
    pub(super) fn record(&self, window: &Window, job: &Job, ended: &Ended) {
        let latency = ended.at.saturating_duration_since(job.intended);
        let at = window.offset(ended.at);
        let (is_in, completes_in) = (window.holds(window.offset(job.intended)), window.holds(at));
        let mut state = self.state();
        let state = &mut *state;
        let good = state.deadline.is_none_or(|deadline| latency <= deadline);
        if is_in {
            state.tally.count(job, ended, latency);
        }
        let slice = usize::try_from(at.as_nanos() / Slice::LENGTH.as_nanos()).unwrap_or(usize::MAX);
        if state.slices.len() <= slice {
            state.slices.resize(slice.saturating_add(1), Slice::default());
        }
        let (slice, last) = (&mut state.slices[slice], &mut state.last);
        match ended.what {
            What::Answered { status, .. } => {
                let ok = is_ok(status);
                if ok {
                    slice.ok += 1;
                    slice.latency_s += latency.as_secs_f64();
                    last.ok.record(latency);
                } else {
                    slice.other += 1;
                    last.refused += 1;
                }
                if completes_in {
                    let completed = &mut state.tally.completed;
                    completed.answered += 1;
                    completed.ok += u64::from(ok);
                    completed.good += u64::from(ok && good);
                }
            }
            What::Failed(_) => {
                slice.other += 1;
                last.failed += 1;
            }
        }
    }

    /// What happened since this was asked last.
    pub(super) fn look(&self, now: Instant) -> (Latencies, u64, u64, Duration) {
        let mut state = self.state();
        let fresh = Last { ok: Latencies::new(), refused: 0, failed: 0, since: now };
        let last = std::mem::replace(&mut state.last, fresh);
        (last.ok, last.refused, last.failed, now.saturating_duration_since(last.since))
    }

    /// Whole slices since the start of the run.
    pub(super) fn slices(&self, from: Duration, until: Duration) -> Vec<Slice> {
        let number = |at: Duration, round_up: u128| {
            usize::try_from((at.as_nanos() + round_up) / Slice::LENGTH.as_nanos()).unwrap_or(usize::MAX)
        };
        let (first, end) = (number(from, Slice::LENGTH.as_nanos() - 1), number(until, 0));
        let state = self.state();
        (first..end).map(|slice| state.slices.get(slice).copied().unwrap_or_default()).collect()
    }

    /// Ends the count: what is missing was cut off.
    pub(super) fn finish(&self) -> Tally {
        let mut state = self.state();
        let tally = &mut state.tally;
        tally.cut_off = tally.intended.saturating_sub(tally.accounted());
        tally.clone()
    }
}

impl Tally {
    fn count(&mut self, job: &Job, ended: &Ended, latency: Duration) {
        if let Some(sent) = ended.sent {
            self.lag.record(sent.saturating_duration_since(job.intended));
            self.bytes_sent += ended.request_bytes as u64;
        }
        match ended.what {
            What::Answered { status, retry_after, received } => {
                *self.statuses.entry(status).or_default() += 1;
                self.bytes_received += received;
                if is_ok(status) {
                    self.ok.record(latency);
                    let service = ended.sent.map(|sent| ended.at.saturating_duration_since(sent));
                    self.service.record(service.unwrap_or_default());
                } else {
                    self.refused.record(latency);
                }
                if let Some(seconds) = retry_after {
                    let seen = self.retry_after.get_or_insert(RetryAfter {
                        answers: 0,
                        least_s: seconds,
                        most_s: seconds,
                    });
                    seen.answers += 1;
                    seen.least_s = seen.least_s.min(seconds);
                    seen.most_s = seen.most_s.max(seconds);
                }
            }
            What::Failed(fault) => *self.faults.entry(fault).or_default() += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Run {
        window: Window,
        recorder: Recorder,
    }

    impl Run {
        /// Measures from 100 ms until 200 ms, with a deadline of 10 ms.
        fn new() -> Self {
            let began = Instant::now();
            let window = Window::new(began);
            window.opens(100 * MS);
            window.closes(200 * MS);
            Self { window, recorder: Recorder::new(Some(10 * MS), began) }
        }

        /// A request intended, sent and ended at these milliseconds.
        fn request(&self, [intended, sent, at]: [u32; 3], what: What) {
            let moment = |ms| self.window.began + ms * MS;
            let job = Job { intended: moment(intended), number: 0 };
            self.recorder.intend(&self.window, job.intended, job.intended);
            let ended = Ended { what, sent: Some(moment(sent)), at: moment(at), request_bytes: 7 };
            self.recorder.record(&self.window, &job, &ended);
        }
    }

    fn answered(status: u16) -> What {
        What::Answered { status, retry_after: (status == 503).then_some(2), received: 100 }
    }

    #[test]
    fn each_request_has_one_fate_by_its_intended_time_and_rates_are_of_completions() {
        let run = Run::new();
        run.request([90, 90, 95], answered(200)); // all of it in the warm-up
        run.request([95, 95, 105], answered(200)); // completes within
        run.request([110, 120, 135], answered(200)); // late: 25 ms from when it was meant
        run.request([150, 150, 151], answered(503));
        run.request([199, 199, 205], answered(204)); // completes after the end
        run.request([120, 120, 121], What::Failed(Fault::Closed));
        run.request([200, 200, 201], answered(200)); // after the end
        let waits = Job { intended: run.window.began + 180 * MS, number: 0 };
        for _ in 0..2 {
            run.recorder.intend(&run.window, waits.intended, waits.intended);
        }
        run.recorder.unsent(&run.window, &[waits]);
        let tally = run.recorder.finish();
        assert_eq!((tally.intended, tally.answered(), tally.n_failed()), (6, 3, 1));
        assert_eq!((tally.unsent, tally.cut_off), (1, 1), "one of those that waited was cut off");
        assert_eq!(tally.completed, Completions { answered: 3, ok: 2, good: 1 });
        assert_eq!(tally.statuses, BTreeMap::from([(200, 1), (204, 1), (503, 1)]));
        assert_eq!(tally.refusals().collect::<Vec<_>>(), [(503, 1)]);
        assert_eq!(tally.retry_after, Some(RetryAfter { answers: 1, least_s: 2, most_s: 2 }));
        assert_eq!((tally.bytes_sent, tally.bytes_received), (4 * 7, 300));
        let ms = |time: Option<Duration>| (time.unwrap().as_secs_f64() * 1e3).round();
        assert_eq!((ms(tally.ok.max()), ms(tally.service.max()), ms(tally.lag.max())), (25.0, 15.0, 10.0));
    }

    #[test]
    fn slices_are_whole_ones_and_silence_is_one_too() {
        let run = Run::new();
        run.request([100, 100, 110], answered(200));
        run.request([100, 100, 130], answered(500));
        run.request([100, 100, 320], answered(200));
        let slices = run.recorder.slices(50 * MS, 480 * MS);
        assert_eq!(slices.iter().map(|slice| slice.ok).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(slices[0].other, 1);
        assert!((slices[0].mean_latency_s().unwrap() - 0.010).abs() < 1e-9);
        assert_eq!(slices[1].mean_latency_s(), None);
    }

    #[test]
    fn a_look_shows_only_what_is_new() {
        let run = Run::new();
        run.request([100, 100, 110], answered(200));
        let look = || run.recorder.look(Instant::now());
        let (ok, refused, failed, _) = look();
        assert_eq!((ok.count(), refused, failed), (1, 0, 0));
        run.request([100, 100, 110], answered(429));
        let (ok, refused, failed, _) = look();
        assert_eq!((ok.count(), refused, failed), (0, 1, 0));
    }
}
