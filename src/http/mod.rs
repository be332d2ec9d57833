//! The only room that knows HTTP: every route and every layer on this page.
//!
//! Invariant: an async thread here only moves bytes. A model's route admits a request before its
//! body is read, and hands what it read to the pool undecoded.

mod admin;
mod body;
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
mod vision;
mod written;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

/// What a listener tells about a request.
pub use self::observe::Crowded;
use self::{observe::Observer, problem::Refusal};
/// What answers look like, for those who write them without HTTP.
pub(crate) use self::{text::TextBody, vision::ImageBody};
use crate::{config::Config, metrics::Metrics, pool::ModelPool};

/// Every route of the server, in its layers.
pub fn router(state: AppState) -> Router {
    let observer = Observer::new(state.0.metrics.clone(), state.0.stopping.clone());
    Router::new()
        .route("/", get(admin::index))
        .route("/v1/vision/classify", post(predict::vision))
        .route("/v1/text/sentiment", post(predict::sentiment))
        .route("/v1/models", get(admin::models))
        .route("/v1/models/{name}", get(admin::model))
        .route("/v1/models/{name}/predict", post(predict::by_name))
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz))
        .route("/metrics", get(admin::metrics))
        .route("/problems/{type}", get(admin::problem))
        .fallback(async || Refusal::NOT_FOUND)
        .method_not_allowed_fallback(async || Refusal::METHOD_NOT_ALLOWED)
        // The first is the outermost: a panic becomes a refusal before it is logged and dressed.
        .layer((observer, CatchPanicLayer::custom(observe::panicked)))
        .with_state(state)
}

/// The paths that `GET /` lists: method, path, what for.
const PATHS: [(&str, &str, &str); 9] = [
    ("POST", "/v1/vision/classify", "classify images: raw, multipart/form-data or JSON"),
    ("POST", "/v1/text/sentiment", "the sentiment of texts: JSON or text/plain"),
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
}

impl AppState {
    /// Brings together what the routes share.
    pub fn new(config: Config, pool: Arc<ModelPool>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { config, pool, metrics, stopping: Arc::default() }))
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

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}
