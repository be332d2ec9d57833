//! The outermost layer: every request gets an id, a span, a count and one line in the log.
//!
//! Invariant: whatever happens inside, a panic included, an answer leaves with `x-request-id`, and a
//! refusal leaves as a problem document. A caller that leaves before its answer is counted and logged as 499.

use std::{
    any::Any,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONNECTION, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use tower::{Layer, Service, service_fn};
use tower_http::catch_panic::CatchPanic;
use tracing::{Instrument, Span, debug, error, error_span, field, info, warn};

use super::{
    PATHS,
    cors::Cors,
    identity::{REQUEST_ID, RequestId, RequestIds, trace_id},
    problem::Refusal,
};
use crate::{
    error::Error,
    metrics::{InFlight, Metrics, NO_ROUTE, RouteMetrics},
};

/// What nginx made the custom for a caller that left; it is never sent.
const CALLER_LEFT: u16 = 499;

/// When the head of a request arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival(pub(super) Instant);

/// What a listener tells about a request, in its extensions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listened {
    /// The other end of the connection, where the log is to have it.
    pub peer: Option<SocketAddr>,
    /// What speaks against answering it.
    pub objection: Option<Objection>,
}

/// Why a request is not to be answered by its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// Its connection is beyond the limit: only probes are answered.
    Crowded,
    /// Its Host header is wrong: how.
    Host(&'static str),
}

impl Objection {
    fn refuses(self, route: &str) -> Option<Refusal> {
        match self {
            Self::Crowded if is_probe(route) => None,
            Self::Crowded => Some(crowded()),
            Self::Host(fault) => Some(Error::malformed(fault).into()),
        }
    }
}

/// How soon to try again where every connection was taken.
const RETRY_CROWDED: Duration = Duration::from_secs(1);

fn crowded() -> Refusal {
    let reason = "as many connections are open as are served at once (server.max_connections)".into();
    Refusal::from(Error::Unavailable { reason, retry_after: RETRY_CROWDED })
}

/// What the layer needs, shared by all requests: each of them clones it more than once.
#[derive(Clone)]
pub(super) struct Observer(Arc<Watch>);

struct Watch {
    metrics: Arc<Metrics>,
    /// Of each route, those that come by the ten thousand first.
    routes: Vec<RouteMetrics>,
    ids: RequestIds,
    cors: Cors,
    stopping: Arc<AtomicBool>,
}

impl Observer {
    /// Counts into `metrics`, lets pages call as `cors` allows, and asks callers to leave once `stopping` is set.
    pub(super) fn new(metrics: Arc<Metrics>, cors: Cors, stopping: Arc<AtomicBool>) -> Self {
        let known = PATHS.into_iter().map(|(_, route, _)| route).chain(["/", NO_ROUTE]);
        let routes = known.map(|route| metrics.route(route)).collect();
        Self(Arc::new(Watch { metrics, routes, ids: RequestIds::new(), cors, stopping }))
    }
}

impl<S> Layer<S> for Observer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { observer: self.clone(), inner }
    }
}

/// A router's service that is watched.
#[derive(Clone)]
pub(super) struct Observed<S> {
    observer: Observer,
    inner: S,
}

impl<S, R> Service<Request> for Observed<S>
where
    S: Service<Request, Response = R, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: IntoResponse + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get().map_or(NO_ROUTE, registered);
        let mut inner = self.inner.clone();
        Box::pin(self.observer.watch(route, request, move |request| inner.call(request)))
    }
}

