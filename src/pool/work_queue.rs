//! What waits for a worker: the rows that callers wait for, and the work that nobody waits for.
//!
//! Invariant: plain data behind one lock that is held for microseconds. Nothing is dropped that another lock or much
//! memory hangs on: it is handed out.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Instant,
};

use lepton_scheduler::{
    arena::Key,
    model_queue::ModelQueue,
    policy::Policy,
    queue::{Queue, Work},
};

use crate::pool::{
    LoadModel, Loaded,
    costs::ModelCosts,
    job::{Job, Queued},
    model::Model,
};

/// The scheduler's queue, of jobs.
pub(super) type JobQueue = Queue<Job, Arc<ModelCosts>>;

/// Jobs of one model for one run, one at least.
pub(super) struct Batch {
    pub(super) model: Arc<Model>,
    pub(super) jobs: Vec<Queued>,
}

impl Batch {
    /// Makes a batch of jobs of one model; `None` of no jobs.
    fn of(jobs: Vec<Queued>) -> Option<Self> {
        let model = Arc::clone(jobs.first()?.job.waiting.model());
        Some(Self { model, jobs })
    }
}

/// Work that no caller waits for.
pub(super) enum BackgroundTask {
    /// Reads a model and answers its first sample, where nobody is served yet.
    Load { model: Weak<Model>, load: LoadModel },
    /// Measures runs of `rows` copies of a sample, so that no caller pays for building its plan.
    Measure { model: Weak<Model>, sample: usize, rows: usize },
}

/// What is to be given back of models that are gone.
pub(super) struct Gone {
    /// The queues that are left: sessions of models with another are of no use any more.
    pub(super) queues: Vec<Key>,
    /// Weights that nobody will run any more. Whoever gets this drops them.
    pub(super) loaded: Vec<Loaded>,
}

/// What a free worker is given.
pub(super) enum Assignment {
    Background(BackgroundTask),
    /// Give back what is kept of models that are gone.
    Forget(Gone),
    /// Prepare these and bring them back.
    Prepare(Batch),
    Run(Batch),
    /// Nothing to do now, or before that moment.
    Rest(Option<Instant>),
    /// Nothing to do ever again.
    Leave,
}

/// Everything that waits for a worker.
pub(super) struct WorkQueue {
    pub(super) jobs: JobQueue,
    /// Loading: before any request, for nobody can be served without it.
    urgent: VecDeque<BackgroundTask>,
    /// Measuring further shapes: only while nobody waits.
    idle: VecDeque<BackgroundTask>,
    /// How many models have gone so far, and the weights of those whose weights no worker has dropped yet.
    n_gone: u64,
    gone: Vec<Loaded>,
}

impl WorkQueue {
    /// Makes an empty queue for no model.
    pub(super) fn new(workers: usize, policy: Arc<dyn Policy>) -> Self {
        Self {
            jobs: Queue::new(workers, policy, Instant::now()),
            urgent: VecDeque::new(),
            idle: VecDeque::new(),
            n_gone: 0,
            gone: Vec::new(),
        }
    }

    /// Removes the queue of a model that nobody holds any more, so that no job waits in it; a worker drops what was
    /// `loaded`. Returns what the caller is to drop once the lock is released.
    pub(super) fn remove(
        &mut self,
        queue: Key,
        loaded: Option<Loaded>,
    ) -> (Option<ModelQueue<Job, Arc<ModelCosts>>>, VecDeque<BackgroundTask>) {
        self.n_gone += 1;
        self.gone.extend(loaded);
        let is_left = |task: &BackgroundTask| match task {
            BackgroundTask::Load { model, .. } | BackgroundTask::Measure { model, .. } => {
                model.strong_count() > 0
            }
        };
        let mut ended = VecDeque::new();
        for tasks in [&mut self.urgent, &mut self.idle] {
            let (left, gone): (VecDeque<_>, VecDeque<_>) = tasks.drain(..).partition(is_left);
            *tasks = left;
            ended.extend(gone);
        }
        (self.jobs.remove(queue), ended)
    }

    /// Returns what a worker is to give back that has seen only `seen` models go, which it then has seen all.
    pub(super) fn forget(&mut self, seen: &mut u64) -> Option<Gone> {
        if *seen == self.n_gone {
            return None;
        }
        *seen = self.n_gone;
        Some(Gone { queues: self.jobs.models().collect(), loaded: std::mem::take(&mut self.gone) })
    }

    /// Queues a task that goes before every request.
    pub(super) fn push_urgent(&mut self, task: BackgroundTask) {
        self.urgent.push_back(task);
    }

    /// Queues a task that waits until no request does.
    pub(super) fn push_idle(&mut self, task: BackgroundTask) {
        self.idle.push_back(task);
    }

    /// Returns whether nothing waits, not even what nobody waits for.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.idle.is_empty()
    }

    /// Takes no more jobs; workers leave when the last one is taken. Background tasks are given back, to be
    /// dropped once the lock is released.
    pub(super) fn close(&mut self) -> Vec<BackgroundTask> {
        self.jobs.close();
        self.urgent.drain(..).chain(self.idle.drain(..)).collect()
    }

    /// Gives a free worker what it is to do next, and the jobs to end once the lock is released.
    pub(super) fn take(&mut self, worker: usize, now: Instant) -> (Assignment, Vec<Queued>) {
        if worker < self.jobs.workers()
            && let Some(task) = self.urgent.pop_front()
        {
            return (Assignment::Background(task), Vec::new());
        }
        let (work, ended) = self.jobs.take(worker, now);
        let assignment = match work {
            Work::Prepare(jobs) => Batch::of(jobs).map(Assignment::Prepare),
            Work::Run(jobs) => Batch::of(jobs).map(Assignment::Run),
            Work::Linger(until) => Some(Assignment::Rest(Some(until))),
            Work::Idle(again) => {
                let task = self.idle.pop_front().map(Assignment::Background);
                Some(task.unwrap_or(Assignment::Rest(again)))
            }
            Work::Leave => Some(Assignment::Leave),
        };
        // The scheduler gives no batch of nothing.
        (assignment.unwrap_or(Assignment::Rest(Some(now))), ended)
    }
}
