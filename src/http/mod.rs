//! The only room that knows HTTP: every route and every layer on this page.
//!
//! Invariant: an async thread here only moves bytes. A model's route admits a request before its
//! body is read, and hands what it read to the pool undecoded.

mod admin;
mod body;
mod cors;
mod extract;
mod faces;
mod identity;
mod json;
mod multipart;
mod observe;
mod predict;
mod problem;
mod scores;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod timing;
mod uploads;
mod vision;
mod written;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::{Request, State},
    http::Method,
    response::Response,
    routing::{get, post},
};
use tower::Service;

/// What a listener tells about a request.
pub use self::observe::{Listened, Objection};
use self::{admin::Scrapes, cors::Cors, observe::Observer, problem::Refusal, uploads::Uploads};
/// What answers look like, for those who write them without HTTP.
pub(crate) use self::{text::TextBody, vision::ImageBody};
use crate::{config::Config, metrics::Metrics, pool::ModelPool};

/// Every route of the server, watched over.
#[derive(Clone)]
pub struct Routes {
    state: AppState,
    observer: Observer,
    router: Router,
}

impl Routes {
    /// Routes to what `state` holds.
    pub fn new(state: AppState) -> Self {
        let cors = Cors::new(state.0.config.server.cors.clone());
        let observer = Observer::new(state.0.metrics.clone(), cors, state.0.stopping.clone());
        let router = Router::new()
            .route("/", get(admin::index))
            .route(CLASSIFY, post(predict::vision))
            .route(SENTIMENT, post(predict::sentiment))
            .route("/v1/models", get(admin::models))
            .route("/v1/models/{name}", get(admin::model))
            .route("/v1/models/{name}/predict", post(predict::by_name))
            .route("/healthz", get(admin::healthz))
            .route("/readyz", get(admin::readyz))
            .route("/metrics", get(admin::metrics))
            .route("/problems/{type}", get(admin::problem))
            .fallback(async || Refusal::NOT_FOUND)
            .method_not_allowed_fallback(async || Refusal::METHOD_NOT_ALLOWED)
            .layer(observer.clone())
            .with_state(state.clone());
        Self { state, observer, router }
    }
}

impl Service<Request> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// The routes that overloads come by take a short way to the handler that the table names: the router
    /// boxes and moves a request at each of its layers.
    fn call(&mut self, request: Request) -> Self::Future {
        let state = self.state.clone();
        match (request.method(), request.uri().path()) {
            (&Method::POST, SENTIMENT) => {
                let handler = move |request| predict::sentiment(State(state.clone()), request);
                Box::pin(self.observer.watch(SENTIMENT, request, handler))
            }
            (&Method::POST, CLASSIFY) => {
                let handler = move |request| predict::vision(State(state.clone()), request);
                Box::pin(self.observer.watch(CLASSIFY, request, handler))
            }
            _ => Box::pin(self.router.call(request)),
        }
    }
}

const CLASSIFY: &str = "/v1/vision/classify";
const SENTIMENT: &str = "/v1/text/sentiment";

/// The paths that `GET /` lists: method, path, what for.
const PATHS: [(&str, &str, &str); 9] = [
    ("POST", CLASSIFY, "classify images: raw, multipart/form-data or JSON"),
    ("POST", SENTIMENT, "the sentiment of texts: JSON or text/plain"),
    ("POST", "/v1/models/{name}/predict", "ask a model by its name"),
    ("GET", "/v1/models", "every model: state, labels, inputs, measured cost"),
    ("GET", "/v1/models/{name}", "one model"),
    ("GET", "/healthz", "200 while the process lives"),
    ("GET", "/readyz", "200 while requests are welcome"),
    ("GET", "/metrics", "metrics in the Prometheus text format"),
    ("GET", "/problems/{type}", "what a refusal means"),
];

/// What the routes share. Cloning it is cheap.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    config: Config,
    pool: Arc<ModelPool>,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
    uploads: Uploads,
    scrapes: Scrapes,
}

impl AppState {
    /// Brings together what the routes share.
    pub fn new(config: Config, pool: Arc<ModelPool>, metrics: Arc<Metrics>) -> Self {
        let (stopping, uploads, scrapes) = (Arc::default(), Uploads::new(&config), Scrapes::default());
        Self(Arc::new(Shared { config, pool, metrics, stopping, uploads, scrapes }))
    }

    /// Every setting.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The models.
    pub fn pool(&self) -> &ModelPool {
        &self.0.pool
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