impl Observer {
    /// Watches over a request on its way through `inner`, which is asked nothing where there is no room.
    pub(super) fn watch<I, F>(
        &self,
        route: &'static str,
        mut request: Request,
        mut inner: I,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<I, F>
    where
        I: FnMut(Request) -> F + Send,
        F: Future<Output: IntoResponse> + Send,
    {
        let arrived = Instant::now();
        let listened: Listened = request.extensions().get().copied().unwrap_or_default();
        let id = RequestId::of_caller(request.headers()).unwrap_or_else(|| self.0.ids.make());
        // Enabled whatever the filter lets through, so that an error always comes with its request's id.
        let span = error_span!("request", %id, trace = field::Empty);
        if let Some(trace) = trace_id(request.headers()) {
            span.record("trace", trace);
        }
        let mut exchange = Exchange {
            observer: self.clone(),
            _in_flight: self.0.metrics.in_flight(),
            arrived,
            method: request.method().clone(),
            peer: listened.peer,
            route,
            span,
            outcome: Outcome::Open,
        };
        request.extensions_mut().insert(Arrival(arrived));
        let refused = listened.objection.and_then(|objection| objection.refuses(route));
        let page = self.0.cors.page(request.headers());
        let is_sound = !matches!(listened.objection, Some(Objection::Host(_)));
        let preflight = is_sound.then(|| self.0.cors.preflight(&page, &request)).flatten();
        async move {
            let mut response = if let Some(answer) = preflight {
                answer
            } else if let Some(refused) = refused {
                refused.into_response()
            } else {
                let span = exchange.span.clone();
                let answered = service_fn(move |request| {
                    let answer = inner(request);
                    async move { Ok::<_, Infallible>(answer.await.into_response()) }
                });
                // Within the observer: a panic becomes a refusal before it is logged and dressed.
                let mut answered = CatchPanic::custom(answered, panicked);
                span.in_scope(|| answered.call(request)).instrument(span).await.into_response()
            };
            let refusal = exchange.observer.dress(&mut response, &id);
            exchange.observer.0.cors.finish(page, response.headers_mut());
            exchange.finish(response.status(), refusal.as_ref());
            Ok(response)
        }
    }

    /// Counts a finished request.
    fn responded(&self, route: &'static str, status: u16, elapsed: Duration) {
        if let Some(metrics) = self.0.routes.iter().find(|metrics| metrics.route() == route) {
            metrics.responded(status, elapsed);
        }
    }

    /// Gives a response what every response has, and a refusal its clothes.
    fn dress(&self, response: &mut Response, id: &RequestId) -> Option<Refusal> {
        let refusal = response.extensions_mut().remove::<Refusal>();
        if let Some(refusal) = &refusal {
            refusal.dress(response, id.as_str());
        }
        let headers = response.headers_mut();
        headers.insert(&REQUEST_ID, id.to_header());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.0.stopping.load(Ordering::Acquire) {
            // Callers that keep their connection learn here that it is about to go, and lose nothing.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        refusal
    }
}

/// One request, from its head to its answer, or to the moment its caller left.
struct Exchange {
    observer: Observer,
    _in_flight: InFlight,
    arrived: Instant,
    method: Method,
    peer: Option<SocketAddr>,
    route: &'static str,
    span: Span,
    outcome: Outcome,
}

#[derive(PartialEq)]
enum Outcome {
    Open,
    Answered,
}

impl Exchange {
    fn finish(&mut self, status: StatusCode, refusal: Option<&Refusal>) {
        self.outcome = Outcome::Answered;
        if let Some(refusal) = refusal {
            self.observer.0.metrics.refused(refusal.kind().slug);
        }
        let elapsed = self.arrived.elapsed();
        self.observer.responded(self.route, status.as_u16(), elapsed);

        let _entered = self.span.enter();
        let (method, route, status) = (&self.method, self.route, status.as_u16());
        let (ms, peer) = (milliseconds(elapsed), self.peer.map(field::display));
        match refusal {
            Some(refusal) if status == 500 => {
                error!(%method, route, status, ms, peer, cause = &*refusal.cause(), "failed");
            }
            // Load that is shed is the server at work, not a fault of it.
            Some(refusal) if status > 500 => {
                warn!(%method, route, status, ms, peer, cause = &*refusal.cause(), "refused");
            }
            Some(refusal) => info!(%method, route, status, ms, peer, cause = &*refusal.cause(), "refused"),
            None if is_probe(route) => debug!(%method, route, status, ms, peer, "answered"),
            None => info!(%method, route, status, ms, peer, "answered"),
        }
    }
}

/// The route that a request matched, as the table has it.
fn registered(path: &MatchedPath) -> &'static str {
    let mut routes = std::iter::once("/").chain(PATHS.into_iter().map(|(_, route, _)| route));
    routes.find(|route| *route == path.as_str()).unwrap_or(NO_ROUTE)
}

/// Milliseconds, to the microsecond.
fn milliseconds(elapsed: Duration) -> f64 {
    elapsed.as_micros() as f64 / 1e3
}

/// Routes that machines ask every few seconds.
fn is_probe(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz" | "/metrics")
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.outcome == Outcome::Answered {
            return;
        }
        let elapsed = self.arrived.elapsed();
        self.observer.responded(self.route, CALLER_LEFT, elapsed);
        let _entered = self.span.enter();
        let (ms, peer) = (milliseconds(elapsed), self.peer.map(field::display));
        info!(method = %self.method, route = self.route, status = CALLER_LEFT, ms, peer, "the caller left before its answer");
    }
}

