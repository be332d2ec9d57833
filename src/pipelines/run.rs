//! One request on its way through the stages of a pipeline.
//!
//! Invariant: of a picture only its regions leave a worker, no larger than the readers take them, and they count as the
//! readers' queued bytes. Whatever drops this, the caller's leaving included, gives back what every stage owes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ReaderStage, Stages,
    region::{Cut, CutRegions},
};
use crate::{
    error::Error,
    manifest::Balance,
    metrics::Cost,
    pool::{Answered, Claim, Class, Model, ModelPool, Reply, Reservation},
    tasks::{Answer, Input, Options, RegionStep, RequestSize},
};

/// Regions of one picture that are read at most, the surest; the others are answered without a reading.
const MOST_OF_ONE: usize = 64;

/// Regions of one request that are read at most. Many pictures share them.
const MOST_OF_ALL: usize = 1024;

/// What a request asks of a pipeline before its body is read.
#[derive(Debug, Clone)]
pub struct Request {
    /// When the request's head arrived.
    pub arrived: Instant,
    /// How long after that the answer is of use.
    pub deadline: Duration,
    /// Bytes of the body, where its head tells.
    pub bytes: Option<usize>,
    pub class: Class,
    /// `None` leaves it to each model.
    pub balance: Option<Balance>,
    pub options: Options,
}

impl Request {
    fn size(&self, bytes: Option<usize>) -> RequestSize {
        RequestSize { bytes, options: self.options.clone() }
    }

    fn claim(&self, model: &Model, size: RequestSize, after: Duration) -> Claim {
        Claim {
            arrived: self.arrived,
            deadline: self.deadline,
            size,
            after,
            class: self.class,
            balance: self.balance.unwrap_or_else(|| model.balance()),
        }
    }
}

/// Why a pipeline did not answer, and which of the request's items is to blame, where one is.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub item: Option<usize>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, item: None }
    }
}

/// A picture, what the detector found in it, and what the readers say of the surest regions.
pub struct Scene {
    /// The detector's answer and its cost.
    pub found: Answered,
    /// For each region that was read, the answers of all readers.
    pub read: Vec<Vec<Answered>>,
}

impl Scene {
    /// What the picture cost over all stages. Readers work at the same time: of each of their stages the longest counts,
    /// and of CPU time the sum.
    pub fn cost(&self) -> Cost {
        let read = Cost::together(self.read.iter().flatten().map(|answered| &answered.cost));
        self.found.cost.then(&read)
    }

    /// The detector's answer.
    pub fn answer(&self) -> &Answer {
        &self.found.answer
    }
}

/// A request that every stage has room and time for. Dropping it gives both back.
pub struct Reserved {
    stages: Stages,
    first: Reservation,
    later: Vec<Reservation>,
    options: Options,
    /// Rows that the queue takes in all.
    queue_rows: usize,
}

impl Stages {
    /// Reserves room and time of every stage. What comes last is promised first: the detector has to answer sooner by
    /// as long as the readers take.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while a model is not ready, [`Error::Overloaded`] where a stage has no room or no time.
    pub fn reserve(self, pool: &ModelPool, queue_rows: usize, request: &Request) -> Result<Reserved, Error> {
        let mut later: Vec<Reservation> = Vec::with_capacity(self.readers.len());
        let mut after = Duration::ZERO;
        for ReaderStage { model, .. } in self.readers.iter().rev() {
            let slot = pool.reserve_with_time(model, request.claim(model, request.size(None), after))?;
            after += slot.takes();
            later.push(slot);
        }
        later.reverse();
        let size = request.size(request.bytes);
        let first = pool.reserve(&self.detector, request.claim(&self.detector, size, after))?;
        let options = request.options.clone();
        Ok(Reserved { stages: self, first, later, options, queue_rows })
    }
}

