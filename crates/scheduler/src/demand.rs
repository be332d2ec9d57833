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
pub struct Demand {
    epoch: Instant,
    /// Nanoseconds of all requests, and of the heavy ones among them.
    all: Owed,
    heavy: Owed,
}

/// Nanoseconds, by the tick that they are due in.
type Owed = BTreeMap<u64, u64>;

/// Whether a request takes long enough to keep others waiting. Heavy ones are promised no more than a share of the
/// workers while there are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Burden {
    Light,
    Heavy,
    /// Its inputs are not known yet.
    Unknown,
}

/// What a caller asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// When the answer is due.
    pub due: Instant,
    /// CPU time of all its rows together.
    pub whole: Duration,
    /// CPU time of its dearest row.
    pub longest: Duration,
    /// How much longer than that row alone the batch takes that it may share, in CPU time.
    pub batch_delay: Duration,
    pub burden: Burden,
}

/// Who is there to do the work.
#[derive(Debug, Clone, Copy)]
pub struct Supply<'a> {
    pub now: Instant,
    /// Seconds until each worker has nothing more to do, in ascending order: one entry for each.
    pub busy: &'a [f64],
    /// Workers that heavy requests may be promised.
    pub heavy_workers: f64,
    /// Whether heavy rows leave a worker to others.
    pub leaves_one: bool,
    /// Seconds until the heavy requests that run are done, summed over the workers.
    pub heavy_running: f64,
    /// Wall seconds for a second of demand.
    pub service_rate: f64,
    /// Wall seconds for a second of a row's own CPU time.
    pub slowdown: f64,
    /// Room that a promise leaves, as a share of what was predicted.
    pub margin: f64,
}

/// What can be said of an answer before its work is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// How long the answer is likely to take from now.
    pub finish: Duration,
    /// How much too late that may be, or may make what was promised to others; zero where it fits.
    pub excess: Duration,
}

impl Supply<'_> {
    /// Seconds until the workers have done that much more together, each from when it is free: the least over the
    /// first of them of what these need.
    fn level(&self, work: f64) -> f64 {
        let (mut least, mut busy) = (f64::INFINITY, 0.0);
        for (others, left) in self.busy.iter().enumerate() {
            busy += left;
            least = least.min((work + busy) / (others + 1) as f64);
        }
        least
    }

    /// The same for what is not heavy, on the one worker that is left to it.
    fn light_level(&self, work: f64) -> f64 {
        match self.busy.first() {
            Some(least) if self.leaves_one => least + work,
            _ => f64::INFINITY,
        }
    }

    /// The same for heavy requests and their share of the workers.
    fn heavy_level(&self, work: f64) -> f64 {
        (self.heavy_running + work) / self.heavy_workers
    }

    fn left(&self, due: Instant) -> f64 {
        due.saturating_duration_since(self.now).as_secs_f64()
    }
}

