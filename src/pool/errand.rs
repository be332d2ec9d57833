//! What workers are given, and what they tell when they have done it.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use crate::pool::{
    LoadModel, Loaded,
    arena::Key,
    job::{Job, Terms},
    model::Model,
};

/// Jobs of one model for one run, one at least.
pub(super) struct Batch {
    pub(super) model: Arc<Model>,
    pub(super) jobs: Vec<Job>,
}

impl Batch {
    /// Makes a batch of jobs of one model; `None` of no jobs.
    pub(super) fn of(jobs: Vec<Job>) -> Option<Self> {
        let model = Arc::clone(jobs.first()?.waiting.model());
        Some(Self { model, jobs })
    }
}

/// Work that no caller waits for.
pub(super) enum Chore {
    /// Reads a model and answers its first sample, where nobody is served yet.
    Load { model: Weak<Model>, load: LoadModel },
    /// Measures runs of `rows` copies of a sample, so that no caller pays for building its plan.
    Measure { model: Weak<Model>, sample: usize, rows: usize },
}

/// What is to be given back of models that are gone.
pub(super) struct Gone {
    /// The lanes that are left: sessions of others are of no use any more.
    pub(super) lanes: Vec<Key>,
    /// Weights that nobody will run any more. Whoever gets this drops them.
    pub(super) loaded: Vec<Loaded>,
}

/// What a free worker is given.
pub(super) enum Errand {
    Chore(Chore),
    /// Give back what is kept of models that are gone.
    Forget(Gone),
    /// Prepare these and bring them back.
    Sort(Batch),
    Run(Batch),
    /// Nothing to do now, or before that moment.
    Rest(Option<Instant>),
    /// Nothing to do ever again.
    Leave,
}

/// What a worker has done since its last errand.
pub(super) enum Done {
    Nothing,
    /// Jobs that were prepared, and when those that had no row were due, and their terms.
    Sorted {
        lane: Key,
        rows: Vec<Job>,
        ended: Vec<(Instant, Terms)>,
    },
    Ran(Report),
}

/// What a batch took, against what was expected of it; all in seconds.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) wall: f64,
    /// CPU time that the cost table expected of the batch.
    pub(super) expected: f64,
    /// What its rows were charged with.
    pub(super) charged: f64,
    /// For each promise: what was predicted, and what it took.
    pub(super) promises: Vec<(f64, f64)>,
}
