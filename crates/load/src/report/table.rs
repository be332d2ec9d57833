//! The table on the terminal.

use std::fmt::Write;

use super::{Figures, IN_TIME, Report, words};
use crate::{End, Steadiness};

const HEAD: [&str; 12] = [
    "load",
    "offered/s",
    "answered/s",
    "goodput/s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "refused",
    "failed",
    "unsent",
];

/// Width of notes.
const WIDTH: usize = 108;

pub(super) fn write(report: &Report<'_>) -> String {
    let figures = report.figures();
    let mut text = format!("{}\n", head(report));
    let mut rows = vec![HEAD.map(str::to_uppercase)];
    rows.extend(figures.iter().map(cells));
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut notes = std::iter::once(Vec::new()).chain(figures.iter().map(|one| notes(one, figures.len())));
    for row in &rows {
        for (n, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Names on the left, numbers on the right.
            let written =
                if n == 0 { write!(text, "{cell:width$}") } else { write!(text, "  {cell:>width$}") };
            debug_assert!(written.is_ok(), "a string takes everything");
        }
        text.push('\n');
        for note in notes.next().unwrap_or_default() {
            text += "  ";
            text += &wrapped(&note);
            text.push('\n');
        }
    }
    text
}

/// What was asked, in one line.
fn head(report: &Report<'_>) -> String {
    let mut head = report.target.name().to_owned();
    match report.target.size() {
        (_, 0) => {}
        (1, bytes) => head += &format!(", a body of {} bytes", words::count(bytes as u64)),
        (n, bytes) => head += &format!(", {n} bodies of {} bytes together", words::count(bytes as u64)),
    }
    if let Some(deadline) = report.deadline {
        head += &format!(", deadline {} ms", deadline.as_millis());
    }
    head
}

fn cells(figures: &Figures<'_>) -> [String; HEAD.len()] {
    let tally = figures.tally;
    [
        figures.run.load.clone(),
        words::three_digits(figures.intended_per_s),
        words::three_digits(figures.answered_per_s),
        words::three_digits(figures.good_per_s),
        words::ms(figures.p(0.5)),
        words::ms(figures.p(0.9)),
        words::ms(figures.p(0.99)),
        words::ms(figures.p(0.999)),
        words::ms(tally.ok.max()),
        words::count(tally.n_refused()),
        words::count(tally.n_failed()),
        words::count(tally.unsent),
    ]
}

/// What stands below a single run; below one of several, only what is out of the ordinary.
fn notes(figures: &Figures<'_>, runs: usize) -> Vec<String> {
    let (run, tally) = (figures.run, figures.tally);
    let mut notes = if runs == 1 { details(figures) } else { Vec::new() };
    if tally.n_refused() > 0 {
        let by_status: Vec<String> =
            tally.refusals().map(|(status, n)| format!("{} with {status}", words::count(n))).collect();
        let retry = tally.retry_after.map_or(String::new(), |seen| match (seen.least_s, seen.most_s) {
            (least, most) if least == most => format!("; Retry-After {least} s"),
            (least, most) => format!("; Retry-After {least} to {most} s"),
        });
        notes.push(format!("refused: {}{retry}", by_status.join(", ")));
    }
    if tally.n_failed() > 0 {
        let by_fault: Vec<String> =
            tally.faults.iter().map(|(fault, n)| format!("{} {fault}", words::count(*n))).collect();
        notes.push(format!("failed: {}; no latency stands for them", by_fault.join(", ")));
    }
    if run.end == End::Interrupted {
        notes.push(format!("interrupted; not waited for: {}", words::count(tally.cut_off)));
    }
    let warnings = &figures.warnings;
    if runs == 1 {
        notes
            .extend(warnings.iter().map(|warning| format!("warning: {}; {}", warning.found, warning.advice)));
    } else if !warnings.is_empty() {
        let found: Vec<&str> = warnings.iter().map(|warning| warning.found.as_str()).collect();
        notes.push(format!("warning: {}", found.join("; ")));
    }
    notes
}

