//! What is counted of one model.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::Seconds;

/// What one answer cost, by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Waited for a worker.
    pub queue: Duration,
    /// Decoded and resized, or tokenised.
    pub prepare: Duration,
    /// Ran the network, the whole batch.
    pub infer: Duration,
    /// Made the answer of the network's outputs.
    pub answer: Duration,
    /// CPU time charged to this row: its own preparing and answering, and its share of the run.
    pub cpu: Duration,
    /// Rows in the run.
    pub batch: usize,
}

impl Cost {
    /// The four stages together.
    pub fn total(&self) -> Duration {
        self.queue + self.prepare + self.infer + self.answer
    }
}

/// The metrics of one model, its label resolved once.
#[derive(Clone)]
pub struct ModelMetrics {
    pub(super) queue: Histogram,
    pub(super) prepare: Histogram,
    pub(super) infer: Histogram,
    pub(super) answer: Histogram,
    pub(super) total: Histogram,
    pub(super) batch_rows: Histogram,
    pub(super) answered_rows: Counter,
    pub(super) cpu_seconds: Seconds,
    pub(super) queued_rows: Gauge,
    pub(super) kept: Counter,
    pub(super) broken: Counter,
    pub(super) predicted: Histogram,
    pub(super) finished: Histogram,
    pub(super) forecast_ratio: Histogram,
}

impl ModelMetrics {
    /// Records an answered row.
    pub fn answered(&self, cost: &Cost) {
        self.queue.observe(cost.queue.as_secs_f64());
        self.prepare.observe(cost.prepare.as_secs_f64());
        self.infer.observe(cost.infer.as_secs_f64());
        self.answer.observe(cost.answer.as_secs_f64());
        self.total.observe(cost.total().as_secs_f64());
        self.answered_rows.inc();
        self.cpu_seconds.inc_by(cost.cpu.as_secs_f64());
    }

    /// Records a run of `rows` rows.
    pub fn ran(&self, rows: usize) {
        self.batch_rows.observe(rows as f64);
    }

    /// Counts an accepted row that was answered within its deadline.
    pub fn promise_kept(&self) {
        self.kept.inc();
    }

    /// Counts an accepted row whose deadline passed before its answer was made.
    pub fn promise_broken(&self) {
        self.broken.inc();
    }

    /// Records what was predicted for an accepted row, and what it took.
    pub fn predicted(&self, predicted: Duration, took: Duration) {
        self.predicted.observe(predicted.as_secs_f64());
        self.finished.observe(took.as_secs_f64());
        if !predicted.is_zero() {
            self.forecast_ratio.observe(took.as_secs_f64() / predicted.as_secs_f64());
        }
    }

    /// Changes the number of rows that wait for a worker.
    pub fn queued(&self, change: i64) {
        self.queued_rows.inc_by(change);
    }
}
