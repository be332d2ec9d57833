//! What slots, workers and the pool share: the queue behind its lock, and the bell that wakes workers.
//!
//! Invariant: the lock is held for microseconds, and nothing is dropped, run or waited for under it
//! but the bell itself.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::pool::{
    LoadModel,
    model::{self, Model, State},
    place::Room,
    queue::{Chore, Errand, Job, Queue},
};

/// What slots, workers and the pool share.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when there is work, and when there will be none.
    work: Condvar,
    workers: usize,
    room: Arc<Room>,
    models: Vec<Arc<Model>>,
    /// Told whenever a model's state has changed.
    progress: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(workers: usize, room: Room, models: Vec<Arc<Model>>) -> Self {
        Self {
            queue: Mutex::new(Queue::new(models.clone())),
            work: Condvar::new(),
            workers: workers.max(1),
            room: Arc::new(room),
            models,
            progress: watch::Sender::new(()),
        }
    }

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(super) fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    pub(super) fn progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    /// Predicts how long a row that takes `own` CPU time would be in the pool, if it came now.
    pub(super) fn forecast(&self, own: Duration) -> Duration {
        let workers = u32::try_from(self.workers).unwrap_or(u32::MAX);
        model::backlog(&self.models) / workers + own
    }

    /// Queues jobs with their buckets, all at once so that workers share them; gives them back
    /// where the queue is closed.
    pub(super) fn push(&self, lane: usize, jobs: Vec<(usize, Job)>) -> Result<(), Vec<(usize, Job)>> {
        let n_jobs = jobs.len();
        let mut queue = model::lock(&self.queue);
        if queue.is_closed() {
            return Err(jobs);
        }
        for (bucket, job) in jobs {
            queue.push(lane, bucket, job);
        }
        drop(queue);
        if n_jobs == 1 {
            self.work.notify_one()
        } else {
            self.work.notify_all()
        }
        Ok(())
    }

    /// Queues the loading of a model.
    pub(super) fn load(&self, model: &Arc<Model>, load: LoadModel) {
        model::lock(&self.queue).push_urgent(Chore::Load { model: Arc::clone(model), load });
        self.work.notify_one();
    }

    /// Queues chores that wait until no request does.
    pub(super) fn push_idle(&self, chores: impl Iterator<Item = Chore>) {
        let mut queue = model::lock(&self.queue);
        chores.for_each(|chore| queue.push_idle(chore));
        drop(queue);
        self.work.notify_all();
    }

    /// Tells those who wait for a model that its state has changed.
    pub(super) fn announce(&self) {
        self.progress.send_replace(());
    }

    /// Drops the jobs of callers who have gone, and with them the room that they held.
    pub(super) fn sweep(&self) {
        let cancelled = model::lock(&self.queue).sweep();
        drop(cancelled);
    }

    /// Takes no more jobs; what is queued is still answered.
    pub(super) fn close(&self) {
        for model in &self.models {
            model.set_state(State::Stopping);
        }
        let chores = model::lock(&self.queue).close();
        drop(chores);
        self.work.notify_all();
        self.announce();
    }

    /// Waits for the next errand.
    pub(super) fn next(&self) -> Option<Errand> {
        let mut queue = model::lock(&self.queue);
        loop {
            let (errand, cancelled) = queue.take(self.workers);
            if !cancelled.is_empty() {
                drop(queue);
                drop(cancelled);
                queue = model::lock(&self.queue);
                if matches!(errand, Errand::Rest) {
                    // Work may have come while the lock was free, and its signal with it.
                    continue;
                }
            }
            match errand {
                Errand::Leave => return None,
                Errand::Rest => queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                errand => return Some(errand),
            }
        }
    }
}