fn details(figures: &Figures<'_>) -> Vec<String> {
    let (run, tally) = (figures.run, figures.tally);
    let steady = match run.steadiness {
        Steadiness::From(_) => ", steady",
        Steadiness::Never => ", not steady",
        Steadiness::Unknown => "",
    };
    let mut details = vec![format!(
        "measured {} after {} of warm-up{steady}; {} of {} requests answered with 2xx",
        words::seconds(run.window),
        words::seconds(run.warm_up),
        words::count(tally.ok.count()),
        words::count(tally.intended),
    )];
    if let Some(in_time) = figures.in_time.filter(|_| run.offered.is_some()) {
        details.push(format!(
            "{} sent within {} ms of the intended time; the generator's own lag is p99 {} ms",
            words::percent(in_time),
            IN_TIME.as_millis(),
            words::ms(tally.own_lag.at(0.99)),
        ));
    }
    details.push(format!(
        "connections: {} at once, {} opened; bytes: {} sent, {} received; generator: {:.2} cores",
        run.callers,
        words::count(run.connections_opened),
        words::count(tally.bytes_sent),
        words::count(tally.bytes_received),
        figures.cores,
    ));
    details
}

/// Breaks a text into lines of a terminal's width at its blanks, all but the first one indented.
fn wrapped(text: &str) -> String {
    let (mut lines, mut width) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines += "\n    ";
            width = 2;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines += word;
        width += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{outcome, report, target},
        *,
    };
    use crate::RetryAfter;

    #[test]
    fn numbers_stand_below_their_names_and_notes_below_their_run() {
        let (target, runs) = (target(), [outcome(100, 1), outcome(1000, 3)]);
        insta::assert_snapshot!(report(&target, &runs).table().trim_end(), @r"
        GET http://127.0.0.1:8080/v1/text/sentiment?a=<b>, deadline 100 ms
        LOAD            OFFERED/S  ANSWERED/S  GOODPUT/S  P50 MS  P90 MS  P99 MS  P99.9 MS  MAX MS  REFUSED  FAILED  UNSENT
        Poisson 100/s         101         100       90.0   0.549   0.662   0.695     0.699   0.699        4       1       2
          refused: 4 with 503
          failed: 1 timed out; no latency stands for them
          warning: 2 of 1,007 never sent, all 12 connections were busy
        Poisson 1000/s      1,001       1,000        900    1.65    1.98    2.09      2.10    2.10        4       1       2
          refused: 4 with 503
          failed: 1 timed out; no latency stands for them
          warning: 2 of 10,007 never sent, all 12 connections were busy
        ");
    }

    #[test]
    fn a_single_run_has_its_details() {
        let (target, mut runs) = (target(), [outcome(1000, 1)]);
        (runs[0].tally.unsent, runs[0].end) = (0, End::Interrupted);
        runs[0].tally.retry_after = Some(RetryAfter { answers: 4, least_s: 1, most_s: 3 });
        insta::assert_snapshot!(report(&target, &runs).table().trim_end(), @r"
        GET http://127.0.0.1:8080/v1/text/sentiment?a=<b>, deadline 100 ms
        LOAD            OFFERED/S  ANSWERED/S  GOODPUT/S  P50 MS  P90 MS  P99 MS  P99.9 MS  MAX MS  REFUSED  FAILED  UNSENT
        Poisson 1000/s      1,001       1,000        900   0.549   0.662   0.695     0.699   0.699        4       1       0
          measured 10.0 s after 2.0 s of warm-up, steady; 10,000 of 10,007 requests answered with 2xx
          >99.9 % sent within 1 ms of the intended time; the generator's own lag is p99 0.020 ms
          connections: 12 at once, 12 opened; bytes: 0 sent, 0 received; generator: 0.15 cores
          refused: 4 with 503; Retry-After 1 to 3 s
          failed: 1 timed out; no latency stands for them
          interrupted; not waited for: 0
        ");
    }
}
