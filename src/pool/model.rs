//! One loaded version of a model: what it is, where it stands, and how many rows wait for it.
//!
//! Invariant: whoever holds a model can use it to the end. It is loaded once, what it was loaded as never changes, and
//! when the last holder drops it, its queue, its costs, its sessions, its weights and its metrics go.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lepton_scheduler::{
    arena::Key,
    cost::{Best, CostModel, Measured},
};

use crate::{
    engine::{KernelUse, PrecisionDecision, Signature},
    error::Error,
    manifest::{Balance, BatchSpec, ModelId, ModelName, Version},
    metrics::ModelMetrics,
    pool::{
        Loaded,
        capacity::Capacity,
        costs::{Least, ModelCosts},
        shared::Shared,
    },
    tasks::{Descriptor, ProfileInput, RequestSize, Task},
};

/// Retry-After while a model loads, when nothing better is known.
pub(super) const RETRY_LOADING: Duration = Duration::from_secs(1);

/// How long a model rests after it was measured, in times of what that took, and the most: however many
/// callers are refused, a worker spends no more than a two-hundredth of its time on that.
const REST: u32 = 200;
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Of this many requests that are refused for their declared bytes, one is read.
const READ_ANYWAY: u32 = 8;

/// Where a model stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its network is being read, or has not answered its warm-up yet.
    Loading,
    Ready,
    /// Loading or warm-up failed; the reason is for the log and `/v1/models`.
    Failed(String),
    /// Another has taken its place, or it was unloaded: what was accepted is answered.
    Unloading,
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
            Self::Unloading => "unloading",
            Self::Stopping => "stopping",
        }
    }
}

/// What is known of a model before it is loaded.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    pub id: ModelId,
    /// What the model is for, in one line.
    pub description: String,
    /// Under which terms the network may be used.
    pub licence: String,
    /// How its rows may be batched.
    pub batch: BatchSpec,
    /// The kind of its task; `None` where its folder does not tell.
    pub task: Option<&'static Descriptor>,
}

/// One version of a model, from its declaration until nobody uses it any more.
pub struct Model {
    info: ModelInfo,
    /// Its queue.
    queue: Key,
    loaded: OnceLock<Loaded>,
    samples: OnceLock<Vec<ProfileInput>>,
    state: Mutex<State>,
    costs: Arc<ModelCosts>,
    /// Microseconds of CPU time that measuring has taken.
    measuring_us: AtomicU64,
    /// When a row may be measured again.
    again: Mutex<Option<Instant>>,
    waiting: AtomicUsize,
    /// Requests that would have been refused for the bytes that they declared.
    unread: AtomicU32,
    share: Arc<Capacity>,
    metrics: Arc<ModelMetrics>,
    /// Where its queue is, if the pool is still there when the last holder drops the model.
    shared: Weak<Shared>,
}

impl Drop for Model {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.retire(self.queue, &self.info.id, self.loaded.take());
        }
    }
}

impl Model {
    /// Makes a model that is still to be loaded, with a queue of its own in `shared`.
    pub(super) fn new(
        info: ModelInfo,
        shared: &Arc<Shared>,
        share: Arc<Capacity>,
        metrics: Arc<ModelMetrics>,
    ) -> Self {
        let costs = Arc::new(ModelCosts::new(info.batch.max_rows));
        Self {
            queue: shared.add_queue(Arc::clone(&costs)),
            info,
            loaded: OnceLock::new(),
            samples: OnceLock::new(),
            state: Mutex::new(State::Loading),
            costs,
            measuring_us: AtomicU64::new(0),
            again: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            unread: AtomicU32::new(0),
            share,
            metrics,
            shared: Arc::downgrade(shared),
        }
    }

    /// Its name and version.
    pub fn id(&self) -> &ModelId {
        &self.info.id
    }

    /// The name that callers use.
    pub fn name(&self) -> &ModelName {
        &self.info.id.name
    }

    /// Which version of the name it is.
    pub fn version(&self) -> Version {
        self.info.id.version
    }

    /// What the model is for, in one line.
    pub fn description(&self) -> &str {
        &self.info.description
    }

    /// Under which terms the network may be used.
    pub fn licence(&self) -> &str {
        &self.info.licence
    }

    /// Most rows that one run takes.
    pub fn max_rows(&self) -> usize {
        self.costs.max_rows()
    }

    /// How long a row may linger for others to share its run, where a request does not say.
    pub fn balance(&self) -> Balance {
        self.info.batch.balance
    }

