//! Everything that was measured, for programs.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{Figures, Report};
use crate::{Latencies, Slice, Steadiness};

pub(super) fn write(report: &Report<'_>) -> Value {
    let (n_requests, body_bytes) = report.target.size();
    let started = report.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "target": report.target.name(),
        "command": report.command,
        "generator": format!("lepton {}", env!("CARGO_PKG_VERSION")),
        "threads": report.threads,
        "started_unix_s": started.as_secs(),
        "different_requests": n_requests,
        "body_bytes": body_bytes,
        "deadline_ms": report.deadline.map(milliseconds),
        "runs": report.figures().iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(figures: &Figures<'_>) -> Value {
    let (run, tally) = (figures.run, figures.tally);
    let steady_from_s = match run.steadiness {
        Steadiness::From(slice) => Some(Slice::begins(slice).as_secs_f64()),
        Steadiness::Never | Steadiness::Unknown => None,
    };
    let steady = match run.steadiness {
        Steadiness::From(_) => Some(true),
        Steadiness::Never => Some(false),
        Steadiness::Unknown => None,
    };
    let refused: Map<String, Value> =
        tally.refusals().map(|(status, n)| (status.to_string(), n.into())).collect();
    let mut failed = Map::new();
    for (fault, n) in &tally.faults {
        let sum = failed.get(fault.kind()).and_then(Value::as_u64).unwrap_or_default() + n;
        failed.insert(fault.kind().to_owned(), sum.into());
    }
    json!({
        "load": run.load,
        "offered_per_s": run.offered,
        "warm_up_s": run.warm_up.as_secs_f64(),
        "measured_s": run.window.as_secs_f64(),
        "end": run.end.word(),
        "steady": steady,
        "steady_from_s": steady_from_s,
        "requests": {
            "intended": tally.intended,
            "sent": figures.sent,
            "ok": tally.ok.count(),
            "refused": tally.n_refused(),
            "failed": tally.n_failed(),
            "unsent": tally.unsent,
            "cut_off": tally.cut_off,
        },
        "refused_by_status": refused,
        "failed_by_kind": failed,
        "per_s": {
            "intended": figures.intended_per_s,
            "answered": figures.answered_per_s,
            "ok": figures.ok_per_s,
            "goodput": figures.good_per_s,
        },
        "latency_ms": times(&tally.ok),
        "refused_latency_ms": times(&tally.refused),
        "service_ms": times(&tally.service),
        "lag_ms": times(&tally.lag),
        "own_lag_ms": times(&tally.own_lag),
        "sent_in_time": figures.in_time,
        "retry_after": tally.retry_after.map(|seen| json!({
            "answers": seen.answers,
            "least_s": seen.least_s,
            "most_s": seen.most_s,
        })),
        "bytes": { "sent": tally.bytes_sent, "received": tally.bytes_received },
        "connections": { "most": run.callers, "opened": run.connections_opened },
        "generator_cpu_s": run.cpu.as_secs_f64(),
        "generator_cores": figures.cores,
        "warnings": figures.warnings.iter().map(|warning| &warning.found).collect::<Vec<_>>(),
        "slice_s": Slice::LENGTH.as_secs_f64(),
        "slices": run.slices.iter().map(slice).collect::<Vec<_>>(),
        "latency_histogram": tally.ok.buckets().map(|(upto, n)| json!([milliseconds(upto), n])).collect::<Vec<_>>(),
    })
}

fn times(latencies: &Latencies) -> Value {
    let at = |quantile| latencies.at(quantile).map(milliseconds);
    json!({
        "count": latencies.count(),
        "mean": latencies.mean().map(milliseconds),
        "p50": at(0.5),
        "p90": at(0.9),
        "p95": at(0.95),
        "p99": at(0.99),
        "p99_9": at(0.999),
        "max": latencies.max().map(milliseconds),
    })
}

fn slice(slice: &Slice) -> Value {
    json!({
        "ok": slice.ok,
        "other": slice.other,
        "mean_latency_ms": slice.mean_latency_s().map(|seconds| seconds * 1e3),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{outcome, report, target},
        *,
    };

    #[test]
    fn it_reads_back_and_counts_add_up() {
        let (target, runs) = (target(), [outcome(100, 1), outcome(1000, 3)]);
        let read: Value = serde_json::from_str(&report(&target, &runs).json()).unwrap();
        assert_eq!(read["runs"].as_array().unwrap().len(), 2);
        let run = &read["runs"][0];
        let n = |name: &str| run["requests"][name].as_u64().unwrap();
        assert_eq!(n("intended"), n("ok") + n("refused") + n("failed") + n("unsent") + n("cut_off"));
        assert_eq!(n("intended"), n("sent") + n("unsent"));
        assert_eq!(run["refused_by_status"], json!({"503": 4}));
        assert_eq!(run["failed_by_kind"], json!({"timed_out": 1}));
        let buckets = run["latency_histogram"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum::<u64>(), n("ok"));
        assert_eq!((&run["steady"], &run["end"]), (&json!(true), &json!("complete")));
    }
}
