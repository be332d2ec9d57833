//! Calls from browser pages of other origins: the CORS protocol (Fetch standard, section 3.3).
//!
//! Invariant: only origins that `server.cors` allows get a header that lets their pages read an answer,
//! and they get it on every answer, refusals included. Credentials are never allowed: the server keeps no
//! cookies, so that a page can do no more than any other caller.
//!
//! It lies around the layers that refuse, so that a page can read their refusals.

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    response::{IntoResponse, Response},
};

use super::{
    Objection,
    problem::Refusal,
    routes::{ROUTES, methods},
    stack::{Endpoint, Incoming},
};
use crate::config::Origins;

/// How long a browser may remember a preflight's answer, in seconds: as long as any of them does.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// What a page may read of an answer beside its body and the headers that every page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("allow, retry-after, server-timing, x-request-id");

static REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
static ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Lets pages of some origins call `inner`, and read its answers.
pub(super) struct Cors<E> {
    inner: E,
    origins: Origins,
    /// The methods of all routes.
    methods: HeaderValue,
}

/// The page that a request came from, by its `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// There is none, or it is not allowed.
    Other,
    /// It is allowed; the value tells its browser so.
    Allowed(HeaderValue),
}

impl<E: Endpoint> Endpoint for Cors<E> {
    async fn call(&self, incoming: Incoming) -> Response {
        let page = self.page(incoming.request.headers());
        let is_sound = !matches!(incoming.listened.objection, Some(Objection::Host(_)));
        let preflight = is_sound.then(|| self.preflight(&page, &incoming.request)).flatten();
        let mut response = match preflight {
            Some(answer) => answer,
            None => self.inner.call(incoming).await,
        };
        self.finish(page, response.headers_mut());
        response
    }
}

impl<E> Cors<E> {
    /// Allows pages of `origins` what the routes offer.
    pub(super) fn new(origins: Origins, inner: E) -> Self {
        let mut methods = methods(&ROUTES);
        methods.sort_unstable();
        let methods = HeaderValue::from_str(&methods.join(", "));
        let methods = methods.unwrap_or(HeaderValue::from_static("GET, HEAD, POST"));
        Self { inner, origins, methods }
    }

    /// The page that a request came from.
    fn page(&self, headers: &HeaderMap) -> Page {
        match headers.get(ORIGIN) {
            Some(origin) if self.origins.allows(origin.as_bytes()) => Page::Allowed(match self.origins {
                Origins::Any => HeaderValue::from_static("*"),
                Origins::These(_) => origin.clone(),
            }),
            _ => Page::Other,
        }
    }

    /// The answer to a preflight, the question that a browser asks before a page's request; nothing where
    /// the request is none.
    fn preflight(&self, page: &Page, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let origin = headers.get(ORIGIN)?;
        if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        if *page == Page::Other {
            return Some(Refusal::origin(origin.as_bytes()).into_response());
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let granted = response.headers_mut();
        granted.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        granted.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        // Every header that a page may want to send is harmless, known here or not.
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            granted.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        // A public page that calls a server of the local network (Private Network Access).
        if headers.get(&REQUEST_PRIVATE_NETWORK).is_some_and(|wanted| wanted == "true") {
            granted.insert(&ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        granted.append(VARY, HeaderValue::from(ACCESS_CONTROL_REQUEST_HEADERS));
        Some(response)
    }

    /// Lets the page read an answer, and keeps caches from handing it to another.
    fn finish(&self, page: Page, headers: &mut HeaderMap) {
        if let Page::Allowed(origin) = page {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        if matches!(&self.origins, Origins::These(origins) if !origins.is_empty()) {
            headers.append(VARY, HeaderValue::from(ORIGIN));
        }
    }
}

#[cfg(test)]
mod tests;
