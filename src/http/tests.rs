//! The routes in process, over a real pool with a network that only counts: each answer's score is
//! the number of bytes of its own input.

use axum::{
    body::{Body, to_bytes},
    http::{Request, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::{
    config::ByteSize,
    engine::{Dim, Engine, EngineError, Port, Session, Signature},
    error::Error,
    manifest::{BatchSpec, Version},
    pool::{Declared, Loaded, PoolOptions},
    tasks::{
        About, Answer, Context, Descriptor, Input, Item, Output, Prepared, ProfileInput, Ranked, RequestSize,
        Scored, ShapeClass, Supported, Task, Truncated, descriptor_of,
    },
    tensor::{DType, Tensor, Tensors},
};

struct Counter(Signature);

impl Engine for Counter {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn open(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(Same))
    }
}

struct Same;

impl Session for Same {
    fn run(&mut self, batch: Tensors) -> Result<Tensors, EngineError> {
        Ok(batch)
    }
}

struct Counting {
    descriptor: &'static Descriptor,
    labels: Vec<Arc<str>>,
}

fn row(n: usize) -> Tensors {
    vec![Tensor::new::<f32>(vec![1], vec![n as f32]).unwrap()]
}

impl Task for Counting {
    fn descriptor(&self) -> &'static Descriptor {
        self.descriptor
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    fn shape_class(&self, _: &RequestSize) -> ShapeClass {
        ShapeClass::Known(0)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        let (n_bytes, about) = match input.item {
            Item::Image(image) => {
                let bytes = image.decoded()?;
                if bytes.starts_with(b"bad") {
                    return Err(Error::malformed("the image is broken"));
                }
                (bytes.len(), About::Image { width: 4, height: 3 })
            }
            Item::Text(text) => {
                let (truncated, supported) = (Truncated::No, Supported::Unsaid);
                (text.len(), About::Text { tokens: text.len(), truncated, supported })
            }
            _ => return Err(input.misplaced(self.descriptor.modality)),
        };
        Ok(Prepared::new(row(n_bytes), 0, Context::new(about)))
    }

    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error> {
        let score = outputs[0].as_slice::<f32>().unwrap()[0];
        let scores = Ranked::from(
            self.labels.iter().map(|label| Scored::new(label.clone(), score)).collect::<Vec<_>>(),
        );
        Ok(Answer { output: Output::Classes(scores), about: *context.get()? })
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        vec![ProfileInput { shape: 0, row: row(1) }]
    }
}

fn declared(name: &str, task: &str) -> Declared {
    let descriptor = descriptor_of(task).unwrap();
    let port = |name: &str| Port {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Free("batch".to_owned()), Dim::Fixed(1)],
        batch_axis: Some(0),
    };
    let signature = Signature { inputs: vec![port("in")], outputs: vec![port("out")] };
    Declared {
        name: name.parse().unwrap(),
        version: Version(1),
        description: "counts bytes".to_owned(),
        licence: "MIT".to_owned(),
        batch: BatchSpec { max_rows: 4, ..BatchSpec::default() },
        task: Some(descriptor),
        load: Box::new(move || {
            let task = Counting { descriptor, labels: vec!["bytes".into(), "again".into()] };
            Ok(Loaded { engine: Arc::new(Counter(signature)), task: Arc::new(task), precision: None })
        }),
    }
}

async fn state() -> AppState {
    state_of(|_| ()).await
}

/// The state of a server with two models, and the settings that `set` changes.
pub(super) async fn state_of(set: impl FnOnce(&mut Config)) -> AppState {
    let mut config = Config::default();
    set(&mut config);
    config.limits.body = ByteSize(10_000);
    config.limits.items = 3;
    config.models.vision = "face".parse().unwrap();
    let metrics = Arc::new(Metrics::new());
    let models = vec![declared("face", "image-classification"), declared("sentiment", "text-classification")];
    let options = PoolOptions { workers: 1, queue_rows: 100, queue_bytes: 100_000 };
    let pool = Arc::new(ModelPool::start(&options, models, &metrics).unwrap());
    pool.ready().await.unwrap();
    AppState::new(config, pool, Pipelines::default(), metrics)
}

fn post(path: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header(CONTENT_TYPE, content_type)
        .header("x-request-id", "t")
        .body(body.into())
        .unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("x-request-id", "t").body(Body::empty()).unwrap()
}

async fn ask(state: &AppState, request: Request<Body>) -> (Response, String) {
    ask_of(&Routes::new(state.clone()), request).await
}

