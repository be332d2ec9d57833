//! The outermost layer: every request gets an id, a span, a count and one line in the log.
//!
//! Invariant: whatever happens inside, a panic included, an answer leaves with `x-request-id`, and a
//! refusal leaves as a problem document. A caller that leaves before its answer is counted and logged as 499.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody},
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONNECTION, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
};
use tracing::{Instrument, Span, debug, error, error_span, field, info, warn};

use super::{
    identity::{REQUEST_ID, RequestId, RequestIds, trace_id},
    problem::Refusal,
    routes::{ROUTES, RouteIndex},
    stack::{Endpoint, Incoming},
};
use crate::metrics::{InFlight, Metrics, NO_ROUTE, RouteMetrics};

/// nginx's 499 (client closed request): logged, never sent.
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
    OverLimit,
    /// Its Host header is wrong: how.
    Host(&'static str),
    /// The heads of the requests that its connection has open are too large together.
    Heads,
}

/// Observes every request on its way through `inner`.
pub(super) struct Observe<E> {
    watch: Watch,
    inner: E,
}

struct Watch {
    metrics: Arc<Metrics>,
    /// Of each route, in the order of the table, then of what has none.
    routes: Vec<RouteMetrics>,
    ids: RequestIds,
    stopping: Arc<AtomicBool>,
}

impl<E> Observe<E> {
    /// Counts into `metrics`, and asks callers to leave once `stopping` is set.
    pub(super) fn new(inner: E, metrics: Arc<Metrics>, stopping: Arc<AtomicBool>) -> Self {
        let known = ROUTES.iter().map(|route| route.path).chain([NO_ROUTE]);
        let routes = known.map(|route| metrics.route(route)).collect();
        Self { watch: Watch { metrics, routes, ids: RequestIds::new(), stopping }, inner }
    }
}

impl<E: Endpoint> Endpoint for Observe<E> {
    async fn call(&self, mut incoming: Incoming) -> Response {
        let request = &mut incoming.request;
        let id = RequestId::of_caller(request.headers()).unwrap_or_else(|| self.watch.ids.make());
        // Enabled whatever the filter lets through, so that an error always comes with its request's id.
        let span = error_span!("request", %id, trace = field::Empty);
        if let Some(trace) = trace_id(request.headers()) {
            span.record("trace", trace);
        }
        let mut exchange = Exchange {
            watch: &self.watch,
            _in_flight: self.watch.metrics.in_flight(),
            arrived: incoming.arrived,
            method: request.method().clone(),
            peer: incoming.listened.peer,
            route: incoming.route,
            span,
            outcome: Outcome::Open,
        };
        request.extensions_mut().insert(Arrival(incoming.arrived));
        let span = exchange.span.clone();
        let mut response = self.inner.call(incoming).instrument(span).await;
        let refusal = self.watch.complete(&mut response, &id);
        if exchange.method == Method::HEAD {
            without_body(&mut response);
        }
        exchange.finish(response.status(), refusal.as_ref());
        response
    }
}

impl Watch {
    /// The metrics of a route, or of requests for no route.
    fn route(&self, route: Option<RouteIndex>) -> Option<&RouteMetrics> {
        route.map_or_else(|| self.routes.last(), |route| self.routes.get(route.get()))
    }

    /// Adds the common headers; turns a refusal into its problem document.
    fn complete(&self, response: &mut Response, id: &RequestId) -> Option<Refusal> {
        let refusal = response.extensions_mut().remove::<Refusal>();
        if let Some(refusal) = &refusal {
            refusal.write_into(response, id.as_str());
        }
        let headers = response.headers_mut();
        headers.insert(&REQUEST_ID, id.to_header());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.stopping.load(Ordering::Acquire) {
            // Callers that keep their connection learn here that it is about to go, and lose nothing.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        refusal
    }
}

/// Leaves of an answer to HEAD what one to GET has but its body.
fn without_body(response: &mut Response) {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}

/// One request, from its head to its answer, or to the moment its caller left.
struct Exchange<'a> {
    watch: &'a Watch,
    _in_flight: InFlight,
    arrived: Instant,
    method: Method,
    peer: Option<SocketAddr>,
    route: Option<RouteIndex>,
    span: Span,
    outcome: Outcome,
}

