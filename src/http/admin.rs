//! What operators ask: the models, health, readiness, metrics.
//!
//! Invariant: `/healthz` touches nothing that work can hold, so that it answers at any load.

use std::{
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;

use super::{
    AppState,
    extract::Parameters,
    pipeline_body::PipelineBody,
    predict::find,
    problem::{KINDS, Refusal},
    routes::{ROUTES, Route},
};
use crate::{
    config::OnFailure,
    engine::{Dim, KernelUse, Port, PrecisionDecision, PrecisionPolicy},
    error::Error,
    manifest::{Balance, Version},
    pool::{Best, Measured, Model, State as ModelState},
};

/// When to ask again whether the server is ready: models load in well under a second.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// OpenMetrics 1.0, which every Prometheus since 2.5 reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /`
pub(super) async fn index() -> impl IntoResponse {
    let path = |route: &'static Route| PathBody {
        method: route.method.as_str(),
        path: route.path,
        description: route.summary,
    };
    let paths = ROUTES.iter().map(path).collect();
    Json(IndexBody { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), paths })
}

#[derive(Serialize)]
struct IndexBody {
    name: &'static str,
    version: &'static str,
    paths: Vec<PathBody>,
}

#[derive(Serialize)]
struct PathBody {
    method: &'static str,
    path: &'static str,
    description: &'static str,
}

/// `GET /healthz`
pub(super) async fn healthz() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], "{\"alive\":true}")
}

/// `GET /readyz`
pub(super) async fn readyz(State(state): State<AppState>) -> Result<Response, Refusal> {
    let refuse = |reason: String| Error::Unavailable { reason: reason.into(), retry_after: ASK_AGAIN };
    if state.is_stopping() {
        return Err(refuse("the server is stopping".to_owned()).into());
    }
    // One that failed is left out where the operator says so.
    let counts = |of: &ModelState| {
        !matches!(of, ModelState::Failed(_)) || state.config().models.on_failure != OnFailure::Ready
    };
    let models = state.pool().defaults();
    let models = models.iter().map(|model| (model.name().as_str(), model.state()));
    let models = models.filter(|(_, state)| counts(state));
    match not_ready(models) {
        Some(reason) => Err(refuse(reason).into()),
        None => Ok(([(CONTENT_TYPE, "application/json")], "{\"ready\":true}").into_response()),
    }
}

/// Names the models that are not ready, and how; `None` where all are.
fn not_ready<'m>(models: impl Iterator<Item = (&'m str, ModelState)>) -> Option<String> {
    let mut reason = String::new();
    for (name, state) in models {
        let how = match state {
            ModelState::Ready => continue,
            ModelState::Loading => "is loading",
            ModelState::Failed(_) => "failed to load",
            ModelState::Unloading => "is unloading",
            ModelState::Stopping => "is stopping",
        };
        let comma = if reason.is_empty() { "" } else { ", " };
        // Writing into a String cannot fail.
        let _ = write!(reason, "{comma}the model `{name}` {how}");
    }
    (!reason.is_empty()).then_some(reason)
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let text = state.scrapes().get(Instant::now(), || {
        state.metrics().set_workers(state.pool().workers(), state.pool().slowdown());
        state.metrics().encode()
    });
    ([(CONTENT_TYPE, OPEN_METRICS)], text)
}

/// Texts of metrics that may be made at once, and how long it takes until one more may: ten a second, so that
/// whoever asks without end does not hold the thread that answers everybody. Until then the last one is
/// answered again.
const SCRAPES: u32 = 10;
const SCRAPE: Duration = Duration::from_millis(100);

/// The last text of metrics, and how many more may be made.
#[derive(Default)]
pub(super) struct Scrapes(Mutex<Option<Scrape>>);

struct Scrape {
    text: Bytes,
    /// From when on as many texts may be made as there were intervals.
    since: Instant,
}

impl Scrapes {
    fn get(&self, now: Instant, make: impl FnOnce() -> String) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not made in a pause is not made up for beyond the first few.
        let earliest = now.checked_sub(SCRAPE * SCRAPES);
        let since = last.as_ref().map(|last| last.since).max(earliest).unwrap_or(now);
        match &*last {
            Some(last) if now.saturating_duration_since(since) < SCRAPE => last.text.clone(),
            _ => {
                let text = Bytes::from(make());
                *last = Some(Scrape { text: text.clone(), since: since + SCRAPE });
                text
            }
        }
    }
}

