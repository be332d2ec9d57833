//! What is owed and by when, and whether more can be promised.
//!
//! Invariant: plain numbers. What is added is taken out again with the same numbers, so nothing is owed
//! when nothing waits.
//!
//! Rows run in the order of their deadlines, so a new row waits for those that are due before it, and
//! those that are due after it wait for the new one. It may be promised only where neither breaks: the
//! demand test for earliest deadline first (Baruah, Rosier and Howell 1990), with the measured costs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Deadlines are told apart to so many milliseconds.
const TICK_MS: u64 = 4;

/// CPU time that waits, by when it is due.
#[derive(Debug)]
pub(super) struct Demand {
    epoch: Instant,
    /// Nanoseconds, by the tick that they are due in.
    by_tick: BTreeMap<u64, u64>,
}

/// What a caller asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// When the answer is due.
    pub(super) due: Instant,
    /// CPU time of all its rows together.
    pub(super) whole: Duration,
    /// CPU time of its dearest row.
    pub(super) longest: Duration,
    /// How much longer than that row alone the batch takes that it may share, in CPU time.
    pub(super) company: Duration,
}

/// Who is there to do the work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supply {
    pub(super) now: Instant,
    pub(super) workers: usize,
    /// Workers that have nothing to do.
    pub(super) idle: usize,
    /// Wall time until those who run are done, summed over them.
    pub(super) running: Duration,
    /// Wall seconds for a second of demand.
    pub(super) drain: f64,
    /// Wall seconds for a second of a row's own CPU time.
    pub(super) stretch: f64,
    /// Room that a promise leaves, as a share of what was predicted.
    pub(super) margin: f64,
}

/// What can be said of an answer before its work is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forecast {
    /// How long the answer is likely to take from now.
    pub(super) finish: Duration,
    /// How much too late that may be, or may make what was promised to others; zero where it fits.
    pub(super) excess: Duration,
}

impl Demand {
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, by_tick: BTreeMap::new() }
    }

    /// Adds work that is due by then.
    pub(super) fn add(&mut self, due: Instant, work: Duration) {
        *self.by_tick.entry(self.tick(due)).or_default() += nanoseconds(work);
    }

    /// Takes work out that was added with the same numbers.
    pub(super) fn remove(&mut self, due: Instant, work: Duration) {
        let tick = self.tick(due);
        if let Some(left) = self.by_tick.get_mut(&tick) {
            *left = left.saturating_sub(nanoseconds(work));
            if *left == 0 {
                self.by_tick.remove(&tick);
            }
        }
    }

    /// Predicts when an answer would be made, and whether it and all that was promised would be in time.
    pub(super) fn forecast(&self, ask: Ask, supply: &Supply) -> Forecast {
        let workers = supply.workers.max(1) as f64;
        let (own, whole) = (ask.longest.as_secs_f64(), ask.whole.as_secs_f64());
        let tick = self.tick(ask.due);
        let before: u64 = self.by_tick.range(..=tick).map(|(_, work)| work).sum();
        // A worker that has nothing to do takes the row at once, whatever the others run.
        let running = if before == 0 && supply.idle > 0 { 0.0 } else { supply.running.as_secs_f64() };
        let shared = (seconds(before) + whole - own) * supply.drain;
        // Where rows wait, they share runs, and a row is answered when all of its run is.
        let company = if before > 0 { ask.company.as_secs_f64() } else { 0.0 };
        let finish = (running + shared) / workers + (own + company) * supply.stretch;
        let mut excess =
            finish * (1.0 + supply.margin) - ask.due.saturating_duration_since(supply.now).as_secs_f64();

        let mut owed = seconds(before) + whole;
        for (due, work) in self.by_tick.range(tick + 1..) {
            owed += seconds(*work);
            let end = Duration::from_millis((due + 1).saturating_mul(TICK_MS));
            let left = (self.epoch + end).saturating_duration_since(supply.now);
            let needed = (running + owed * supply.drain) / workers * (1.0 + supply.margin);
            excess = excess.max(needed - left.as_secs_f64());
        }
        Forecast { finish: duration(finish), excess: duration(excess) }
    }

    fn tick(&self, due: Instant) -> u64 {
        let since = due.saturating_duration_since(self.epoch).as_millis() / u128::from(TICK_MS);
        // Further off than a process lives; the next tick must be a number, too.
        u64::try_from(since).unwrap_or(u64::MAX).min(1 << 48)
    }
}

