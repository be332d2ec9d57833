//! What one model's inputs and rows cost, shared by its queue, its requests and the workers that measure.
//!
//! Invariant: the lock is held for a look at the table, and nothing else is locked meanwhile.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lepton_scheduler::{
    charge::Charge,
    cost::{Best, CostModel, CostTable, Measured},
    handling::Evidence,
    policy::Curve,
};

use crate::{
    pool::model::lock,
    tasks::{ProfileInput, RequestSize, Task, Workload},
};

/// The costs of one model.
pub(super) struct ModelCosts {
    table: Mutex<CostTable>,
    /// Whether some batch is worth more than its rows alone.
    gains: AtomicBool,
    max_rows: usize,
}

impl ModelCosts {
    /// Makes an empty table for runs of at most `max_rows` rows.
    pub(super) fn new(max_rows: usize) -> Self {
        let max_rows = max_rows.max(1);
        Self { table: Mutex::new(CostTable::new(max_rows, [])), gains: AtomicBool::new(false), max_rows }
    }

    /// Makes the table for rows like `samples`, and returns the numbers of rows to measure.
    pub(super) fn begin(&self, samples: &[ProfileInput]) -> Vec<usize> {
        let shapes = samples.iter().map(|sample| (sample.shape, sample.size()));
        let table = CostTable::new(self.max_rows, shapes);
        let grid = table.grid().to_vec();
        *lock(&self.table) = table;
        grid
    }

    /// Records a measurement that nobody waited for.
    pub(super) fn measure(&self, bucket: usize, rows: usize, cpu: Duration) {
        self.change(|costs| costs.measure(bucket, rows, cpu));
    }

    /// Records what a run of the network cost, of `rows` rows of `size` numbers each.
    pub(super) fn learn(&self, bucket: usize, size: usize, rows: usize, cpu: Duration) {
        self.change(|costs| costs.learn(bucket, size, rows, cpu));
    }

    /// Records what a run took of a worker's time beside its rows.
    pub(super) fn ran(&self, around: Duration) {
        lock(&self.table).ran(around);
    }

    fn change(&self, change: impl FnOnce(&mut CostTable)) {
        let mut costs = lock(&self.table);
        change(&mut costs);
        self.gains.store(costs.gains(), Ordering::Relaxed);
    }

    /// Records what preparing and answering an input took that was answered.
    pub(super) fn handled(&self, workload: Workload, n_bytes: usize, prepare: Duration, answer: Duration) {
        let (mut costs, seconds) = (lock(&self.table), (prepare + answer).as_secs_f64());
        costs.handling.learn(workload, n_bytes, seconds, Instant::now());
        costs.prepared(prepare);
    }

    /// Records what was spent on an input that could not be prepared.
    pub(super) fn failed(&self, workload: Workload, spent: Duration) {
        lock(&self.table).handling.learn_failed(workload, spent.as_secs_f64(), Instant::now());
    }

    /// CPU time that a run of `rows` rows is likely to take.
    pub(super) fn run(&self, bucket: usize, rows: usize) -> Duration {
        Duration::from_secs_f64(lock(&self.table).run(bucket, rows))
    }

    /// Mean CPU seconds of a worker for each run beside its rows; 0 before the first.
    pub(super) fn around(&self) -> f64 {
        lock(&self.table).around()
    }

    /// One entry per shape of row and number of rows that was measured.
    pub(super) fn measured(&self) -> Vec<Measured> {
        lock(&self.table).measured()
    }

    /// The best number of rows for each shape that was measured.
    pub(super) fn best(&self) -> Vec<Best> {
        lock(&self.table).bests()
    }

    /// What inputs are charged with, each given by the task's number for its shape and its workload.
    pub(super) fn charges(
        &self,
        inputs: impl Iterator<Item = (usize, Option<usize>, Workload)>,
    ) -> Vec<Charge> {
        let (costs, now) = (lock(&self.table), Instant::now());
        let charge = |(bucket, then, workload): (usize, Option<usize>, Workload)| {
            let charge = Charge::of(&costs, bucket, workload, now);
            Charge { network: charge.network + further(&costs, then), ..charge }
        };
        inputs.map(charge).collect()
    }

    /// What is known of the CPU time of an input before its body is read: the least of it.
    pub(super) fn least(&self, task: &dyn Task, size: &RequestSize) -> Least {
        let (bucket, foreseen) = (task.shape_class(size).number(), task.foreseen(size));
        let (costs, now) = (lock(&self.table), Instant::now());
        let handling = foreseen.map_or(0.0, |workload| costs.handling.estimate(workload, now).measured());
        Least {
            network: Duration::from_secs_f64(costs.run(bucket, 1)) + further(&costs, task.then(size)),
            handling: Duration::from_secs_f64(
                handling.max(costs.handling.least(size.bytes.unwrap_or_default(), now)),
            ),
            is_foreseen: foreseen.is_some(),
        }
    }

    /// Starts the trial of an input whose cost nothing recent tells, unless one like it is on trial.
    pub(super) fn begin_trial(self: &Arc<Self>, workload: Workload) -> Option<Trial> {
        let began = lock(&self.table).handling.begin_trial(workload);
        began.then(|| Trial { costs: Arc::clone(self), workload })
    }
}

impl CostModel for ModelCosts {
    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn gains(&self) -> bool {
        self.gains.load(Ordering::Relaxed)
    }

    fn curve(&self, shape: usize, slowdown: f64) -> Curve {
        lock(&self.table).curve(shape, slowdown)
    }

    fn is_measured(&self, workload: Workload, now: Instant) -> bool {
        lock(&self.table).handling.estimate(workload, now).evidence == Evidence::Measured
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
    costs: Arc<ModelCosts>,
    workload: Workload,
}

impl Drop for Trial {
    fn drop(&mut self) {
        lock(&self.costs.table).handling.end_trial(self.workload);
    }
}

/// CPU time of the further row that an input needs, if it does.
fn further(costs: &CostTable, then: Option<usize>) -> Duration {
    then.map_or(Duration::ZERO, |bucket| Duration::from_secs_f64(costs.run(bucket, 1)))
}
