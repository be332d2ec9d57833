//! What a free worker does next: plain numbers in, a decision out.
//!
//! Invariant: pure. No lock, no thread, no clock of its own, so that every rule is tested with
//! numbers that a test makes up.
//!
//! The rule ([`MeasuredPolicy`]): of the rows that may run, those due first (Liu and Layland 1973), in a
//! batch that is as large as the measurements say it should be and no larger. Those who asked for a low
//! price may linger until others share their run; `batch` work runs while no other does, or when half its time is gone.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::balance::Balance;

/// Do not linger where sharing a run saves less than one part in this many of what a row costs alone.
const WORTH_WAITING: u32 = 20;

/// Where nobody has come for so many times the mean between two arrivals, nobody is coming: of arrivals that
/// are independent, one pause in twenty is longer.
const SILENCE: u32 = 3;

/// Which work goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Served from idle time only, until half of its deadline has passed.
    Batch,
}

impl Class {
    /// Every class, the first served first.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    /// The name that callers write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

impl std::str::FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|class| class.name() == text);
        found.ok_or_else(|| "allowed are interactive and batch".to_owned())
    }
}

/// How batches are made. The server has one ([`MeasuredPolicy`]); others are there to be measured against.
pub trait Policy: Send + Sync {
    /// Decides for one free worker.
    fn decide(&self, view: &View) -> Decision;

    /// Returns whether inputs of unknown shape may be prepared ahead of their runs, so that rows of one shape find each
    /// other.
    fn prepares_ahead(&self) -> bool {
        true
    }

    /// Returns whether a row of that balance runs as soon as it can.
    fn runs_at_once(&self, balance: Balance) -> bool {
        balance == Balance::Fast
    }

    /// Returns whether a few inputs of unknown shape run one by one, as they come.
    fn runs_few_at_once(&self) -> bool {
        true
    }
}

/// As the measurements say.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeasuredPolicy;

/// What the policy sees of the queue.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub now: Instant,
    /// Workers that there are, with the one that asks.
    pub workers: usize,
    pub groups: &'a [GroupView],
}

/// What the policy sees of one group: rows of one model, one shape and one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupView {
    /// Rows that wait.
    pub queued: usize,
    pub class: Class,
    /// When the first of them is due.
    pub due: Instant,
    /// When that one came.
    pub arrived: Instant,
    /// When the one that has waited longest began to.
    pub since: Instant,
    /// The balance of the row that is least willing to wait.
    pub balance: Balance,
    /// How rows have come lately; `None` where no more are expected.
    pub arriving: Option<Arriving>,
    pub curve: Curve,
    /// Most rows that one run of this model takes.
    pub max_rows: usize,
}

/// How rows of one group come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arriving {
    /// When the last one came.
    pub last: Instant,
    /// The mean time between two.
    pub gap: Duration,
}

/// What a run costs by its rows, as far as the policy needs to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// The smallest number of rows beyond which a batch gains nothing; 1 where batches gain nothing.
    pub best: usize,
    /// Time that a run of one row takes, with what a worker has to do around it.
    pub one: Duration,
    /// Time that a run of `best` rows takes.
    pub full: Duration,
}

impl Curve {
    /// Time that a run of `rows` rows takes, on the line through the two points.
    pub fn run(&self, rows: usize) -> Duration {
        if rows <= 1 || self.best <= 1 {
            return self.one.saturating_mul(u32::try_from(rows.max(1)).unwrap_or(u32::MAX));
        }
        let share = (rows - 1) as f64 / (self.best - 1) as f64;
        self.one + self.full.saturating_sub(self.one).mul_f64(share)
    }

    /// Time that a row of a full batch saves over a row alone.
    fn saved(&self) -> Duration {
        self.one.saturating_sub(self.full / u32::try_from(self.best.max(1)).unwrap_or(u32::MAX))
    }
}

/// What a free worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is nothing to do.
    Rest,
    /// There is nothing to do before that moment, unless more rows come.
    Linger { until: Instant },
    /// Run the first `rows` of the group at this position of the view.
    Run { group: usize, rows: usize },
}

impl Policy for MeasuredPolicy {
    fn decide(&self, view: &View) -> Decision {
        earliest_deadline(view, |group| lingers(group, view.now), |group| rows(group, view))
    }
}

/// Decides in the order of deadlines, the first class first, among the groups that do not linger: `linger` returns until
/// when one does, `rows` how many of its rows run.
pub fn earliest_deadline(
    view: &View,
    linger: impl Fn(&GroupView) -> Option<Instant>,
    rows: impl Fn(&GroupView) -> usize,
) -> Decision {
    let mut lingering: Option<Instant> = None;
    for class in Class::ALL {
        let mut first: Option<(usize, &GroupView)> = None;
        for (position, group) in view.groups.iter().enumerate() {
            if group.queued == 0 || class_of(group, view.now) != class {
                continue;
            }
            match linger(group) {
                Some(until) => lingering = Some(lingering.map_or(until, |other| other.min(until))),
                None if first.is_none_or(|(_, other)| group.due < other.due) => {
                    first = Some((position, group));
                }
                None => {}
            }
        }
        if let Some((position, group)) = first {
            return Decision::Run { group: position, rows: rows(group) };
        }
    }
    lingering.map_or(Decision::Rest, |until| Decision::Linger { until })
}

/// The class that a group is served in: what has spent half its time is nobody's idle work any more,
/// so that nothing starves.
pub fn class_of(group: &GroupView, now: Instant) -> Class {
    let waited = now.saturating_duration_since(group.arrived);
    let whole = group.due.saturating_duration_since(group.arrived);
    if waited >= whole / 2 { Class::Interactive } else { group.class }
}

/// How many rows of a group the worker takes.
fn rows(group: &GroupView, view: &View) -> usize {
    let most = group.queued.min(group.max_rows.max(1));
    // Workers share what waits, those that are busy too: one that takes all of a short queue makes its rows wait for
    // each other, where the next free worker would have run half of them as soon. In a long queue the others find
    // enough in other groups.
    let waiting: usize = view.groups.iter().map(|group| group.queued).sum();
    let share = waiting.div_ceil(view.workers.max(1));
    let mut rows = share.clamp(1, group.curve.best.max(1)).min(most);
    while rows > 1 && view.now + group.curve.run(rows) > group.due {
        rows = rows.div_ceil(2);
    }
    rows
}

/// Until when the group's rows linger for others to share their run; `None` where they run now.
fn lingers(group: &GroupView, now: Instant) -> Option<Instant> {
    linger(group).filter(|until| *until > now)
}

/// Until when it is worth to linger: as long as the rows' callers are willing, while there is time to spare, and only
/// where more rows are expected by then.
fn linger(group: &GroupView) -> Option<Instant> {
    let curve = &group.curve;
    if group.queued >= curve.best || curve.saved() <= curve.one / WORTH_WAITING {
        return None;
    }
    let arriving = group.arriving?;
    let patience = match group.balance {
        Balance::Fast => return None,
        Balance::Balanced => curve.one,
        Balance::Cheap => group.due.saturating_duration_since(group.since) / 4,
    };
    // Twice, for what was measured may be wrong.
    let latest = group.due.checked_sub(curve.full * 2)?;
    // The next row is a gap away, whenever one looks: it has to come in time, and not to have stayed away.
    let in_time = (group.since + patience).min(latest).checked_sub(arriving.gap)?;
    Some(in_time.min(arriving.last + arriving.gap * SILENCE))
}
