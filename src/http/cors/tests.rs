//! Pages of allowed and of other origins, on every route.

use std::sync::Arc;

use axum::body::to_bytes;
use tower::ServiceExt;

use super::*;
use crate::{
    config::Config,
    http::{AppState, Listened, Objection, Routes},
    metrics::Metrics,
    pipelines::Pipelines,
    pool::{ModelPool, PoolOptions},
};

const PAGE: &str = "https://app.example.com";

/// Every route over a pool without models: what is asked is refused, which has to be readable, too.
fn routes(cors: Origins) -> Routes {
    let mut config = Config::default();
    config.server.cors = cors;
    let metrics = Arc::new(Metrics::new());
    let options = PoolOptions { workers: 1, queue_rows: 10, queue_bytes: 1000 };
    let pool = Arc::new(ModelPool::start(&options, Vec::new(), &metrics).unwrap());
    Routes::new(AppState::new(config, pool, Pipelines::default(), metrics))
}

fn these() -> Origins {
    Origins::These(vec![PAGE.to_owned(), "http://localhost:3000".to_owned()])
}

fn ask(routes: &Routes, method: &str, path: &str, headers: &[(&str, &str)]) -> (Response, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut response = routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let body = to_bytes(std::mem::take(response.body_mut()), usize::MAX).await.unwrap();
        (response, String::from_utf8(body.to_vec()).unwrap())
    })
}

/// A path of each route, and one of none.
fn paths() -> impl Iterator<Item = (&'static str, String)> {
    let listed = ROUTES.iter().map(|route| {
        (route.method.as_str(), route.path.replace("{name}", "a").replace("{type}", "internal"))
    });
    listed.chain([("POST", "/nowhere".to_owned())])
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn every_route_answers_the_preflight_of_an_allowed_page() {
    let routes = routes(these());
    for (method, path) in paths() {
        let wanted = "content-type,x-deadline-ms,authorization";
        let headers = [
            ("origin", PAGE),
            ("access-control-request-method", method),
            ("access-control-request-headers", wanted),
            ("access-control-request-private-network", "true"),
        ];
        let (response, body) = ask(&routes, "OPTIONS", &path, &headers);
        assert_eq!((response.status().as_u16(), body.as_str()), (204, ""), "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), Some(PAGE), "{path}");
        let methods = header(&response, "access-control-allow-methods").unwrap();
        assert!(methods.split(", ").any(|allowed| allowed == method), "{path}: {methods}");
        assert_eq!(header(&response, "access-control-allow-headers"), Some(wanted));
        assert_eq!(header(&response, "access-control-max-age"), Some("7200"));
        assert_eq!(header(&response, "access-control-allow-private-network"), Some("true"));
        assert!(header(&response, "access-control-allow-credentials").is_none());
        assert!(response.headers().get_all("vary").iter().any(|value| value == "origin"));
        assert!(response.headers().contains_key("x-request-id"));
    }
}

#[test]
fn an_allowed_page_can_read_every_answer_and_every_refusal() {
    for (cors, granted) in [(these(), PAGE), (Origins::Any, "*")] {
        let routes = routes(cors.clone());
        for (method, path) in paths().chain([("DELETE", "/healthz".to_owned())]) {
            let (response, body) = ask(&routes, method, &path, &[("origin", PAGE)]);
            assert_eq!(header(&response, "access-control-allow-origin"), Some(granted), "{path}: {body}");
            let exposed = header(&response, "access-control-expose-headers").unwrap();
            for name in ["x-request-id", "server-timing", "retry-after"] {
                assert!(exposed.contains(name), "{exposed}");
            }
            let varies = response.headers().get_all("vary").iter().any(|value| value == "origin");
            assert_eq!(varies, cors != Origins::Any, "{path}");
        }
    }
}

#[test]
fn a_page_of_another_origin_is_told_why_and_can_read_nothing() {
    for (cors, origin) in [
        (Origins::NONE, PAGE),
        (these(), "https://evil.example"),
        (these(), "https://app.example.com.evil.example"),
        (these(), "http://app.example.com"),
        (these(), "null"),
    ] {
        let routes = routes(cors);
        for (method, path) in paths() {
            let asked = [("origin", origin), ("access-control-request-method", method)];
            let (preflight, body) = ask(&routes, "OPTIONS", &path, &asked);
            assert_eq!(preflight.status(), 403, "{path}");
            assert!(body.contains(origin) && body.contains("server.cors"), "{body}");
            // It is answered like any other caller: what keeps the page from reading is its browser.
            let (response, _) = ask(&routes, method, &path, &[("origin", origin)]);
            assert_ne!(response.status(), 403, "{path}");
            for response in [&preflight, &response] {
                assert!(
                    !response.headers().keys().any(|name| name.as_str().starts_with("access-control")),
                    "{path}"
                );
            }
        }
    }
}

#[test]
fn without_a_page_nothing_is_granted_and_caches_know() {
    let (response, _) = ask(&routes(these()), "GET", "/healthz", &[]);
    assert_eq!(header(&response, "access-control-allow-origin"), None);
    assert_eq!(header(&response, "vary"), Some("origin"));
    let (response, _) = ask(&routes(Origins::NONE), "GET", "/healthz", &[]);
    assert_eq!(header(&response, "vary"), None);
    // No preflight: a question about methods, which the router answers.
    assert_eq!(ask(&routes(these()), "OPTIONS", "/healthz", &[("origin", PAGE)]).0.status(), 405);
}

#[test]
fn a_page_can_read_that_the_server_is_full() {
    let routes = routes(these());
    let mut request = Request::get("/v1/models").header("origin", PAGE).body(Body::empty()).unwrap();
    request
        .extensions_mut()
        .insert(Listened { objection: Some(Objection::OverLimit), ..Listened::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let response = runtime.block_on(routes.oneshot(request)).unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "access-control-allow-origin"), Some(PAGE));
}
