//! What reservations, workers and the pool share: the models, the queue behind its lock, and the bell that wakes workers.
//!
//! Invariant: the lock is held for microseconds, and nothing is dropped, run or waited for under it
//! but the bell itself.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use lepton_scheduler::{
    arena::Key,
    charge::{self, Admission, Asks},
    demand::{Ask, Forecast},
    policy::{Class, Policy},
    queue::{Done, Rests},
};
use tokio::sync::watch;

use crate::{
    manifest::ModelId,
    pool::{
        LoadModel, Loaded,
        capacity::Capacity,
        costs::{ModelCosts, Trial},
        job::{self, Job, Queued},
        model::{self, Model, State},
        notifier::{DeferredNotification, WorkerNotifier},
        registry::Registry,
        work_queue::{Assignment, BackgroundTask, WorkQueue},
    },
};

/// What reservations, workers and the pool share.
pub(super) struct Shared {
    queue: Mutex<WorkQueue>,
    /// Rung when there is work, and when there will be none.
    notifier: WorkerNotifier,
    room: Arc<Capacity>,
    registry: Registry,
    /// TimeReservation by who loads a model while others are served.
    loading: Mutex<()>,
    /// Told whenever a model's state has changed.
    progress: watch::Sender<()>,
}

/// Where jobs are to be queued, and on which terms.
pub(super) struct Submission {
    pub(super) model: Key,
    pub(super) costs: Arc<ModelCosts>,
    pub(super) asks: Asks,
    pub(super) class: Class,
    /// What is owed to them already, due as they are.
    pub(super) held: Option<Duration>,
}

/// Why jobs were not queued.
pub(super) enum NotQueued {
    /// The pool is closing.
    Closed,
    /// They, or what was promised to others, would be late.
    Late(Forecast),
}

impl Shared {
    pub(super) fn new(workers: usize, policy: Arc<dyn Policy>, rows: usize, bytes: usize) -> Self {
        Self {
            queue: Mutex::new(WorkQueue::new(workers.max(1), policy)),
            notifier: WorkerNotifier::default(),
            room: Arc::new(Capacity::new(rows, bytes)),
            registry: Registry::new(rows, bytes),
            loading: Mutex::new(()),
            progress: watch::Sender::new(()),
        }
    }

    pub(super) fn room(&self) -> &Arc<Capacity> {
        &self.room
    }

    pub(super) fn loading(&self) -> &Mutex<()> {
        &self.loading
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Makes a queue for the jobs of a model that costs this.
    pub(super) fn add_queue(&self, costs: Arc<ModelCosts>) -> Key {
        self.queue().jobs.add(costs)
    }

    /// Gives back what is kept of a model that nobody holds any more: its queue at once, its weights and its sessions
    /// as soon as the workers have a moment.
    pub(super) fn retire(&self, queue: Key, id: &ModelId, loaded: Option<Loaded>) {
        let was_loaded = loaded.is_some();
        let ended = self.queue().remove(queue, loaded);
        drop(ended);
        self.notifier.notify_now(usize::MAX);
        self.announce();
        if was_loaded && !self.is_closed() {
            tracing::info!(model = %id.name, version = %id.version, "unloaded");
        }
    }

    pub(super) fn workers(&self) -> usize {
        self.queue().jobs.workers()
    }

    /// Sets how many workers there are meant to be; those beyond leave.
    pub(super) fn set_workers(&self, workers: usize) {
        self.queue().jobs.set_workers(workers);
        self.notifier.notify_now(usize::MAX);
    }

    pub(super) fn progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    /// Wall seconds for a CPU second of a batch, as seen lately.
    pub(super) fn slowdown(&self) -> f64 {
        self.queue().jobs.slowdown(Instant::now())
    }

    fn queue(&self) -> MutexGuard<'_, WorkQueue> {
        model::lock(&self.queue)
    }

    /// Predicts how long an answer would take, if it were asked for now.
    pub(super) fn forecast(&self, ask: Ask, class: Class) -> Forecast {
        let forecast = self.queue().jobs.forecast(ask, class, Instant::now());
        if forecast.excess.is_zero() {
            return forecast;
        }
        // Callers who have gone still count until a worker passes them: look before refusing.
        match self.sweep() {
            0 => forecast,
            _ => self.queue().jobs.forecast(ask, class, Instant::now()),
        }
    }

    /// Owes a request time whose inputs are not known yet, where that breaks no promise.
    pub(super) fn reserve_time(&self, ask: Ask, class: Class) -> Result<(), Forecast> {
        let mut queue = self.queue();
        let forecast = queue.jobs.forecast(ask, class, Instant::now());
        if !forecast.excess.is_zero() {
            return Err(forecast);
        }
        queue.jobs.reserve_time(ask.due, ask.whole);
        Ok(())
    }

    /// Ends what was owed by [`Shared::reserve_time`].
    pub(super) fn release_time(&self, due: Instant, work: Duration) {
        self.queue().jobs.release_time(due, work);
    }

