//! One model of the pool: what it is, where it stands, what its rows cost and how many wait.
//!
//! Invariant: a model is loaded once, and what it was loaded as never changes.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    engine::{Chosen, KernelUse, Signature},
    error::Error,
    manifest::{Balance, BatchSpec, ModelName, Version},
    metrics::ModelMetrics,
    pool::{
        Best, Declared, Loaded, Measured, charge::Charge, cost::CostTable, handling::Evidence, place::Room,
        policy::Curve,
    },
    task::{Sample, Task, Weight, Workload},
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
    batch: BatchSpec,
    lane: usize,
    loaded: OnceLock<Loaded>,
    samples: OnceLock<Vec<Sample>>,
    state: Mutex<State>,
    costs: Mutex<CostTable>,
    /// Whether some batch is worth more than its rows alone.
    gains: AtomicBool,
    /// Microseconds of CPU time that measuring has taken.
    measuring_us: AtomicU64,
    /// When a row may be measured again.
    again: Mutex<Option<Instant>>,
    waiting: AtomicUsize,
    /// Requests that would have been refused for the bytes that they declared.
    unread: AtomicU32,
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
            batch: declared.batch,
            lane,
            loaded: OnceLock::new(),
            samples: OnceLock::new(),
            state: Mutex::new(State::Loading),
            costs: Mutex::new(CostTable::new(1, [])),
            gains: AtomicBool::new(false),
            measuring_us: AtomicU64::new(0),
            again: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            unread: AtomicU32::new(0),
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
        self.batch.max_rows.max(1)
    }

    /// Whether a worker may wait for company, where a request does not say.
    pub fn balance(&self) -> Balance {
        self.batch.balance
    }

    /// Where the model stands.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// What the model is for; `None` until it is loaded.
    pub fn task(&self) -> Option<&Arc<dyn Task>> {
        self.loaded.get().map(|loaded| &loaded.task)
    }

    /// The precision of its products; `None` until it is loaded, or where its engine has no choice.
    pub fn precision(&self) -> Option<&Chosen> {
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
        lock(&self.costs).measured()
    }

    /// How many rows a run should take, by shape, as measured.
    pub fn best(&self) -> Vec<Best> {
        lock(&self.costs).bests()
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

    /// Keeps one row of each shape, and makes the cost table for them: gives both its shapes and the
    /// numbers of rows to measure.
    pub(super) fn set_samples(&self, samples: Vec<Sample>) -> (&[Sample], Vec<usize>) {
        let samples = self.samples.get_or_init(|| samples);
        let shapes = samples.iter().map(|sample| (sample.bucket, sample.size()));
        let table = CostTable::new(self.max_rows(), shapes);
        let grid = table.grid().to_vec();
        *lock(&self.costs) = table;
        (samples, grid)
    }

    /// One row of each shape; none before the model is loaded.
    pub(super) fn samples(&self) -> &[Sample] {
        self.samples.get().map_or(&[], Vec::as_slice)
    }

    /// The position of the sample of a shape.
    pub(super) fn sample_of(&self, bucket: usize) -> Option<usize> {
        self.samples().iter().position(|sample| sample.bucket == bucket)
    }

    /// Says whether a row may be measured again now; who is told so is to do it.
    pub(super) fn may_measure_again(&self, now: Instant) -> bool {
        let mut again = lock(&self.again);
        let may = again.is_none_or(|again| again <= now);
        if may {
            // Nobody else, until it is done.
            *again = Some(now + LONGEST_REST);
        }
        may
    }

    /// Says that measuring has ended, and how long it took.
    pub(super) fn measured_for(&self, took: Duration, now: Instant) {
        // The warm-up asks nobody, and no rest follows it.
        if let Some(again) = &mut *lock(&self.again) {
            *again = now + (took * REST).min(LONGEST_REST);
        }
    }

    /// Takes in a measurement that nobody waited for.
    pub(super) fn measure(&self, bucket: usize, rows: usize, cpu: Duration) {
        self.change(|costs| costs.measure(bucket, rows, cpu));
    }

    /// Takes in what a run of the network cost.
    pub(super) fn learn(&self, bucket: usize, rows: usize, cpu: Duration) {
        self.change(|costs| costs.learn(bucket, rows, cpu));
    }

    /// Takes in what a run took of a worker's time beside its rows.
    pub(super) fn ran(&self, around: Duration) {
        lock(&self.costs).ran(around);
    }

    /// Mean CPU seconds of a worker for each run beside its rows; 0 before the first.
    pub fn around(&self) -> f64 {
        lock(&self.costs).around()
    }

    fn change(&self, change: impl FnOnce(&mut CostTable)) {
        let mut costs = lock(&self.costs);
        change(&mut costs);
        self.gains.store(costs.gains(), Ordering::Relaxed);
    }

    /// Learns what preparing an input took that was answered, and answering it.
    pub(super) fn handled(&self, workload: Workload, n_bytes: usize, prepare: Duration, answer: Duration) {
        let (mut costs, seconds) = (lock(&self.costs), (prepare + answer).as_secs_f64());
        costs.handling.learn(workload, n_bytes, seconds, Instant::now());
        costs.prepared(prepare);
    }

    /// Learns what was spent on an input that could not be prepared.
    pub(super) fn failed(&self, workload: Workload, spent: Duration) {
        lock(&self.costs).handling.learn_failed(workload, spent.as_secs_f64(), Instant::now());
    }

    /// Says whether rows of some shape gain by sharing a run.
    pub(super) fn gains(&self) -> bool {
        self.gains.load(Ordering::Relaxed)
    }

    /// CPU time that a run of `rows` rows is likely to take.
    pub(super) fn run_cost(&self, bucket: usize, rows: usize) -> Duration {
        Duration::from_secs_f64(lock(&self.costs).run(bucket, rows))
    }

    /// What inputs are charged with, each given by the task's number for its shape and its workload.
    pub(super) fn charges(
        &self,
        inputs: impl Iterator<Item = (usize, Option<usize>, Workload)>,
    ) -> Vec<Charge> {
        let (costs, now) = (lock(&self.costs), Instant::now());
        let charge = |(bucket, then, workload): (usize, Option<usize>, Workload)| {
            let charge = Charge::of(&costs, bucket, workload, now);
            Charge { network: charge.network + further(&costs, then), ..charge }
        };
        inputs.map(charge).collect()
    }

    /// Returns whether it is known by now what an input of that workload costs.
    pub(super) fn is_measured(&self, workload: Workload) -> bool {
        lock(&self.costs).handling.estimate(workload, Instant::now()).evidence == Evidence::Measured
    }

    /// What is known of the CPU time of an input before its body is read: the least of it.
    pub(super) fn least(&self, weight: Weight) -> Least {
        let Some(task) = self.task() else { return Least::default() };
        let (bucket, foreseen) = (task.bucket(weight).number(), task.foreseen(weight));
        let (costs, now) = (lock(&self.costs), Instant::now());
        let handling = foreseen.map_or(0.0, |workload| costs.handling.estimate(workload, now).measured());
        Least {
            network: Duration::from_secs_f64(costs.run(bucket, 1)) + further(&costs, task.then(weight)),
            handling: Duration::from_secs_f64(handling.max(costs.handling.least(weight.bytes, now))),
            is_foreseen: foreseen.is_some(),
        }
    }

    /// Returns whether a request is read whose declared bytes alone keep it out: one in eight of them, for bytes say
    /// little of the work, and what is not read teaches nothing.
    pub(super) fn reads_anyway(&self) -> bool {
        self.unread.fetch_add(1, Ordering::Relaxed) % READ_ANYWAY == READ_ANYWAY - 1
    }

    /// Starts the trial of an input whose cost nothing recent tells, unless one like it is on trial.
    pub(super) fn begin_trial(self: &Arc<Self>, workload: Workload) -> Option<Trial> {
        let began = lock(&self.costs).handling.begin_trial(workload);
        began.then(|| Trial { model: Arc::clone(self), workload })
    }

    /// What the policy needs to know of a bucket; `stretch` is wall seconds for a CPU second.
    pub(super) fn curve(&self, bucket: usize, stretch: f64) -> Curve {
        lock(&self.costs).curve(bucket, stretch)
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

/// What is known of an input before it is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Least {
    pub(super) network: Duration,
    /// A lower bound of preparing and answering it.
    pub(super) handling: Duration,
    /// Whether its bytes tell its work, so that no more will be known of it.
    pub(super) is_foreseen: bool,
}

/// An input on trial: it is not known what such a one costs. Ends when it is dropped.
pub(super) struct Trial {
    model: Arc<Model>,
    workload: Workload,
}

impl Drop for Trial {
    fn drop(&mut self) {
        lock(&self.model.costs).handling.end_trial(self.workload);
    }
}

/// CPU time of the further row that an input needs, if it does.
fn further(costs: &CostTable, then: Option<usize>) -> Duration {
    then.map_or(Duration::ZERO, |bucket| Duration::from_secs_f64(costs.run(bucket, 1)))
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
