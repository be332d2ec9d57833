//! Refusals as problem documents (RFC 9457), from one table.
//!
//! Invariant: every [`Error`] has exactly one [`Kind`], found by a match without a wildcard, so that
//! a new error does not compile until someone has chosen its status. A handler returns a
//! [`Refusal`]; it rides in the response's extensions to `observe`, which writes its document and logs it once.

mod kinds;

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderValue, Method,
        header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};

pub(super) use self::kinds::KINDS;
use self::kinds::{
    DEADLINE_EXCEEDED, INTERNAL, INVALID_INPUT, Kind, MALFORMED, METHOD_NOT_ALLOWED, MODEL_NOT_FOUND,
    NOT_FOUND, ORIGIN_NOT_ALLOWED, OVERLOADED, QUOTA, REQUEST_TIMEOUT, TOO_LARGE, UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
};
use crate::api::json_writer::{push_json, push_number, push_text};
use crate::error::Error;

/// Why a request was refused: an [`Error`], or something that only HTTP knows.
#[derive(Debug, Clone, PartialEq)]
enum Fault {
    Error(Error),
    NotFound,
    /// The path is served with other methods than this one: those.
    MethodNotAllowed {
        method: String,
        allowed: Vec<&'static str>,
    },
    /// A browser asked for a page of this origin, which is not allowed.
    Origin(String),
    /// The body had not arrived after this long.
    BodyTimeout(Duration),
    /// The body arrived more slowly than this number of bytes a second.
    BodyTooSlow(u64),
}

/// Which item of a request is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    /// The list, as the caller wrote it: `images`.
    pub(super) list: &'static str,
    pub(super) idx: usize,
}

/// A refused request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    fault: Fault,
    item: Option<Item>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { fault: Fault::Error(error), item: None }
    }
}

impl Refusal {
    /// Nothing is served at the path.
    pub(super) const NOT_FOUND: Self = Self { fault: Fault::NotFound, item: None };

    /// The path is served with the methods `allowed` and not with `method`.
    pub(super) fn method_not_allowed(method: &Method, allowed: &[&'static str]) -> Self {
        let method = quote(method.as_str());
        Self { fault: Fault::MethodNotAllowed { method, allowed: allowed.to_vec() }, item: None }
    }

    /// Pages of this origin may not call.
    pub(super) fn origin(origin: &[u8]) -> Self {
        let origin = quote(&String::from_utf8_lossy(origin));
        Self { fault: Fault::Origin(origin), item: None }
    }

    /// The body had not arrived `after` this long.
    pub(super) fn body_timeout(after: Duration) -> Self {
        Self { fault: Fault::BodyTimeout(after), item: None }
    }

    /// The body came slower than at `rate` bytes a second.
    pub(super) fn body_too_slow(rate: u64) -> Self {
        Self { fault: Fault::BodyTooSlow(rate), item: None }
    }

    /// Names the item at fault, where the fault is the item's own.
    #[must_use]
    pub(super) fn at(mut self, item: Item) -> Self {
        let of_the_item = [&MALFORMED, &TOO_LARGE, &UNSUPPORTED_MEDIA_TYPE, &INVALID_INPUT];
        if of_the_item.contains(&self.kind()) {
            self.item = Some(item);
        }
        self
    }

    /// What callers can tell apart.
    pub(super) fn kind(&self) -> &'static Kind {
        match &self.fault {
            Fault::NotFound => &NOT_FOUND,
            Fault::MethodNotAllowed { .. } => &METHOD_NOT_ALLOWED,
            Fault::Origin(_) => &ORIGIN_NOT_ALLOWED,
            Fault::BodyTimeout(_) | Fault::BodyTooSlow(_) => &REQUEST_TIMEOUT,
            Fault::Error(error) => match error {
                Error::ModelNotFound { .. } => &MODEL_NOT_FOUND,
                Error::Malformed(_) => &MALFORMED,
                Error::TooLarge { .. } => &TOO_LARGE,
                Error::Unsupported { .. } => &UNSUPPORTED_MEDIA_TYPE,
                Error::Invalid(_) => &INVALID_INPUT,
                Error::Quota { .. } => &QUOTA,
                Error::Overloaded { .. } => &OVERLOADED,
                Error::DeadlineExceeded { .. } => &DEADLINE_EXCEEDED,
                Error::Unavailable { .. } => &UNAVAILABLE,
                Error::Internal(_) => &INTERNAL,
            },
        }
    }

