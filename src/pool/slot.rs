//! The way of one request through the pool: admit it, queue its inputs, await the answers.
//!
//! Invariant: a [`Slot`] is room that is already held, so that what is admitted is not refused
//! later for want of it, and leaving at any point gives the room back.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    error::Error,
    pool::{
        Answered,
        model::{Model, RETRY_LOADING, Waiting},
        place::{Full, Place},
        queue::{Caller, Job},
        shared::Shared,
    },
    task::Input,
};

/// What a request asks for before its body is read.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// When the request's head arrived.
    pub arrived: Instant,
    /// How long after that the answer is of use.
    pub deadline: Duration,
    /// Bytes of body that were declared; 0 where the length is unknown.
    pub bytes: usize,
}

/// A reserved place. Dropping it gives the place back.
pub struct Slot {
    model: Arc<Model>,
    shared: Arc<Shared>,
    claim: Claim,
    place: Place,
}

impl Slot {
    /// Reserves room for one request before its body is read, or refuses it: the model is not
    /// ready, the queue is full, or the answer is predicted to come after the deadline.
    pub(super) fn reserve(model: &Arc<Model>, shared: &Arc<Shared>, claim: Claim) -> Result<Self, Error> {
        if let Some(error) = model.unavailable() {
            return Err(error);
        }
        let left = claim.deadline.saturating_sub(claim.arrived.elapsed());
        let own = model.row_cost();
        let mut forecast = shared.forecast(own);
        if forecast > left {
            // Callers who have gone still count until a worker passes them: look before refusing.
            shared.sweep();
            forecast = shared.forecast(own);
        }
        if forecast > left {
            let reason = format!(
                "the answer is predicted in {} ms, after the deadline of {} ms",
                forecast.as_millis(),
                claim.deadline.as_millis()
            );
            return Err(Error::Overloaded { reason: reason.into(), retry_after: forecast });
        }
        // What is declared has to fit now, and is taken as it arrives: who declares much and sends
        // slowly holds no room that others could use.
        let take = || {
            let mut place = Place::take(shared.room(), model.share(), claim.bytes)?;
            place.shrink(claim.bytes);
            Ok(place)
        };
        // Those who have gone hold room, too, until somebody looks.
        let place = take().or_else(|_| {
            shared.sweep();
            take()
        });
        let place = place.map_err(|full| queue_full(full, forecast))?;
        Ok(Self { model: Arc::clone(model), shared: Arc::clone(shared), claim, place })
    }

    /// Reserves bytes as a body arrives.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        self.place.grow(0, bytes).map_err(|full| queue_full(full, self.shared.forecast(Duration::ZERO)))
    }

    /// Queues the request's inputs, all or none: refuses if there is no room for that many rows.
    pub fn submit(mut self, inputs: Vec<Input>) -> Result<Vec<Reply>, Error> {
        let Some(task) = self.model.task() else {
            return Err(Error::Internal("a slot of a model that is not loaded".to_owned()));
        };
        let weights: Vec<_> = inputs.iter().map(|input| task.weigh(input)).collect();
        let bytes: usize = weights.iter().map(|weight| weight.bytes).sum();
        let more_bytes = bytes.saturating_sub(self.place.bytes());
        self.place
            .grow(inputs.len().saturating_sub(1), more_bytes)
            .map_err(|full| queue_full(full, self.shared.forecast(Duration::ZERO)))?;
        let (mut jobs, mut replies) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
        let (queued, span) = (Instant::now(), tracing::Span::current());
        for (input, weight) in inputs.into_iter().zip(weights) {
            let (sender, receiver) = oneshot::channel();
            replies.push(Reply { receiver });
            let job = Job {
                input,
                caller: Caller {
                    arrived: self.claim.arrived,
                    queued,
                    deadline: self.claim.deadline,
                    reply: sender,
                    span: span.clone(),
                    place: self.place.split_off(weight.bytes),
                },
                waiting: Waiting::start(&self.model),
            };
            jobs.push((weight.bucket, job));
        }
        if self.shared.push(self.model.lane(), jobs).is_err() {
            let reason = "the server is stopping".into();
            return Err(Error::Unavailable { reason, retry_after: RETRY_LOADING });
        }
        Ok(replies)
    }
}

fn queue_full(full: Full, forecast: Duration) -> Error {
    let reason = match full {
        Full::Rows => "the queue is full: no more inputs can wait",
        Full::Bytes => "the queue is full: no more bytes of input can wait",
    };
    Error::Overloaded { reason: reason.into(), retry_after: forecast }
}

/// The answer to come. Dropping it cancels the job before any core works for it.
#[derive(Debug)]
pub struct Reply {
    receiver: oneshot::Receiver<Result<Answered, Error>>,
}

impl Future for Reply {
    type Output = Result<Answered, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let dropped = |_| Err(Error::Internal("the worker dropped the job".to_owned()));
        Poll::Ready(ready!(Pin::new(&mut self.receiver).poll(context)).unwrap_or_else(dropped))
    }
}
