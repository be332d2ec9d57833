//! What is owed, who works on what until when, and how the machine keeps up: what promises rest on, and who may
//! take a worker.
//!
//! Invariant: plain data and a clock that is handed in. A worker that is overdue counts as busy for as long again as
//! it has been late.

#[cfg(test)]
mod tests;

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use crate::{
    demand::{Ask, Burden, Demand, Forecast, Supply},
    slowdown::Slowdown,
};

/// Others count as being there for this long after they asked for something light: meanwhile dear rows leave them a
/// worker.
const LATELY: Duration = Duration::from_secs(2);

/// The share of the workers that heavy requests are promised at most while others are there.
const HEAVY_SHARE: f64 = 0.75;

/// What a worker does.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// When it is expected to end.
    pub until: Instant,
    pub burden: Burden,
    /// Whether a single row is expected to take long.
    pub is_dear: bool,
    /// The number of the request whose rows these all are; `None` where there are others, or it has no more than one.
    pub request: Option<NonZero<u64>>,
}

impl Running {
    /// Seconds until it ends, as far as anybody can tell: what has taken longer than expected takes longer still.
    fn left(&self, now: Instant) -> f64 {
        let (until, late) =
            (self.until.saturating_duration_since(now), now.saturating_duration_since(self.until));
        until.max(late).as_secs_f64()
    }
}

/// What a worker that asks for work may take.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Dear rows may hold this worker, too.
    pub takes_dear: bool,
    /// So may those of which nobody knows what they cost: never all workers, whoever else is there.
    pub takes_unknown: bool,
    /// Requests that let others go first: one that holds all workers but one, and the last one of this worker.
    pub yielding: [Option<NonZero<u64>>; 2],
    /// The last row of this worker was dear: others go first.
    pub after_dear: bool,
}

/// What is owed and by whom it is worked off.
#[derive(Debug)]
pub struct Ledger {
    pub demand: Demand,
    pub slowdown: Slowdown,
    /// Workers that there are meant to be, and those of them that have nothing to do.
    pub workers: usize,
    pub idle: usize,
    /// What each worker does, and what it did last.
    running: Vec<Option<Running>>,
    last: Vec<Option<Running>>,
    /// When something light was last asked for.
    light: Option<Instant>,
}

impl Ledger {
    pub fn new(workers: usize, epoch: Instant) -> Self {
        Self {
            demand: Demand::new(epoch),
            slowdown: Slowdown::default(),
            workers,
            idle: 0,
            running: Vec::new(),
            last: Vec::new(),
            light: None,
        }
    }

    /// Notes that an answer is asked for.
    pub fn asked(&mut self, burden: Burden, now: Instant) {
        if burden == Burden::Light {
            self.light = Some(now);
        }
    }

    /// Predicts when an answer would be made, and whether it and all that was promised would be in time.
    pub fn forecast(&self, ask: Ask, now: Instant) -> Forecast {
        let mut busy = [0.0; INLINE];
        self.supply(now, &mut busy, |supply| self.demand.forecast(ask, supply))
    }

    /// Returns whether that much more work could be done before all that is owed, and no promise broken.
    pub fn has_room(&self, work: Duration, now: Instant) -> bool {
        let mut busy = [0.0; INLINE];
        self.supply(now, &mut busy, |supply| self.demand.has_room(work, supply))
    }

    fn supply<T>(&self, now: Instant, busy: &mut [f64; INLINE], then: impl FnOnce(&Supply<'_>) -> T) -> T {
        let slowdown = self.slowdown.at(now);
        let workers = self.workers.max(1);
        let mut many;
        let busy: &mut [f64] = match busy.get_mut(..workers) {
            Some(few) => few,
            None => {
                many = vec![0.0; workers];
                &mut many
            }
        };
        for (busy, running) in busy.iter_mut().zip(&self.running) {
            *busy = running.as_ref().map_or(0.0, |running| running.left(now));
        }
        busy.sort_unstable_by(f64::total_cmp);
        let heavy = self.running.iter().flatten().filter(|running| running.burden == Burden::Heavy);
        then(&Supply {
            now,
            busy,
            heavy_workers: self.heavy_workers(now),
            leaves_one: self.workers > 1 && self.has_others(now),
            heavy_running: heavy.map(|running| running.left(now)).sum(),
            service_rate: slowdown.service_rate(),
            slowdown: slowdown.factor(),
            margin: slowdown.margin(),
        })
    }

    /// Workers that heavy requests may be promised: all of them, while nobody else is there.
    fn heavy_workers(&self, now: Instant) -> f64 {
        let workers = self.workers.max(1) as f64;
        if !self.has_others(now) {
            return workers;
        }
        let share = workers * HEAVY_SHARE;
        if self.workers > 1 { share.min(workers - 1.0) } else { share }
    }

    fn has_others(&self, now: Instant) -> bool {
        self.light.is_some_and(|light| now < light + LATELY)
    }

    /// Notes what a worker begins with.
    pub fn begin(&mut self, worker: usize, running: Running) {
        self.set(worker, Some(running));
        self.last[worker] = Some(running);
    }

    /// Notes that a worker has ended what it did.
    pub fn end(&mut self, worker: usize) {
        self.set(worker, None);
    }

    fn set(&mut self, worker: usize, running: Option<Running>) {
        if self.running.len() <= worker {
            self.running.resize(worker + 1, None);
            self.last.resize(worker + 1, None);
        }
        self.running[worker] = running;
    }

    /// What a worker that asks may take.
    pub fn turn(&self, worker: usize, now: Instant) -> Turn {
        let others = || {
            let others = self.running.iter().enumerate().filter(move |(other, _)| *other != worker);
            others.filter_map(|(_, running)| running.as_ref())
        };
        let most = self.workers.saturating_sub(1);
        let n_dear = others().filter(|running| running.is_dear).count();
        let holds = |request: NonZero<u64>| {
            others().filter(|running| running.request == Some(request)).count() >= most
        };
        // A single worker is shared by turns alone.
        let holder =
            others().filter_map(|running| running.request).find(|request| most > 0 && holds(*request));
        let last = self.last.get(worker).copied().flatten();
        let leaves_one = self.workers < 2 || n_dear < most;
        Turn {
            takes_dear: leaves_one || !self.has_others(now),
            takes_unknown: leaves_one,
            yielding: [holder, last.and_then(|last| last.request)],
            after_dear: last.is_some_and(|last| last.is_dear),
        }
    }

    /// When a worker that leaves dear rows to others is to look again.
    pub fn looks_again(&self) -> Option<Instant> {
        self.light.map(|light| light + LATELY)
    }
}

/// Workers whose times are summed up without an allocation.
const INLINE: usize = 32;

impl Turn {
    /// Returns whether such a row lets others go first, where that breaks no promise.
    pub fn yields(&self, request: Option<NonZero<u64>>, is_dear: bool) -> bool {
        (request.is_some() && self.yielding.contains(&request)) || (is_dear && self.after_dear)
    }
}