    /// Where the model stands.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// The kind of its task, known before it is loaded; `None` where its folder is broken.
    pub fn descriptor(&self) -> Option<&'static Descriptor> {
        self.info.task
    }

    /// Returns whether requests that name no version may go to it.
    pub(super) fn is_serving(&self) -> bool {
        *lock(&self.state) == State::Ready
    }

    /// What the model is for; `None` until it is loaded.
    pub fn task(&self) -> Option<&Arc<dyn Task>> {
        self.loaded.get().map(|loaded| &loaded.task)
    }

    /// The precision of its products; `None` until it is loaded, or where its engine has no choice.
    pub fn precision(&self) -> Option<&PrecisionDecision> {
        self.loaded.get()?.precision.as_ref()
    }

    /// Which kernels do which share of its work, the largest share first; none until it is loaded.
    pub fn kernels(&self) -> &[KernelUse] {
        self.loaded.get().map_or(&[], |loaded| loaded.engine.kernels())
    }

    /// What its network takes and gives; `None` until it is loaded.
    pub fn signature(&self) -> Option<&Signature> {
        self.loaded.get().map(|loaded| loaded.engine.signature())
    }

    /// Measured CPU cost per row, one entry per shape of row and number of rows.
    pub fn measured(&self) -> Vec<Measured> {
        self.costs.measured()
    }

    /// How many rows a run should take, by shape, as measured.
    pub fn best(&self) -> Vec<Best> {
        self.costs.best()
    }

    /// Mean CPU seconds of a worker for each run beside its rows; 0 before the first.
    pub fn around(&self) -> f64 {
        self.costs.around()
    }

    /// Rows that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Its name's share of the pool's room.
    pub(super) fn share(&self) -> &Arc<Capacity> {
        &self.share
    }

    pub(super) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.get()
    }

    pub(super) fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    /// What its inputs and rows cost.
    pub(super) fn costs(&self) -> &Arc<ModelCosts> {
        &self.costs
    }

    /// Keeps what loading gave and one row of each shape; the first ones stay.
    pub(super) fn set_loaded(&self, loaded: Loaded, samples: Vec<ProfileInput>) {
        self.samples.get_or_init(|| samples);
        self.loaded.get_or_init(|| loaded);
    }

    /// Changes the state unless the model has left `from` meanwhile; returns whether it did.
    pub(super) fn change_state(&self, from: &State, to: State) -> bool {
        let mut current = lock(&self.state);
        let is_there = *current == *from;
        if is_there {
            *current = to;
        }
        is_there
    }

    pub(super) fn set_state(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// One row of each shape; none before the model is loaded.
    pub(super) fn samples(&self) -> &[ProfileInput] {
        self.samples.get().map_or(&[], Vec::as_slice)
    }

    /// The position of the sample of a shape.
    pub(super) fn sample_of(&self, bucket: usize) -> Option<usize> {
        self.samples().iter().position(|sample| sample.shape == bucket)
    }

    /// Returns whether a row may be measured again now; who is told so is to do it.
    pub(super) fn may_measure_again(&self, now: Instant) -> bool {
        let mut again = lock(&self.again);
        let may = again.is_none_or(|again| again <= now);
        if may {
            // Nobody else, until it is done.
            *again = Some(now + LONGEST_REST);
        }
        may
    }

    /// Records that measuring has ended, and how long it took.
    pub(super) fn measured_for(&self, took: Duration, now: Instant) {
        // The warm-up asks nobody, and no rest follows it.
        if let Some(again) = &mut *lock(&self.again) {
            *again = now + (took * REST).min(LONGEST_REST);
        }
    }

    /// What is known of the CPU time of an input before its body is read: the least of it.
    pub(super) fn least(&self, size: &RequestSize) -> Least {
        self.task().map_or_else(Least::default, |task| self.costs.least(&**task, size))
    }

    /// Returns whether a request is read whose declared bytes alone keep it out: one in eight of them, for bytes say
    /// little of the work, and what is not read teaches nothing.
    pub(super) fn reads_anyway(&self) -> bool {
        self.unread.fetch_add(1, Ordering::Relaxed) % READ_ANYWAY == READ_ANYWAY - 1
    }

    /// CPU time that measuring has taken.
    pub(super) fn measuring(&self) -> Duration {
        Duration::from_micros(self.measuring_us.load(Ordering::Relaxed))
    }

    /// Counts CPU time that measuring has taken.
    pub(super) fn add_measuring(&self, cpu: Duration) {
        let us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        self.measuring_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn queue(&self) -> Key {
        self.queue
    }

    /// Why requests are refused now, whatever they ask; `None` where the model is ready, or finishes what found it
    /// before it was to be unloaded.
    pub fn unavailable(&self) -> Option<Error> {
        let name = self.name();
        let reason = match &*lock(&self.state) {
            State::Ready => return None,
            State::Unloading if self.loaded.get().is_some() => return None,
            State::Unloading => format!("the model `{name}` was unloaded before it was ready"),
            State::Loading => format!("the model `{name}` is still loading"),
            State::Failed(_) => format!("the model `{name}` could not be loaded"),
            State::Stopping => "the server is stopping".to_owned(),
        };
        Some(Error::Unavailable { reason: reason.into(), retry_after: RETRY_LOADING })
    }
}

/// Counts a row as waiting while it lives, and keeps its model.
pub(super) struct Waiting {
    model: Arc<Model>,
}

impl Waiting {
    pub(super) fn start(model: &Arc<Model>) -> Self {
        model.waiting.fetch_add(1, Ordering::Relaxed);
        model.metrics.queued(1);
        Self { model: Arc::clone(model) }
    }

    /// The model that the row waits for.
    pub(super) fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.model.waiting.fetch_sub(1, Ordering::Relaxed);
        self.model.metrics.queued(-1);
    }
}

/// Locks plain data whose invariant no panic can break half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
