//! Whatever is asked, the answer has passed every layer.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use axum::{body::Body, http::Method};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::{
    config::Origins,
    http::{
        Routes,
        routes::{ROUTES, methods},
        tests::{ask_of, state_of},
    },
    metrics::{Metrics, NO_ROUTE},
};

/// The log of a test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8(bytes).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The answers counted of a route, of any status.
fn counted(metrics: &Metrics, route: &str) -> u64 {
    let prefix = format!("lepton_http_requests_total{{route=\"{route}\",");
    let text = metrics.encode();
    let counts = text.lines().filter(|line| line.starts_with(&prefix));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// A path of each pattern in the table, with the pattern, and some of none.
fn paths() -> Vec<(String, &'static str)> {
    let mut paths: Vec<_> = ROUTES
        .iter()
        .map(|route| (route.path.replace("{name}", "face").replace("{type}", "internal"), route.path))
        .collect();
    paths.dedup();
    paths.extend(
        [("/v1/models/none", "/v1/models/{name}"), ("/problems/none", "/problems/{type}")]
            .map(|(path, label)| (path.to_owned(), label)),
    );
    let unknown = ["/nowhere", "/v1", "/v1/models/", "//", "/healthz/", "/v1/models/face/forget"];
    paths.extend(unknown.map(|path| (path.to_owned(), NO_ROUTE)));
    paths
}

const ASKED: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::HEAD, Method::DELETE, Method::OPTIONS, Method::PATCH];

fn request(method: &Method, path: &str, id: &str) -> Request {
    let content_type = if path.contains("text") { "text/plain" } else { "image/jpeg" };
    let request = Request::builder().method(method).uri(path).header("x-request-id", id);
    let request = request.header("origin", "https://page.example").header("content-type", content_type);
    request.body(Body::from("abcd")).unwrap()
}

#[tokio::test]
async fn every_answer_of_every_route_carries_the_marks_of_every_layer() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(log.clone())
        .finish();
    let state = state_of(|config| config.server.cors = Origins::Any).await;
    let routes = Routes::new(state.clone());
    // With one subscriber, tracing asks only that of the thread that first meets a callsite, which may be another
    // test's and have none. A second one ends that.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut n_asked = 0;
    for objection in [None, Some(Objection::OverLimit), Some(Objection::Host("the Host header is odd"))] {
        for (path, label) in paths() {
            for method in &ASKED {
                n_asked += 1;
                let id = format!("mark-{n_asked}");
                let mut request = request(method, &path, &id);
                request.extensions_mut().insert(Listened { objection, ..Listened::default() });
                let before = counted(state.metrics(), label);
                let (response, body) = ask_of(&routes, request).await;
                let status = response.status().as_u16();
                let said = format!("{method} {path} {objection:?}: {status} {body}");
                if let Some(length) = response.headers().get("content-length")
                    && *method != Method::HEAD
                {
                    assert_eq!(*length, body.len().to_string().as_str(), "{said}");
                }
                assert_eq!(response.headers()["x-request-id"], id.as_str(), "{said}");
                assert_eq!(response.headers()["access-control-allow-origin"], "*", "{said}");
                assert_eq!(counted(state.metrics(), label), before + 1, "{said}");
                let lines = log.take();
                let line =
                    lines.lines().find(|line| line.contains(&format!("id={id}}}"))).unwrap_or_default();
                assert!(line.contains(&format!("route=\"{label}\" status={status} ")), "{said}: {lines}");

                let index = RouteIndex::of(&path);
                assert_eq!(index.map_or(NO_ROUTE, |index| ROUTES[index.get()].path), label);
                let is_probe = index.is_some_and(RouteIndex::is_probe);
                match (objection, index) {
                    (Some(Objection::Host(_)), _) => assert_eq!(status, 400, "{said}"),
                    (Some(Objection::OverLimit), _) if !is_probe => assert_eq!(status, 503, "{said}"),
                    (_, None) => assert_eq!(status, 404, "{said}"),
                    (_, Some(index)) => match index.route(method) {
                        Some(_) => {
                            assert_eq!(status, if path.ends_with("/none") { 404 } else { 200 }, "{said}")
                        }
                        None => {
                            let methods = index.methods();
                            assert_eq!(status, 405, "{said}");
                            assert_eq!(response.headers()["allow"], methods.join(", ").as_str(), "{said}");
                            let says = format!("does not serve {method}; use {}\"", methods.join(" or "));
                            assert!(body.contains(&says) || *method == Method::HEAD, "{said}");
                        }
                    },
                }
            }
        }
    }
    assert!(n_asked > 300, "{n_asked}");
}

#[tokio::test]
async fn the_index_lists_the_table() {
    let state = state_of(|_| ()).await;
    let (_, body) = ask_of(&Routes::new(state), request(&Method::GET, "/", "t")).await;
    let index: serde_json::Value = serde_json::from_str(&body).unwrap();
    let listed = index["paths"].as_array().unwrap();
    assert_eq!(listed.len(), ROUTES.len());
    for (listed, route) in listed.iter().zip(&ROUTES) {
        assert_eq!((&listed["method"], &listed["path"]), (&route.method.as_str().into(), &route.path.into()));
    }
    assert_eq!(methods(&ROUTES), ["POST", "GET", "HEAD"]);
}
