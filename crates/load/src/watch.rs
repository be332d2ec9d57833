//! Who opens and closes the measured part of a run, and tells how it goes.

use std::{
    pin::pin,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time;

use super::{
    End, Load, Outcome, Plan, WarmUp,
    run::Shared,
    stats::Progress,
    steady::{self, Steadiness},
};

/// How often somebody looks at the run.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);
/// Slices that have to be steady before a warm-up that waits for it ends.
const STEADY_SLICES: usize = 20;

/// Opens and closes the window, and tells how it goes.
pub(super) struct Watch<'r> {
    shared: &'r Shared,
    warm_up: WarmUp,
    duration: Option<Duration>,
    callers: Option<usize>,
    told: Duration,
    cpu_before: Option<Duration>,
}

impl<'r> Watch<'r> {
    pub(super) fn new(plan: &Plan, shared: &'r Shared) -> Self {
        let callers = match plan.load {
            Load::Closed(callers) => Some(callers.get()),
            Load::Open { .. } => None,
        };
        let watch = Self {
            shared,
            warm_up: plan.warm_up,
            duration: plan.duration,
            callers,
            told: Duration::ZERO,
            cpu_before: None,
        };
        if let WarmUp::For(warm_up) = plan.warm_up {
            watch.open(warm_up);
        }
        watch
    }

    fn open(&self, at: Duration) {
        self.shared.window.opens(at);
        if let Some(duration) = self.duration {
            self.shared.window.closes(at + duration);
        }
    }

    pub(super) async fn until_the_end(
        &mut self,
        stop: impl Future<Output = ()>,
        tell: &mut dyn FnMut(&Progress),
    ) -> End {
        let mut stop = pin!(stop);
        let window = &self.shared.window;
        loop {
            let now = window.offset(Instant::now());
            if window.is_over(now) {
                return End::Complete;
            }
            if self.cpu_before.is_none() && window.holds(now) {
                self.cpu_before = Some(process_cpu());
            }
            let ends = [window.from(), window.until(), Some(now + LOOK)];
            let next = ends.into_iter().flatten().filter(|at| *at > now).min().unwrap_or(now + LOOK);
            tokio::select! {
                () = stop.as_mut() => {
                    let now = window.offset(Instant::now());
                    if window.from().is_none_or(|from| from > now) {
                        window.opens(now);
                    }
                    window.closes(now);
                    return End::Interrupted;
                }
                () = time::sleep_until((window.began + next).into()) => {}
            }
            let now = window.offset(Instant::now());
            self.end_warm_up(now);
            if now >= self.told + TELL {
                self.told = now;
                tell(&self.progress(now));
            }
        }
    }

    /// Opens the window where the warm-up waits for a steady state and found it.
    fn end_warm_up(&self, now: Duration) {
        let WarmUp::UntilSteady { at_most } = self.warm_up else { return };
        if self.shared.window.from().is_some() {
            return;
        }
        let slices = self.shared.recorder.slices(Duration::ZERO, now);
        let settled = match steady::of_slices(&slices) {
            Steadiness::From(slice) => slices.len() - slice >= STEADY_SLICES,
            Steadiness::Never | Steadiness::Unknown => false,
        };
        if settled || now >= at_most {
            self.open(now);
        }
    }

    fn callers(&self) -> usize {
        self.callers.unwrap_or_else(|| self.shared.desk.n_callers())
    }

    fn progress(&self, now: Duration) -> Progress {
        let (ok, refused, failed, over) = self.shared.recorder.look(Instant::now());
        let from = self.shared.window.from();
        let warming_up = match from {
            Some(from) if now >= from => None,
            from => Some(from.unwrap_or_default()),
        };
        Progress {
            elapsed: now.saturating_sub(from.filter(|_| warming_up.is_none()).unwrap_or_default()),
            warming_up,
            duration: self.duration,
            ok: ok.count(),
            refused,
            failed,
            over,
            p50: ok.at(0.5),
            p99: ok.at(0.99),
            callers: self.callers(),
        }
    }

    /// CPU time used since measuring began.
    pub(super) fn cpu(&self) -> Duration {
        self.cpu_before.map_or(Duration::ZERO, |before| process_cpu().saturating_sub(before))
    }

    pub(super) fn outcome(&self, plan: &Plan, end: End, cpu: Duration) -> Outcome {
        let shared = self.shared;
        let (from, until) = (shared.window.from(), shared.window.until());
        let (from, until) = (from.unwrap_or_default(), until.unwrap_or_default());
        let slices = shared.recorder.slices(from, until);
        let (load, offered) = match &plan.load {
            Load::Closed(callers) if callers.get() == 1 => ("1 connection".to_owned(), None),
            Load::Closed(callers) => (format!("{callers} connections"), None),
            Load::Open { arrivals, .. } => (arrivals.to_string(), arrivals.rate()),
        };
        Outcome {
            load,
            offered,
            warm_up: from,
            window: until.saturating_sub(from),
            tally: shared.recorder.finish(),
            steadiness: steady::of_slices(&slices),
            slices,
            cpu,
            connections_opened: shared.n_connections.load(Ordering::Relaxed),
            callers: self.callers(),
            end,
        }
    }
}

/// CPU time that this process has used, user and system.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
