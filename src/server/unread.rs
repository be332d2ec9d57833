//! What a handler leaves unread of a body.
//!
//! A refused request is answered before its body is read. A short rest is read and thrown away, so
//! that the connection can serve on; for a long one closing is cheaper.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, header::EXPECT},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// The longest rest that is worth reading to keep a connection: some photographs, not an upload.
const LONGEST_REST: u64 = 256 << 10;

/// How long that may take: what is on its way already arrives within this.
const TIMEOUT: Duration = Duration::from_millis(50);

/// Where a body ends up when its handler drops it before its end.
type Rest = Arc<Mutex<Option<Incoming>>>;

/// Watches over one request's body.
pub(super) struct UnreadBody {
    rest: Rest,
    /// The caller waits to be told to send, which reading would do.
    expects: Expects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Nothing,
    Continue,
}

impl UnreadBody {
    /// Wraps the body of `request`.
    pub(super) fn watch(request: Request<Incoming>) -> (Request<Body>, Self) {
        let expects =
            if request.headers().contains_key(EXPECT) { Expects::Continue } else { Expects::Nothing };
        let rest = Rest::default();
        let unread = Self { rest: rest.clone(), expects };
        let request = request.map(|body| {
            if body.is_end_stream() { Body::empty() } else { Body::new(Watched { body: Some(body), rest }) }
        });
        (request, unread)
    }

    /// Whether nothing of the body was left unread.
    pub(super) fn is_drained(&self) -> bool {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Reads a short rest to its end. False where some of the body stays unread.
    pub(super) async fn drained(self) -> bool {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = rest else { return true };
        let short = body.size_hint().upper().is_some_and(|rest| rest <= LONGEST_REST);
        if !short || self.expects == Expects::Continue {
            return false;
        }
        let drain = async {
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(TIMEOUT, drain).await.unwrap_or(false)
    }
}

/// A body that comes back when it is dropped before its end.
struct Watched {
    /// `None` once the end, or an error, has been seen.
    body: Option<Incoming>,
    rest: Rest,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
