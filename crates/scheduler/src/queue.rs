//! The queue: one for each model, which comes and goes with it, what is owed by when, and which workers are busy until
//! when.
//!
//! Invariant: plain data. Nothing here runs a network, waits, or drops a row: what is to end is handed out. The caller
//! says what time it is.

#[cfg(test)]
mod tests;

use std::{
    num::NonZero,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    arena::{Arena, Key},
    balance::Balance,
    cost::CostModel,
    demand::{Ask, Burden, Forecast},
    entry::{Cancellable, QueueEntry, SchedParams},
    ledger::{Ledger, Running, Turn},
    model_queue::{ModelQueue, Position, PrepareAhead, Which},
    policy::{self, Class, Decision, GroupView, Policy, View},
};

/// Inputs that a worker prepares ahead at once, and about how many bytes of them: a fraction of a
/// millisecond, after which the most urgent row is looked for again.
const AHEAD_AT_ONCE: usize = 16;
const AHEAD_BYTES: usize = 32 << 10;

/// Fewer inputs of unknown shape than this for each worker run one by one as they come, where nobody agreed
/// to wait: they seldom find another of their shape among them, and prepared ahead only wait for each other.
const FEW: usize = 2;

/// The least time between two looks at every row.
const BETWEEN_SWEEPS: Duration = Duration::from_millis(10);

/// What a free worker is to do.
#[derive(Debug)]
pub enum Work<J> {
    /// Prepare these inputs of one model and bring them back.
    Prepare(Vec<QueueEntry<J>>),
    /// Run these rows of one model.
    Run(Vec<QueueEntry<J>>),
    /// Nothing before that moment: rows wait for others to share their run.
    Linger(Instant),
    /// Nothing that callers wait for; nothing before that moment, where there is one.
    Idle(Option<Instant>),
    /// Nothing ever again: the queue is closed and empty, or there are to be fewer workers.
    Leave,
}

/// What a worker has done.
#[derive(Debug)]
pub enum Done<J> {
    Nothing,
    /// Rows of the model of that queue that were prepared, and those that had none.
    Prepared {
        queue: Key,
        rows: Vec<QueueEntry<J>>,
        ended: Vec<SchedParams>,
    },
    Ran(Report),
}

/// What a batch took, against what was expected of it; all in seconds.
#[derive(Debug, Default)]
pub struct Report {
    pub wall: f64,
    /// CPU time that the cost table expected of the batch.
    pub expected: f64,
    /// What its rows were charged with.
    pub charged: f64,
    /// For each promise: what was predicted, and what it took.
    pub promises: Vec<(f64, f64)>,
}

/// Everything that waits for a worker: rows with payloads `J`, of models that cost what `C` says.
pub struct Queue<J, C> {
    models: Arena<ModelQueue<J, C>>,
    policy: Arc<dyn Policy>,
    ledger: Ledger,
    /// Requests of more than one row that were queued.
    n_requests: u64,
    closed: bool,
    /// When callers who have gone were last looked for.
    swept: Option<Instant>,
    /// The policy's view and whose each of it is, kept to spare two allocations per decision.
    view: Vec<GroupView>,
    positions: Vec<(Key, Position)>,
}

