//! The heart: models, their lanes, one queue, and the worker threads that empty it.
//!
//! Everything that costs CPU happens on the workers. Every hand-over is a move and every exit is a
//! drop: a dropped [`Slot`] gives its place back, a dropped [`Reply`] cancels its job before any
//! core works for it, a dropped [`ModelPool`] closes the queue and joins its threads.
//!
//! In reading order: `slot` is a request's way through, `model` what it asks, `place` the room that
//! it takes; `shared`, `queue` and its `lane`s hold the `job`s that wait, [`policy`] decides, and `arrivals`
//! tell it whether company is expected; `worker` runs, with `sessions`, a `batch` at a time, after `warm_up`;
//! `bell` wakes it, and it is `tidy` when it has nothing to do. What is promised rests on the `charge` of each input,
//! which is learnt as `cost` (of running rows) and `handling` (of preparing inputs), and on the `ledger`: `demand` (what
//! is owed by when), `pace` (how the machine keeps up), and who works on what.

mod arrivals;
mod batch;
mod bell;
mod charge;
mod cost;
mod demand;
mod handling;
mod job;
mod lane;
mod ledger;
mod meter;
mod model;
mod pace;
mod place;
pub mod policy;
mod queue;
mod sessions;
mod shared;
mod slot;
#[cfg(test)]
mod tests;
mod tidy;
mod warm_up;
mod worker;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

pub use self::{
    bell::{before_parking, end_round},
    cost::{Best, Measured},
    model::{Model, State},
    policy::{Class, Rule},
    slot::{Claim, Reply, Slot},
    warm_up::{Survey, survey},
    worker::on_a_worker,
};
use self::{place::Room, shared::Shared, worker::Workers};
use crate::{
    engine::{Chosen, Engine},
    error::Error,
    manifest::{BatchSpec, ModelName, Version},
    metrics::{Cost, Metrics},
    task::{Answer, Task},
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
    /// How batches are made.
    pub rule: Rule,
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
    /// Runs on a worker thread.
    pub load: LoadModel,
}

/// What loading a model gives.
pub struct Loaded {
    pub engine: Arc<dyn Engine>,
    pub task: Arc<dyn Task>,
    /// The precision of its products, where the engine has a choice.
    pub precision: Option<Chosen>,
}

/// An answer and what it cost.
#[derive(Debug)]
pub struct Answered {
    pub answer: Answer,
    pub cost: Cost,
}

/// All models and the worker threads that serve them.
pub struct ModelPool {
    shared: Arc<Shared>,
    workers: Mutex<Workers>,
}

impl ModelPool {
    /// Starts the worker threads, which load and warm up `models` at once.
    pub fn start(options: &PoolOptions, models: Vec<Declared>, metrics: &Metrics) -> io::Result<Self> {
        let alone = models.len() <= 1;
        let share = |whole: usize| if alone { whole } else { (whole - whole / 4).max(1) };
        let room =
            |part: &dyn Fn(usize) -> usize| Room::new(part(options.queue_rows), part(options.queue_bytes));
        let (mut known, mut loads) = (Vec::new(), Vec::new());
        for (lane, mut declared) in models.into_iter().enumerate() {
            let load = std::mem::replace(&mut declared.load, Box::new(|| Err("loaded already".to_owned())));
            let metrics = metrics.model(declared.name.as_str());
            known.push(Arc::new(Model::new(declared, lane, room(&share), metrics)));
            loads.push(load);
        }
        let shared = Arc::new(Shared::new(options.workers, options.rule, room(&|whole| whole), known));
        for (model, load) in shared.models().iter().zip(loads) {
            shared.load(model, load);
        }
        let mut workers = Workers::default();
        workers.fill(shared.workers(), &shared)?;
        Ok(Self { shared, workers: Mutex::new(workers) })
    }

    /// Finds a model by the name that a caller wrote.
    pub fn model(&self, name: &str) -> Result<&Arc<Model>, Error> {
        let found = self.models().iter().find(|model| model.name().as_str() == name);
        found.ok_or_else(|| Error::ModelNotFound {
            name: shorten(name),
            known: self.models().iter().map(|m| format!("`{}`", m.name())).collect::<Vec<_>>().join(", "),
        })
    }

    /// Every model, in the order of its name.
    pub fn models(&self) -> &[Arc<Model>] {
        self.shared.models()
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
    pub fn stretch(&self) -> f64 {
        self.shared.stretch()
    }

    /// Reserves room for one request to `model` before its body is read, or refuses it: the model
    /// is not ready, the queue is full, or the answer is predicted to come after the deadline.
    pub fn reserve(&self, model: &Arc<Model>, claim: Claim) -> Result<Slot, Error> {
        Slot::reserve(model, &self.shared, claim)
    }

    /// As [`ModelPool::reserve`], for a model that is asked after another one has answered: the time of one
    /// row is owed from now on.
    pub fn hold(&self, model: &Arc<Model>, claim: Claim) -> Result<Slot, Error> {
        Slot::hold(model, &self.shared, claim)
    }

    /// Waits until every model has answered its warm-up, or one has failed: its name and why.
    pub async fn ready(&self) -> Result<(), (ModelName, String)> {
        let mut progress = self.shared.progress();
        loop {
            let mut loading = false;
            for model in self.models() {
                match model.state() {
                    State::Ready => {}
                    State::Failed(reason) => return Err((model.name().clone(), reason)),
                    State::Stopping => return Err((model.name().clone(), "the pool is closing".to_owned())),
                    State::Loading => loading = true,
                }
            }
            // The sender lives as long as `self`, so waiting cannot fail.
            if !loading || progress.changed().await.is_err() {
                return Ok(());
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
    }
}

/// Cuts what a caller wrote to a length that is fit for an error text.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
