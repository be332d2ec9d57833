//! What is counted of each version of each model.
//!
//! Invariant: a model has series for as long as somebody counts for it, and no longer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use super::{Histograms, Seconds};
use crate::manifest::ModelId;

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
    /// What items cost that overlap in time: of each stage the longest, of CPU time the sum.
    pub fn together<'a>(costs: impl IntoIterator<Item = &'a Self>) -> Self {
        costs.into_iter().fold(Self::default(), |sum, item| Self {
            queue: sum.queue.max(item.queue),
            prepare: sum.prepare.max(item.prepare),
            infer: sum.infer.max(item.infer),
            answer: sum.answer.max(item.answer),
            cpu: sum.cpu + item.cpu,
            batch: sum.batch.max(item.batch),
        })
    }

    /// What it costs with a model that is asked afterwards: its stages come on top.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        Self {
            queue: self.queue + later.queue,
            prepare: self.prepare + later.prepare,
            infer: self.infer + later.infer,
            answer: self.answer + later.answer,
            cpu: self.cpu + later.cpu,
            batch: self.batch.max(later.batch),
        }
    }
}

impl Cost {
    /// The four stages together.
    pub fn total(&self) -> Duration {
        self.queue + self.prepare + self.infer + self.answer
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabels {
    model: String,
    version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabels {
    model: String,
    stage: &'static str,
    version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PromiseLabels {
    model: String,
    outcome: &'static str,
    version: u32,
}

const STAGES: [&str; 5] = ["queue", "prepare", "infer", "answer", "total"];
const OUTCOMES: [&str; 2] = ["kept", "broken"];

/// Every family of the table that has series for each model.
#[derive(Clone)]
pub(super) struct ModelFamilies {
    pub(super) stage_seconds: Histograms<StageLabels>,
    pub(super) batch_rows: Histograms<ModelLabels>,
    pub(super) answered_rows: Family<ModelLabels, Counter>,
    pub(super) charged_cpu_seconds: Family<ModelLabels, Seconds>,
    pub(super) promises: Family<PromiseLabels, Counter>,
    pub(super) predicted_seconds: Histograms<ModelLabels>,
    pub(super) finished_seconds: Histograms<ModelLabels>,
    pub(super) forecast_ratio: Histograms<ModelLabels>,
    pub(super) queued_rows: Family<ModelLabels, Gauge>,
}

impl ModelFamilies {
    /// Removes every series of a model.
    fn remove(&self, id: &ModelId) {
        let (model, version) = (id.name.as_str(), id.version.0);
        for stage in STAGES {
            self.stage_seconds.remove(&StageLabels { model: model.to_owned(), stage, version });
        }
        for outcome in OUTCOMES {
            self.promises.remove(&PromiseLabels { model: model.to_owned(), outcome, version });
        }
        let labels = ModelLabels { model: model.to_owned(), version };
        self.batch_rows.remove(&labels);
        self.answered_rows.remove(&labels);
        self.charged_cpu_seconds.remove(&labels);
        self.predicted_seconds.remove(&labels);
        self.finished_seconds.remove(&labels);
        self.forecast_ratio.remove(&labels);
        self.queued_rows.remove(&labels);
    }
}

/// Which models have series. Clones are of one set.
#[derive(Clone)]
pub struct ModelSeries(Arc<Series>);

struct Series {
    families: ModelFamilies,
    /// Held while series are made or removed, so that those of a model that comes again are not taken with the old one.
    models: Mutex<BTreeMap<ModelId, Weak<ModelMetrics>>>,
}

impl ModelSeries {
    pub(super) fn new(families: ModelFamilies) -> Self {
        Self(Arc::new(Series { families, models: Mutex::default() }))
    }

    /// The series of a model, shared by all who ask for the same one; they are removed when the last of these drops them.
    pub fn of(&self, id: &ModelId) -> Arc<ModelMetrics> {
        let mut models = self.0.lock();
        if let Some(metrics) = models.get(id).and_then(Weak::upgrade) {
            return metrics;
        }
        let families = &self.0.families;
        let labels = ModelLabels { model: id.name.to_string(), version: id.version.0 };
        let stage = |stage| {
            let labels = StageLabels { model: id.name.to_string(), stage, version: id.version.0 };
            families.stage_seconds.get_or_create_owned(&labels)
        };
        let promise = |outcome| {
            let labels = PromiseLabels { model: id.name.to_string(), outcome, version: id.version.0 };
            families.promises.get_or_create_owned(&labels)
        };
        let [queue, prepare, infer, answer, total] = STAGES.map(stage);
        let [kept, broken] = OUTCOMES.map(promise);
        let metrics = Arc::new(ModelMetrics {
            queue,
            prepare,
            infer,
            answer,
            total,
            batch_rows: families.batch_rows.get_or_create_owned(&labels),
            answered_rows: families.answered_rows.get_or_create_owned(&labels),
            cpu_seconds: families.charged_cpu_seconds.get_or_create_owned(&labels),
            queued_rows: families.queued_rows.get_or_create_owned(&labels),
            kept,
            broken,
            predicted: families.predicted_seconds.get_or_create_owned(&labels),
            finished: families.finished_seconds.get_or_create_owned(&labels),
            forecast_ratio: families.forecast_ratio.get_or_create_owned(&labels),
            id: id.clone(),
            series: Arc::clone(&self.0),
        });
        models.insert(id.clone(), Arc::downgrade(&metrics));
        metrics
    }
}

impl Series {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ModelId, Weak<ModelMetrics>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metrics of one model, its labels resolved once. Its series go when it is dropped.
pub struct ModelMetrics {
    queue: Histogram,
    prepare: Histogram,
    infer: Histogram,
    answer: Histogram,
    total: Histogram,
    batch_rows: Histogram,
    answered_rows: Counter,
    cpu_seconds: Seconds,
    queued_rows: Gauge,
    kept: Counter,
    broken: Counter,
    predicted: Histogram,
    finished: Histogram,
    forecast_ratio: Histogram,
    id: ModelId,
    series: Arc<Series>,
}

impl Drop for ModelMetrics {
    fn drop(&mut self) {
        let mut models = self.series.lock();
        // One that came again since has made these series its own.
        if models.get(&self.id).is_none_or(|metrics| metrics.strong_count() == 0) {
            models.remove(&self.id);
            self.series.families.remove(&self.id);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest::Version, metrics::Metrics};

    #[test]
    fn series_go_with_the_last_who_counts_for_their_model() {
        let metrics = Metrics::new();
        let bare = metrics.encode();
        let series = metrics.models();
        let id = |version| ModelId { name: "face".parse().unwrap(), version: Version(version) };
        let (first, again, other) = (series.of(&id(1)), series.of(&id(1)), series.of(&id(2)));
        again.ran(3);
        drop(first);
        assert!(metrics.encode().contains("lepton_batch_rows_count{model=\"face\",version=\"1\"} 1"));
        drop(again);
        let text = metrics.encode();
        assert!(!text.contains("version=\"1\"") && text.contains("version=\"2\""), "{text}");
        series.of(&id(1)).ran(1);
        drop(other);
        let n_lines = |text: &str| text.lines().filter(|line| !line.starts_with("process_")).count();
        assert_eq!(n_lines(&metrics.encode()), n_lines(&bare));
    }
}
