//! HTTP/2 on a connection: its limits, its streams, and how slow or hostile ones end.
//!
//! Invariant: streams share the limits of one connection. A stream whose answer is not taken ends alone; one of many
//! that begin and reset requests ends with its connection.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    http::{Request, Response},
};
use bytes::Bytes;
use hyper::{
    body::{Frame, SizeHint},
    rt::Executor,
    server::conn::http2,
};
use tokio::{sync::watch, time::sleep};

use super::{
    connection::Link,
    faults::Fault,
    state::{ConnectionState, Exchange},
};

/// Requests of one connection at a time.
const STREAMS: u32 = 100;

/// Bytes of bodies that a caller may send before a handler reads them, on one stream and on all of a connection:
/// 5 MB/s at 50 ms of round trip.
const WINDOW: u32 = 256 << 10;

/// Bytes of an answer that are handed on at once, however little the caller takes.
const CHUNK: usize = 16 << 10;

/// Bytes of an answer that lie ready for the caller to take.
const SEND_BUFFER: usize = 64 << 10;

/// The longest head of a request: as over HTTP/1.1.
const HEAD: u32 = 64 << 10;

/// Bytes that the heads of a connection's open requests may have together.
pub(super) const HEADS: usize = 256 << 10;

/// What an entry of a head counts for beside its bytes (RFC 9113, section 10.5.1).
const ENTRY: usize = 32;

/// Streams that may be reset before a handler has seen them, which costs more to serve than to send.
const UNSEEN_RESETS: usize = 20;

/// Sets the limits of a connection.
pub(super) fn builder(streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .max_pending_accept_reset_streams(UNSEEN_RESETS);
    builder
}

/// Bytes of a request's head, as HTTP/2 counts them.
pub(super) fn head_bytes<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let target =
        uri.path().len() + uri.query().map_or(0, str::len) + uri.authority().map_or(0, |a| a.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ENTRY);
    headers.sum::<usize>() + target
}

tokio::task_local! {
    /// The stream whose task runs.
    static STREAM: Arc<Progress>;
}

/// How far the answer of one stream is.
#[derive(Default)]
struct Progress {
    is_answered: AtomicBool,
    /// Some of the answer was handed on since the last look.
    has_moved: AtomicBool,
}

/// Runs the streams of a connection, each in a task of its own, and none longer than the connection.
#[derive(Clone)]
pub(super) struct Streams {
    state: Arc<ConnectionState>,
    link: Arc<Link>,
    /// Closed when the connection ends.
    open: watch::Receiver<()>,
}

impl Streams {
    /// Of a connection that is open until the sender is dropped.
    pub(super) fn new(link: Arc<Link>, open: watch::Receiver<()>) -> Self {
        Self { state: Arc::clone(&link.state), link, open }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut open = self.open.clone();
        let (link, state) = (Arc::clone(&self.link), Arc::clone(&self.state));
        let progress = Arc::<Progress>::default();
        let stream = STREAM.scope(Arc::clone(&progress), stream);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stream => {}
                _ = open.changed() => {}
                // Dropping the stream resets it.
                () = stalled(&progress, link.timeouts.write) => link.faults.note(Fault::AnswerTimeout, Some(link.peer)),
            }
            // The socket looks what it waits for now.
            state.nudge();
        });
    }
}

/// Waits until an answer that is made was not taken for so long.
async fn stalled(progress: &Progress, longest: Duration) {
    // Two looks: one that finds no movement may come right after some.
    let mut n_still = 0;
    while n_still < 2 {
        sleep(longest / 2).await;
        let moved = progress.has_moved.swap(false, Ordering::Relaxed);
        let waits = progress.is_answered.load(Ordering::Relaxed);
        n_still = if waits && !moved { n_still + 1 } else { 0 };
    }
}

/// The body of an answer on a stream: handed on in small parts, so that what the caller does not take stays here.
pub(super) struct StreamBody {
    body: Body,
    /// What came of the body and was not handed on.
    rest: Bytes,
    progress: Option<Arc<Progress>>,
    _exchange: Exchange,
}

impl StreamBody {
    /// Wraps the body of an answer that has been made; `exchange` lasts until all of it has been handed on.
    pub(super) fn of(response: Response<Body>, exchange: Exchange) -> Response<Self> {
        let progress = STREAM.try_with(Arc::clone).ok();
        if let Some(progress) = &progress {
            progress.has_moved.store(true, Ordering::Relaxed);
            progress.is_answered.store(true, Ordering::Relaxed);
        }
        response.map(|body| Self { body, rest: Bytes::new(), progress, _exchange: exchange })
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        if let Some(progress) = &self.progress {
            progress.has_moved.store(true, Ordering::Relaxed);
        }
        let n_bytes = self.rest.len().min(CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(n_bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let hint = self.body.size_hint();
        let mut sum = SizeHint::new();
        sum.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            sum.set_upper(upper + rest);
        }
        sum
    }
}
