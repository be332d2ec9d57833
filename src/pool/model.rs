//! One model of the pool: what it is, where it stands, what its rows cost and how many wait.
//!
//! Invariant: a model is loaded once, and what it was loaded as never changes.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    engine::Signature,
    error::Error,
    manifest::{ModelName, Version},
    metrics::ModelMetrics,
    pool::{Declared, Loaded, Measured, cost::CostTable, place::Room},
    task::Task,
};

/// Retry-After while a model loads, when nothing better is known.
pub(super) const RETRY_LOADING: Duration = Duration::from_secs(1);

/// Where a model stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its network is being read, or has not answered its warm-up yet.
    Loading,
    Ready,
    /// Loading or warm-up failed; the reason is for the log and `/v1/models`.
    Failed(String),
    /// The pool is closing.
    Stopping,
}

impl State {
    /// The state in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Failed(_) => "failed",
            Self::Stopping => "stopping",
        }
    }
}

/// One model of the pool.
pub struct Model {
    name: ModelName,
    version: Version,
    description: String,
    licence: String,
    max_rows: usize,
    lane: usize,
    loaded: OnceLock<Loaded>,
    state: Mutex<State>,
    costs: Mutex<CostTable>,
    waiting: AtomicUsize,
    share: Arc<Room>,
    metrics: ModelMetrics,
}

impl Model {
    pub(super) fn new(declared: Declared, lane: usize, share: Room, metrics: ModelMetrics) -> Self {
        Self {
            name: declared.name,
            version: declared.version,
            description: declared.description,
            licence: declared.licence,
            max_rows: declared.max_rows.max(1),
            lane,
            loaded: OnceLock::new(),
            state: Mutex::new(State::Loading),
            costs: Mutex::default(),
            waiting: AtomicUsize::new(0),
            share: Arc::new(share),
            metrics,
        }
    }

    /// The name that callers use.
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// Which version is served.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the model is for, in one line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Under which terms the network may be used.
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// Most rows that one run takes.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Where the model stands.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// What the model is for; `None` until it is loaded.
    pub fn task(&self) -> Option<&Arc<dyn Task>> {
        self.loaded.get().map(|loaded| &loaded.task)
    }

    /// What its network takes and gives; `None` until it is loaded.
    pub fn signature(&self) -> Option<&Signature> {
        self.loaded.get().map(|loaded| loaded.engine.signature())
    }

    /// Measured CPU cost per row, one entry per batch size seen.
    pub fn measured(&self) -> Vec<Measured> {
        lock(&self.costs).measured()
    }

    /// Rows that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// This model's share of the pool's room.
    pub(super) fn share(&self) -> &Arc<Room> {
        &self.share
    }

    pub(super) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.get()
    }

    pub(super) fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    /// Keeps what loading gave; the first one stays.
    pub(super) fn set_loaded(&self, loaded: Loaded) -> &Loaded {
        self.loaded.get_or_init(|| loaded)
    }

    pub(super) fn set_state(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// Sets how loading ended, unless the pool has begun to close meanwhile.
    pub(super) fn set_state_unless_stopping(&self, state: State) {
        let mut current = lock(&self.state);
        if *current != State::Stopping {
            *current = state;
        }
    }

    /// Takes in what a run cost.
    pub(super) fn learn(&self, rows: usize, cpu: Duration) {
        lock(&self.costs).learn(rows, cpu);
    }

    /// CPU time that the waiting rows are likely to take.
    fn backlog(&self) -> Duration {
        let rows = u32::try_from(self.waiting()).unwrap_or(u32::MAX);
        self.row_cost().saturating_mul(rows)
    }

    /// The CPU time that one row is likely to take.
    pub(super) fn row_cost(&self) -> Duration {
        lock(&self.costs).per_row().unwrap_or_default()
    }

    pub(super) fn lane(&self) -> usize {
        self.lane
    }

    /// Why requests are refused now, whatever they ask; `None` where the model is ready.
    pub(super) fn unavailable(&self) -> Option<Error> {
        let reason = match self.state() {
            State::Ready => return None,
            State::Loading => format!("the model `{}` is still loading", self.name),
            State::Failed(_) => format!("the model `{}` could not be loaded", self.name),
            State::Stopping => "the server is stopping".to_owned(),
        };
        Some(Error::Unavailable { reason: reason.into(), retry_after: RETRY_LOADING })
    }
}

/// Counts a row as waiting while it lives.
pub(super) struct Waiting {
    model: Arc<Model>,
}

impl Waiting {
    pub(super) fn start(model: &Arc<Model>) -> Self {
        model.waiting.fetch_add(1, Ordering::Relaxed);
        model.metrics.queued(1);
        Self { model: Arc::clone(model) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.model.waiting.fetch_sub(1, Ordering::Relaxed);
        self.model.metrics.queued(-1);
    }
}

/// Sums the CPU time that all waiting rows are likely to take.
pub(super) fn backlog(models: &[Arc<Model>]) -> Duration {
    models.iter().map(|model| model.backlog()).sum()
}

/// Locks plain data whose invariant no panic can break half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