fn nanoseconds(work: Duration) -> u64 {
    u64::try_from(work.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Nothing that is foreseen takes longer than a day.
fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn supply(now: Instant, workers: usize) -> Supply {
        Supply { now, workers, idle: 0, running: Duration::ZERO, drain: 1.0, stretch: 1.0, margin: 0.0 }
    }

    fn ask(due: Instant, work: Duration) -> Ask {
        Ask { due, whole: work, longest: work, company: Duration::ZERO }
    }

    #[test]
    fn a_row_waits_for_what_is_due_before_it_and_for_who_runs() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(now + 50 * MS, 30 * MS);
        demand.add(now + 90 * MS, 10 * MS);
        let mut supply = Supply { running: 4 * MS, ..supply(now, 2) };
        let at = |due: u32, supply: &Supply| demand.forecast(ask(now + MS * due, 2 * MS), supply).finish;
        assert_eq!(at(20, &supply), 4 * MS);
        assert_eq!(at(60, &supply), 19 * MS);
        assert_eq!(at(100, &supply), 24 * MS);
        (supply.drain, supply.stretch) = (0.5, 2.0);
        assert_eq!(at(100, &supply), 16 * MS, "rows that share runs drain faster than they were charged");
        let shared = Ask { company: 3 * MS, ..ask(now + MS * 100, 2 * MS) };
        assert_eq!(demand.forecast(shared, &supply).finish, 22 * MS, "and end with their whole run");
        supply.idle = 1;
        assert_eq!(at(20, &supply), 4 * MS, "an idle worker takes it at once");
    }

    #[test]
    fn an_answer_that_would_be_late_is_told_by_how_much() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(now + 10 * MS, 20 * MS);
        let one = |margin| {
            let supply = Supply { margin, ..supply(now, 1) };
            demand.forecast(ask(now + 25 * MS, 4 * MS), &supply).excess
        };
        assert_eq!(one(0.0), Duration::ZERO);
        assert_eq!(one(0.25), 5 * MS);
    }

    #[test]
    fn what_was_promised_to_others_is_not_broken_by_who_is_in_a_hurry() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(now + 100 * MS, 98 * MS);
        let hurried = demand.forecast(ask(now + 20 * MS, 10 * MS), &supply(now, 1));
        assert_eq!(hurried.finish, 10 * MS);
        assert!((4 * MS..=8 * MS).contains(&hurried.excess), "{hurried:?}");
    }

    #[test]
    fn many_rows_of_one_caller_are_shared_by_the_workers() {
        let now = Instant::now();
        let ask = Ask { due: now + 100 * MS, whole: 40 * MS, longest: 4 * MS, company: Duration::ZERO };
        assert_eq!(Demand::new(now).forecast(ask, &supply(now, 4)).finish, 13 * MS);
    }

    proptest! {
        #[test]
        fn nothing_is_owed_when_all_that_was_added_is_taken_out(work in prop::collection::vec((0u32..5000, 0u32..90), 0..50)) {
            let now = Instant::now();
            let mut demand = Demand::new(now);
            for (due, cost) in &work {
                demand.add(now + MS * *due, MS * *cost);
            }
            for (due, cost) in work.iter().rev() {
                demand.remove(now + MS * *due, MS * *cost);
            }
            prop_assert!(demand.by_tick.is_empty());
        }

        #[test]
        fn more_work_never_makes_a_forecast_better(due in 1u32..200, more in 1u32..50, at in 0u32..200, work in prop::collection::vec((0u32..200, 0u32..20), 0..20)) {
            let now = Instant::now();
            let mut demand = Demand::new(now);
            for (due, cost) in &work {
                demand.add(now + MS * *due, MS * *cost);
            }
            let before = demand.forecast(ask(now + MS * due, MS), &supply(now, 2));
            demand.add(now + MS * at, MS * more);
            let after = demand.forecast(ask(now + MS * due, MS), &supply(now, 2));
            prop_assert!(after.finish >= before.finish && after.excess >= before.excess);
        }
    }
}