    /// Queues jobs, all at once so that workers share them, where that breaks no promise. `jobs`
    /// makes them, told the forecast that they were accepted with and the trial that they are, where nothing is
    /// promised. What was held for them is owed no more.
    /// Returns the notification of workers where it was deferred, for the caller to keep until its next poll.
    pub(super) fn push(
        &self,
        submission: Submission,
        jobs: impl FnOnce(Forecast, Option<Trial>) -> Vec<Queued>,
    ) -> Result<Option<DeferredNotification>, NotQueued> {
        let Submission { model, costs, asks, class, held } = submission;
        let mut queue = self.queue();
        if let Some(held) = held {
            queue.jobs.release_time(asks.ask.due, held);
        }
        if queue.jobs.is_closed() {
            return Err(NotQueued::Closed);
        }
        let (now, mut trial) = (Instant::now(), None);
        let begin_trial = |workload| {
            trial = costs.begin_trial(workload);
            trial.is_some()
        };
        let jobs = match charge::admit(&asks, |ask| queue.jobs.forecast(ask, class, now), begin_trial) {
            Admission::Refused(forecast) => return Err(NotQueued::Late(forecast)),
            Admission::Promised(forecast) | Admission::Trial(forecast) => jobs(forecast, trial),
        };
        let n_jobs = jobs.len();
        // A reservation holds its model, and a model its queue.
        let left = queue.jobs.push(model, jobs);
        let idle = queue.jobs.idle();
        drop(queue);
        drop(left);
        Ok(if idle > 0 { self.notifier.notify(n_jobs) } else { None })
    }

    /// Has a worker load a model before it serves anybody; returns false where the pool is closing.
    pub(super) fn load(&self, model: &Arc<Model>, load: LoadModel) -> bool {
        let mut queue = self.queue();
        let is_open = !queue.jobs.is_closed();
        if is_open {
            queue.push_urgent(BackgroundTask::Load { model: Arc::downgrade(model), load });
        }
        drop(queue);
        self.notifier.notify_now(1);
        is_open
    }

    /// Queues tasks that wait until no request does.
    pub(super) fn push_idle(&self, tasks: impl Iterator<Item = BackgroundTask>) {
        let mut queue = self.queue();
        tasks.for_each(|task| queue.push_idle(task));
        drop(queue);
        self.notifier.notify_now(usize::MAX);
    }

    /// Has a row of `model` measured again, where nothing else is to be done: what it is said to cost
    /// keeps callers out, and without callers nobody would notice that it no longer does.
    pub(super) fn measure_again(&self, model: &Arc<Model>, bucket: usize) {
        let Some(sample) = model.sample_of(bucket) else { return };
        let mut queue = self.queue();
        let nothing_to_do = queue.is_idle() && !queue.jobs.is_closed();
        if nothing_to_do && model.may_measure_again(Instant::now()) {
            queue.push_idle(BackgroundTask::Measure { model: Arc::downgrade(model), sample, rows: 1 });
            drop(queue);
            self.notifier.notify_now(1);
        }
    }

    /// Returns whether no more jobs are taken.
    pub(super) fn is_closed(&self) -> bool {
        self.queue().jobs.is_closed()
    }

    /// How many models have a queue.
    #[cfg(test)]
    pub(super) fn n_queues(&self) -> usize {
        self.queue().jobs.models().count()
    }

    /// How many places for queues there are, in use or not.
    #[cfg(test)]
    pub(super) fn n_queue_places(&self) -> usize {
        self.queue().jobs.n_places()
    }

    /// Tells those who wait for a model that its state has changed.
    pub(super) fn announce(&self) {
        self.progress.send_replace(());
    }

    /// Ends the jobs of callers who have gone, and with them gives back the room that they held: how many.
    pub(super) fn sweep(&self) -> usize {
        let ended = self.queue().jobs.sweep(Instant::now());
        let n_ended = ended.len();
        ended.into_iter().for_each(job::end);
        n_ended
    }

    /// Takes no more jobs; what is queued is still answered.
    pub(super) fn close(&self) {
        for model in self.registry.all() {
            model.set_state(State::Stopping);
        }
        let tasks = self.queue().close();
        drop(tasks);
        self.notifier.notify_now(usize::MAX);
        self.announce();
    }

    /// Records what a worker has done and waits for its next assignment; `None` where it is to leave. Where there
    /// is nothing to do, and from `due` on, that is the assignment. `seen` is how many models have gone as far as the worker knows.
    pub(super) fn next(
        &self,
        worker: usize,
        done: Done<Job>,
        due: Option<Instant>,
        seen: &mut u64,
    ) -> Option<Assignment> {
        let mut queue = self.queue();
        let mut now = Instant::now();
        queue.jobs.finish(worker, done, now);
        loop {
            if let Some(gone) = queue.forget(seen) {
                return Some(Assignment::Forget(gone));
            }
            let (assignment, ended) = queue.take(worker, now);
            if !ended.is_empty() {
                drop(queue);
                ended.into_iter().for_each(job::end);
                queue = self.queue();
                if matches!(assignment, Assignment::Rest(_)) {
                    // Work may have come while the lock was free, and its signal with it.
                    now = Instant::now();
                    continue;
                }
            }
            match assignment {
                Assignment::Leave => {
                    drop(queue);
                    // Whoever is woken for work that this worker leaves behind takes it.
                    self.notifier.notify_now(1);
                    return None;
                }
                Assignment::Rest(None) if due.is_some_and(|due| due <= now) => return Some(assignment),
                Assignment::Rest(until) => queue = self.rest(queue, until.or(due)),
                assignment => {
                    if queue.jobs.idle() > 0 && !queue.jobs.is_empty() {
                        self.notifier.notify_now(1);
                    }
                    return Some(assignment);
                }
            }
            now = Instant::now();
        }
    }

    fn rest<'q>(
        &self,
        mut queue: MutexGuard<'q, WorkQueue>,
        until: Option<Instant>,
    ) -> MutexGuard<'q, WorkQueue> {
        queue.jobs.rests(Rests::Begin);
        let mut queue = self.notifier.wait(queue, until);
        queue.jobs.rests(Rests::End);
        queue
    }
}
