//! The middleware around every route, and the dispatch within it.
//!
//! Invariant: every answer passes every layer, whichever route gives it: the dispatch is the innermost part, and
//! neither it nor the router behind it has a layer of its own.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use tower::Service;

use super::{
    AppState, Listened, Objection,
    cors::Cors,
    observe::Observe,
    predict,
    problem::Refusal,
    routes::{Handler, HotHandler, RouteIndex, router},
};
use crate::error::Error;

/// The layers, the outermost first. Authentication and limits of callers belong before the panics.
pub(super) type Stack = Observe<Cors<CatchPanic<ConnectionRules<Dispatch>>>>;

/// Puts the layers around the routes.
pub(super) fn stack(state: AppState) -> Stack {
    let origins = state.config().server.cors.clone();
    let (metrics, stopping) = (Arc::clone(state.metrics()), Arc::clone(&state.0.stopping));
    let routes = CatchPanic(ConnectionRules(Dispatch::new(state)));
    Observe::new(Cors::new(origins, routes), metrics, stopping)
}

/// A request, and what is known of it before a handler sees it.
pub(super) struct Incoming {
    pub(super) request: Request,
    pub(super) arrived: Instant,
    /// The entry of the table that its path names.
    pub(super) route: Option<RouteIndex>,
    pub(super) listened: Listened,
}

impl Incoming {
    pub(super) fn new(request: Request) -> Self {
        let listened = request.extensions().get().copied().unwrap_or_default();
        Self { arrived: Instant::now(), route: RouteIndex::of(request.uri().path()), listened, request }
    }
}

/// Answers requests: a layer of the stack, or the dispatch in it. Unlike tower's `Service` it is borrowed while it
/// answers, and its future has no name, so that layers need no box and no clone for each request.
pub(super) trait Endpoint: Send + Sync + 'static {
    /// Answers one request.
    fn call(&self, incoming: Incoming) -> impl Future<Output = Response> + Send;
}

impl Endpoint for Router {
    async fn call(&self, incoming: Incoming) -> Response {
        match Service::call(&mut self.clone(), incoming.request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Turns a panic in a handler into an internal error.
pub(super) struct CatchPanic<E>(pub(super) E);

impl<E: Endpoint> Endpoint for CatchPanic<E> {
    async fn call(&self, incoming: Incoming) -> Response {
        let mut answer = pin!(self.0.call(incoming));
        // A future that panicked is not polled again, and what it shared is guarded by locks that see to it.
        std::future::poll_fn(|context| {
            catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context)))
                .unwrap_or_else(|panic| Poll::Ready(panicked(&*panic)))
        })
        .await
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no text",
    };
    Refusal::from(Error::Internal(format!("a handler panicked: {text}"))).into_response()
}

/// Refuses what the listener objects to.
pub(super) struct ConnectionRules<E>(pub(super) E);

/// How soon to try again where every connection was taken.
const RETRY_OVER_LIMIT: Duration = Duration::from_secs(1);

impl<E: Endpoint> Endpoint for ConnectionRules<E> {
    async fn call(&self, incoming: Incoming) -> Response {
        let refusal: Refusal = match incoming.listened.objection {
            None => return self.0.call(incoming).await,
            Some(Objection::OverLimit) if incoming.route.is_some_and(RouteIndex::is_probe) => {
                return self.0.call(incoming).await;
            }
            Some(Objection::OverLimit) => {
                let reason =
                    "as many connections are open as are served at once (server.max_connections)".into();
                Error::Unavailable { reason, retry_after: RETRY_OVER_LIMIT }.into()
            }
            Some(Objection::Heads) => {
                let reason = "the heads of this connection's open requests are too large together".into();
                Error::Unavailable { reason, retry_after: RETRY_OVER_LIMIT }.into()
            }
            Some(Objection::Host(fault)) => Error::malformed(fault).into(),
        };
        refusal.into_response()
    }
}

/// Finds the handler of a request: a direct call for hot routes, the router for the others.
pub(super) struct Dispatch {
    state: AppState,
    router: Router,
}

impl Dispatch {
    fn new(state: AppState) -> Self {
        Self { router: router().with_state(state.clone()), state }
    }
}

impl Endpoint for Dispatch {
    async fn call(&self, incoming: Incoming) -> Response {
        let Some(index) = incoming.route else { return Refusal::NOT_FOUND.into_response() };
        let Some(route) = index.route(incoming.request.method()) else {
            return Refusal::method_not_allowed(incoming.request.method(), &index.methods()).into_response();
        };
        let state = || State(self.state.clone());
        match route.handler {
            Handler::Hot(HotHandler::Sentiment) => {
                predict::sentiment(state(), incoming.request).await.into_response()
            }
            // In a box, so that requests about texts need no room for its large future. It costs nothing beside a
            // decode.
            Handler::Hot(HotHandler::Vision) => {
                Box::pin(predict::vision(state(), incoming.request)).await.into_response()
            }
            Handler::Routed(_) => Endpoint::call(&self.router, incoming).await,
        }
    }
}

#[cfg(test)]
mod tests;
