//! The way of one request through the pool: admit it, queue its inputs, await the answers.
//!
//! Invariant: a [`Reservation`] is room that is already held, so that what is admitted is not refused
//! later for want of it, and leaving at any point gives the room back.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use lepton_scheduler::{
    charge::{Asks, Charge, DEAR},
    cost::CostModel,
    demand::{Ask, Burden, Forecast},
    entry::{self, RowShape, SchedParams},
    handling::Evidence,
    policy::Class,
};
use tokio::sync::oneshot;

use crate::{
    error::Error,
    manifest::Balance,
    pool::{
        Answered,
        capacity::{CapacityPermit, Exhausted},
        costs::Trial,
        job::{Caller, Job, Payload, Queued},
        model::{Model, RETRY_LOADING, Waiting},
        notifier::DeferredNotification,
        shared::{NotQueued, Shared, Submission},
    },
    tasks::{Input, RequestSize, ShapeClass, Workload},
};

/// Bytes of the inputs of one request that are looked at to price them, together; and of each at least. A thread that
/// serves others does that.
const LOOKED_AT: usize = 64 << 10;
const LEAST_LOOKED_AT: usize = 256;

/// What a request asks for before its body is read.
#[derive(Debug, Clone)]
pub struct Claim {
    /// When the request's head arrived.
    pub arrived: Instant,
    /// How long after that the answer is of use.
    pub deadline: Duration,
    /// What is known of the body: the bytes that were declared, and the options.
    pub size: RequestSize,
    /// How much of the time another model needs after this one: the answer is due so much sooner.
    pub after: Duration,
    /// Which work goes first.
    pub class: Class,
    /// How long a row may linger for others to share its run.
    pub balance: Balance,
}

impl Claim {
    /// How long after the request's arrival this model has to answer.
    fn time(&self) -> Duration {
        self.deadline.saturating_sub(self.after)
    }

    fn due(&self) -> Instant {
        self.arrived + self.time()
    }
}

/// A reserved place. Dropping it gives the place back.
pub struct Reservation {
    model: Arc<Model>,
    shared: Arc<Shared>,
    claim: Claim,
    place: CapacityPermit,
    held: Option<TimeReservation>,
}

/// CPU time that is owed to a request whose inputs are not known yet. Dropping it ends that.
struct TimeReservation {
    shared: Arc<Shared>,
    due: Instant,
    /// `None` once the request's inputs have taken its place.
    work: Option<Duration>,
}

impl Drop for TimeReservation {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.shared.release_time(self.due, work);
        }
    }
}

impl Reservation {
    /// Reserves room for one request before its body is read, or refuses it: the model is not
    /// ready, the queue is full, or the answer is predicted to come after the deadline.
    pub(super) fn reserve(model: &Arc<Model>, shared: &Arc<Shared>, claim: Claim) -> Result<Self, Error> {
        if let Some(error) = model.unavailable() {
            return Err(error);
        }
        // What is declared is most likely one input. Where it is many, `submit` looks again.
        let asked = ask_of(model, &claim);
        let forecast = shared.forecast(asked.ask, claim.class);
        if !forecast.excess.is_zero() {
            let fits = |ask| shared.forecast(ask, claim.class).excess.is_zero();
            if !asked.without_bytes.is_some_and(fits) || !model.reads_anyway() {
                return Err(too_late(model, shared, &claim, &claim.size, forecast));
            }
        }
        // What is declared has to fit now, and is taken as it arrives: who declares much and sends
        // slowly holds no room that others could use.
        let declared = claim.size.bytes.unwrap_or_default();
        let take = || {
            let mut place = CapacityPermit::take(shared.room(), model.share(), declared)?;
            place.shrink(declared);
            Ok(place)
        };
        // Those who have gone hold room, too, until somebody looks.
        let place = take().or_else(|_| {
            shared.sweep();
            take()
        });
        let place = place.map_err(|full| queue_full(full, forecast.finish))?;
        Ok(Self { model: Arc::clone(model), shared: Arc::clone(shared), claim, place, held: None })
    }

    /// As [`Reservation::reserve`], and owes the request the time of one row from now on, so that nobody else is
    /// promised it before the inputs are known: for what comes after another model's answer.
    pub(super) fn reserve_with_time(
        model: &Arc<Model>,
        shared: &Arc<Shared>,
        claim: Claim,
    ) -> Result<Self, Error> {
        let mut reservation = Self::reserve(model, shared, claim.clone())?;
        let AskUnread { ask, .. } = ask_of(model, &claim);
        shared
            .reserve_time(ask, claim.class)
            .map_err(|forecast| too_late(model, shared, &claim, &claim.size, forecast))?;
        reservation.held =
            Some(TimeReservation { shared: Arc::clone(shared), due: ask.due, work: Some(ask.whole) });
        Ok(reservation)
    }

