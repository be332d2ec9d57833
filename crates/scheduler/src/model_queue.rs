//! The queue of one model: inputs whose shape is not known yet, and rows by their shape, each in the order of their
//! deadlines.
//!
//! Invariant: plain data. A row is in one place, and what leaves is handed out.

use std::{collections::VecDeque, time::Instant};

use crate::{
    arrivals::ArrivalRate,
    balance::Balance,
    charge::DEAR,
    cost::CostModel,
    entry::{Cancellable, QueueEntry, RowShape, SchedParams},
    ledger::Turn,
    policy::{Class, GroupView},
};

/// Rows that are prepared ahead of their runs, so that those of one shape find each other. More would
/// only take memory.
const AHEAD: usize = 256;

/// Rows that are looked through for one whose request lets nobody go first.
const LOOKED_THROUGH: usize = 512;

/// Which rows a worker looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those that need not let others go first.
    NotYielding,
}

/// Where the first of some rows waits.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    group: usize,
    from: usize,
}

/// What waits for one model, which costs what `C` says.
#[derive(Debug)]
pub struct ModelQueue<J, C> {
    costs: C,
    /// Inputs that have to be prepared before anybody knows what they can share a run with, by class.
    pending: [VecDeque<QueueEntry<J>>; 2],
    groups: Vec<RowGroup<J>>,
    n_rows: usize,
}

/// Rows of one shape and class; those that are dear apart, for they may not have every worker.
#[derive(Debug)]
struct RowGroup<J> {
    number: usize,
    class: Class,
    is_dear: bool,
    is_unknown: bool,
    entries: VecDeque<QueueEntry<J>>,
    arrivals: ArrivalRate,
}

impl<J: Cancellable, C: CostModel> ModelQueue<J, C> {
    /// Makes an empty queue.
    pub fn new(costs: C) -> Self {
        Self { costs, pending: [VecDeque::new(), VecDeque::new()], groups: Vec::new(), n_rows: 0 }
    }

    /// What rows of the model cost.
    pub fn costs(&self) -> &C {
        &self.costs
    }

    /// Queues a row: by its shape where that is known or preparing it ahead is not worth it, else as pending.
    pub fn push(&mut self, entry: QueueEntry<J>, ahead: PrepareAhead) {
        let params = &entry.params;
        // A dear one is not prepared ahead of its turn.
        if matches!(params.shape, RowShape::Likely(_)) && ahead == PrepareAhead::Pays && !params.holds_long()
        {
            insert(&mut self.pending[params.class as usize], entry);
            return;
        }
        let group = self.group(params);
        group.arrivals.came(entry.params.queued);
        insert(&mut group.entries, entry);
        self.n_rows += 1;
    }

    /// Notes that a pending input runs as it came: who lingers may share a run with the next.
    pub fn passes(&mut self, params: &SchedParams) {
        self.group(params).arrivals.came(params.queued);
    }

    /// The group of rows like this one.
    fn group(&mut self, params: &SchedParams) -> &mut RowGroup<J> {
        let (number, class, is_dear) = (params.shape.number(), params.class, params.holds_long());
        let is_unknown = is_dear && params.is_unknown;
        let same = |group: &RowGroup<J>| {
            let RowGroup { number: other, class: of, .. } = group;
            (*other, *of, group.is_dear, group.is_unknown) == (number, class, is_dear, is_unknown)
        };
        let position = self.groups.iter().position(same).unwrap_or_else(|| {
            let (entries, arrivals) = (VecDeque::new(), ArrivalRate::default());
            self.groups.push(RowGroup { number, class, is_dear, is_unknown, entries, arrivals });
            self.groups.len() - 1
        });
        &mut self.groups[position]
    }

    /// When the first pending input of `class` is due, where more rows may be prepared ahead. Those of a lower class that
    /// have spent half of their time count as well.
    pub fn first_pending(&self, class: Class, now: Instant) -> Option<Instant> {
        if self.n_rows >= AHEAD {
            return None;
        }
        let fronts = Class::ALL.into_iter().filter_map(|of| {
            let front = &self.pending[of as usize].front()?.params;
            (of == class || front.is_aged(now)).then(|| front.due())
        });
        fronts.min()
    }

    /// Takes pending inputs in the order of their deadlines, the next one's class first: at most `most`, and no more than
    /// the first one beyond `bytes` bytes of input.
    pub fn take_pending(
        &mut self,
        class: Class,
        now: Instant,
        most: usize,
        bytes: usize,
    ) -> Vec<QueueEntry<J>> {
        let due = self.first_pending(class, now);
        let first = |entries: &VecDeque<QueueEntry<J>>| entries.front().map(QueueEntry::due);
        let Some(entries) = self.pending.iter_mut().find(|entries| due.is_some() && first(entries) == due)
        else {
            return Vec::new();
        };
        let (mut taken, mut n_bytes) = (Vec::new(), 0);
        while taken.len() < most && n_bytes < bytes {
            let Some(entry) = entries.pop_front() else { break };
            n_bytes += entry.params.bytes;
            taken.push(entry);
        }
        taken
    }

    /// Inputs that have not been prepared.
    pub fn n_pending(&self) -> usize {
        self.pending.iter().map(VecDeque::len).sum()
    }

    /// The inputs that have not been prepared, in no order.
    pub fn pending(&self) -> impl Iterator<Item = &QueueEntry<J>> {
        self.pending.iter().flatten()
    }

