//! How much slower the machine is than the cost tables say: a noisy neighbour, a throttled quota, a queue
//! that runs in batches.
//!
//! Invariant: plain numbers and a clock that is handed in. What was learnt long ago fades, so that one
//! bad minute does not refuse callers for ever.

use std::time::{Duration, Instant};

/// Weight of the newest sample. Three dozen runs forget what was.
const NEWEST: f64 = 0.08;

/// No single run counts as more than this many times what was expected, nor as less than its inverse.
const STRANGEST: f64 = 8.0;

/// While nothing runs, what was learnt loses half its weight in this time.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// Deviations of the forecast that a promise leaves room for. Were errors independent and fell off
/// exponentially, 4 mean deviations would leave 1 in 100; those of one queue come together.
const DEVIATIONS: f64 = 5.0;

/// Errors that are smaller than those before bring the deviation half of the way down in this time, however
/// many there are: bad moments come together, and a promise that is broken costs more than a queue that is
/// a little shorter.
const CALMING: Duration = Duration::from_secs(2);

/// The most room that a promise leaves, as a share of what was predicted: a queue of a third of the deadline
/// is still enough to keep every worker busy.
const WIDEST: f64 = 2.0;

/// A forecast is never trusted to be closer than this share of itself.
const CLOSEST: f64 = 0.02;

/// Wall time against the tables, as seen lately.
#[derive(Debug, Clone, Copy)]
pub struct Slowdown {
    /// Wall seconds of a batch for each CPU second that the table expects of it.
    factor: f64,
    /// Wall seconds of a batch for each second that its rows were charged with as they queued: less than
    /// `factor` where rows share runs.
    service_rate: f64,
    /// Mean of what a row took over what was predicted.
    ratio: f64,
    /// Mean deviation of the same from its mean.
    deviation: f64,
    learnt: Option<Instant>,
}

impl Default for Slowdown {
    /// The machine keeps up exactly, until something else is seen.
    fn default() -> Self {
        Self { factor: 1.0, service_rate: 1.0, ratio: 1.0, deviation: 0.1, learnt: None }
    }
}

impl Slowdown {
    /// Records a batch: wall seconds that it took, CPU seconds that the table expected, and those that its
    /// rows were charged with.
    pub fn ran(&mut self, now: Instant, wall: f64, expected: f64, charged: f64) {
        *self = self.at(now);
        self.learnt = Some(now);
        blend(&mut self.factor, wall, expected);
        blend(&mut self.service_rate, wall, charged);
    }

    /// Records a promise: seconds that were predicted, and that it took.
    pub fn kept(&mut self, now: Instant, predicted: f64, took: f64) {
        let since = self.learnt.map_or(Duration::ZERO, |learnt| now.saturating_duration_since(learnt));
        *self = self.at(now);
        self.learnt = Some(now);
        if predicted > 0.0 {
            let ratio = (took / predicted).clamp(0.0, STRANGEST);
            let error = (ratio - self.ratio).abs();
            self.ratio += NEWEST * (ratio - self.ratio);
            let calmer = 1.0 - halved(since, CALMING);
            let weight = if error > self.deviation { NEWEST } else { calmer };
            self.deviation += weight * (error - self.deviation);
        }
    }

    /// What is left of it at `now`.
    pub fn at(mut self, now: Instant) -> Self {
        let Some(learnt) = self.learnt else { return self };
        let kept = halved(now.saturating_duration_since(learnt), HALF_LIFE);
        let fade = |value: &mut f64, to: f64| *value = to + (*value - to) * kept;
        fade(&mut self.factor, 1.0);
        fade(&mut self.service_rate, 1.0);
        fade(&mut self.ratio, 1.0);
        fade(&mut self.deviation, 0.1);
        self.learnt = Some(now);
        self
    }

    /// Wall seconds for a CPU second of a batch.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Wall seconds for a second that a row was charged with.
    pub fn service_rate(&self) -> f64 {
        self.service_rate
    }

    /// How much longer than predicted a row may take and its promise still be kept, as a share of what
    /// was predicted.
    pub fn margin(&self) -> f64 {
        ((self.ratio - 1.0).max(0.0) + DEVIATIONS * self.deviation).clamp(CLOSEST, WIDEST)
    }
}

/// What is left after `time` of something that loses half of itself in each `half_life`.
fn halved(time: Duration, half_life: Duration) -> f64 {
    let lives = time.as_secs_f64() / half_life.as_secs_f64();
    // Every request asks, most of them after microseconds, where the line is as good as the power.
    if lives < 1e-4 { 1.0 - lives * std::f64::consts::LN_2 } else { 0.5_f64.powf(lives) }
}

fn blend(mean: &mut f64, took: f64, expected: f64) {
    if expected > 0.0 {
        *mean += NEWEST * ((took / expected).clamp(1.0 / STRANGEST, STRANGEST) - *mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_machine_is_noticed_within_tens_of_batches_and_forgotten_when_idle() {
        let (mut slowdown, now) = (Slowdown::default(), Instant::now());
        (0..40).for_each(|_| slowdown.ran(now, 0.004, 0.001, 0.002));
        assert!((3.8..=4.0).contains(&slowdown.factor()), "{slowdown:?}");
        assert!((1.9..=2.0).contains(&slowdown.service_rate()), "{slowdown:?}");
        let later = slowdown.at(now + 4 * HALF_LIFE);
        assert!((1.0..1.25).contains(&later.factor()), "{later:?}");
    }

    #[test]
    fn one_interrupted_batch_changes_little() {
        let mut slowdown = Slowdown::default();
        slowdown.ran(Instant::now(), 10.0, 0.001, 0.001);
        assert!(slowdown.factor() < 2.0, "{slowdown:?}");
    }

    #[test]
    fn promises_leave_room_for_what_forecasts_missed() {
        let (mut steady, mut wild, mut now) = (Slowdown::default(), Slowdown::default(), Instant::now());
        for i in 0..500 {
            now += Duration::from_millis(50);
            steady.kept(now, 0.1, 0.1);
            wild.kept(now, 0.1, if i % 2 == 0 { 0.08 } else { 0.12 });
        }
        assert!((CLOSEST..0.35).contains(&steady.margin()), "{steady:?}");
        assert!((0.7..=1.3).contains(&wild.margin()), "{wild:?}");
        wild.kept(now, 0.0, 1.0);
        assert!(wild.margin() <= WIDEST);
    }

    #[test]
    fn a_bad_moment_is_not_forgotten_for_the_many_good_answers_after_it() {
        let (mut slowdown, now) = (Slowdown::default(), Instant::now());
        (0..20).for_each(|_| slowdown.kept(now, 0.1, 0.3));
        let alarmed = slowdown.margin();
        assert!(alarmed > 1.5, "{slowdown:?}");
        (0..10_000).for_each(|i| slowdown.kept(now + Duration::from_micros(i), 0.1, 0.1));
        assert!(slowdown.margin() > 0.8 * (alarmed - 1.0), "{slowdown:?}");
        assert!(slowdown.at(now + 10 * CALMING).margin() < 0.6);
    }
}