/// `GET /problems/{slug}`: what the `type` of a refusal refers to.
pub(super) async fn problem(slug: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let Ok(Path(slug)) = slug else { return Err(Refusal::NOT_FOUND) };
    let kind = KINDS.iter().find(|kind| kind.slug == slug).ok_or(Refusal::NOT_FOUND)?;
    let text = format!("{} {}: {}. {}\n", kind.status.as_u16(), kind.slug, kind.title, kind.advice);
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// `GET /v1/models`
pub(super) async fn models(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    Parameters::none(request.uri())?;
    let pool = state.pool();
    let models = pool.defaults();
    let models = models.iter().map(|model| ModelBody::brief(model, pool.versions(model.name()))).collect();
    let pipelines = state.pipelines().iter().map(PipelineBody::of).collect();
    Ok(Json(ModelsBody { models, pipelines }).into_response())
}

/// `GET /v1/models/{name}`
pub(super) async fn model(
    State(state): State<AppState>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|_| Error::malformed("the model's name in the path is not UTF-8"))?;
    Parameters::none(request.uri())?;
    if let Some(pipeline) = state.pipelines().find(&name) {
        return Ok(Json(PipelineBody::of(pipeline)).into_response());
    }
    let pool = state.pool();
    let model = find(pool, &name)?;
    Ok(Json(ModelBody::of(&model, pool.versions(model.name()))).into_response())
}

#[derive(Serialize)]
struct ModelsBody<'a> {
    models: Vec<ModelBody<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pipelines: Vec<PipelineBody<'a>>,
}

/// What is known of a model. What only its files tell is missing until it is loaded.
#[derive(Serialize)]
struct ModelBody<'a> {
    name: &'a str,
    /// Those that are served; the highest answers who names none.
    versions: Vec<Version>,
    state: &'static str,
    /// Why loading failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    description: &'a str,
    licence: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Vec<PortBody<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<PortBody<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<PrecisionBody<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<KernelBody<'a>>,
    batch: BatchBody,
    /// Of one model only: it is a long table.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Vec<CostBody>>,
}

impl<'a> ModelBody<'a> {
    fn of(model: &'a Model, versions: Vec<Version>) -> Self {
        let cost = model.measured().iter().map(CostBody::of).collect();
        Self { cost: Some(cost), ..Self::brief(model, versions) }
    }

    /// All but the measured cost.
    fn brief(model: &'a Model, versions: Vec<Version>) -> Self {
        let state = model.state();
        let ports = |ports: &'a [Port]| ports.iter().map(PortBody::of).collect();
        Self {
            name: model.name().as_str(),
            versions,
            state: state.name(),
            reason: match state {
                ModelState::Failed(reason) => Some(reason),
                ModelState::Loading | ModelState::Ready | ModelState::Unloading | ModelState::Stopping => {
                    None
                }
            },
            description: model.description(),
            licence: model.licence(),
            task: model.descriptor().map(|task| task.name),
            labels: model.task().map(|task| task.labels().iter().map(|label| &**label).collect()),
            inputs: model.signature().map(|signature| ports(&signature.inputs)),
            outputs: model.signature().map(|signature| ports(&signature.outputs)),
            precision: model.precision().map(PrecisionBody::of),
            kernels: model.kernels().iter().map(KernelBody::of).collect(),
            batch: BatchBody::of(model),
            cost: None,
        }
    }
}

/// An input or output of a network.
#[derive(Serialize)]
struct PortBody<'a> {
    name: &'a str,
    dtype: String,
    shape: Vec<DimBody<'a>>,
}

/// An extent: a number where it is fixed, a name where the caller chooses it.
#[derive(Serialize)]
#[serde(untagged)]
enum DimBody<'a> {
    Fixed(usize),
    Free(&'a str),
}

impl<'a> PortBody<'a> {
    fn of(port: &'a Port) -> Self {
        let dim = |dim: &'a Dim| match dim {
            Dim::Fixed(n) => DimBody::Fixed(*n),
            Dim::Free(name) => DimBody::Free(name),
        };
        Self { name: &port.name, dtype: port.dtype.to_string(), shape: port.shape.iter().map(dim).collect() }
    }
}

/// The precision of a network's products, and on what evidence.
#[derive(Serialize)]
struct PrecisionBody<'a> {
    asked: PrecisionPolicy,
    used: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: Option<usize>,
    /// Between the scores of any label, in f32 and in bf16.
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_difference: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> PrecisionBody<'a> {
    fn of(decision: &'a PrecisionDecision) -> Self {
        Self {
            asked: decision.policy,
            used: decision.used.to_string(),
            probes: decision.comparison.map(|comparison| comparison.n_inputs),
            largest_difference: decision.comparison.map(|comparison| comparison.largest_difference),
            reason: decision.reason.as_deref(),
        }
    }
}