impl Demand {
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, all: Owed::new(), heavy: Owed::new() }
    }

    /// Adds work that is due by then.
    pub fn add(&mut self, due: Instant, work: Duration, burden: Burden) {
        let tick = self.tick(due);
        *self.all.entry(tick).or_default() += nanoseconds(work);
        if burden == Burden::Heavy {
            *self.heavy.entry(tick).or_default() += nanoseconds(work);
        }
    }

    /// Takes work out that was added with the same numbers.
    pub fn remove(&mut self, due: Instant, work: Duration, burden: Burden) {
        let tick = self.tick(due);
        remove(&mut self.all, tick, work);
        if burden == Burden::Heavy {
            remove(&mut self.heavy, tick, work);
        }
    }

    /// Predicts when an answer would be made, and whether it and all that was promised would be in time.
    pub fn forecast(&self, ask: Ask, supply: &Supply<'_>) -> Forecast {
        let (own, whole) = (ask.longest.as_secs_f64(), ask.whole.as_secs_f64());
        let tick = self.tick(ask.due);
        let before = due_by(&self.all, tick);
        // Where rows wait, they share runs, and a row is answered when all of its run is.
        let batch_delay = if before > 0.0 { ask.batch_delay.as_secs_f64() } else { 0.0 };
        let alone = (own + batch_delay) * supply.slowdown;
        let heavy_before = due_by(&self.heavy, tick);
        let mut waits = supply.level((before + whole - own) * supply.service_rate);
        if ask.burden != Burden::Heavy {
            waits =
                waits.min(supply.light_level((before - heavy_before + whole - own) * supply.service_rate));
        }
        let mut finish = waits + alone;
        if ask.burden == Burden::Heavy {
            let before = heavy_before;
            let waits = (before + whole - own) * supply.service_rate;
            // A worker that has nothing to do takes the row at once, where it may.
            let is_idle = waits == 0.0 && supply.busy.first().is_some_and(|busy| *busy == 0.0);
            let n_running = supply.busy.iter().filter(|busy| **busy > 0.0).count() as f64;
            if !is_idle || n_running + 1.0 > supply.heavy_workers.max(1.0) {
                finish = finish.max(supply.heavy_level(waits) + alone);
            }
        }
        let mut excess = finish * (1.0 + supply.margin) - supply.left(ask.due);
        excess = excess.max(self.excess_after(ask.burden, tick, whole, supply));
        if ask.burden == Burden::Heavy {
            excess = excess.max(self.heavy_excess_after(tick, whole, supply));
        }
        Forecast { finish: duration(finish), excess: duration(excess) }
    }

    /// Returns whether `work` could be done before all that is owed without a promise being broken.
    pub fn has_room(&self, work: Duration, supply: &Supply<'_>) -> bool {
        let mut owed = work.as_secs_f64();
        self.all.iter().all(|(due, more)| {
            owed += seconds(*more);
            supply.level(owed * supply.service_rate) * (1.0 + supply.margin) <= supply.left(self.end_of(*due))
        })
    }

    /// How much too late `whole` more that is due in `tick` makes what is due after it.
    fn excess_after(&self, burden: Burden, tick: u64, whole: f64, supply: &Supply<'_>) -> f64 {
        let (mut owed, mut excess) = (due_by(&self.all, tick), f64::NEG_INFINITY);
        let mut heavy = due_by(&self.heavy, tick);
        for (due, work) in self.all.range(tick + 1..) {
            owed += seconds(*work);
            let heavy_work = self.heavy.get(due);
            heavy += heavy_work.copied().map_or(0.0, seconds);
            let left = supply.left(self.end_of(*due));
            let needed = supply.level((owed + whole) * supply.service_rate);
            if burden == Burden::Heavy || heavy_work != Some(work) {
                let others = match burden {
                    Burden::Heavy => f64::INFINITY,
                    Burden::Light | Burden::Unknown => {
                        supply.light_level((owed - heavy + whole) * supply.service_rate)
                    }
                };
                excess = excess.max(needed.min(others) * (1.0 + supply.margin) - left);
            } else if supply.level(owed * supply.service_rate) <= left {
                // Others are not kept out to keep a reserve for heavy requests, nor for those that are late already.
                excess = excess.max(needed - left);
            }
        }
        excess
    }

    /// The same for heavy requests and their share of the workers.
    fn heavy_excess_after(&self, tick: u64, whole: f64, supply: &Supply<'_>) -> f64 {
        let (mut owed, mut excess) = (due_by(&self.heavy, tick) + whole, f64::NEG_INFINITY);
        for (due, work) in self.heavy.range(tick + 1..) {
            owed += seconds(*work);
            let needed = supply.heavy_level(owed * supply.service_rate) * (1.0 + supply.margin);
            excess = excess.max(needed - supply.left(self.end_of(*due)));
        }
        excess
    }

    fn end_of(&self, tick: u64) -> Instant {
        self.epoch + Duration::from_millis((tick + 1).saturating_mul(TICK_MS))
    }

    fn tick(&self, due: Instant) -> u64 {
        let since = due.saturating_duration_since(self.epoch).as_millis() / u128::from(TICK_MS);
        // Further off than a process lives; the next tick must be a number, too.
        u64::try_from(since).unwrap_or(u64::MAX).min(1 << 48)
    }
}

