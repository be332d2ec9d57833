//! What a reader has to know before trusting a figure.

use std::time::Duration;

use super::words;
use crate::{Outcome, Slice, Steadiness};

/// A generator that is later than this for one arrival in a hundred says so.
const LATE: Duration = Duration::from_millis(2);
/// A generator that uses more than this share of its threads may be what is measured.
const BUSY: f64 = 0.9;
/// A transient that takes more than this share of the measured time is worth a word.
const TRANSIENT: f64 = 0.25;

/// A reason to doubt figures.
#[derive(Debug)]
pub(super) struct Warning {
    /// What was found.
    pub(super) found: String,
    /// What it means, or what to do about it.
    pub(super) advice: &'static str,
}

/// Warnings in the order of their weight. `threads` are those of the generator.
pub(super) fn warnings(run: &Outcome, threads: Option<usize>) -> Vec<Warning> {
    let tally = &run.tally;
    let mut warnings = Vec::new();
    let mut warn = |found: String, advice| warnings.push(Warning { found, advice });
    if tally.intended == 0 {
        warn("no request was due in the measured time".to_owned(), "measure longer");
        return warnings;
    }
    if tally.ok.count() == 0 {
        warn("no request was answered with 2xx".to_owned(), "there is no latency to tell");
    }
    if tally.unsent > 0 {
        let (unsent, intended) = (words::count(tally.unsent), words::count(tally.intended));
        warn(
            format!("{unsent} of {intended} never sent, all {} connections were busy", run.callers),
            "true latencies are longer than those of the answers; more --connections let the server itself refuse",
        );
    }
    if let Some(lag) = tally.own_lag.at(0.99).filter(|lag| *lag > LATE) {
        warn(
            format!("the generator itself was late (p99 {} ms)", words::ms(Some(lag))),
            "latencies hold that; give it a core of its own, or more --threads",
        );
    }
    let seconds = run.window.as_secs_f64();
    if let Some(threads) = threads
        && seconds > 0.0
        && run.cpu.as_secs_f64() / seconds > BUSY * threads as f64
    {
        warn(
            format!("the generator used {:.2} cores on {threads} threads", run.cpu.as_secs_f64() / seconds),
            "it, not the server, may be what was measured; give it more --threads",
        );
    }
    match run.steadiness {
        Steadiness::Never => warn(
            "rate or latency still changed at the end".to_owned(),
            "measure longer, or offer what the server can take",
        ),
        Steadiness::From(slice) if slice as f64 > TRANSIENT * run.slices.len() as f64 => warn(
            format!("steady only from {} on", words::seconds(Slice::begins(slice))),
            "a longer --warm-up leaves out what came before",
        ),
        Steadiness::From(_) | Steadiness::Unknown => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::{super::tests::outcome, *};

    fn said(change: impl FnOnce(&mut Outcome)) -> String {
        let mut run = outcome(100, 1);
        (run.tally.unsent, run.tally.faults) = (0, Default::default());
        change(&mut run);
        warnings(&run, Some(1)).iter().map(|warning| format!("{}\n", warning.found)).collect()
    }

    #[test]
    fn a_sound_measurement_needs_no_warning() {
        assert_eq!(said(|_| {}), "");
        assert_eq!(said(|run| run.steadiness = Steadiness::From(20)), "");
        assert_eq!(said(|run| run.steadiness = Steadiness::Unknown), "");
    }

    #[test]
    fn each_doubt_has_its_warning() {
        assert!(said(|run| run.tally.intended = 0).contains("no request was due"));
        assert!(said(|run| run.tally.ok = outcome(0, 1).tally.ok).contains("no request was answered"));
        assert!(said(|run| run.tally.unsent = 1234).contains("1,234 of 1,007 never sent, all 12"));
        let late = |run: &mut Outcome| (0..100).for_each(|_| run.tally.own_lag.record(2 * LATE));
        assert!(said(late).contains("itself was late (p99 4"), "{}", said(late));
        assert!(said(|run| run.cpu = Duration::from_secs(10)).contains("1.00 cores on 1 threads"));
        assert!(said(|run| run.steadiness = Steadiness::Never).contains("still changed"));
        assert!(said(|run| run.steadiness = Steadiness::From(40)).contains("steady only from 4.0 s"));
    }
}
