//! The lane of one model: inputs whose shape is not known yet, and rows by their shape, each in the
//! order of their deadlines.
//!
//! Invariant: plain data. A job is in one place, and what leaves is handed out.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use crate::{
    manifest::Balance,
    pool::{
        arrivals::Arrivals,
        charge::DEAR,
        costs::ModelCosts,
        job::{Job, Matter},
        ledger::Turn,
        policy::{BucketView, Class},
    },
    task,
};

/// Rows that are prepared ahead of their runs, so that those of one shape find each other. More would
/// only take memory.
const AHEAD: usize = 256;

/// Rows that are looked through for one whose request lets nobody go first.
const LOOKED_THROUGH: usize = 512;

/// Which rows a worker looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that need not let others go first.
    NotYielding,
}

/// Where the first of some rows waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    bucket: usize,
    from: usize,
}

/// The lane of one model.
pub(super) struct Lane {
    pub(super) costs: Arc<ModelCosts>,
    /// Inputs that have to be prepared before anybody knows what they can share a run with, by class.
    unsorted: [VecDeque<Job>; 2],
    buckets: Vec<Bucket>,
    n_sorted: usize,
}

/// Rows of one shape and class; those that are dear apart, for they may not have every worker.
struct Bucket {
    number: usize,
    class: Class,
    is_dear: bool,
    is_unknown: bool,
    jobs: VecDeque<Job>,
    arrivals: Arrivals,
}

impl Lane {
    pub(super) fn new(costs: Arc<ModelCosts>) -> Self {
        Self { costs, unsorted: Default::default(), buckets: Vec::new(), n_sorted: 0 }
    }

    /// Queues a job: by its shape where that is known or `sorting` is not worth it, else unsorted.
    pub(super) fn push(&mut self, job: Job, sorting: Sorting) {
        let number = match &job.matter {
            Matter::Row(row) => row.bucket,
            // A dear one is not prepared ahead of its turn.
            Matter::Input { bucket: task::Bucket::Likely(_), .. }
                if sorting == Sorting::Pays && !job.is_dear() =>
            {
                insert(&mut self.unsorted[job.terms.class as usize], job);
                return;
            }
            Matter::Input { bucket, .. } => bucket.number(),
        };
        let bucket = self.bucket(number, &job);
        bucket.arrivals.came(job.caller.queued);
        insert(&mut bucket.jobs, job);
        self.n_sorted += 1;
    }

    /// Takes in that an unsorted job runs as it came: who waits for company may have it from the next.
    pub(super) fn passes(&mut self, job: &Job) {
        if let Matter::Input { bucket, .. } = &job.matter {
            self.bucket(bucket.number(), job).arrivals.came(job.caller.queued);
        }
    }

    /// The bucket of rows of the shape `number` that are like `job`.
    fn bucket(&mut self, number: usize, job: &Job) -> &mut Bucket {
        let (class, is_dear) = (job.terms.class, job.is_dear());
        let is_unknown = is_dear && job.terms.is_unknown;
        let same = |bucket: &Bucket| {
            let Bucket { number: other, class: of, .. } = bucket;
            (*other, *of, bucket.is_dear, bucket.is_unknown) == (number, class, is_dear, is_unknown)
        };
        let position = self.buckets.iter().position(same).unwrap_or_else(|| {
            let (jobs, arrivals) = (VecDeque::new(), Arrivals::default());
            self.buckets.push(Bucket { number, class, is_dear, is_unknown, jobs, arrivals });
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

    /// When the first dear row that waits here is due.
    pub(super) fn first_dear(&self) -> Option<Instant> {
        let dear = self.buckets.iter().filter(|bucket| bucket.is_dear);
        dear.filter_map(|bucket| bucket.jobs.front().map(Job::due)).min()
    }

    /// The policy's view of each bucket in which rows wait that this turn may take, with the place of the first of
    /// them. `stretch` is wall seconds for a CPU second.
    pub(super) fn views(
        &self,
        which: Which,
        turn: &Turn,
        stretch: f64,
    ) -> impl Iterator<Item = (Place, BucketView)> {
        let is_known = |bucket: &Bucket| {
            bucket.jobs.front().is_some_and(|job| self.costs.is_measured(job.terms.workload))
        };
        let may = move |bucket: &Bucket| match (bucket.is_dear, bucket.is_unknown) {
            (false, _) => !bucket.jobs.is_empty(),
            (true, false) => turn.takes_dear && !bucket.jobs.is_empty(),
            (true, true) => turn.takes_unknown || (turn.takes_dear && is_known(bucket)),
        };
        let waiting = self.buckets.iter().enumerate().filter(move |(_, bucket)| may(bucket));
        waiting.filter_map(move |(bucket_idx, bucket)| {
            let from = match which {
                Which::All => 0,
                Which::NotYielding => {
                    let mut some = bucket.jobs.iter().take(LOOKED_THROUGH);
                    some.position(|job| !turn.yields(job.terms.request, job.is_dear()))?
                }
            };
            let first = bucket.jobs.get(from)?;
            let mut curve = self.costs.curve(bucket.number, stretch);
            // Rows that take long to prepare wait for each other in a run; those of a slow network gain as others do.
            let is_alone = bucket.is_dear && first.terms.network <= DEAR;
            if is_alone {
                (curve.best, curve.full) = (1, curve.one);
            }
            // Who waits for company is asked only where a batch is not full, so there are few to ask.
            let some = bucket.jobs.range(from..).take(curve.best);
            let balance = some.clone().map(|job| job.terms.balance).min().unwrap_or(Balance::Fast);
            let since = some.map(|job| job.caller.queued).min()?;
            let view = BucketView {
                queued: bucket.jobs.len() - from,
                class: bucket.class,
                due: first.due(),
                arrived: first.caller.arrived,
                since,
                balance,
                arriving: bucket.arrivals.expected(),
                curve,
                max_rows: if is_alone { 1 } else { self.costs.max_rows() },
            };
            Some((Place { bucket: bucket_idx, from }, view))
        })
    }

    /// The first `rows` jobs from `place` on.
    pub(super) fn jobs(&self, place: Place, rows: usize) -> impl Iterator<Item = &Job> {
        self.buckets[place.bucket].jobs.range(place.from..).take(rows)
    }

    /// Takes the first `rows` jobs from `place` on; those whose callers have gone go to `ended`.
    pub(super) fn take(&mut self, place: Place, rows: usize, now: Instant, ended: &mut Vec<Job>) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(rows);
        let bucket = &mut self.buckets[place.bucket];
        while jobs.len() < rows {
            let Some(job) = bucket.jobs.remove(place.from) else { break };
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
                    let least = self.costs.curve(bucket.number, stretch).one / 2;
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