    /// What the log says: the whole cause, also of a fault of ours.
    pub(super) fn cause(&self) -> Cow<'_, str> {
        let text: Cow<'_, str> = match &self.fault {
            // These are the text that they show.
            Fault::Error(Error::Overloaded { reason, .. } | Error::Unavailable { reason, .. }) => {
                Cow::Borrowed(reason)
            }
            Fault::Error(error) => error.to_string().into(),
            Fault::NotFound => "nothing is served at this path; GET / lists what is".into(),
            Fault::MethodNotAllowed { method, allowed } => {
                format!("this path does not serve {method}; use {}", allowed.join(" or ")).into()
            }
            Fault::Origin(origin) => format!(
                "pages of the origin `{origin}` may not call this server; the setting server.cors lists those that may"
            )
            .into(),
            Fault::BodyTimeout(after) => format!(
                "the body had not arrived after {} ms; what is left of it is not read",
                after.as_millis()
            )
            .into(),
            Fault::BodyTooSlow(rate) => format!(
                "the body came slower than at {rate} bytes a second (server.body_rate); what is left of it is not read"
            )
            .into(),
        };
        match self.item {
            Some(Item { list, idx }) => format!("{list}[{idx}]: {text}").into(),
            None => text,
        }
    }

    /// What the caller reads: the cause, unless the fault is ours.
    fn detail(&self) -> Cow<'_, str> {
        match &self.fault {
            Fault::Error(Error::Internal(_)) => {
                "an internal error; the server's log has it under this request id".into()
            }
            _ => clip(self.cause(), LONGEST_DETAIL),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match &self.fault {
            Fault::Error(
                Error::Quota { retry_after }
                | Error::Overloaded { retry_after, .. }
                | Error::Unavailable { retry_after, .. },
            ) => Some(*retry_after),
            _ => None,
        }
    }

    fn forecast(&self) -> Option<Duration> {
        match &self.fault {
            Fault::Error(Error::Overloaded { forecast, .. }) => Some(*forecast),
            _ => None,
        }
    }

    /// Makes `response` the refusal's: status, headers and the problem document that carries `request_id`.
    pub(super) fn write_into(&self, response: &mut Response, request_id: &str) {
        let kind = self.kind();
        *response.status_mut() = kind.status;
        let headers = response.headers_mut();
        // The router has measured the body that was there.
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        match &self.fault {
            Fault::BodyTimeout(_) | Fault::BodyTooSlow(_) => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Fault::MethodNotAllowed { allowed, .. } => {
                if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
                    headers.insert(ALLOW, allowed);
                }
            }
            _ => {}
        }
        *response.body_mut() = Body::from(self.document(request_id));
    }

    /// The members of RFC 9457, the request's id, and what is foreseen where there is too much to do.
    fn document(&self, request_id: &str) -> Vec<u8> {
        let Kind { slug, status, title, .. } = self.kind();
        let detail = self.detail();
        let mut json = Vec::with_capacity(DOCUMENT + detail.len());
        json.extend_from_slice(b"{\"type\":\"/problems/");
        json.extend_from_slice(slug.as_bytes());
        json.extend_from_slice(b"\",\"title\":");
        push_text(&mut json, title);
        json.extend_from_slice(b",\"status\":");
        push_number(&mut json, status.as_u16().into());
        json.extend_from_slice(b",\"detail\":");
        push_text(&mut json, &detail);
        json.extend_from_slice(b",\"request_id\":");
        push_text(&mut json, request_id);
        // What `Retry-After` says to the second, and how long the answer would be likely to take.
        for (name, time) in [("retry_after_ms", self.retry_after()), ("forecast_ms", self.forecast())] {
            let Some(time) = time else { continue };
            json.extend_from_slice(b",\"");
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":");
            push_json(&mut json, &milliseconds(time));
        }
        json.push(b'}');
        json
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.kind().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Bytes of a problem document, its detail aside, that few exceed.
const DOCUMENT: usize = 256;

/// Long enough for every text of ours, short enough that a caller's own words cannot flood a log.
const LONGEST_DETAIL: usize = 600;

/// The most characters of a caller's own word that an answer repeats.
const LONGEST_QUOTE: usize = 64;

/// Quotes a caller's own word: cut, and with control characters escaped.
pub(super) fn quote(word: &str) -> String {
    clip(word.into(), LONGEST_QUOTE).into_owned()
}

