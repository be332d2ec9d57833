//! The queue: one lane per model, a bucket per likely row shape, jobs in order of their deadlines.
//!
//! Invariant: plain data behind one lock that is held for microseconds. Nothing here runs a
//! network, waits, or drops a job while the lock is held: what is to be dropped is handed out.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    error::Error,
    pool::{
        Answered, LoadModel,
        model::{Model, Waiting},
        place::Place,
        policy::{self, BucketView, Decision},
    },
    task::Input,
    tensor::Tensors,
};

/// One input on its way to a worker.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) caller: Caller,
    /// Counts the row as waiting until a worker takes it or its caller has gone.
    pub(super) waiting: Waiting,
}

/// Who waits for an answer, and since when.
pub(super) struct Caller {
    pub(super) arrived: Instant,
    pub(super) queued: Instant,
    pub(super) deadline: Duration,
    pub(super) reply: oneshot::Sender<Result<Answered, Error>>,
    /// The caller's span, so that what a worker logs names the request.
    pub(super) span: tracing::Span,
    /// Room in the queue, held until the answer is sent.
    pub(super) place: Place,
}

impl Caller {
    /// When the answer is due.
    pub(super) fn due(&self) -> Instant {
        self.arrived + self.deadline
    }

    /// Says whether the caller has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }

    /// Gives the room back and sends the answer; a caller who has gone does not want it.
    pub(super) fn answer(self, answer: Result<Answered, Error>) {
        // Room first: whoever has an answer finds the place free for the next request.
        drop(self.place);
        let _gone = self.reply.send(answer);
    }
}

/// Jobs of one model for one run.
pub(super) struct Batch {
    pub(super) model: Arc<Model>,
    pub(super) jobs: Vec<Job>,
}

/// Work that no caller waits for.
pub(super) enum Chore {
    /// Reads a model and answers its first sample.
    Load { model: Arc<Model>, load: LoadModel },
    /// Runs `rows` copies of a sample, so that no caller pays for building its plan.
    WarmUp { model: Arc<Model>, sample: Arc<Tensors>, rows: usize },
}

/// What a free worker is given.
pub(super) enum Errand {
    Chore(Chore),
    Batch(Batch),
    /// Nothing to do now.
    Rest,
    /// Nothing to do ever again.
    Leave,
}

struct Bucket {
    lane: usize,
    bucket: usize,
    jobs: VecDeque<Job>,
}

/// Everything that waits for a worker.
#[derive(Default)]
pub(super) struct Queue {
    models: Vec<Arc<Model>>,
    buckets: Vec<Bucket>,
    /// Loading: before any request, for nobody can be served without it.
    urgent: VecDeque<Chore>,
    /// Warming up further shapes: only while nobody waits.
    idle: VecDeque<Chore>,
    closed: bool,
    /// The policy's view, kept to spare an allocation per decision.
    view: Vec<BucketView>,
}

impl Queue {
    /// Makes an empty queue with a lane per model.
    pub(super) fn new(models: Vec<Arc<Model>>) -> Self {
        Self { models, ..Self::default() }
    }

    /// Queues chores that go before every request.
    pub(super) fn push_urgent(&mut self, chore: Chore) {
        self.urgent.push_back(chore);
    }

    /// Queues a chore that waits until no request does.
    pub(super) fn push_idle(&mut self, chore: Chore) {
        self.idle.push_back(chore);
    }

    /// Queues a job in its model's lane.
    pub(super) fn push(&mut self, lane: usize, bucket: usize, job: Job) {
        let found = self.buckets.iter_mut().position(|b| b.lane == lane && b.bucket == bucket);
        let position = found.unwrap_or_else(|| {
            self.buckets.push(Bucket { lane, bucket, jobs: VecDeque::new() });
            self.buckets.len() - 1
        });
        let jobs = &mut self.buckets[position].jobs;
        // Most jobs are due after those before them: look from the back.
        let after =
            jobs.iter().rposition(|other| other.caller.due() <= job.caller.due()).map_or(0, |i| i + 1);
        jobs.insert(after, job);
    }

    /// Says whether the queue takes no more jobs.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes no more jobs; workers leave when the last one is taken. Chores are given back, to be
    /// dropped once the lock is released.
    pub(super) fn close(&mut self) -> Vec<Chore> {
        self.closed = true;
        self.urgent.drain(..).chain(self.idle.drain(..)).collect()
    }

    /// Gives a free worker its next errand, and the jobs to drop once the lock is released: those
    /// whose callers have gone, at no cost but this look.
    pub(super) fn take(&mut self, workers: usize) -> (Errand, Vec<Job>) {
        if let Some(chore) = self.urgent.pop_front() {
            return (Errand::Chore(chore), Vec::new());
        }
        let mut cancelled = Vec::new();
        for bucket in &mut self.buckets {
            // Only the front decides: the rest is looked at when it gets there.
            while bucket.jobs.front().is_some_and(is_cancelled) {
                cancelled.extend(bucket.jobs.pop_front());
            }
        }
        self.view.clear();
        let models = &self.models;
        let far = Instant::now() + Duration::from_secs(3600);
        self.view.extend(self.buckets.iter().map(|bucket| BucketView {
            queued: bucket.jobs.len(),
            due: bucket.jobs.front().map_or(far, |job| job.caller.due()),
            max_rows: models[bucket.lane].max_rows(),
        }));
        match policy::decide(&self.view, workers) {
            Decision::Run { bucket, rows } => {
                let bucket = &mut self.buckets[bucket];
                let mut jobs = Vec::with_capacity(rows);
                while jobs.len() < rows {
                    match bucket.jobs.pop_front() {
                        Some(job) if is_cancelled(&job) => cancelled.push(job),
                        Some(job) => jobs.push(job),
                        None => break,
                    }
                }
                let model = Arc::clone(&self.models[bucket.lane]);
                (Errand::Batch(Batch { model, jobs }), cancelled)
            }
            Decision::Rest if self.closed => (Errand::Leave, cancelled),
            Decision::Rest => (self.idle.pop_front().map_or(Errand::Rest, Errand::Chore), cancelled),
        }
    }

    /// Takes out every job whose caller has gone, to be dropped once the lock is released.
    pub(super) fn sweep(&mut self) -> Vec<Job> {
        let mut cancelled = Vec::new();
        for bucket in &mut self.buckets {
            let (gone, waiting) = bucket.jobs.drain(..).partition(is_cancelled);
            bucket.jobs = waiting;
            cancelled.extend::<VecDeque<Job>>(gone);
        }
        cancelled
    }
}

fn is_cancelled(job: &Job) -> bool {
    job.caller.is_gone()
}