impl<J: Cancellable, C: CostModel> Queue<J, C> {
    /// Makes an empty queue for no model.
    pub fn new(workers: usize, policy: Arc<dyn Policy>, now: Instant) -> Self {
        Self {
            models: Arena::default(),
            policy,
            ledger: Ledger::new(workers, now),
            n_requests: 0,
            closed: false,
            swept: None,
            view: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// Adds a queue for a model that costs this.
    pub fn add(&mut self, costs: C) -> Key {
        self.models.insert(ModelQueue::new(costs))
    }

    /// Removes the queue of a model, with what waits in it: the caller sees to it that nothing does.
    pub fn remove(&mut self, model: Key) -> Option<ModelQueue<J, C>> {
        self.models.remove(model)
    }

    /// The queues that there are.
    pub fn models(&self) -> impl Iterator<Item = Key> {
        self.models.iter().map(|(model, _)| model)
    }

    /// How many places for queues there are, in use or not.
    pub fn n_places(&self) -> usize {
        self.models.n_places()
    }

    /// Owes time to a request whose rows come later.
    pub fn reserve_time(&mut self, due: Instant, work: Duration) {
        self.ledger.demand.add(due, work, Burden::Unknown);
    }

    /// Ends what was owed by [`Queue::reserve_time`].
    pub fn release_time(&mut self, due: Instant, work: Duration) {
        self.ledger.demand.remove(due, work, Burden::Unknown);
    }

    /// Queues the rows of one request for a model. Gives them back where that model has no queue.
    pub fn push(&mut self, model: Key, entries: Vec<QueueEntry<J>>) -> Vec<QueueEntry<J>> {
        if self.models.get(model).is_none() {
            return entries;
        }
        let mut request = None;
        if entries.len() > 1 {
            self.n_requests += 1;
            request = NonZero::new(self.n_requests);
        }
        for mut entry in entries {
            entry.params.request = request;
            self.owe(&entry.params);
            self.place(model, entry);
        }
        Vec::new()
    }

    fn owe(&mut self, params: &SchedParams) {
        if let Some(charge) = params.charge {
            self.ledger.demand.add(params.due(), charge, params.burden);
        }
    }

    fn owe_no_more(&mut self, params: &SchedParams) {
        if let Some(charge) = params.charge {
            self.ledger.demand.remove(params.due(), charge, params.burden);
        }
    }

    fn place(&mut self, model: Key, entry: QueueEntry<J>) {
        let Some(queue) = self.models.get_mut(model) else { return };
        let pays = self.policy.prepares_ahead() && queue.costs().gains();
        queue.push(entry, if pays { PrepareAhead::Pays } else { PrepareAhead::GainsNothing });
    }

    /// Predicts an answer that is asked for.
    pub fn forecast(&mut self, ask: Ask, class: Class, now: Instant) -> Forecast {
        if class == Class::Interactive {
            self.ledger.asked(ask.burden, now);
        }
        let mut forecast = self.ledger.forecast(ask, now);
        if class == Class::Batch && self.ledger.idle == 0 && !self.is_empty() {
            // Served from idle time, of which there is none now: expected when half its time is over.
            let left = ask.due.saturating_duration_since(now);
            forecast.finish = forecast.finish.max(left / 2);
        }
        forecast
    }

    /// Wall seconds for a CPU second, as seen lately.
    pub fn slowdown(&self, now: Instant) -> f64 {
        self.ledger.slowdown.at(now).factor()
    }

    /// Returns whether the queue takes no more rows.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes no more rows; workers leave when the last one is taken.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Workers that there are meant to be.
    pub fn workers(&self) -> usize {
        self.ledger.workers
    }

    /// Sets how many workers there are meant to be; those beyond leave when they next ask.
    pub fn set_workers(&mut self, workers: usize) {
        self.ledger.workers = workers;
    }

    /// Workers that have nothing to do.
    pub fn idle(&self) -> usize {
        self.ledger.idle
    }

    /// Counts a worker as having nothing to do, or no longer.
    pub fn rests(&mut self, rests: Rests) {
        match rests {
            Rests::Begin => self.ledger.idle += 1,
            Rests::End => self.ledger.idle -= 1,
        }
    }

    /// Records what a worker has done.
    pub fn finish(&mut self, worker: usize, done: Done<J>, now: Instant) {
        self.ledger.end(worker);
        match done {
            Done::Nothing => {}
            Done::Ran(report) => {
                self.ledger.slowdown.ran(now, report.wall, report.expected, report.charged);
                for (predicted, took) in report.promises {
                    self.ledger.slowdown.kept(now, predicted, took);
                }
            }
            Done::Prepared { queue, rows, ended } => {
                rows.into_iter().for_each(|entry| self.place(queue, entry));
                ended.iter().for_each(|params| self.owe_no_more(params));
            }
        }
    }

    /// Gives a free worker its next work, and the rows to end: those whose callers have gone, at no cost but this look,
    /// and those who cannot be answered in time.
    pub fn take(&mut self, worker: usize, now: Instant) -> (Work<J>, Vec<QueueEntry<J>>) {
        if worker >= self.ledger.workers {
            return (Work::Leave, Vec::new());
        }
        let (mut ended, slowdown) = (Vec::new(), self.slowdown(now));
        self.models.values_mut().for_each(|model| model.clear(now, slowdown, &mut ended));
        let work = self.next(worker, now, slowdown, &mut ended);
        self.settle(&ended, now);
        (work, ended)
    }

    fn next(
        &mut self,
        worker: usize,
        now: Instant,
        slowdown: f64,
        ended: &mut Vec<QueueEntry<J>>,
    ) -> Work<J> {
        if let Some(work) = self.prepare(worker, Class::Interactive, now) {
            return work;
        }
        let turn = self.ledger.turn(worker, now);
        // What is left when the pool closes is worked off by all.
        let (takes_dear, takes_unknown) = (turn.takes_dear || self.closed, turn.takes_unknown || self.closed);
        let turn = Turn { takes_dear, takes_unknown, ..turn };
        let decision = self.decide(&turn, now, slowdown);
        if let Decision::Run { group, rows } = decision {
            let (model, position) = self.positions[group];
            let queue = self.models.get_mut(model);
            let entries = queue.map_or_else(Vec::new, |queue| queue.take(position, rows, now, ended));
            if entries.is_empty() {
                // Their callers have gone.
                return self.next(worker, now, slowdown, ended);
            }
            return self.run(worker, entries, now);
        }
        if let Some(work) = self.prepare(worker, Class::Batch, now) {
            return work;
        }
        // Dear rows that are left to other workers are looked at again when nobody else is there, and when they
        // are late: then they are owed no more.
        let late = self.models.values().filter_map(ModelQueue::first_dear).min();
        let alone = self.ledger.looks_again().filter(|_| !turn.takes_dear);
        let again = late.map(|late| alone.map_or(late, |alone| alone.min(late)));
        match decision {
            Decision::Linger { until } => Work::Linger(again.map_or(until, |again| again.min(until))),
            _ if again.is_none() && self.closed => Work::Leave,
            _ => Work::Idle(again),
        }
    }

    /// Decides in the order of deadlines; where the first row is to let others go first, and what is owed leaves time
    /// for that, among the others.
    fn decide(&mut self, turn: &Turn, now: Instant, slowdown: f64) -> Decision {
        let first = self.look(Which::All, turn, now, slowdown);
        let Decision::Run { group, .. } = first else { return first };
        let (model, position) = self.positions[group];
        let mut entries = self.entries(model, position, 1);
        if !entries.any(|entry| turn.yields(entry.params.request, entry.params.holds_long())) {
            return first;
        }
        drop(entries);
        let class = policy::class_of(&self.view[group], now);
        let other = self.look(Which::NotYielding, turn, now, slowdown);
        if let Decision::Run { group, rows } = other {
            let (model, position) = self.positions[group];
            let work = self.entries(model, position, rows).map(|entry| entry.params.expected()).sum();
            if policy::class_of(&self.view[group], now) == class && self.ledger.has_room(work, now) {
                return other;
            }
        }
        self.look(Which::All, turn, now, slowdown)
    }

    fn entries(&self, model: Key, position: Position, rows: usize) -> impl Iterator<Item = &QueueEntry<J>> {
        self.models.get(model).into_iter().flat_map(move |queue| queue.entries(position, rows))
    }

    fn look(&mut self, which: Which, turn: &Turn, now: Instant, slowdown: f64) -> Decision {
        self.view.clear();
        self.positions.clear();
        for (model, queue) in self.models.iter() {
            for (position, mut view) in queue.views(which, turn, now, slowdown) {
                if self.closed {
                    // No more rows will come.
                    view.balance = Balance::Fast;
                }
                self.view.push(view);
                self.positions.push((model, position));
            }
        }
        self.policy.decide(&View { now, workers: self.ledger.workers, groups: &self.view })
    }

    /// Has inputs prepared so that rows of one shape find each other.
    fn prepare(&mut self, worker: usize, class: Class, now: Instant) -> Option<Work<J>> {
        let due =
            self.models.iter().filter_map(|(model, queue)| Some((queue.first_pending(class, now)?, model)));
        let (_, model) = due.min_by_key(|(due, _)| *due)?;
        let none_prepared = self.models.values().all(|queue| queue.n_rows() == 0);
        let queue = self.models.get_mut(model)?;
        let waiting = queue.n_pending();
        let (policy, closed) = (Arc::clone(&self.policy), self.closed);
        let hasty = |entry: &QueueEntry<J>| closed || policy.runs_at_once(entry.params.balance);
        // Idle workers share a burst here, too.
        let few = none_prepared
            && policy.runs_few_at_once()
            && waiting < FEW * self.ledger.workers
            && queue.pending().all(hasty);
        let share = if few { 1 } else { waiting.div_ceil(self.ledger.idle + 1).clamp(1, AHEAD_AT_ONCE) };
        let entries = queue.take_pending(class, now, share, AHEAD_BYTES);
        if share == 1 && none_prepared && entries.iter().all(hasty) {
            // It finds no other to share its run, and waits for none: it runs at once.
            entries.iter().for_each(|entry| queue.passes(&entry.params));
            return Some(self.run(worker, entries, now));
        }
        self.begin(worker, entries.iter().map(|entry| (&entry.params, entry.params.handling)), now);
        Some(Work::Prepare(entries))
    }

    fn run(&mut self, worker: usize, entries: Vec<QueueEntry<J>>, now: Instant) -> Work<J> {
        entries.iter().for_each(|entry| self.owe_no_more(&entry.params));
        self.begin(worker, entries.iter().map(|entry| (&entry.params, entry.params.expected())), now);
        Work::Run(entries)
    }

    /// Notes what a worker begins with, and the CPU time that each of it is expected to take.
    fn begin<'p>(
        &mut self,
        worker: usize,
        work: impl Iterator<Item = (&'p SchedParams, Duration)> + Clone,
        now: Instant,
    ) {
        let params = || work.clone().map(|(params, _)| params);
        let expected: Duration = work.clone().map(|(_, expected)| expected).sum();
        let first = params().next().and_then(|params| params.request);
        let is_heavy = params().any(|params| params.burden == Burden::Heavy);
        let running = Running {
            until: now + expected.mul_f64(self.ledger.slowdown.service_rate()),
            burden: if is_heavy { Burden::Heavy } else { Burden::Light },
            is_dear: params().any(SchedParams::holds_long),
            request: first.filter(|first| params().all(|params| params.request == Some(*first))),
        };
        self.ledger.begin(worker, running);
    }

    /// Returns whether nothing waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.models.values().all(ModelQueue::is_empty)
    }

    /// Takes out every row whose caller has gone; nothing where that was done a moment ago: it looks at every row, and an
    /// overload refuses thousands a second.
    pub fn sweep(&mut self, now: Instant) -> Vec<QueueEntry<J>> {
        let mut ended = Vec::new();
        if self.swept.is_some_and(|swept| now < swept + BETWEEN_SWEEPS) {
            return ended;
        }
        self.swept = Some(now);
        self.models.values_mut().for_each(|queue| queue.sweep(&mut ended));
        self.settle(&ended, now);
        ended
    }

    /// Takes out what ended rows were charged with, and learns from promises that broke: forecasts that
    /// were judged by the rows that made it would never be found too bright.
    fn settle(&mut self, ended: &[QueueEntry<J>], now: Instant) {
        for entry in ended {
            let params = &entry.params;
            self.owe_no_more(params);
            let teaches = entry.is_broken(now) && params.teaches_slowdown();
            if let Some(predicted) = params.predicted.filter(|_| teaches) {
                let took = now.saturating_duration_since(params.queued);
                self.ledger.slowdown.kept(now, predicted.as_secs_f64(), took.as_secs_f64());
            }
        }
    }
}

/// Whether a worker begins to rest or ends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rests {
    Begin,
    End,
}