#[derive(PartialEq)]
enum Outcome {
    Open,
    Answered,
}

impl Exchange<'_> {
    fn finish(&mut self, status: StatusCode, refusal: Option<&Refusal>) {
        self.outcome = Outcome::Answered;
        if let Some(refusal) = refusal {
            self.watch.metrics.refused(refusal.kind().slug);
        }
        let (status, elapsed) = (status.as_u16(), self.arrived.elapsed());
        let route = self.count(status, elapsed);

        let _entered = self.span.enter();
        let method = &self.method;
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
            None if self.route.is_some_and(RouteIndex::is_probe) => {
                debug!(%method, route, status, ms, peer, "answered")
            }
            None => info!(%method, route, status, ms, peer, "answered"),
        }
    }

    /// Counts the answer, and tells the route as the log names it.
    fn count(&self, status: u16, elapsed: Duration) -> &'static str {
        let Some(metrics) = self.watch.route(self.route) else { return NO_ROUTE };
        metrics.responded(status, elapsed);
        metrics.route()
    }
}

/// Milliseconds, to the microsecond.
fn milliseconds(elapsed: Duration) -> f64 {
    elapsed.as_micros() as f64 / 1e3
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if self.outcome == Outcome::Answered {
            return;
        }
        let elapsed = self.arrived.elapsed();
        let route = self.count(CALLER_LEFT, elapsed);
        let _entered = self.span.enter();
        let (ms, peer) = (milliseconds(elapsed), self.peer.map(field::display));
        info!(method = %self.method, route, status = CALLER_LEFT, ms, peer, "the caller left before its answer");
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::to_bytes,
        extract::Request,
        http::header::CONTENT_TYPE,
        routing::{get, post},
    };

    use super::*;
    use crate::{error::Error, http::stack::CatchPanic};

    fn observed(stopping: &Arc<AtomicBool>) -> Observe<CatchPanic<Router>> {
        let routes = Router::new()
            .route("/fine", get(async || "fine"))
            .route("/bad", post(async || Refusal::from(Error::malformed("no"))))
            .route("/panic", get(async || -> &'static str { panic!("at the disco") }))
            .fallback(async || Refusal::NOT_FOUND);
        Observe::new(CatchPanic(routes), Arc::new(Metrics::new()), stopping.clone())
    }

    fn ask(observed: &impl Endpoint, method: &str, path: &str) -> (Response, String) {
        let request = Request::builder().method(method).uri(path).header(&REQUEST_ID, "test-1");
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let mut response = observed.call(Incoming::new(request.body(Body::empty()).unwrap())).await;
            let body = std::mem::take(response.body_mut());
            let bytes = to_bytes(body, usize::MAX).await.unwrap();
            (response, String::from_utf8(bytes.to_vec()).unwrap())
        })
    }

    #[test]
    fn every_answer_carries_the_callers_id() {
        let observed = observed(&Arc::default());
        let asked =
            [("GET", "/fine", 200), ("POST", "/bad", 400), ("GET", "/panic", 500), ("GET", "/no", 404)];
        for (method, path, status) in asked {
            let (response, body) = ask(&observed, method, path);
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
        let (_, body) = ask(&observed(&Arc::default()), "GET", "/panic");
        assert!(!body.contains("disco"), "{body}");
    }

    #[test]
    fn head_answers_as_get_without_the_body() {
        let (response, body) = ask(&observed(&Arc::default()), "HEAD", "/fine");
        assert_eq!((response.status(), body.as_str()), (StatusCode::OK, ""));
        assert_eq!(response.headers()["content-length"], "4");
        let (response, body) = ask(&observed(&Arc::default()), "HEAD", "/no");
        assert_eq!((response.status(), body.as_str()), (StatusCode::NOT_FOUND, ""));
    }

    #[test]
    fn while_stopping_callers_are_asked_to_leave() {
        let stopping = Arc::new(AtomicBool::new(false));
        let observed = observed(&stopping);
        assert!(!ask(&observed, "GET", "/fine").0.headers().contains_key(CONNECTION));
        stopping.store(true, Ordering::Release);
        assert_eq!(ask(&observed, "GET", "/fine").0.headers()[CONNECTION], "close");
    }
}
