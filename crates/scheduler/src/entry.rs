//! A row that waits, and on which terms it was accepted.

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use crate::{balance::Balance, charge::DEAR, demand::Burden, policy::Class, workload::Workload};

/// Which rows can share a run: a number for each shape, the task's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowShape {
    /// Likely this one; known once the input is prepared.
    Likely(usize),
    /// This one, before anything is prepared.
    Sure(usize),
    /// This one: the input is prepared.
    Prepared(usize),
}

impl RowShape {
    /// The number, as far as it is known.
    pub fn number(self) -> usize {
        match self {
            Self::Likely(number) | Self::Sure(number) | Self::Prepared(number) => number,
        }
    }
}

/// What the scheduler knows of a row: who asked when, until when, and what it is expected to take.
#[derive(Debug, Clone, Copy)]
pub struct SchedParams {
    /// When the request came.
    pub arrived: Instant,
    /// When its inputs were queued.
    pub queued: Instant,
    /// How long after `arrived` the answer is of use.
    pub deadline: Duration,
    /// How long after `queued` the answer was predicted, where the whole request is this row and it waits for nobody.
    pub predicted: Option<Duration>,
    pub class: Class,
    pub balance: Balance,
    pub shape: RowShape,
    /// Bytes of the input.
    pub bytes: usize,
    /// How much there is to prepare of it.
    pub workload: Workload,
    /// CPU time that preparing and answering it is expected to take.
    pub handling: Duration,
    /// CPU time that its row is expected to take, run alone.
    pub network: Duration,
    /// What the ledger holds for it; `None` where nothing was promised.
    pub charge: Option<Duration>,
    pub burden: Burden,
    /// Whether it may hold a worker for long.
    pub is_dear: bool,
    /// Whether it may be dear for all that was known when it was queued.
    pub is_unknown: bool,
    /// The number of its request, where that has several rows. The queue gives it.
    pub request: Option<NonZero<u64>>,
}

impl SchedParams {
    /// When the answer is due.
    pub fn due(&self) -> Instant {
        self.arrived + self.deadline
    }

    /// CPU time that it is expected to take alone.
    pub fn expected(&self) -> Duration {
        self.handling + self.network
    }

    /// Returns whether how well its forecast held says something of the machine, and not of how little was known of
    /// its input.
    pub fn teaches_slowdown(&self) -> bool {
        !self.is_dear && self.charge.is_some_and(|charge| !charge.is_zero())
    }

    /// Returns whether it may hold a worker for long from now on: what was prepared has that behind it.
    pub fn holds_long(&self) -> bool {
        match self.shape {
            RowShape::Likely(_) | RowShape::Sure(_) => self.is_dear,
            RowShape::Prepared(_) => self.is_dear && self.network > DEAR,
        }
    }

    /// Returns whether half of the time that the caller gave is over.
    pub fn is_aged(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.arrived) >= self.deadline / 2
    }
}

/// What is queued, beside what the scheduler knows of it.
pub trait Cancellable {
    /// Returns whether nobody waits for the answer any more.
    fn is_cancelled(&self) -> bool;
}

/// A row that waits.
#[derive(Debug)]
pub struct QueueEntry<J> {
    pub params: SchedParams,
    pub job: J,
}

impl<J: Cancellable> QueueEntry<J> {
    /// When the answer is due.
    pub fn due(&self) -> Instant {
        self.params.due()
    }

    /// Returns whether ending the row now breaks its promise: its time is over, or somebody still waits. Those who
    /// left before are promised nothing any more.
    pub fn is_broken(&self, now: Instant) -> bool {
        self.due() <= now || !self.job.is_cancelled()
    }
}