/// Turns a panic in a handler into a fault of ours.
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no text",
    };
    Refusal::from(Error::Internal(format!("a handler panicked: {text}"))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::{Body, to_bytes},
        http::header::{ALLOW, CONTENT_TYPE},
        routing::{get, post},
    };
    use tower::ServiceExt;

    use super::*;
    use crate::config::Origins;

    fn router(stopping: &Arc<AtomicBool>) -> Router {
        let cors = Cors::new(Origins::NONE);
        let observer = Observer::new(Arc::new(Metrics::new()), cors, stopping.clone());
        Router::new()
            .route("/fine", get(async || "fine"))
            .route("/bad", post(async || Refusal::from(Error::malformed("no"))))
            .route("/panic", get(async || -> &'static str { panic!("at the disco") }))
            .fallback(async || Refusal::NOT_FOUND)
            .method_not_allowed_fallback(async || Refusal::METHOD_NOT_ALLOWED)
            .layer(observer)
    }

    fn ask(router: Router, method: &str, path: &str) -> (Response, String) {
        let request = Request::builder().method(method).uri(path).header(&REQUEST_ID, "test-1");
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let mut response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let body = std::mem::take(response.body_mut());
            let bytes = to_bytes(body, usize::MAX).await.unwrap();
            (response, String::from_utf8(bytes.to_vec()).unwrap())
        })
    }

    #[test]
    fn every_answer_carries_the_callers_id() {
        let router = router(&Arc::default());
        let asked = [
            ("GET", "/fine", 200),
            ("POST", "/bad", 400),
            ("GET", "/panic", 500),
            ("GET", "/no", 404),
            ("PUT", "/bad", 405),
        ];
        for (method, path, status) in asked {
            let (response, body) = ask(router.clone(), method, path);
            assert_eq!(response.status(), status, "{method} {path}: {body}");
            assert_eq!(response.headers()[&REQUEST_ID], "test-1");
            assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            if status >= 400 {
                assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
                assert!(body.contains("\"request_id\":\"test-1\""), "{body}");
            }
        }
    }

    #[test]
    fn a_panic_tells_the_caller_nothing() {
        let (_, body) = ask(router(&Arc::default()), "GET", "/panic");
        assert!(!body.contains("disco"), "{body}");
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let (response, body) = ask(router(&Arc::default()), "PUT", "/fine");
        assert_eq!(response.headers()[ALLOW], "GET,HEAD");
        insta::assert_snapshot!(body, @r#"{"type":"/problems/method-not-allowed","title":"The path is served, but not with this method","status":405,"detail":"this method is not allowed here; the Allow header names those that are","request_id":"test-1"}"#);
    }

    #[test]
    fn head_answers_as_get_without_the_body() {
        let (response, body) = ask(router(&Arc::default()), "HEAD", "/fine");
        assert_eq!((response.status(), body.as_str()), (StatusCode::OK, ""));
        assert_eq!(response.headers()["content-length"], "4");
        let (response, body) = ask(router(&Arc::default()), "HEAD", "/no");
        assert_eq!((response.status(), body.as_str()), (StatusCode::NOT_FOUND, ""));
    }

    #[test]
    fn while_stopping_callers_are_asked_to_leave() {
        let stopping = Arc::new(AtomicBool::new(false));
        let router = router(&stopping);
        assert!(!ask(router.clone(), "GET", "/fine").0.headers().contains_key(CONNECTION));
        stopping.store(true, Ordering::Release);
        assert_eq!(ask(router, "GET", "/fine").0.headers()[CONNECTION], "close");
    }
}
