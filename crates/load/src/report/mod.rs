//! What a person and a program are told of measurements: a table, JSON, a page with drawings.
//!
//! Invariant: all three show the same [`Figures`], which are computed here and nowhere else.

mod axis;
mod chart;
mod html;
mod json;
mod judge;
mod table;
mod words;

use std::time::{Duration, SystemTime};

use super::{End, Outcome, Tally, Target};

/// A request that was sent so soon after its intended time was sent in time.
pub const IN_TIME: Duration = Duration::from_millis(1);

/// Measurements of one target, and how they were made.
#[derive(Debug)]
pub struct Report<'r> {
    pub target: &'r Target,
    pub deadline: Option<Duration>,
    /// Threads that the generator ran on; without them its CPU time is not judged, since it may hold
    /// that of a server in the same process.
    pub threads: Option<usize>,
    /// The words on the command line.
    pub command: &'r str,
    pub started: SystemTime,
    pub runs: &'r [Outcome],
}

impl Report<'_> {
    /// A table for a terminal, with notes on what needs one.
    pub fn table(&self) -> String {
        table::write(self)
    }

    /// Everything, with units in the names, as indented JSON.
    pub fn json(&self) -> String {
        format!("{:#}\n", json::write(self))
    }

    /// One page that needs nothing but itself: curves, tables, and how to read them.
    pub fn html(&self) -> String {
        html::write(self)
    }

    fn figures(&self) -> Vec<Figures<'_>> {
        self.runs.iter().map(|run| Figures::of(run, self)).collect()
    }
}

/// The figures of one measurement.
pub(super) struct Figures<'r> {
    run: &'r Outcome,
    tally: &'r Tally,
    intended_per_s: f64,
    answered_per_s: f64,
    ok_per_s: f64,
    good_per_s: f64,
    /// Requests that were sent, whatever came of them.
    sent: u64,
    /// The share of all requests that were sent within [`IN_TIME`] of their intended time.
    in_time: Option<f64>,
    /// Cores that this process kept busy.
    cores: f64,
    /// What a reader has to know before trusting a figure.
    warnings: Vec<judge::Warning>,
}

impl<'r> Figures<'r> {
    fn of(run: &'r Outcome, report: &Report<'_>) -> Self {
        let (tally, seconds) = (&run.tally, run.window.as_secs_f64());
        let per_s = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let share = tally.lag.share_within(IN_TIME);
        Self {
            run,
            tally,
            intended_per_s: per_s(tally.intended),
            answered_per_s: per_s(tally.completed.answered),
            ok_per_s: per_s(tally.completed.ok),
            good_per_s: per_s(tally.completed.good),
            sent: tally.lag.count(),
            in_time: share.map(|share| share * tally.lag.count() as f64 / tally.intended.max(1) as f64),
            cores: if seconds > 0.0 { run.cpu.as_secs_f64() / seconds } else { 0.0 },
            warnings: judge::warnings(run, report.threads),
        }
    }

    fn p(&self, quantile: f64) -> Option<Duration> {
        // A quantile needs answers beyond it, or it is the maximum under another name.
        let beyond = (1.0 - quantile) * self.tally.ok.count() as f64;
        self.tally.ok.at(quantile).filter(|_| beyond >= 1.0)
    }
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Exhausted => "exhausted",
            Self::Interrupted => "interrupted",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{Ask, Completions, Slice, Steadiness};

    pub(super) fn target() -> Target {
        let url = "http://127.0.0.1:8080/v1/text/sentiment?a=<b>".parse().unwrap_or_else(|e| panic!("{e}"));
        Target::new(&url, "127.0.0.1:8080".parse().unwrap(), &Ask::default(), &[]).unwrap()
    }

    /// A run of ten seconds at a rate, `slow` times as slow as the first.
    pub(super) fn outcome(rate: u64, slow: u32) -> Outcome {
        let mut tally = Tally::empty();
        let n = rate * 10;
        tally.intended = n + 7;
        tally.statuses.extend([(200, n), (503, 4)]);
        tally.faults.extend([(crate::Fault::TimedOut, 1)]);
        tally.unsent = 2;
        tally.completed = Completions { answered: n + 4, ok: n, good: n - n / 10 };
        for i in 0..n {
            let latency = Duration::from_micros(500 + (i * i / n) * 20 / rate) * slow;
            tally.ok.record(latency);
            tally.service.record(latency);
        }
        for _ in 0..n + 5 {
            tally.lag.record(Duration::from_micros(30));
            tally.own_lag.record(Duration::from_micros(20));
        }
        let slice = Slice { ok: rate / 10, other: 0, latency_s: rate as f64 / 10.0 * 0.001 };
        Outcome {
            load: format!("Poisson {rate}/s"),
            offered: Some(rate as f64),
            warm_up: Duration::from_secs(2),
            window: Duration::from_secs(10),
            tally,
            slices: vec![slice; 100],
            steadiness: Steadiness::From(0),
            cpu: Duration::from_millis(1500),
            connections_opened: 12,
            callers: 12,
            end: End::Complete,
        }
    }

    pub(super) fn report<'r>(target: &'r Target, runs: &'r [Outcome]) -> Report<'r> {
        Report {
            target,
            deadline: Some(Duration::from_millis(100)),
            threads: Some(1),
            command: "lepton bench --rate 100,200",
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_446_000),
            runs,
        }
    }

    #[test]
    fn a_quantile_without_an_answer_beyond_it_is_not_named() {
        let target = target();
        let runs = [outcome(10, 1)];
        let report = report(&target, &runs);
        let figures = report.figures();
        assert!(figures[0].p(0.99).is_some());
        assert!(figures[0].p(0.999).is_none(), "a hundred answers know no p99.9");
    }
}