fn remove(owed: &mut Owed, tick: u64, work: Duration) {
    if let Some(left) = owed.get_mut(&tick) {
        *left = left.saturating_sub(nanoseconds(work));
        if *left == 0 {
            owed.remove(&tick);
        }
    }
}

/// Seconds that are due in `tick` or before it.
fn due_by(owed: &Owed, tick: u64) -> f64 {
    seconds(owed.range(..=tick).map(|(_, work)| work).sum())
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

    fn supply(now: Instant, busy: &[f64]) -> Supply<'_> {
        let (heavy_workers, heavy_running) = (busy.len() as f64, 0.0);
        let leaves_one = false;
        Supply {
            now,
            busy,
            heavy_workers,
            leaves_one,
            heavy_running,
            service_rate: 1.0,
            slowdown: 1.0,
            margin: 0.0,
        }
    }

    fn ask(due: Instant, work: Duration) -> Ask {
        Ask { due, whole: work, longest: work, batch_delay: Duration::ZERO, burden: Burden::Light }
    }

    /// To the microsecond.
    fn near(a: Duration, b: Duration) -> bool {
        a.abs_diff(b) < MS / 1000
    }

    #[test]
    fn a_row_waits_for_what_is_due_before_it_and_for_who_runs() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(now + 50 * MS, 30 * MS, Burden::Light);
        demand.add(now + 90 * MS, 10 * MS, Burden::Light);
        let mut supply = supply(now, &[0.002, 0.002]);
        let at = |due: u32, supply: &Supply<'_>, expected: Duration| {
            let finish = demand.forecast(ask(now + MS * due, 2 * MS), supply).finish;
            assert!(near(finish, expected), "{finish:?} in place of {expected:?}");
        };
        at(20, &supply, 4 * MS);
        at(60, &supply, 19 * MS);
        at(100, &supply, 24 * MS);
        (supply.service_rate, supply.slowdown) = (0.5, 2.0);
        // Rows that share runs drain faster than they were charged.
        at(100, &supply, 16 * MS);
        // And end with their whole run.
        let shared = Ask { batch_delay: 3 * MS, ..ask(now + MS * 100, 2 * MS) };
        assert!(near(demand.forecast(shared, &supply).finish, 22 * MS));
        supply.busy = &[0.0, 0.004];
        // An idle worker takes it at once.
        at(20, &supply, 4 * MS);
    }

    #[test]
    fn a_worker_that_is_busy_for_long_does_not_delay_what_another_takes() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(now + 50 * MS, 10 * MS, Burden::Light);
        let long = supply(now, &[0.001, 60.0]);
        assert!(near(demand.forecast(ask(now + 100 * MS, 2 * MS), &long).finish, 13 * MS));
        assert!(demand.has_room(30 * MS, &long));
        assert!(!demand.has_room(60 * MS, &long));
    }

    #[test]
    fn heavy_requests_are_promised_their_share_of_the_workers_and_no_more() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        let supply = Supply { heavy_workers: 1.0, ..supply(now, &[0.0, 0.0]) };
        let heavy = |due: u32, work: u32| Ask { burden: Burden::Heavy, ..ask(now + MS * due, MS * work) };
        assert!(demand.forecast(heavy(100, 90), &supply).excess.is_zero());
        demand.add(now + 100 * MS, 90 * MS, Burden::Heavy);
        assert!(!demand.forecast(heavy(100, 20), &supply).excess.is_zero(), "one worker has no more time");
        assert!(!demand.forecast(heavy(50, 20), &supply).excess.is_zero(), "nor has it before that");
        assert!(
            demand.forecast(ask(now + 100 * MS, 20 * MS), &supply).excess.is_zero(),
            "others have the second"
        );
        demand.remove(now + 100 * MS, 90 * MS, Burden::Heavy);
        assert!(demand.heavy.is_empty() && demand.all.is_empty());
    }

    #[test]
    fn heavy_requests_that_are_late_keep_nobody_out_of_the_worker_that_is_left() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        // Due before the other's answer, and after it; none of it can be in time.
        demand.add(now + 50 * MS, 4000 * MS, Burden::Heavy);
        demand.add(now + 200 * MS, 4000 * MS, Burden::Heavy);
        demand.add(now + 200 * MS, 10 * MS, Burden::Light);
        let busy = [0.001, 60.0];
        let mut supply = Supply { heavy_workers: 1.0, leaves_one: true, ..supply(now, &busy) };
        let light = ask(now + 100 * MS, 2 * MS);
        assert!(demand.forecast(light, &supply).excess.is_zero());
        assert!(near(demand.forecast(light, &supply).finish, 3 * MS));
        let too_much = ask(now + 100 * MS, 190 * MS);
        assert!(!demand.forecast(too_much, &supply).excess.is_zero(), "the light promise is kept");
        supply.leaves_one = false;
        assert!(!demand.forecast(light, &supply).excess.is_zero());
    }

    #[test]
    fn an_answer_that_would_be_late_is_told_by_how_much() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(now + 10 * MS, 20 * MS, Burden::Light);
        let one = |margin| {
            let supply = Supply { margin, ..supply(now, &[0.0]) };
            demand.forecast(ask(now + 25 * MS, 4 * MS), &supply).excess
        };
        assert_eq!(one(0.0), Duration::ZERO);
        assert!(near(one(0.25), 5 * MS));
    }

    #[test]
    fn what_was_promised_to_others_is_not_broken_by_who_is_in_a_hurry() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        demand.add(now + 100 * MS, 98 * MS, Burden::Light);
        let hurried = demand.forecast(ask(now + 20 * MS, 10 * MS), &supply(now, &[0.0]));
        assert!(near(hurried.finish, 10 * MS));
        assert!((4 * MS..=8 * MS).contains(&hurried.excess), "{hurried:?}");
    }

    #[test]
    fn many_rows_of_one_caller_are_shared_by_the_workers() {
        let now = Instant::now();
        let ask = Ask { whole: 40 * MS, longest: 4 * MS, ..ask(now + 100 * MS, MS) };
        assert!(near(Demand::new(now).forecast(ask, &supply(now, &[0.0; 4])).finish, 13 * MS));
    }

    proptest! {
        #[test]
        fn nothing_is_owed_when_all_that_was_added_is_taken_out(work in prop::collection::vec((0u32..5000, 0u32..90), 0..50)) {
            let now = Instant::now();
            let mut demand = Demand::new(now);
            for (due, cost) in &work {
                demand.add(now + MS * *due, MS * *cost, Burden::Light);
            }
            for (due, cost) in work.iter().rev() {
                demand.remove(now + MS * *due, MS * *cost, Burden::Light);
            }
            prop_assert!(demand.all.is_empty());
        }

        #[test]
        fn more_work_never_makes_a_forecast_better(due in 1u32..200, more in 1u32..50, at in 0u32..200, work in prop::collection::vec((0u32..200, 0u32..20), 0..20)) {
            let now = Instant::now();
            let mut demand = Demand::new(now);
            for (due, cost) in &work {
                demand.add(now + MS * *due, MS * *cost, Burden::Light);
            }
            let before = demand.forecast(ask(now + MS * due, MS), &supply(now, &[0.0, 0.0]));
            demand.add(now + MS * at, MS * more, Burden::Light);
            let after = demand.forecast(ask(now + MS * due, MS), &supply(now, &[0.0, 0.0]));
            prop_assert!(after.finish >= before.finish && after.excess >= before.excess);
        }
    }
}