    /// How long one row is likely to take, from the moment that a worker begins with it.
    pub fn takes(&self) -> Duration {
        ask_of(&self.model, &self.claim).ask.whole.mul_f64(self.shared.slowdown())
    }

    /// Reserves bytes as a body arrives.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        self.place.grow(0, bytes).map_err(|full| queue_full(full, self.backlog()))
    }

    /// Queues the request's inputs, all or none: refuses if there is no room for that many rows, or if
    /// they, or what was promised to others, would be late. Each input holds the room of its own memory.
    pub fn submit(self, inputs: Vec<Input>) -> Result<Vec<Reply>, Error> {
        self.submit_slices(inputs, 0)
    }

    /// As [`Reservation::submit`], for inputs that keep `shared` bytes of memory alive together, such as slices of one
    /// body: the room of all of it is held until the last of them is answered. 0 where each owns its memory.
    pub fn submit_slices(mut self, inputs: Vec<Input>, shared: usize) -> Result<Vec<Reply>, Error> {
        let Some(task) = self.model.task().cloned() else {
            return Err(Error::Internal("a reservation of a model that is not loaded".to_owned()));
        };
        let n_bytes = if shared > 0 { shared } else { inputs.iter().map(Input::n_held).sum() };
        let more_bytes = n_bytes.saturating_sub(self.place.bytes());
        if let Err(full) = self.place.grow(inputs.len().saturating_sub(1), more_bytes) {
            return Err(queue_full(full, self.backlog()));
        }
        let most_bytes = (LOOKED_AT / inputs.len().max(1)).max(LEAST_LOOKED_AT);
        let look = |input: &Input| {
            let size = input.size();
            (task.shape_class(&size).number(), task.then(&size), task.workload(input, most_bytes))
        };
        let looked_at: Vec<(usize, Option<usize>, Workload)> = inputs.iter().map(look).collect();
        let charges = self.model.costs().charges(looked_at.into_iter());
        let dearest = inputs.iter().zip(&charges).max_by_key(|(_, charge)| charge.whole());
        let dearest = dearest.map_or_else(RequestSize::default, |(input, _)| input.size());
        let asks = Asks::of(&charges, self.claim.due(), batch_delay(&self.model, &dearest));

        let mut replies = Vec::with_capacity(inputs.len());
        let (queued, span) = (Instant::now(), tracing::Span::current());
        let body = (shared > 0).then(|| Arc::new(self.place.split_off_bytes()));
        let Self { model, shared, claim, place, held } = &mut self;
        let jobs = |forecast: Forecast, mut trial: Option<Trial>| {
            // A row that may linger is answered when others have come, which no forecast says.
            let (fast, is_trial) = (claim.balance == Balance::Fast, trial.is_some());
            let predicted = Some(forecast.finish).filter(|_| inputs.len() == 1 && fast && !is_trial);
            let job = |(input, charge): (Input, Charge)| {
                let (sender, receiver) = oneshot::channel();
                replies.push(Reply { receiver, deferred: None, was_polled: false });
                let (size, bytes, n_held) = (input.size(), input.n_bytes(), input.n_held());
                let params = SchedParams {
                    arrived: claim.arrived,
                    queued,
                    deadline: claim.time(),
                    predicted,
                    class: claim.class,
                    balance: claim.balance,
                    shape: match task.shape_class(&size) {
                        ShapeClass::Known(number) => RowShape::Sure(number),
                        ShapeClass::Likely(number) => RowShape::Likely(number),
                    },
                    bytes,
                    workload: charge.workload,
                    handling: charge.handling,
                    network: charge.network,
                    charge: (!is_trial).then(|| charge.whole()),
                    burden: if is_trial { Burden::Heavy } else { asks.ask.burden },
                    is_dear: is_trial || charge.is_dear(),
                    is_unknown: is_trial || (charge.is_dear() && charge.evidence == Evidence::Extrapolated),
                    request: None,
                };
                let caller = Caller {
                    reply: sender,
                    span: span.clone(),
                    place: place.split_off(n_held),
                    body: body.clone(),
                    // The first tells what the others cost.
                    trial: trial.take(),
                };
                let job = Job { payload: Payload::Input(input), caller, waiting: Waiting::start(model) };
                entry::QueueEntry { params, job }
            };
            inputs.into_iter().zip(charges).map(job).collect::<Vec<Queued>>()
        };
        let held = held.as_mut().and_then(|held| held.work.take());
        let costs = Arc::clone(model.costs());
        let submission = Submission { model: model.queue(), costs, asks, class: claim.class, held };
        match shared.push(submission, jobs) {
            Ok(deferred) => {
                // The first is the one that is awaited first.
                if let Some(first) = replies.first_mut() {
                    first.deferred = deferred;
                }
                Ok(replies)
            }
            Err(NotQueued::Closed) => {
                let reason = "the server is stopping".into();
                Err(Error::Unavailable { reason, retry_after: RETRY_LOADING })
            }
            Err(NotQueued::Late(forecast)) => Err(too_late(model, shared, claim, &dearest, forecast)),
        }
    }

    /// How long an answer would take, whatever the request.
    fn backlog(&self) -> Duration {
        let (due, none) = (self.claim.due(), Duration::ZERO);
        let ask = Ask { due, whole: none, longest: none, batch_delay: none, burden: Burden::Unknown };
        self.shared.forecast(ask, self.claim.class).finish
    }
}

