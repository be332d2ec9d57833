//! One input on its way to an answer, and who waits for it.
//!
//! Invariant: a job ends in exactly one answer, or in nobody who would read it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lepton_scheduler::entry::{Cancellable, QueueEntry};
use tokio::sync::oneshot;

use crate::{
    error::Error,
    image::Picture,
    pool::{Answered, capacity::CapacityPermit, costs::Trial, meter::Spent, model::Waiting},
    tasks::{Context, Input, RegionStep},
    tensor::Tensors,
};

/// A job, with what the scheduler knows of it.
pub(super) type Queued = QueueEntry<Job>;

/// One input on its way to a worker.
pub(super) struct Job {
    pub(super) payload: Payload,
    pub(super) caller: Caller,
    /// Counts the row as waiting until a worker runs it or its caller has gone.
    pub(super) waiting: Waiting,
}

/// What is to be run.
pub(super) enum Payload {
    /// As it came.
    Input(Input),
    /// Ready to run.
    Row(Row),
}

/// An input that was prepared, ready to run.
pub(super) struct Row {
    pub(super) tensors: Tensors,
    /// The task's number for the row's shape.
    pub(super) bucket: usize,
    pub(super) context: Context,
    /// The decoded picture and what is made of it once its answer is known.
    pub(super) step: Option<(Picture, Arc<dyn RegionStep>)>,
    pub(super) prepare: Prepare,
}

/// What preparing a row took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prepare {
    pub(super) wall: Duration,
    /// `None` until the stage that it was prepared in has ended.
    pub(super) cpu: Option<Duration>,
}

impl Prepare {
    /// Takes its part of what the whole stage took.
    pub(super) fn charge(&mut self, stage: &Spent) {
        self.cpu = Some(stage.part(self.wall).cpu);
    }

    /// CPU time, as far as it is known.
    pub(super) fn known_cpu(&self) -> Duration {
        self.cpu.unwrap_or_default()
    }
}

/// Who waits for an answer.
pub(super) struct Caller {
    pub(super) reply: oneshot::Sender<Result<Answered, Error>>,
    /// The caller's span, so that what a worker logs names the request.
    pub(super) span: tracing::Span,
    /// Capacity in the queue, held until the answer is sent.
    pub(super) place: CapacityPermit,
    /// Capacity for the body that this input and others are slices of, held until the last of them is answered.
    pub(super) body: Option<Arc<CapacityPermit>>,
    /// Ends when the answer is sent, where it is not known what such an input costs.
    pub(super) trial: Option<Trial>,
}

impl Cancellable for Job {
    fn is_cancelled(&self) -> bool {
        self.caller.is_gone()
    }
}

/// Ends a job whose caller has gone, or whose deadline has passed: tells who still listens.
pub(super) fn end(queued: Queued) {
    if queued.is_broken(Instant::now()) {
        queued.job.waiting.model().metrics().promise_broken();
    }
    let deadline = queued.params.deadline;
    let Job { payload, caller, .. } = queued.job;
    // Memory first: the room says how much of it is alive at most.
    drop(payload);
    if !caller.is_gone() {
        caller.answer(Err(Error::DeadlineExceeded { deadline }));
    }
}

impl Caller {
    /// Returns whether the caller has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }

    /// Gives the room back and sends the answer; a caller who has gone does not want it.
    pub(super) fn answer(self, answer: Result<Answered, Error>) {
        // Capacity first: whoever has an answer finds the place free for the next request.
        drop((self.place, self.body, self.trial));
        let _gone = self.reply.send(answer);
    }
}
