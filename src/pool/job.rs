//! One input on its way to an answer, and who waits for it.
//!
//! Invariant: a job ends in exactly one answer, or in nobody who would read it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    error::Error,
    manifest::Balance,
    pool::{
        Answered, charge::DEAR, costs::Trial, demand::Burden, meter::Spent, model::Waiting, place::Place,
        policy::Class,
    },
    task::{Bucket, Frame, Input, Workload},
    tensor::Tensors,
};

/// One input on its way to a worker.
pub(super) struct Job {
    pub(super) matter: Matter,
    pub(super) caller: Caller,
    /// Counts the row as waiting until a worker runs it or its caller has gone.
    pub(super) waiting: Waiting,
    pub(super) terms: Terms,
}

/// What is to be run.
pub(super) enum Matter {
    /// As it came.
    Input { input: Input, bucket: Bucket },
    /// Ready to run.
    Row(Row),
}

/// An input that was prepared, ready to run.
pub(super) struct Row {
    pub(super) tensors: Tensors,
    /// The task's number for the row's shape.
    pub(super) bucket: usize,
    pub(super) frame: Frame,
    pub(super) prepare: Spent,
}

/// On which terms a job was accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) class: Class,
    pub(super) balance: Balance,
    /// Bytes of the input, and how much there is to prepare of it.
    pub(super) bytes: usize,
    pub(super) workload: Workload,
    /// CPU time that preparing and answering it is expected to take, and running it alone.
    pub(super) handling: Duration,
    pub(super) network: Duration,
    /// What the queue's demand holds for it: nothing where nothing was promised.
    pub(super) charge: Duration,
    pub(super) burden: Burden,
    /// Whether it may hold a worker for long.
    pub(super) is_dear: bool,
    /// Whether it may be dear for all that anybody knew when it was queued.
    pub(super) is_unknown: bool,
    /// The number of its request; 0 where that has no other row.
    pub(super) request: u64,
}

impl Terms {
    /// CPU time that it is expected to take alone.
    pub(super) fn expected(&self) -> Duration {
        self.handling + self.network
    }

    /// Returns whether how well its forecast held says something of the machine, and not of how little was known of
    /// its input.
    pub(super) fn teaches_pace(&self) -> bool {
        !self.is_dear && !self.charge.is_zero()
    }
}

/// Who waits for an answer, and since when.
pub(super) struct Caller {
    pub(super) arrived: Instant,
    pub(super) queued: Instant,
    pub(super) deadline: Duration,
    /// How long after `queued` the answer was predicted, where the whole request is this row and it waits for
    /// nobody.
    pub(super) predicted: Option<Duration>,
    pub(super) reply: oneshot::Sender<Result<Answered, Error>>,
    /// The caller's span, so that what a worker logs names the request.
    pub(super) span: tracing::Span,
    /// Room in the queue, held until the answer is sent.
    pub(super) place: Place,
    /// Room for the body that this input and others are slices of, held until the last of them is answered.
    pub(super) body: Option<Arc<Place>>,
    /// Ends when the answer is sent, where it is not known what such an input costs.
    pub(super) trial: Option<Trial>,
}

impl Job {
    /// When the answer is due.
    pub(super) fn due(&self) -> Instant {
        self.caller.due()
    }

    /// Returns whether it may hold a worker for long from now on: what was prepared has that behind it.
    pub(super) fn is_dear(&self) -> bool {
        match &self.matter {
            Matter::Input { .. } => self.terms.is_dear,
            Matter::Row(_) => self.terms.is_dear && self.terms.network > DEAR,
        }
    }

    /// Says whether half of the time that the caller gave is over.
    pub(super) fn is_aged(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.caller.arrived) >= self.caller.deadline / 2
    }

    /// Says whether ending the job now breaks its promise: its time is over, or somebody still waits. Who
    /// left before that was promised nothing any more.
    pub(super) fn is_broken(&self, now: Instant) -> bool {
        self.due() <= now || !self.caller.is_gone()
    }

    /// Ends a job whose caller has gone, or whose deadline has passed: tells who still listens.
    pub(super) fn end(self) {
        if self.is_broken(Instant::now()) {
            self.waiting.model().metrics().promise_broken();
        }
        let Self { matter, caller, .. } = self;
        // Memory first: the room says how much of it is alive at most.
        drop(matter);
        if !caller.is_gone() {
            let deadline = caller.deadline;
            caller.answer(Err(Error::DeadlineExceeded { deadline }));
        }
    }
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
        drop((self.place, self.body, self.trial));
        let _gone = self.reply.send(answer);
    }
}
