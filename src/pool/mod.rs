//! The heart: models that come and go, one queue, and the worker threads that empty it.
//!
//! Everything that costs CPU happens on the workers. Every hand-over is a move and every exit is a
//! drop: a dropped [`Reservation`] gives its place back, a dropped [`Reply`] cancels its job before any
//! core works for it, a dropped [`ModelPool`] closes the queue and joins its threads.
//!
//! In reading order: `registry` knows the models; `reservation` is a request's way through, `model` what it asks, `capacity` the
//! room that it takes; `shared` and its `work_queue` hold the `job`s that wait, in the scheduler's queue
//! (`lepton_scheduler`, which decides what runs and what can be promised, from a model's `costs`); `worker` runs, with
//! `sessions`, a `batch` at a time, after `warm_up`; `notifier` wakes it, and `idle_trim` gives memory back when it has nothing to do.

mod batch;
mod capacity;
mod costs;
mod idle_trim;
mod job;
mod meter;
mod model;
mod notifier;
mod registry;
mod reservation;
mod sessions;
mod shared;
#[cfg(test)]
mod tests;
mod warm_up;
mod work_queue;
mod worker;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use lepton_scheduler::policy::MeasuredPolicy;
pub use lepton_scheduler::{
    cost::{Best, Measured},
    policy::{Class, Policy},
};

pub use self::{
    model::{Model, ModelInfo, State},
    notifier::{before_parking, end_round},
    registry::ModelLoadError,
    reservation::{Claim, Reply, Reservation},
    warm_up::{CostProfile, profile},
    worker::on_a_worker,
};
use self::{registry::Others, shared::Shared, worker::Workers};
use crate::{
    engine::{Engine, PrecisionDecision},
    error::Error,
    manifest::{BatchSpec, ModelId, ModelName, Version},
    metrics::{Cost, Metrics, ModelSeries},
    tasks::{Answer, Descriptor, Item, Task},
};

/// How a pool is set up.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Worker threads, at least one.
    pub workers: usize,
    /// Rows that may wait or run at once, over all models. One model takes at most three quarters
    /// of them while there are others.
    pub queue_rows: usize,
    /// Bytes of input that may wait or run at once, over all models; shared in the same way.
    pub queue_bytes: usize,
}

/// Reads a network and builds its task, or says why not.
pub type LoadModel = Box<dyn FnOnce() -> Result<Loaded, String> + Send>;

/// A model that is known but not loaded yet.
pub struct Declared {
    pub name: ModelName,
    pub version: Version,
    /// What the model is for, in one line.
    pub description: String,
    /// Under which terms the network may be used.
    pub licence: String,
    /// How its rows may be batched.
    pub batch: BatchSpec,
    /// The kind of its task; `None` where its folder does not tell, so that it cannot be loaded either.
    pub task: Option<&'static Descriptor>,
    /// Runs on a thread of the pool.
    pub load: LoadModel,
}

impl Declared {
    /// Its name and version.
    pub fn id(&self) -> ModelId {
        ModelId { name: self.name.clone(), version: self.version }
    }

    fn split(self) -> (ModelInfo, LoadModel) {
        let Self { name, version, description, licence, batch, task, load } = self;
        (ModelInfo { id: ModelId { name, version }, description, licence, batch, task }, load)
    }
}

/// What loading a model gives.
pub struct Loaded {
    pub engine: Arc<dyn Engine>,
    pub task: Arc<dyn Task>,
    /// The precision of its products, where the engine has a choice.
    pub precision: Option<PrecisionDecision>,
}

/// An answer and what it cost.
#[derive(Debug)]
pub struct Answered {
    pub answer: Answer,
    pub cost: Cost,
    /// What the input's [`RegionStep`](crate::tasks::RegionStep) made of its picture, for the next models.
    pub items: Vec<Item>,
}

/// All models and the worker threads that serve them.
pub struct ModelPool {
    shared: Arc<Shared>,
    workers: Mutex<Workers>,
    metrics: ModelSeries,
}

impl ModelPool {
    /// Starts the worker threads, which load and warm up `models` at once.
    ///
    /// # Errors
    /// Where a thread cannot be started, or a version of a model is declared twice.
    pub fn start(options: &PoolOptions, models: Vec<Declared>, metrics: &Metrics) -> io::Result<Self> {
        Self::start_with(options, Arc::new(MeasuredPolicy), models, metrics)
    }

    /// As [`ModelPool::start`], with batches made as that policy says: for comparisons.
    ///
    /// # Errors
    /// As [`ModelPool::start`].
    pub fn start_with(
        options: &PoolOptions,
        policy: Arc<dyn Policy>,
        models: Vec<Declared>,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let PoolOptions { workers, queue_rows, queue_bytes } = *options;
        let shared = Arc::new(Shared::new(workers, policy, queue_rows, queue_bytes));
        let pool = Self { shared, workers: Mutex::default(), metrics: metrics.models() };
        for declared in models {
            let (model, load) = pool.enter(declared).map_err(io::Error::other)?;
            pool.shared.load(&model, load);
        }
        model::lock(&pool.workers).fill(pool.workers(), &pool.shared)?;
        Ok(pool)
    }

    /// Loads a model beside those that are served, and waits until it is ready. Requests that name no version go to
    /// the highest version that is ready; where this very version is served already, that goes on until the new one
    /// has answered its warm-up. Loading goes on where the caller stops waiting.
    ///
    /// # Errors
    /// Where it does not load: then nothing else changes. Where it is being loaded already, is unloaded meanwhile, or
    /// the pool closes.
    pub async fn load(&self, declared: Declared) -> Result<Arc<Model>, ModelLoadError> {
        self.load_among(declared, Others::Keep).await
    }

