//! The only module that knows HTTP. `routes` has every route, `stack` every layer around them.
//!
//! Invariant: an async thread here only moves bytes. A model's route admits a request before its
//! body is read, and hands what it read to the pool undecoded.

mod admin;
mod body;
mod cors;
mod extract;
mod identity;
mod json;
mod multipart;
mod observe;
mod pipeline_body;
mod predict;
mod problem;
mod routes;
mod stack;
mod stages;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod timing;
mod uploads;
mod vision;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use tower::Service;

/// What a listener tells about a request.
pub use self::observe::{Listened, Objection};
/// Which paths take a body.
pub(crate) use self::routes::takes_a_body;
use self::{
    admin::Scrapes,
    stack::{Endpoint, Incoming, Stack, stack},
    uploads::Uploads,
};
use crate::{config::Config, metrics::Metrics, pipelines::Pipelines, pool::ModelPool};

/// Every route of the server, with the middleware around them.
#[derive(Clone)]
pub struct Routes(Arc<Stack>);

impl Routes {
    /// Routes to what `state` holds.
    pub fn new(state: AppState) -> Self {
        Self(Arc::new(stack(state)))
    }
}

impl Service<Request> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Answers a request. The box is the only one that a request to a hot route needs.
    fn call(&mut self, request: Request) -> Self::Future {
        let (stack, incoming) = (Arc::clone(&self.0), Incoming::new(request));
        Box::pin(async move { Ok(stack.call(incoming).await) })
    }
}

/// What the routes share. Cloning it is cheap.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    config: Config,
    pool: Arc<ModelPool>,
    pipelines: Pipelines,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
    uploads: Uploads,
    scrapes: Scrapes,
}

impl AppState {
    /// Brings together what the routes share.
    pub fn new(config: Config, pool: Arc<ModelPool>, pipelines: Pipelines, metrics: Arc<Metrics>) -> Self {
        let (stopping, uploads, scrapes) = (Arc::default(), Uploads::new(&config), Scrapes::default());
        Self(Arc::new(Shared { config, pool, pipelines, metrics, stopping, uploads, scrapes }))
    }

    /// Every setting.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The models.
    pub fn pool(&self) -> &ModelPool {
        &self.0.pool
    }

    /// The pipelines.
    pub fn pipelines(&self) -> &Pipelines {
        &self.0.pipelines
    }

    /// Fails readiness from now on, and asks callers that keep their connection to leave it.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    fn uploads(&self) -> &Uploads {
        &self.0.uploads
    }

    fn scrapes(&self) -> &Scrapes {
        &self.0.scrapes
    }
}