    /// Rows that wait for their runs.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Returns whether nothing waits here.
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0 && self.pending.iter().all(VecDeque::is_empty)
    }

    /// When the first dear row that waits here is due.
    pub fn first_dear(&self) -> Option<Instant> {
        let dear = self.groups.iter().filter(|group| group.is_dear);
        dear.filter_map(|group| group.entries.front().map(QueueEntry::due)).min()
    }

    /// The policy's view of each group in which rows wait that this turn may take, with the place of the first of
    /// them. `slowdown` is wall seconds for a CPU second.
    pub fn views(
        &self,
        which: Which,
        turn: &Turn,
        now: Instant,
        slowdown: f64,
    ) -> impl Iterator<Item = (Position, GroupView)> {
        let is_known = move |group: &RowGroup<J>| {
            let front = group.entries.front();
            front.is_some_and(|entry| self.costs.is_measured(entry.params.workload, now))
        };
        let may = move |group: &RowGroup<J>| match (group.is_dear, group.is_unknown) {
            (false, _) => !group.entries.is_empty(),
            (true, false) => turn.takes_dear && !group.entries.is_empty(),
            (true, true) => turn.takes_unknown || (turn.takes_dear && is_known(group)),
        };
        let waiting = self.groups.iter().enumerate().filter(move |(_, group)| may(group));
        waiting.filter_map(move |(group_idx, group)| {
            let from = match which {
                Which::All => 0,
                Which::NotYielding => {
                    let mut some = group.entries.iter().take(LOOKED_THROUGH);
                    some.position(|entry| !turn.yields(entry.params.request, entry.params.holds_long()))?
                }
            };
            let first = &group.entries.get(from)?.params;
            let mut curve = self.costs.curve(group.number, slowdown);
            // Rows that take long to prepare wait for each other in a run; those of a slow network gain as others do.
            let is_alone = group.is_dear && first.network <= DEAR;
            if is_alone {
                (curve.best, curve.full) = (1, curve.one);
            }
            // Who lingers is asked only where a batch is not full, so there are few to ask.
            let some = group.entries.range(from..).take(curve.best).map(|entry| &entry.params);
            let balance = some.clone().map(|params| params.balance).min().unwrap_or(Balance::Fast);
            let since = some.map(|params| params.queued).min()?;
            let view = GroupView {
                queued: group.entries.len() - from,
                class: group.class,
                due: first.due(),
                arrived: first.arrived,
                since,
                balance,
                arriving: group.arrivals.expected(),
                curve,
                max_rows: if is_alone { 1 } else { self.costs.max_rows() },
            };
            Some((Position { group: group_idx, from }, view))
        })
    }

    /// The first `rows` entries from `position` on.
    pub fn entries(&self, position: Position, rows: usize) -> impl Iterator<Item = &QueueEntry<J>> {
        self.groups[position.group].entries.range(position.from..).take(rows)
    }

    /// Takes the first `rows` entries from `position` on; those whose callers have gone go to `ended`.
    pub fn take(
        &mut self,
        position: Position,
        rows: usize,
        now: Instant,
        ended: &mut Vec<QueueEntry<J>>,
    ) -> Vec<QueueEntry<J>> {
        let mut taken = Vec::with_capacity(rows);
        let group = &mut self.groups[position.group];
        while taken.len() < rows {
            let Some(entry) = group.entries.remove(position.from) else { break };
            self.n_rows -= 1;
            if entry.job.is_cancelled() { ended.push(entry) } else { taken.push(entry) }
        }
        if let Some(first) = taken.first() {
            let waited = now.saturating_duration_since(first.params.queued);
            group.arrivals.ran(waited, taken.len() - 1 + group.entries.len());
        }
        taken
    }

    /// Takes out the entries at the front of each group whose callers have gone, or who cannot be answered
    /// in time. Only the front decides: the rest is looked at when it gets there.
    pub fn clear(&mut self, now: Instant, slowdown: f64, ended: &mut Vec<QueueEntry<J>>) {
        for entries in &mut self.pending {
            while entries.front().is_some_and(|entry| entry.job.is_cancelled() || entry.due() <= now) {
                ended.extend(entries.pop_front());
            }
        }
        for group in &mut self.groups {
            while let Some(entry) = group.entries.front() {
                let in_time = || {
                    // Half, for what was measured may be wrong, and nobody is given up on too soon.
                    let least = self.costs.curve(group.number, slowdown).one / 2;
                    now + least <= entry.due()
                };
                if !entry.job.is_cancelled() && in_time() {
                    break;
                }
                ended.extend(group.entries.pop_front());
                self.n_rows -= 1;
            }
        }
    }

    /// Takes out every entry whose caller has gone.
    pub fn sweep(&mut self, ended: &mut Vec<QueueEntry<J>>) {
        let mut keep = |entries: &mut VecDeque<QueueEntry<J>>| {
            let (gone, waiting): (VecDeque<QueueEntry<J>>, VecDeque<QueueEntry<J>>) =
                entries.drain(..).partition(|entry| entry.job.is_cancelled());
            *entries = waiting;
            ended.extend(gone);
        };
        self.pending.iter_mut().for_each(&mut keep);
        self.groups.iter_mut().for_each(|group| keep(&mut group.entries));
        self.n_rows = self.groups.iter().map(|group| group.entries.len()).sum();
    }
}

/// Whether inputs are prepared ahead, so that rows of one shape find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrepareAhead {
    Pays,
    GainsNothing,
}

/// Inserts an entry in the order of deadlines.
fn insert<J: Cancellable>(entries: &mut VecDeque<QueueEntry<J>>, entry: QueueEntry<J>) {
    // Most are due after those before them: look from the back.
    let after = entries.iter().rposition(|other| other.due() <= entry.due()).map_or(0, |i| i + 1);
    entries.insert(after, entry);
}
