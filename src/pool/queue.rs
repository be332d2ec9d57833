//! The queue: a lane per model that comes and goes with it, what is owed by when, and which workers are busy until when.
//!
//! Invariant: plain data behind one lock that is held for microseconds. Nothing here runs a
//! network, waits, or drops a job while the lock is held: what is to end is handed out.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    manifest::Balance,
    pool::{
        Loaded,
        arena::{Arena, Key},
        costs::ModelCosts,
        demand::{Ask, Burden, Forecast},
        errand::{Batch, Chore, Done, Errand, Gone},
        job::Job,
        lane::{Lane, Place, Sorting, Which},
        ledger::{Ledger, Running, Turn},
        policy::{self, BucketView, Class, Decision, Rule, View},
    },
};

/// Inputs that a worker prepares ahead at once, and about how many bytes of them: a fraction of a
/// millisecond, after which the most urgent row is looked for again.
const SORTED_AT_ONCE: usize = 16;
const SORTED_BYTES: usize = 32 << 10;

/// Fewer inputs of unknown shape than so many for each worker run one by one as they come, where nobody agreed
/// to wait: they seldom find another of their shape among them, and prepared ahead only wait for each other.
const FEW: usize = 2;

/// The least time between two looks at every job.
const BETWEEN_SWEEPS: Duration = Duration::from_millis(10);

/// Everything that waits for a worker.
pub(super) struct Queue {
    lanes: Arena<Lane>,
    /// How many lanes have been removed so far, and the weights of their models.
    n_removed: u64,
    gone: Vec<Loaded>,
    rule: Rule,
    ledger: Ledger,
    /// Requests of more than one row that were queued: the next one's number.
    requests: u64,
    /// Loading: before any request, for nobody can be served without it.
    urgent: VecDeque<Chore>,
    /// Measuring further shapes: only while nobody waits.
    chores: VecDeque<Chore>,
    closed: bool,
    /// When callers who have gone were last looked for.
    swept: Option<Instant>,
    /// The policy's view and whose each of it is, kept to spare two allocations per decision.
    view: Vec<BucketView>,
    places: Vec<(Key, Place)>,
}