    /// As [`ModelPool::load`]; once the model is ready, requests of its name go to it alone. All other versions finish
    /// what they have accepted, and are gone.
    ///
    /// # Errors
    /// As [`ModelPool::load`]: the other versions serve on.
    pub async fn replace(&self, declared: Declared) -> Result<Arc<Model>, ModelLoadError> {
        self.load_among(declared, Others::Unload).await
    }

    async fn load_among(&self, declared: Declared, others: Others) -> Result<Arc<Model>, ModelLoadError> {
        let mut progress = self.shared.progress();
        if self.shared.is_closed() {
            return Err(ModelLoadError::Stopping);
        }
        let (model, load) = self.enter(declared)?;
        let started = model::lock(&self.workers).load(&self.shared, &model, load, others);
        if let Err(error) = started {
            let reason = format!("cannot start a thread: {error}");
            self.shared.registry().settle(&model, Err(reason), others);
        }
        loop {
            match model.state() {
                State::Loading => {}
                State::Ready => return Ok(model),
                State::Failed(reason) => {
                    return Err(ModelLoadError::Failed { id: model.id().clone(), reason });
                }
                State::Unloading => return Err(ModelLoadError::Unloaded(model.id().clone())),
                State::Stopping => return Err(ModelLoadError::Stopping),
            }
            // The sender lives as long as `self`, so waiting cannot fail.
            if progress.changed().await.is_err() {
                return Err(ModelLoadError::Stopping);
            }
        }
    }

    fn enter(&self, declared: Declared) -> Result<(Arc<Model>, LoadModel), ModelLoadError> {
        let (info, load) = declared.split();
        let id = info.id.clone();
        let metrics = self.metrics.of(&id);
        let make = |share| Arc::new(Model::new(info, &self.shared, share, metrics));
        Ok((self.shared.registry().enter(&id, make)?, load))
    }

    /// Unloads a model: no request finds it from now on. What it has accepted is answered, then its memory is given
    /// back.
    ///
    /// # Errors
    /// Where there is no such model.
    pub fn unload(&self, id: &ModelId) -> Result<(), Error> {
        self.shared.registry().remove(id)?;
        self.shared.announce();
        Ok(())
    }

    /// Finds a model by the name that a caller wrote: that version, or else the highest that is ready. Whoever holds
    /// it can use it to the end, also where it is unloaded meanwhile.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`], with those that there are.
    pub fn model(&self, name: &str, version: Option<Version>) -> Result<Arc<Model>, Error> {
        self.shared.registry().find(name, version)
    }

    /// Every version of every model, in the order of names and versions.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.shared.registry().models()
    }

    /// For each name, in order, the version that answers where none is named.
    pub fn defaults(&self) -> Vec<Arc<Model>> {
        self.shared.registry().defaults()
    }

    /// The versions of a name that are ready, in ascending order; while none is, the one that is to be.
    pub fn versions(&self, name: &ModelName) -> Vec<Version> {
        self.shared.registry().versions(name)
    }

    /// How many worker threads there are meant to be.
    pub fn workers(&self) -> usize {
        self.shared.workers()
    }

    /// Starts workers, or has some leave when they have answered what they run, so that there are
    /// `workers`, at least one.
    pub fn resize(&self, workers: usize) -> io::Result<()> {
        let mut threads = model::lock(&self.workers);
        self.shared.set_workers(workers.max(1));
        threads.fill(workers.max(1), &self.shared)
    }

    /// Wall time for a second of CPU time of a batch, as seen lately: more than 1 where workers are
    /// interrupted or throttled.
    pub fn slowdown(&self) -> f64 {
        self.shared.slowdown()
    }

    /// Reserves room for one request to `model` before its body is read, or refuses it: the model
    /// is not ready, the queue is full, or the answer is predicted to come after the deadline.
    pub fn reserve(&self, model: &Arc<Model>, claim: Claim) -> Result<Reservation, Error> {
        Reservation::reserve(model, &self.shared, claim)
    }

    /// As [`ModelPool::reserve`], for a model that is asked after another one has answered: the time of one
    /// row is owed from now on.
    pub fn reserve_with_time(&self, model: &Arc<Model>, claim: Claim) -> Result<Reservation, Error> {
        Reservation::reserve_with_time(model, &self.shared, claim)
    }

    /// Waits until every model has answered its warm-up, or one has failed: which, and why.
    pub async fn ready(&self) -> Result<(), (ModelId, String)> {
        let mut progress = self.shared.progress();
        loop {
            let mut loading = false;
            for model in self.models() {
                match model.state() {
                    State::Ready => {}
                    State::Failed(reason) => return Err((model.id().clone(), reason)),
                    State::Stopping => return Err((model.id().clone(), "the pool is closing".to_owned())),
                    State::Loading | State::Unloading => loading = true,
                }
            }
            // The sender lives as long as `self`, so waiting cannot fail.
            if !loading || progress.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Waits until no model is loading any more, whether it is ready or has failed.
    pub async fn settled(&self) {
        let mut progress = self.shared.progress();
        while self.models().iter().any(|model| model.state() == State::Loading) {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Closes the pool and waits until its workers have left, at most `longest`; gives how many have not.
    pub fn leave(&self, longest: Duration) -> usize {
        self.close();
        model::lock(&self.workers).leave(longest)
    }

    /// Stops admission: what is queued is still answered, new requests get [`Error::Unavailable`].
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for ModelPool {
    fn drop(&mut self) {
        self.close();
        model::lock(&self.workers).join();
        // Models know where their queue is, and the queue's holder knows the models.
        self.shared.registry().clear();
    }
}
