//! What the fuzz targets share: the routes over the shipped models, without a socket.
//!
//! Invariant: a target runs the code that serves, not a copy of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, header::CONTENT_TYPE},
};
use lepton::{
    config::Config,
    http::{AppState, Routes},
    metrics::Metrics,
    pipelines::Pipelines,
    pool::{ModelPool, PoolOptions},
    repository,
    tasks::TaskOptions,
};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// The routes of a server with the shipped models, called in process.
pub struct Service {
    routes: Routes,
    runtime: Runtime,
}

impl Service {
    /// Loads the shipped models, on one worker thread.
    pub fn start() -> Self {
        let runtime = runtime();
        let state = state(&runtime, Config::default());
        Self { routes: Routes::new(state), runtime }
    }

    /// Posts `body` and checks the answer: no status 500, and a problem document for every refusal.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> StatusCode {
        let request = Request::post(path)
            .header("host", "fuzz")
            .header(CONTENT_TYPE, content_type)
            .body(Body::from(body.to_vec()))
            .expect("a request");
        let answer = async {
            let response = self.routes.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            (head, to_bytes(body, usize::MAX).await.expect("a body in memory"))
        };
        let (head, body) = self.runtime.block_on(answer);
        let text = std::str::from_utf8(&body).expect("answers are UTF-8");
        assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
        if !head.status.is_success() {
            assert_eq!(head.headers[CONTENT_TYPE], "application/problem+json", "{text}");
        }
        head.status
    }
}

/// A runtime for one thread.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The state of a server with the shipped models, ready.
pub fn state(runtime: &Runtime, config: Config) -> AppState {
    let metrics = Arc::new(Metrics::new());
    let found = repository::scan(&models(), TaskOptions::from(&config.limits)).expect("the shipped models");
    let declared = found.into_iter().map(|found| found.declared).collect();
    let options = PoolOptions { workers: 1, queue_rows: 4096, queue_bytes: 64 << 20 };
    let pool = Arc::new(ModelPool::start(&options, declared, &metrics).expect("a worker thread"));
    runtime.block_on(pool.ready()).expect("models that load");
    AppState::new(config, pool, Pipelines::default(), metrics)
}

/// The folder of the shipped models.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}