pub(super) async fn ask_of(routes: &Routes, request: Request<Body>) -> (Response, String) {
    let mut response = routes.clone().oneshot(request).await.unwrap();
    let bytes = to_bytes(std::mem::take(response.body_mut()), usize::MAX).await.unwrap();
    (response, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Status, last part of the type, and detail of a refusal.
async fn refusal(state: &AppState, request: Request<Body>) -> String {
    let (response, body) = ask(state, request).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    let slug = problem["type"].as_str().unwrap().strip_prefix("/problems/").unwrap();
    assert_eq!(problem["status"], response.status().as_u16());
    format!("{} {slug}: {}", response.status().as_u16(), problem["detail"].as_str().unwrap())
}

#[tokio::test]
async fn every_form_of_image_is_answered() {
    let state = state().await;
    let path = "/v1/vision/classify?top_k=1";
    let form = "--X\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\nabcd\r\n--X--\r\n";
    let requests = [
        post(path, "image/jpeg", "abcd"),
        post(path, "application/octet-stream", "abcd"),
        post(path, "image/jpg", "abcd"),
        post(path, "binary/octet-stream", "abcd"),
        post(path, "multipart/form-data; boundary=X", form),
        post(path, "application/json", r#"{"image": "YWJjZA=="}"#),
        post(path, "application/json", "\u{feff}{\"image\": \"YWJj\r\nZA\"}"),
        post(path, "application/json", r#"{"images": ["data:image/png;base64,YWJjZA=="]}"#),
        post("/v1/models/face/predict?top_k=1", "image/webp", "abcd"),
    ];
    for request in requests {
        let (response, body) = ask(&state, request).await;
        assert_eq!(response.status(), 200, "{body}");
        assert!(response.headers().contains_key("server-timing"));
        assert_eq!(
            body,
            r#"{"model":"face","version":1,"images":[{"width":4,"height":3,"label":"bytes","score":4.0,"scores":[{"label":"bytes","score":4.0}]}]}"#
        );
    }
}

#[tokio::test]
async fn every_form_of_text_is_answered_in_order() {
    let state = state().await;
    let (_, body) =
        ask(&state, post("/v1/text/sentiment", "application/json", r#"{"texts": ["a", "bcd", "ef"]}"#)).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    let tokens: Vec<u64> =
        answer["results"].as_array().unwrap().iter().map(|r| r["tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [1, 3, 2]);
    let (_, body) = ask(&state, post("/v1/text/sentiment", "text/plain", "né")).await;
    insta::assert_snapshot!(body, @r#"{"model":"sentiment","version":1,"results":[{"label":"bytes","score":3.0,"scores":[{"label":"bytes","score":3.0},{"label":"again","score":3.0}],"tokens":3,"truncated":false}]}"#);
}

#[tokio::test]
async fn one_bad_item_refuses_the_whole_request_and_is_named() {
    let state = state().await;
    let body = r#"{"images": ["YWJjZA==", "YmFk"]}"#;
    insta::assert_snapshot!(refusal(&state, post("/v1/vision/classify", "application/json", body)).await, @"400 malformed: images[1]: the image is broken");
    let body = r#"{"image": "YWJj."}"#;
    insta::assert_snapshot!(refusal(&state, post("/v1/vision/classify", "application/json", body)).await, @"400 malformed: the base64 has `.` at position 4; allowed are A-Z a-z 0-9 + / - _ and = at the end");
}

#[tokio::test]
async fn refusals_come_before_the_body_is_read() {
    let state = state().await;
    // A body that is never ready: whoever reads it never answers.
    let never = |path: &str| post(path, "image/jpeg", Body::new(Never));
    insta::assert_snapshot!(refusal(&state, never("/v1/vision/classify?model=nobody")).await, @"404 model-not-found: no model is called `nobody`; the models are `face`, `sentiment`");
    insta::assert_snapshot!(refusal(&state, never("/v1/vision/classify?model=sentiment")).await, @"422 invalid-input: the model `sentiment` takes texts; this path takes images");
    insta::assert_snapshot!(refusal(&state, never("/v1/vision/classify?size=9")).await, @"400 malformed: unknown query parameter `size`; allowed are model, detector, top_k, class, balance");
    insta::assert_snapshot!(refusal(&state, never("/v1/text/sentiment")).await, @"415 unsupported-media-type: the content type `image/jpeg` is not served; allowed are application/json with `text` or `texts`, and text/plain in UTF-8");
    let mut late = never("/v1/vision/classify");
    late.headers_mut().insert("x-deadline-ms", "soon".parse().unwrap());
    insta::assert_snapshot!(refusal(&state, late).await, @"400 malformed: x-deadline-ms is `soon`; allowed is one whole number from 1 to 60000");
    let mut slow = never("/v1/vision/classify");
    slow.headers_mut().insert("x-deadline-ms", "50".parse().unwrap());
    assert!(refusal(&state, slow).await.starts_with("408 request-timeout: the body had not arrived after "));
    state.pool().close();
    insta::assert_snapshot!(refusal(&state, never("/v1/vision/classify")).await, @"503 unavailable: the server is stopping");
}

#[tokio::test]
async fn while_a_model_loads_every_request_for_it_may_be_retried() {
    let mut config = Config::default();
    config.models.vision = "face".parse().unwrap();
    let metrics = Arc::new(Metrics::new());
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(std::sync::Mutex::new(ended));
    let loading = |name, task| {
        let ended = Arc::clone(&ended);
        let load: crate::pool::LoadModel = Box::new(move || {
            let _test_is_over = ended.lock().unwrap().recv();
            Err("never loaded".to_owned())
        });
        Declared { load, ..declared(name, task) }
    };
    let models = vec![loading("face", "image-classification"), loading("sentiment", "text-classification")];
    let options = PoolOptions { workers: 1, queue_rows: 100, queue_bytes: 100_000 };
    let pool = Arc::new(ModelPool::start(&options, models, &metrics).unwrap());
    let state = AppState::new(config, pool, Pipelines::default(), metrics);
    for path in [
        "/v1/vision/classify",
        "/v1/models/face/predict",
        "/v1/text/sentiment",
        "/v1/models/sentiment/predict",
    ] {
        let name = if path.contains("face") || path.contains("vision") { "face" } else { "sentiment" };
        for kind in ["text/plain", "application/json", "image/jpeg", "multipart/form-data", "application/pdf"]
        {
            let (response, body) = ask(&state, post(path, kind, Body::new(Never))).await;
            assert_eq!(
                (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()),
                (503, "1"),
                "{path}: {body}"
            );
            assert!(body.contains(&format!("the model `{name}` is still loading")), "{body}");
        }
    }
    drop(end);
}

struct Never;

impl axum::body::HttpBody for Never {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn sizes_are_limited() {
    let state = state().await;
    insta::assert_snapshot!(refusal(&state, post("/v1/vision/classify", "image/png", vec![0; 10_001])).await, @"413 too-large: body bytes: 10001 is more than the 10000 allowed");
    let four = r#"{"texts": ["a", "a", "a", "a"]}"#;
    insta::assert_snapshot!(refusal(&state, post("/v1/text/sentiment", "application/json", four)).await, @"413 too-large: texts: what was sent is more than the 3 allowed");
    insta::assert_snapshot!(refusal(&state, post("/v1/text/sentiment", "text/plain", "")).await, @"422 invalid-input: the body is empty; expected a text, or JSON that holds texts");
}

#[tokio::test]
async fn what_operators_ask_is_answered() {
    let state = state().await;
    for path in
        ["/", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/face", "/problems/too-large"]
    {
        let (response, body) = ask(&state, get(path)).await;
        assert_eq!(response.status(), 200, "{path}: {body}");
    }
    let (_, body) = ask(&state, get("/v1/models/face")).await;
    // What was measured differs from run to run.
    let (known, cost) = body.split_once("\"batch\":").unwrap();
    insta::assert_snapshot!(known, @r#"{"name":"face","versions":[1],"state":"ready","description":"counts bytes","licence":"MIT","task":"image-classification","labels":["bytes","again"],"inputs":[{"name":"in","dtype":"f32","shape":["batch",1]}],"outputs":[{"name":"out","dtype":"f32","shape":["batch",1]}],"#);
    assert!(cost.contains("cpu_ms_per_row"), "{cost}");
    insta::assert_snapshot!(ask(&state, get("/problems/too-large")).await.1, @"413 too-large: Larger than allowed. The detail names what was measured and its limit. Send less at once.");
    insta::assert_snapshot!(refusal(&state, get("/v1/models?x=1")).await, @"400 malformed: unknown query parameter `x`; this path takes none");
    insta::assert_snapshot!(refusal(&state, get("/v1/model")).await, @"404 not-found: nothing is served at this path; GET / lists what is");
}

#[tokio::test]
async fn a_stop_fails_readiness_but_not_health() {
    let state = state().await;
    state.stop();
    insta::assert_snapshot!(refusal(&state, get("/readyz")).await, @"503 unavailable: the server is stopping");
    assert_eq!(ask(&state, get("/healthz")).await.0.status(), 200);
    assert_eq!(ask(&state, post("/v1/text/sentiment", "text/plain", "still")).await.0.status(), 200);
}