/// What runs which share of a network's products.
#[derive(Serialize)]
struct KernelBody<'a> {
    operator: &'a str,
    kernel: &'a str,
    share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl<'a> KernelBody<'a> {
    fn of(part: &'a KernelUse) -> Self {
        let share = (part.share * 1e4).round() / 1e4;
        Self { operator: &part.operator, kernel: &part.kernel, share, reason: part.reason }
    }
}

/// How rows are batched.
#[derive(Serialize)]
struct BatchBody {
    max_rows: usize,
    balance: Balance,
    /// What a worker has to do for each run beside its rows, which rows of one run share.
    cpu_ms_around_run: f64,
    best: Vec<BestBody>,
}

/// How many rows a run should take, for one shape of row.
#[derive(Serialize)]
struct BestBody {
    shape: usize,
    rows: usize,
}

impl BatchBody {
    fn of(model: &Model) -> Self {
        let best = |best: Best| BestBody { shape: best.shape_class, rows: best.rows };
        let best = model.best().into_iter().map(best).collect();
        let (max_rows, balance) = (model.max_rows(), model.balance());
        Self { max_rows, balance, cpu_ms_around_run: ms(model.around()), best }
    }
}

/// Measured CPU time of the network per row, by the shape of a row and the rows in a run.
#[derive(Serialize)]
struct CostBody {
    shape: usize,
    rows: usize,
    cpu_ms_per_row: f64,
    p95_cpu_ms_per_row: f64,
    runs: u64,
}

impl CostBody {
    fn of(measured: &Measured) -> Self {
        Self {
            shape: measured.shape_class,
            rows: measured.rows,
            cpu_ms_per_row: ms(measured.seconds_per_row),
            p95_cpu_ms_per_row: ms(measured.p95_seconds_per_row),
            runs: measured.runs,
        }
    }
}

/// Milliseconds in whole microseconds: what is beyond them is noise.
fn ms(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn every_model_that_is_not_ready_is_named() {
        let ready = [("face", ModelState::Ready), ("sentiment", ModelState::Ready)];
        assert_eq!(not_ready(ready.into_iter()), None);
        let failed = ModelState::Failed("cannot open /srv/x".to_owned());
        let mixed = [("a", ModelState::Loading), ("b", ModelState::Ready), ("c", failed)];
        assert_eq!(
            not_ready(mixed.into_iter()).unwrap(),
            "the model `a` is loading, the model `c` failed to load"
        );
    }

    #[test]
    fn metrics_are_written_ten_times_a_second_however_often_they_are_asked_for() {
        let (scrapes, mut n_made) = (Scrapes::default(), 0);
        let epoch = Instant::now() + Duration::from_secs(60);
        let mut ask = |ms: u64| {
            scrapes.get(epoch + Duration::from_millis(ms), || {
                n_made += 1;
                n_made.to_string()
            })
        };
        // As a person or Prometheus asks: each answer is of its moment.
        assert_eq!([0, 1, 2].map(&mut ask), ["1", "2", "3"]);
        // As a flood asks, for ten seconds after.
        let last = (3..10_003).map(&mut ask).last().unwrap();
        let n_made: u32 = String::from_utf8(last.to_vec()).unwrap().parse().unwrap();
        assert!((105..=111).contains(&n_made), "{n_made}");
    }

    #[test]
    fn a_port_tells_fixed_extents_from_free_ones() {
        let shape = vec![Dim::Free("batch".to_owned()), Dim::Fixed(48)];
        let port = Port { name: "input".to_owned(), dtype: DType::F32, shape, batch_axis: Some(0) };
        insta::assert_snapshot!(serde_json::to_string(&PortBody::of(&port)).unwrap(), @r#"{"name":"input","dtype":"f32","shape":["batch",48]}"#);
    }

    #[test]
    fn a_cost_is_in_milliseconds_of_cpu() {
        let measured = Measured {
            shape_class: 34,
            rows: 8,
            seconds_per_row: 0.001_234_567,
            p95_seconds_per_row: 0.002,
            runs: 5,
        };
        insta::assert_snapshot!(serde_json::to_string(&CostBody::of(&measured)).unwrap(), @r#"{"shape":34,"rows":8,"cpu_ms_per_row":1.235,"p95_cpu_ms_per_row":2.0,"runs":5}"#);
    }
}