impl Reserved {
    /// Reserves bytes as a body arrives.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where the queue has no room for them.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        self.first.grow(bytes)
    }

    /// Queues the pictures and answers them. `shared` are the bytes of a body that the inputs are slices of.
    ///
    /// # Errors
    /// The first fault of a picture, or of one of its regions, with the picture's number.
    pub async fn answer(self, inputs: Vec<Input>, shared: usize) -> Result<Vec<Scene>, Failure> {
        let Self { stages, first, mut later, options, queue_rows } = self;
        let step = stages.step(inputs.len(), queue_rows)?;
        let inputs = inputs.into_iter().map(|input| input.with(&options).followed_by(&step)).collect();
        let found = found(first.submit_slices(inputs, shared)?, &mut later, &options).await?;
        read(found, later).await
    }
}

impl Stages {
    /// The step from the detector to the readers, for a request of `n_inputs` pictures.
    fn step(&self, n_inputs: usize, queue_rows: usize) -> Result<Arc<dyn RegionStep>, Error> {
        let cut = |reader: &ReaderStage| {
            let ready = || Error::Internal("a reader was reserved before it was loaded".to_owned());
            let task = Arc::clone(reader.model.task().ok_or_else(ready)?);
            Ok::<_, Error>(Cut { task, margin: reader.margin })
        };
        let readers = self.readers.iter().map(cut).collect::<Result<Vec<_>, _>>()?;
        // One crowd leaves half of the queue to others, also where the queue is short.
        let most_of_all = MOST_OF_ALL.min(queue_rows / 2 / readers.len().max(1));
        let most = (most_of_all / n_inputs.max(1)).clamp(1, MOST_OF_ONE);
        Ok(Arc::new(CutRegions { readers, most }))
    }
}

/// What the detector found in each picture, and the inputs of the readers: for each reader, those of all pictures.
struct Found {
    answers: Vec<Answered>,
    /// How many regions of each picture are read.
    n_regions: Vec<usize>,
    inputs: Vec<Vec<Input>>,
}

/// Waits for the regions of every picture. They count as the readers' queued bytes as soon as they are there.
async fn found(replies: Vec<Reply>, later: &mut [Reservation], options: &Options) -> Result<Found, Failure> {
    let n_readers = later.len().max(1);
    let mut found = Found {
        answers: Vec::with_capacity(replies.len()),
        n_regions: Vec::with_capacity(replies.len()),
        inputs: later.iter().map(|_| Vec::new()).collect(),
    };
    for (idx, reply) in replies.into_iter().enumerate() {
        let mut answered = reply.await.map_err(|error| Failure { error, item: Some(idx) })?;
        let items = std::mem::take(&mut answered.items);
        found.n_regions.push(items.len() / n_readers);
        for (at, item) in items.into_iter().enumerate() {
            let (reader, input) = (at % n_readers, Input::new(item).with(options));
            later[reader].grow(input.n_bytes())?;
            found.inputs[reader].push(input);
        }
        found.answers.push(answered);
    }
    Ok(found)
}

/// Has every reader read its regions, all of them at the same time.
async fn read(found: Found, later: Vec<Reservation>) -> Result<Vec<Scene>, Failure> {
    let Found { answers, n_regions, inputs } = found;
    let mut replies = Vec::with_capacity(later.len());
    for (slot, inputs) in later.into_iter().zip(inputs) {
        if !inputs.is_empty() {
            replies.push(slot.submit(inputs)?.into_iter());
        }
    }
    let mut scenes = Vec::with_capacity(answers.len());
    for (idx, (found, n_regions)) in answers.into_iter().zip(n_regions).enumerate() {
        let mut read = Vec::with_capacity(n_regions);
        for _ in 0..n_regions {
            let mut readings = Vec::with_capacity(replies.len());
            for reply in replies.iter_mut().filter_map(Iterator::next) {
                readings.push(reply.await.map_err(|error| Failure { error, item: Some(idx) })?);
            }
            read.push(readings);
        }
        scenes.push(Scene { found, read });
    }
    Ok(scenes)
}
