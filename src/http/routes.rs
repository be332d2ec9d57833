//! The table of routes, from which the router, `GET /`, the metrics' labels and all else about routes derive.
//!
//! Invariant: a route is one line here and a handler; what the server serves and what the table lists cannot differ.

use std::iter;

use axum::{
    Router,
    http::Method,
    routing::{MethodFilter, MethodRouter, on},
};

use super::{AppState, admin, predict};

/// One method of one path.
pub(super) struct Route {
    pub(super) method: Method,
    /// As axum writes it: `{name}` stands for one segment.
    pub(super) path: &'static str,
    pub(super) kind: RouteKind,
    /// The purpose, as `GET /` lists it.
    pub(super) summary: &'static str,
    pub(super) handler: Handler,
}

/// The purpose of a route, which decides how it is logged and whether a full server answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// Runs a model on the request's body.
    Model,
    /// Tells what is served.
    Admin,
    /// Is asked by machines every few seconds.
    Probe,
}

/// The way to a route's handler.
pub(super) enum Handler {
    /// Through the router, which boxes and moves a request at each of its layers.
    Routed(fn(MethodFilter) -> MethodRouter<AppState>),
    /// A direct call, for routes that overloads come by.
    Hot(HotHandler),
}

/// The handlers that are called directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HotHandler {
    Vision,
    Sentiment,
}

use RouteKind::{Admin, Model, Probe};

/// Every route. Hot ones come first: paths are compared in this order.
#[rustfmt::skip]
pub(super) static ROUTES: [Route; 10] = [
    hot("/v1/text/sentiment", Model, "the sentiment of texts: JSON or text/plain", HotHandler::Sentiment),
    hot("/v1/vision/classify", Model, "classify images: raw, multipart/form-data or JSON", HotHandler::Vision),
    post("/v1/models/{name}/predict", Model, "ask a model by its name", |method| on(method, predict::by_name)),
    get("/v1/models", Admin, "every model: state, labels, inputs", |method| on(method, admin::models)),
    get("/v1/models/{name}", Admin, "one model, and its measured cost", |method| on(method, admin::model)),
    get("/healthz", Probe, "200 while the process lives", |method| on(method, admin::healthz)),
    get("/readyz", Probe, "200 while requests are welcome", |method| on(method, admin::readyz)),
    get("/metrics", Probe, "metrics in the Prometheus text format", |method| on(method, admin::metrics)),
    get("/problems/{type}", Admin, "what a refusal means", |method| on(method, admin::problem)),
    get("/", Admin, "this list", |method| on(method, admin::index)),
];

type Mount = fn(MethodFilter) -> MethodRouter<AppState>;

const fn get(path: &'static str, kind: RouteKind, summary: &'static str, mount: Mount) -> Route {
    Route { method: Method::GET, path, kind, summary, handler: Handler::Routed(mount) }
}

const fn post(path: &'static str, kind: RouteKind, summary: &'static str, mount: Mount) -> Route {
    Route { method: Method::POST, path, kind, summary, handler: Handler::Routed(mount) }
}

const fn hot(path: &'static str, kind: RouteKind, summary: &'static str, handler: HotHandler) -> Route {
    Route { method: Method::POST, path, kind, summary, handler: Handler::Hot(handler) }
}

impl Route {
    /// Whether the handler answers `method`; one for GET answers HEAD, too.
    fn serves(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }

    /// Whether `path` is one of this route's.
    fn matches(&self, path: &str) -> bool {
        let (mut wanted, mut found) = (self.path.split('/'), path.split('/'));
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return true,
                (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => {}
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => return false,
            }
        }
    }

    /// Whether the handler reads a body.
    fn takes_a_body(&self) -> bool {
        self.kind == Model
    }
}

/// The entry of the table that a path names: the first, where it has several methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteIndex(usize);

impl RouteIndex {
    /// Finds the entry of `path`. A path in full comes before a pattern, as in axum's router.
    pub(super) fn of(path: &str) -> Option<Self> {
        let literal = ROUTES.iter().position(|route| route.path == path);
        literal.or_else(|| ROUTES.iter().position(|route| route.matches(path))).map(Self)
    }

    /// The position in [`ROUTES`].
    pub(super) fn get(self) -> usize {
        self.0
    }