impl Queue {
    /// Makes an empty queue without a lane.
    pub(super) fn new(workers: usize, rule: Rule) -> Self {
        Self {
            lanes: Arena::default(),
            n_removed: 0,
            gone: Vec::new(),
            rule,
            ledger: Ledger::new(workers, Instant::now()),
            requests: 0,
            urgent: VecDeque::new(),
            chores: VecDeque::new(),
            closed: false,
            swept: None,
            view: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Adds a lane for the jobs of a model that costs this.
    pub(super) fn add(&mut self, costs: Arc<ModelCosts>) -> Key {
        self.lanes.insert(Lane::new(costs))
    }

    /// Removes the lane of a model that nobody holds any more, so that no job waits in it; a worker drops what was
    /// `loaded`. Returns what the caller is to drop once the lock is released.
    pub(super) fn remove(&mut self, lane: Key, loaded: Option<Loaded>) -> (Option<Lane>, VecDeque<Chore>) {
        self.n_removed += 1;
        self.gone.extend(loaded);
        let is_left = |chore: &Chore| match chore {
            Chore::Load { model, .. } | Chore::Measure { model, .. } => model.strong_count() > 0,
        };
        let mut ended = VecDeque::new();
        for chores in [&mut self.urgent, &mut self.chores] {
            let (left, gone): (VecDeque<_>, VecDeque<_>) = chores.drain(..).partition(is_left);
            *chores = left;
            ended.extend(gone);
        }
        (self.lanes.remove(lane), ended)
    }

    /// Returns what a worker is to give back that has seen only `seen` lanes removed, which it then has seen all.
    pub(super) fn forget(&mut self, seen: &mut u64) -> Option<Gone> {
        if *seen == self.n_removed {
            return None;
        }
        *seen = self.n_removed;
        let lanes = self.lanes.iter().map(|(lane, _)| lane).collect();
        Some(Gone { lanes, loaded: std::mem::take(&mut self.gone) })
    }

    /// How many lanes there are.
    #[cfg(test)]
    pub(super) fn n_lanes(&self) -> usize {
        self.lanes.iter().count()
    }

    /// How many places for lanes there are, in use or not.
    #[cfg(test)]
    pub(super) fn n_lane_places(&self) -> usize {
        self.lanes.n_places()
    }

    /// Queues chores that go before every request.
    pub(super) fn push_urgent(&mut self, chore: Chore) {
        self.urgent.push_back(chore);
    }

    /// Queues a chore that waits until no request does.
    pub(super) fn push_chore(&mut self, chore: Chore) {
        self.chores.push_back(chore);
    }

    /// Says whether chores wait.
    pub(super) fn has_chores(&self) -> bool {
        !self.chores.is_empty()
    }

    /// Owes time to a request whose jobs come later.
    pub(super) fn hold(&mut self, due: Instant, work: Duration) {
        self.ledger.demand.add(due, work, Burden::Unknown);
    }

    /// Ends what was owed by [`Queue::hold`].
    pub(super) fn release(&mut self, due: Instant, work: Duration) {
        self.ledger.demand.remove(due, work, Burden::Unknown);
    }

    /// Queues the jobs of one request in their model's lane.
    pub(super) fn push(&mut self, lane: Key, jobs: Vec<Job>) {
        let request = if jobs.len() > 1 { self.requests + 1 } else { 0 };
        self.requests = self.requests.max(request);
        for mut job in jobs {
            job.terms.request = request;
            self.ledger.demand.add(job.due(), job.terms.charge, job.terms.burden);
            self.place(lane, job);
        }
    }

    fn place(&mut self, lane: Key, job: Job) {
        // A job holds its model, and a model its lane.
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        let pays = self.rule != Rule::Single && lane.costs.gains();
        lane.push(job, if pays { Sorting::Pays } else { Sorting::GainsNothing });
    }

    /// Predicts an answer that is asked for.
    pub(super) fn forecast(&mut self, ask: Ask, class: Class, now: Instant) -> Forecast {
        if class == Class::Interactive {
            self.ledger.asked(ask.burden, now);
        }
        let mut forecast = self.ledger.forecast(ask, now);
        if class == Class::Batch && self.ledger.idle == 0 && !self.lanes.values().all(Lane::is_empty) {
            // Served from idle time, of which there is none now: expected when half its time is over.
            let left = ask.due.saturating_duration_since(now);
            forecast.finish = forecast.finish.max(left / 2);
        }
        forecast
    }

    /// Wall seconds for a CPU second, as seen lately.
    pub(super) fn stretch(&self) -> f64 {
        self.ledger.pace.at(Instant::now()).stretch()
    }

    /// Says whether the queue takes no more jobs.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes no more jobs; workers leave when the last one is taken. Chores are given back, to be
    /// dropped once the lock is released.
    pub(super) fn close(&mut self) -> Vec<Chore> {
        self.closed = true;
        self.urgent.drain(..).chain(self.chores.drain(..)).collect()
    }

    /// Workers that there are meant to be.
    pub(super) fn workers(&self) -> usize {
        self.ledger.workers
    }

    /// Sets how many workers there are meant to be; those beyond leave when they next ask.
    pub(super) fn set_workers(&mut self, workers: usize) {
        self.ledger.workers = workers;
    }

    /// Workers that have nothing to do.
    pub(super) fn idle(&self) -> usize {
        self.ledger.idle
    }

    /// Counts a worker as having nothing to do, or no longer.
    pub(super) fn rests(&mut self, rests: Rests) {
        match rests {
            Rests::Begin => self.ledger.idle += 1,
            Rests::End => self.ledger.idle -= 1,
        }
    }

    /// Takes in what a worker has done.
    pub(super) fn finish(&mut self, worker: usize, done: Done, now: Instant) {
        self.ledger.end(worker);
        match done {
            Done::Nothing => {}
            Done::Ran(report) => {
                self.ledger.pace.ran(now, report.wall, report.expected, report.charged);
                for (predicted, took) in report.promises {
                    self.ledger.pace.kept(now, predicted, took);
                }
            }
            Done::Sorted { lane, rows, ended } => {
                rows.into_iter().for_each(|job| self.place(lane, job));
                for (due, terms) in ended {
                    self.ledger.demand.remove(due, terms.charge, terms.burden);
                }
            }
        }
    }

    /// Gives a free worker its next errand, and the jobs to end once the lock is released: those whose
    /// callers have gone, at no cost but this look, and those who cannot be answered in time.
    pub(super) fn take(&mut self, worker: usize, now: Instant) -> (Errand, Vec<Job>) {
        if worker >= self.ledger.workers {
            return (Errand::Leave, Vec::new());
        }
        if let Some(chore) = self.urgent.pop_front() {
            return (Errand::Chore(chore), Vec::new());
        }
        let (mut ended, stretch) = (Vec::new(), self.ledger.pace.at(now).stretch());
        self.lanes.values_mut().for_each(|lane| lane.clear(now, stretch, &mut ended));
        let errand = self.next(worker, now, stretch, &mut ended);
        self.settle(&ended, now);
        (errand, ended)
    }

    fn next(&mut self, worker: usize, now: Instant, stretch: f64, ended: &mut Vec<Job>) -> Errand {
        if let Some(errand) = self.sort(worker, Class::Interactive, now) {
            return errand;
        }
        let turn = self.ledger.turn(worker, now);
        // What is left when the pool closes is worked off by all.
        let (takes_dear, takes_unknown) = (turn.takes_dear || self.closed, turn.takes_unknown || self.closed);
        let turn = Turn { takes_dear, takes_unknown, ..turn };
        match self.decide(&turn, now, stretch) {
            Decision::Run { bucket, rows } => {
                let (lane, place) = self.places[bucket];
                let lane = self.lanes.get_mut(lane);
                let jobs = lane.map_or_else(Vec::new, |lane| lane.take(place, rows, now, ended));
                match Batch::of(jobs) {
                    Some(batch) => self.run(worker, batch, now),
                    // Their callers have gone.
                    None => self.next(worker, now, stretch, ended),
                }
            }
            decision => {
                if let Some(errand) = self.sort(worker, Class::Batch, now) {
                    return errand;
                }
                // Dear rows that are left to other workers are looked at again when nobody else is there, and when they
                // are late: then they are owed no more.
                let late = self.lanes.values().filter_map(Lane::first_dear).min();
                let alone = self.ledger.looks_again().filter(|_| !turn.takes_dear);
                let again = late.map(|late| alone.map_or(late, |alone| alone.min(late)));
                match (decision, again) {
                    (Decision::Rest, None) if self.closed => Errand::Leave,
                    (Decision::Hold { until }, again) => {
                        Errand::Rest(Some(again.map_or(until, |again| again.min(until))))
                    }
                    (_, again) => self.chores.pop_front().map_or(Errand::Rest(again), Errand::Chore),
                }
            }
        }
    }

    /// Decides in the order of deadlines; where the first row is to let others go first, and what is owed leaves time
    /// for that, among the others.
    fn decide(&mut self, turn: &Turn, now: Instant, stretch: f64) -> Decision {
        let first = self.look(Which::All, turn, now, stretch);
        let Decision::Run { bucket, .. } = first else { return first };
        let (lane, place) = self.places[bucket];
        let yields = self.jobs(lane, place, 1).any(|job| turn.yields(job.terms.request, job.is_dear()));
        if !yields {
            return first;
        }
        let class = policy::class_of(&self.view[bucket], now);
        let other = self.look(Which::NotYielding, turn, now, stretch);
        if let Decision::Run { bucket, rows } = other {
            let (lane, place) = self.places[bucket];
            let work = self.jobs(lane, place, rows).map(|job| job.terms.expected()).sum();
            if policy::class_of(&self.view[bucket], now) == class && self.ledger.has_room(work, now) {
                return other;
            }
        }
        self.look(Which::All, turn, now, stretch)
    }

    fn jobs(&self, lane: Key, place: Place, rows: usize) -> impl Iterator<Item = &Job> {
        self.lanes.get(lane).into_iter().flat_map(move |lane| lane.jobs(place, rows))
    }

    fn look(&mut self, which: Which, turn: &Turn, now: Instant, stretch: f64) -> Decision {
        self.view.clear();
        self.places.clear();
        for (lane, of) in self.lanes.iter() {
            for (place, mut view) in of.views(which, turn, stretch) {
                if self.closed {
                    // No company will come.
                    view.balance = Balance::Fast;
                }
                self.view.push(view);
                self.places.push((lane, place));
            }
        }
        policy::decide(self.rule, &View { now, workers: self.ledger.workers, buckets: &self.view })
    }

    /// Has inputs prepared so that rows of one shape find each other.
    fn sort(&mut self, worker: usize, class: Class, now: Instant) -> Option<Errand> {
        let due = self.lanes.iter().filter_map(|(lane, of)| Some((of.first_unsorted(class, now)?, lane)));
        let (_, key) = due.min_by_key(|(due, _)| *due)?;
        let none_sorted = self.lanes.values().all(|lane| lane.n_sorted() == 0);
        let lane = self.lanes.get_mut(key)?;
        let waiting = lane.n_unsorted();
        let hasty = |job: &Job| match self.rule {
            Rule::Single | Rule::Drain => true,
            Rule::Window { .. } => false,
            Rule::Measured => self.closed || job.terms.balance == Balance::Fast,
        };
        // Idle workers share a burst here, too.
        let few = none_sorted
            && self.rule == Rule::Measured
            && waiting < FEW * self.ledger.workers
            && lane.unsorted().all(hasty);
        let share = if few { 1 } else { waiting.div_ceil(self.ledger.idle + 1).clamp(1, SORTED_AT_ONCE) };
        let jobs = lane.take_unsorted(class, now, share, SORTED_BYTES);
        if share == 1 && none_sorted && jobs.iter().all(hasty) {
            // It finds no company, and waits for none: it runs at once.
            jobs.iter().for_each(|job| lane.passes(job));
            return Batch::of(jobs).map(|batch| self.run(worker, batch, now));
        }
        self.begin(worker, jobs.iter().map(|job| (job, job.terms.handling)), now);
        Batch::of(jobs).map(Errand::Sort)
    }

    fn run(&mut self, worker: usize, batch: Batch, now: Instant) -> Errand {
        for job in &batch.jobs {
            self.ledger.demand.remove(job.due(), job.terms.charge, job.terms.burden);
        }
        self.begin(worker, batch.jobs.iter().map(|job| (job, job.terms.expected())), now);
        Errand::Run(batch)
    }

    /// Notes what a worker begins with, and the CPU time that each of it is expected to take.
    fn begin<'j>(
        &mut self,
        worker: usize,
        work: impl Iterator<Item = (&'j Job, Duration)> + Clone,
        now: Instant,
    ) {
        let terms = || work.clone().map(|(job, _)| &job.terms);
        let expected: Duration = work.clone().map(|(_, expected)| expected).sum();
        let first = terms().next().map_or(0, |terms| terms.request);
        let is_heavy = terms().any(|terms| terms.burden == Burden::Heavy);
        let running = Running {
            until: now + expected.mul_f64(self.ledger.pace.drain()),
            burden: if is_heavy { Burden::Heavy } else { Burden::Light },
            is_dear: work.clone().any(|(job, _)| job.is_dear()),
            request: if terms().all(|terms| terms.request == first) { first } else { 0 },
        };
        self.ledger.begin(worker, running);
    }

    /// Says whether anything waits for a worker.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.values().all(Lane::is_empty)
    }

    /// Takes out every job whose caller has gone, to be ended once the lock is released; nothing where that
    /// was done a moment ago: it looks at every job, and an overload refuses thousands a second.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Job> {
        let mut ended = Vec::new();
        if self.swept.is_some_and(|swept| now < swept + BETWEEN_SWEEPS) {
            return ended;
        }
        self.swept = Some(now);
        self.lanes.values_mut().for_each(|lane| lane.sweep(&mut ended));
        self.settle(&ended, now);
        ended
    }

    /// Takes out what ended jobs were charged with, and learns from promises that broke: forecasts that
    /// were judged by the rows that made it would never be found too bright.
    fn settle(&mut self, ended: &[Job], now: Instant) {
        for job in ended {
            self.ledger.demand.remove(job.due(), job.terms.charge, job.terms.burden);
            let predicted = job.caller.predicted.filter(|_| job.is_broken(now) && job.terms.teaches_pace());
            if let Some(predicted) = predicted {
                let took = now.saturating_duration_since(job.caller.queued);
                self.ledger.pace.kept(now, predicted.as_secs_f64(), took.as_secs_f64());
            }
        }
    }
}

/// Whether a worker begins to rest or ends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rests {
    Begin,
    End,
}