/// What a request asks for of which no more than its claim is known.
struct AskUnread {
    ask: Ask,
    /// The same without what its bytes are taken to cost, where they are.
    without_bytes: Option<Ask>,
}

fn ask_of(model: &Model, claim: &Claim) -> AskUnread {
    let least = model.least(&claim.size);
    let whole = least.network + least.handling;
    let burden = match least.is_foreseen {
        false => Burden::Unknown,
        true if whole > DEAR => Burden::Heavy,
        true => Burden::Light,
    };
    let ask =
        Ask { due: claim.due(), whole, longest: whole, batch_delay: batch_delay(model, &claim.size), burden };
    let without_bytes = Ask { whole: least.network, longest: least.network, ..ask };
    AskUnread { ask, without_bytes: (!least.handling.is_zero()).then_some(without_bytes) }
}

/// How much longer than alone such an input's row takes in a batch that is as large as pays.
fn batch_delay(model: &Model, size: &RequestSize) -> Duration {
    model.task().map_or(Duration::ZERO, |task| {
        let curve = model.costs().curve(task.shape_class(size).number(), 1.0);
        curve.full.saturating_sub(curve.one)
    })
}

/// Refuses a request that would be late, or would make others late.
fn too_late(
    model: &Arc<Model>,
    shared: &Shared,
    claim: &Claim,
    size: &RequestSize,
    forecast: Forecast,
) -> Error {
    if let Some(task) = model.task() {
        shared.measure_again(model, task.shape_class(size).number());
    }
    // The caller knows of one answer and one deadline, whatever comes after this model.
    let whole = forecast.finish + claim.after;
    // In tenths of a millisecond: whole numbers are written in half the time, and overloads refuse by the
    // ten thousand.
    let tenths = (whole.as_micros() + 50) / 100;
    let (ms, tenths, deadline) = (tenths / 10, tenths % 10, claim.deadline.as_millis());
    let left = claim.deadline.saturating_sub(claim.arrived.elapsed());
    let reason = if whole > left {
        format!("the answer is predicted in {ms}.{tenths} ms, after the deadline of {deadline} ms")
    } else {
        format!(
            "the answer is predicted in {ms}.{tenths} ms; with a deadline of {deadline} ms that is too close to \
             promise, or would break what was promised to others"
        )
    };
    // What is too much now is done by then, where no more comes.
    Error::Overloaded { reason: reason.into(), retry_after: forecast.excess, forecast: whole }
}

fn queue_full(full: Exhausted, forecast: Duration) -> Error {
    let reason = match full {
        Exhausted::Rows => "the queue is full: no more inputs can wait",
        Exhausted::Bytes => "the queue is full: no more bytes of input can wait",
    };
    Error::Overloaded { reason: reason.into(), retry_after: forecast, forecast }
}

/// The answer to come. Dropping it cancels the job before any core works for it.
#[derive(Debug)]
pub struct Reply {
    receiver: oneshot::Receiver<Result<Answered, Error>>,
    /// The notification of workers, where it was left to the end of the thread's round.
    deferred: Option<DeferredNotification>,
    was_polled: bool,
}

impl Future for Reply {
    type Output = Result<Answered, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.deferred.is_some() {
            // A thread that others keep busy never ends its round: this task goes to the end of those that are ready,
            // and notifies workers when its turn comes.
            if std::mem::replace(&mut self.was_polled, true) {
                self.deferred = None;
            } else {
                context.waker().wake_by_ref();
            }
        }
        let dropped = |_| Err(Error::Internal("the worker dropped the job".to_owned()));
        Poll::Ready(ready!(Pin::new(&mut self.receiver).poll(context)).unwrap_or_else(dropped))
    }
}