    fn first(self) -> Option<&'static Route> {
        ROUTES.get(self.0)
    }

    /// The routes that share the path.
    fn routes(self) -> impl Iterator<Item = &'static Route> {
        let first = self.first();
        ROUTES.iter().filter(move |route| first.is_some_and(|first| first.path == route.path))
    }

    /// The route that answers `method`; `None` where the path is served with other methods only.
    pub(super) fn route(self, method: &Method) -> Option<&'static Route> {
        match self.first() {
            Some(first) if first.serves(method) => Some(first),
            _ => self.routes().find(|route| route.serves(method)),
        }
    }

    /// The methods of the path, HEAD included, in the order of the table.
    pub(super) fn methods(self) -> Vec<&'static str> {
        methods(self.routes())
    }

    /// Whether machines ask it every few seconds.
    pub(super) fn is_probe(self) -> bool {
        self.first().is_some_and(|route| route.kind == Probe)
    }
}

/// The methods of these routes, each once, HEAD beside GET.
pub(super) fn methods<'r>(routes: impl IntoIterator<Item = &'r Route>) -> Vec<&'r str> {
    let mut methods: Vec<&str> = Vec::new();
    for route in routes {
        let head = (route.method == Method::GET).then_some("HEAD");
        for method in iter::once(route.method.as_str()).chain(head) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
    }
    methods
}

/// The router of all routes that are not called directly. It has no layers: they lie around the dispatch.
pub(super) fn router() -> Router<AppState> {
    ROUTES.iter().fold(Router::new(), |router, route| match route.handler {
        Handler::Routed(mount) => match MethodFilter::try_from(route.method.clone()) {
            Ok(method) => router.route(route.path, mount(method)),
            // axum has a filter for each method of the standard, and a test looks at the table's.
            Err(_) => router,
        },
        Handler::Hot(_) => router,
    })
}

/// Whether a request for `path` is answered only with a body; a query may follow it.
pub(crate) fn takes_a_body(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    ROUTES.iter().any(|route| route.takes_a_body() && route.matches(path))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        extract::{MatchedPath, Request},
        routing::any,
    };
    use proptest::prelude::*;
    use tower::ServiceExt;

    use super::*;

    /// The route that axum's router finds.
    async fn matched(path: &str) -> Option<String> {
        let paths = ROUTES.iter().map(|route| route.path).collect::<std::collections::BTreeSet<_>>();
        let router = paths.into_iter().fold(Router::new(), |router, path| {
            router.route(path, any(async |path: MatchedPath| path.as_str().to_owned()))
        });
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let found = response.status() == 200;
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        found.then(|| String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn every_method_of_the_table_has_a_filter_and_no_route_is_there_twice() {
        for (idx, route) in ROUTES.iter().enumerate() {
            assert!(MethodFilter::try_from(route.method.clone()).is_ok(), "{}", route.method);
            let same = |other: &Route| other.path == route.path && other.method == route.method;
            assert!(!ROUTES[..idx].iter().any(same), "{} {}", route.method, route.path);
            assert!(RouteIndex::of(route.path).unwrap().route(&route.method).is_some());
        }
    }

    #[test]
    fn the_methods_of_a_path_are_named() {
        assert_eq!(RouteIndex::of("/healthz").unwrap().methods(), ["GET", "HEAD"]);
        assert_eq!(RouteIndex::of("/v1/models/a/predict").unwrap().methods(), ["POST"]);
    }

    #[test]
    fn a_load_generator_knows_which_paths_take_a_body() {
        for path in ["/v1/text/sentiment?top_k=1", "/v1/vision/classify", "/v1/models/a/predict"] {
            assert!(takes_a_body(path), "{path}");
        }
        for path in ["/", "/healthz", "/v1/models/a", "/v1/models//predict", "/predict"] {
            assert!(!takes_a_body(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn paths_match_as_in_axums_router(
            segments in prop::collection::vec(
                prop::sample::select(vec![
                    "v1", "text", "sentiment", "vision", "classify", "models", "predict", "healthz", "problems",
                    "", "a", "a%2Fb", "{name}", "%ff",
                ]),
                0..5,
            ),
        ) {
            let path = format!("/{}", segments.join("/"));
            let ours = RouteIndex::of(&path).map(|index| ROUTES[index.get()].path.to_owned());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(ours, runtime.block_on(matched(&path)), "{}", path);
        }
    }
}