fn clip(text: Cow<'_, str>, longest: usize) -> Cow<'_, str> {
    // Without a way out of the loop it takes many bytes at once.
    let is_plain = text.bytes().fold(true, |plain, c| plain & matches!(c, b' '..=b'~'));
    if is_plain && text.len() <= longest {
        return text;
    }
    let mut clipped = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == longest {
            clipped.push('…');
            break;
        }
        if c.is_control() {
            clipped.extend(c.escape_default());
        } else {
            clipped.push(c);
        }
    }
    clipped.into()
}

/// Milliseconds, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Whole seconds, rounded up, at least one: what `Retry-After` can say.
fn whole_seconds(wait: Duration) -> u64 {
    let up = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(up).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Amount;

    fn dressed(refusal: Refusal) -> (Response, serde_json::Value) {
        let mut response = refusal.clone().into_response();
        let refusal = response.extensions_mut().remove::<Refusal>().unwrap();
        refusal.write_into(&mut response, "test-1");
        let body = std::mem::take(response.body_mut());
        let bytes = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(axum::body::to_bytes(body, usize::MAX))
            .unwrap();
        (response, serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn a_problem_names_type_title_status_detail_and_request() {
        let error = Error::TooLarge { what: "image pixels", got: Amount::Exactly(900), limit: 100 };
        let (response, problem) = dressed(Refusal::from(error).at(Item { list: "images", idx: 3 }));
        assert_eq!(response.status(), 413);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        insta::assert_json_snapshot!(problem, @r#"
        {
          "detail": "images[3]: image pixels: 900 is more than the 100 allowed",
          "request_id": "test-1",
          "status": 413,
          "title": "Larger than allowed",
          "type": "/problems/too-large"
        }
        "#);
    }

    #[test]
    fn a_fault_of_ours_tells_its_cause_to_the_log_only() {
        let refusal = Refusal::from(Error::Internal("cannot open /srv/models/x".to_owned()));
        assert_eq!(refusal.cause(), "cannot open /srv/models/x");
        let (response, problem) = dressed(refusal);
        assert_eq!(response.status(), 500);
        insta::assert_json_snapshot!(problem, @r#"
        {
          "detail": "an internal error; the server's log has it under this request id",
          "request_id": "test-1",
          "status": 500,
          "title": "A fault of the server",
          "type": "/problems/internal"
        }
        "#);
    }

    #[test]
    fn an_overload_says_when_to_come_back() {
        let retry_after = Duration::from_millis(1200);
        let (response, problem) = dressed(
            Error::Overloaded { reason: "the queue is full".into(), retry_after, forecast: retry_after * 2 }
                .into(),
        );
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        insta::assert_json_snapshot!(problem, @r#"
        {
          "detail": "the queue is full",
          "forecast_ms": 2400.0,
          "request_id": "test-1",
          "retry_after_ms": 1200.0,
          "status": 503,
          "title": "More work than can be done in time",
          "type": "/problems/overloaded"
        }
        "#);
    }

    #[test]
    fn a_slow_body_closes_the_connection() {
        let (response, problem) = dressed(Refusal::body_timeout(Duration::from_secs(2)));
        assert_eq!(response.status(), 408);
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(
            problem["detail"],
            "the body had not arrived after 2000 ms; what is left of it is not read"
        );
    }

    #[test]
    fn a_fault_that_is_not_the_items_own_names_no_item() {
        let refusal = Refusal::from(Error::DeadlineExceeded { deadline: Duration::from_millis(5) });
        assert_eq!(refusal.clone().at(Item { list: "texts", idx: 1 }), refusal);
    }

    #[test]
    fn every_kind_has_its_own_slug() {
        let mut slugs: Vec<&str> = KINDS.iter().map(|kind| kind.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), KINDS.len());
    }

    #[test]
    fn what_a_caller_wrote_is_cut_and_escaped() {
        assert_eq!(quote("face"), "face");
        assert_eq!(quote("a\n\u{1b}[31m"), "a\\n\\u{1b}[31m");
        assert_eq!(quote(&"é".repeat(100)).chars().count(), 65);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_understated(ms in 0u64..100_000_000) {
            let seconds = whole_seconds(Duration::from_millis(ms));
            prop_assert!(seconds >= 1);
            prop_assert!(seconds * 1000 >= ms);
            prop_assert!(seconds == 1 || (seconds - 1) * 1000 < ms);
        }
    }
}
