//! The lane of one model: inputs whose shape is not known yet, and rows by their shape, each in the
//! order of their deadlines.
//!
//! Invariant: plain data. A job is in one place, and what leaves is handed out.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use crate::{
    manifest::Balance,
    pool::{
        arrivals::Arrivals,
        job::{Job, Matter},
        model::Model,
        policy::{BucketView, Class},
    },
    task,
};

/// Rows that are prepared ahead of their runs, so that those of one shape find each other. More would
/// only take memory.
const AHEAD: usize = 256;

/// The lane of one model.
pub(super) struct Lane {
    pub(super) model: Arc<Model>,
    /// Inputs that have to be prepared before anybody knows what they can share a run with, by class.
    unsorted: [VecDeque<Job>; 2],
    buckets: Vec<Bucket>,
    n_sorted: usize,
}

/// Rows of one shape and class.
struct Bucket {
    number: usize,
    class: Class,
    jobs: VecDeque<Job>,
    arrivals: Arrivals,
}

impl Lane {
    pub(super) fn new(model: Arc<Model>) -> Self {
        Self { model, unsorted: Default::default(), buckets: Vec::new(), n_sorted: 0 }
    }

    /// Queues a job: by its shape where that is known or `sorting` is not worth it, else unsorted.
    pub(super) fn push(&mut self, job: Job, sorting: Sorting) {
        let number = match &job.matter {
            Matter::Row(row) => row.bucket,
            Matter::Input { bucket: task::Bucket::Likely(_), .. } if sorting == Sorting::Pays => {
                insert(&mut self.unsorted[job.terms.class as usize], job);
                return;
            }
            Matter::Input { bucket, .. } => bucket.number(),
        };
        let bucket = self.bucket(number, job.terms.class);
        bucket.arrivals.came(job.caller.queued);
        insert(&mut bucket.jobs, job);
        self.n_sorted += 1;
    }

    /// Takes in that an unsorted job runs as it came: who waits for company may have it from the next.
    pub(super) fn passes(&mut self, job: &Job) {
        if let Matter::Input { bucket, .. } = &job.matter {
            self.bucket(bucket.number(), job.terms.class).arrivals.came(job.caller.queued);
        }
    }

    fn bucket(&mut self, number: usize, class: Class) -> &mut Bucket {
        let found = self.buckets.iter().position(|bucket| bucket.number == number && bucket.class == class);
        let position = found.unwrap_or_else(|| {
            self.buckets.push(Bucket { number, class, jobs: VecDeque::new(), arrivals: Arrivals::default() });
            self.buckets.len() - 1
        });
        &mut self.buckets[position]
    }

    /// When the first unsorted job of `class` is due, where more rows may be prepared ahead. Jobs of a
    /// lower class that have spent half of their time count as well.
    pub(super) fn first_unsorted(&self, class: Class, now: Instant) -> Option<Instant> {
        if self.n_sorted >= AHEAD {
            return None;
        }
        let fronts = Class::ALL.into_iter().filter_map(|of| {
            let front = self.unsorted[of as usize].front()?;
            (of == class || front.is_aged(now)).then(|| front.due())
        });
        fronts.min()
    }

    /// Takes unsorted jobs in the order of their deadlines, the next one's class first: at most `most`,
    /// and no more than the first one beyond `bytes` bytes of input.
    pub(super) fn take_unsorted(
        &mut self,
        class: Class,
        now: Instant,
        most: usize,
        bytes: usize,
    ) -> Vec<Job> {
        let due = self.first_unsorted(class, now);
        let first = |jobs: &VecDeque<Job>| jobs.front().map(Job::due);
        let Some(jobs) = self.unsorted.iter_mut().find(|jobs| due.is_some() && first(jobs) == due) else {
            return Vec::new();
        };
        let (mut taken, mut n_bytes) = (Vec::new(), 0);
        while taken.len() < most && n_bytes < bytes {
            let Some(job) = jobs.pop_front() else { break };
            n_bytes += job.terms.bytes;
            taken.push(job);
        }
        taken
    }

    /// Inputs that have not been prepared.
    pub(super) fn n_unsorted(&self) -> usize {
        self.unsorted.iter().map(VecDeque::len).sum()
    }

    /// The inputs that have not been prepared, in no order.
    pub(super) fn unsorted(&self) -> impl Iterator<Item = &Job> {
        self.unsorted.iter().flatten()
    }

    /// Rows that wait for their runs.
    pub(super) fn n_sorted(&self) -> usize {
        self.n_sorted
    }

    /// Says whether anything waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.n_sorted == 0 && self.unsorted.iter().all(VecDeque::is_empty)
    }

    /// The policy's view of each bucket in which something waits, with its position. `stretch` is wall
    /// seconds for a CPU second.
    pub(super) fn views(&self, stretch: f64) -> impl Iterator<Item = (usize, BucketView)> {
        let waiting = self.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.jobs.is_empty());
        waiting.filter_map(move |(position, bucket)| {
            let first = bucket.jobs.front()?;
            let curve = self.model.curve(bucket.number, stretch);
            // Who waits for company is asked only where a batch is not full, so there are few to ask.
            let some = bucket.jobs.iter().take(curve.best);
            let balance = some.clone().map(|job| job.terms.balance).min().unwrap_or(Balance::Fast);
            let since = some.map(|job| job.caller.queued).min()?;
            let view = BucketView {
                queued: bucket.jobs.len(),
                class: bucket.class,
                due: first.due(),
                arrived: first.caller.arrived,
                since,
                balance,
                arriving: bucket.arrivals.expected(),
                curve,
                max_rows: self.model.max_rows(),
            };
            Some((position, view))
        })
    }

    /// Takes the first `rows` jobs of the bucket at `position`; those whose callers have gone go to `ended`.
    pub(super) fn take(
        &mut self,
        position: usize,
        rows: usize,
        now: Instant,
        ended: &mut Vec<Job>,
    ) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(rows);
        let bucket = &mut self.buckets[position];
        while jobs.len() < rows {
            let Some(job) = bucket.jobs.pop_front() else { break };
            self.n_sorted -= 1;
            if job.caller.is_gone() { ended.push(job) } else { jobs.push(job) }
        }
        if let Some(first) = jobs.first() {
            let waited = now.saturating_duration_since(first.caller.queued);
            bucket.arrivals.ran(waited, jobs.len() - 1 + bucket.jobs.len());
        }
        jobs
    }

    /// Takes out the jobs at the front of each bucket whose callers have gone, or who cannot be answered
    /// in time. Only the front decides: the rest is looked at when it gets there.
    pub(super) fn clear(&mut self, now: Instant, stretch: f64, ended: &mut Vec<Job>) {
        for jobs in &mut self.unsorted {
            while jobs.front().is_some_and(|job| job.caller.is_gone() || job.due() <= now) {
                ended.extend(jobs.pop_front());
            }
        }
        for bucket in &mut self.buckets {
            while let Some(job) = bucket.jobs.front() {
                let in_time = || {
                    // Half, for what was measured may be wrong, and nobody is given up on too soon.
                    let least = self.model.curve(bucket.number, stretch).one / 2;
                    now + least <= job.due()
                };
                if !job.caller.is_gone() && in_time() {
                    break;
                }
                ended.extend(bucket.jobs.pop_front());
                self.n_sorted -= 1;
            }
        }
    }

    /// Takes out every job whose caller has gone.
    pub(super) fn sweep(&mut self, ended: &mut Vec<Job>) {
        let mut keep = |jobs: &mut VecDeque<Job>| {
            let (gone, waiting): (VecDeque<Job>, VecDeque<Job>) =
                jobs.drain(..).partition(|job| job.caller.is_gone());
            *jobs = waiting;
            ended.extend(gone);
        };
        self.unsorted.iter_mut().for_each(&mut keep);
        self.buckets.iter_mut().for_each(|bucket| keep(&mut bucket.jobs));
        self.n_sorted = self.buckets.iter().map(|bucket| bucket.jobs.len()).sum();
    }
}

/// Whether inputs are prepared ahead, so that rows of one shape find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sorting {
    Pays,
    GainsNothing,
}

/// Inserts a job in the order of deadlines.
fn insert(jobs: &mut VecDeque<Job>, job: Job) {
    // Most jobs are due after those before them: look from the back.
    let after = jobs.iter().rposition(|other| other.due() <= job.due()).map_or(0, |i| i + 1);
    jobs.insert(after, job);
}
