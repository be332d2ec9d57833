//! A listener, a router, and a stop that loses nothing.
//!
//! Invariant: a request whose bytes have reached this process is answered, unless it outlives the
//! drain. So a stop follows the data: readiness fails, a grace period lets balancers notice, what the
//! kernel has already accepted is taken in, accepting stops, what is in flight finishes, the pool
//! closes.

mod leftover;
mod socket;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, header::CONNECTION},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tower::Service;
use tracing::{debug, error, info, warn};

use self::{
    leftover::Leftover,
    socket::{Patience, Socket, Turn},
};
use crate::{
    config::ServerConfig,
    http::{AppState, Crowded, Routes},
};

/// Bytes that a connection buffers, and so the longest head of a request.
const BUFFER: usize = 64 << 10;

/// How long a connection may stay open between two requests. Longer than what balancers usually keep
/// theirs (60 s), so that it is they who close first and no request meets a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a caller may take no byte of its answer.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// Connections that are accepted beyond `server.max_connections`, so that a server that is full says so, to
/// probes that it lives and to everybody else that there is no room. Each answers one request.
const RESERVE: usize = 16;

/// How long the head of a request may take on such a connection: it keeps others out.
const RESERVE_HEAD: Duration = Duration::from_secs(1);

/// How long requests that are already on the wire have to be read once accepting has stopped.
const LAST_CALL: Duration = Duration::from_millis(100);

/// The first and the longest pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves the models over HTTP.
pub struct Server {
    state: AppState,
}

impl Server {
    /// Makes a server of its shared state.
    pub fn new(state: AppState) -> Self {
        Self { state }
    }

    /// Serves `listener` until `shutdown` is ready, then stops in order. Returns once every connection
    /// is closed and the pool admits nothing more. An error is the listener's own.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let config = self.state.config().server.clone();
        let address = listener.local_addr()?;
        debug!(%address, "listening");
        let mut connections = Connections::new(Routes::new(self.state.clone()), &config);

        connections.accept_until(&listener, shutdown).await;
        info!(
            grace_ms = config.grace.as_millis(),
            open = connections.tasks.len(),
            "stopping, no longer ready"
        );
        self.state.stop();
        connections.accept_until(&listener, sleep(config.grace)).await;
        connections.accept_backlog(listener).await;
        match connections.finish(config.drain).await {
            0 => info!("every connection is closed"),
            cut => warn!(cut, drain_ms = config.drain.as_millis(), "connections were cut, the drain is over"),
        }
        self.state.pool().close();
        Ok(())
    }
}

/// What answers requests: it is always ready to.
trait App:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> App for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The open connections, each a task of its own.
struct Connections<A> {
    app: A,
    patience: Patience,
    permits: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    tasks: JoinSet<()>,
    closing: watch::Sender<Closing>,
}

/// A connection's place.
struct Seat {
    kind: SeatKind,
    /// Gives the place back when it is dropped.
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeatKind {
    Regular,
    Reserve,
}

/// Whether connections are asked to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Yes,
}

impl<A: App> Connections<A> {
    fn new(app: A, config: &ServerConfig) -> Self {
        let patience = Patience { head: config.header_timeout, keep_alive: KEEP_ALIVE, write: WRITE_STALL };
        Self {
            app,
            patience,
            permits: Arc::new(Semaphore::new(config.max_connections)),
            reserve: Arc::new(Semaphore::new(RESERVE)),
            tasks: JoinSet::new(),
            closing: watch::Sender::new(Closing::No),
        }
    }

    async fn accept_until(&mut self, listener: &TcpListener, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        let mut pause = ACCEPT_PAUSE;
        loop {
            // A place comes before the connection: those for which there is none wait in the kernel. Which
            // place it is shows once somebody is there, for a better one may be free by then.
            let accept = async {
                tokio::select! {
                    free = self.permits.acquire() => drop(free),
                    free = self.reserve.acquire() => drop(free),
                }
                listener.accept().await
            };
            let accepted = tokio::select! {
                biased;
                () = &mut until => return,
                Some(ended) = self.tasks.join_next() => {
                    log_end(ended);
                    continue;
                }
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    pause = ACCEPT_PAUSE;
                    // Only this loop takes places, so there still is one.
                    if let Some(seat) = self.seat() {
                        self.start(stream, seat);
                    }
                }
                Err(error) if is_the_callers(&error) => {
                    debug!(%error, "a caller left before it was accepted")
                }
                Err(error) => {
                    // Out of descriptors or memory: connections have to end before one can begin.
                    error!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                    tokio::select! {
                        () = &mut until => return,
                        () = sleep(pause) => {}
                    }
                    pause = LONGEST_ACCEPT_PAUSE.min(pause * 2);
                }
            }
        }
    }

    /// Takes a place, of the reserve where no other is free.
    fn seat(&self) -> Option<Seat> {
        let take = |places: &Arc<Semaphore>, kind| {
            Some(Seat { kind, _permit: Arc::clone(places).try_acquire_owned().ok()? })
        };
        take(&self.permits, SeatKind::Regular).or_else(|| take(&self.reserve, SeatKind::Reserve))
    }

    /// Takes in what the kernel has accepted already, then closes the listener.
    async fn accept_backlog(&mut self, listener: TcpListener) {
        while let Some(seat) = self.seat() {
            // Ready at once or not at all: nothing new is waited for.
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = std::future::ready(()) => return,
            };
            match accepted {
                Ok((stream, _)) => self.start(stream, seat),
                Err(error) if is_the_callers(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn start(&mut self, stream: TcpStream, seat: Seat) {
        let patience = match seat.kind {
            SeatKind::Regular => self.patience,
            SeatKind::Reserve => Patience { head: self.patience.head.min(RESERVE_HEAD), ..self.patience },
        };
        let conversation = converse(stream, self.app.clone(), seat.kind, patience, self.closing.subscribe());
        self.tasks.spawn(async move {
            conversation.await;
            drop(seat);
        });
    }

    /// Lets the open connections finish; gives the number of those that had to be cut after `drain`.
    async fn finish(mut self, drain: Duration) -> usize {
        let until = Instant::now() + drain;
        // A request may be in the kernel's buffer while its connection looks idle. Those that are
        // answered meanwhile close on their own: their answers say so.
        let _ = timeout(LAST_CALL.min(drain), self.join_all()).await;
        self.closing.send_replace(Closing::Yes);
        if timeout_at(until, self.join_all()).await.is_ok() {
            return 0;
        }
        let cut = self.tasks.len();
        self.tasks.shutdown().await;
        cut
    }

    async fn join_all(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            log_end(ended);
        }
    }
}

fn log_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a connection's task panicked");
    }
}

/// Whether an accept failed for one connection only (accept(2), "error handling").
fn is_the_callers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection to its end.
async fn converse(
    stream: TcpStream,
    app: impl App,
    seat: SeatKind,
    patience: Patience,
    mut closing: watch::Receiver<Closing>,
) {
    // Answers are small and written whole: waiting for more to send could only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection without TCP_NODELAY");
    }
    let turn = Arc::new(Turn::default());
    let socket = Socket::new(stream, patience, turn.clone());
    let service = service_fn(|request| answer(app.clone(), turn.clone(), seat, request));
    let mut builder = http1::Builder::new();
    // The socket keeps time itself: hyper's own timeout cannot tell a slow head from an idle connection.
    builder.header_read_timeout(None).max_buf_size(BUFFER);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    let asked_to_close = async {
        // An error says that the sender is gone, which asks for the same.
        let _ = closing.wait_for(|closing| *closing == Closing::Yes).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = asked_to_close => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

/// Answers one request, and sees to what the router left unread of its body.
async fn answer(
    mut app: impl App,
    turn: Arc<Turn>,
    seat: SeatKind,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    turn.begin();
    let (mut request, leftover) = Leftover::watch(request);
    if seat == SeatKind::Reserve {
        request.extensions_mut().insert(Crowded);
    }
    let mut response = app.call(request).await?;
    if seat == SeatKind::Reserve {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !leftover.drained().await {
        // What is left would be taken for the next request. The socket lingers, so that a caller that
        // is still sending gets to read its answer.
        turn.linger();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    turn.end();
    Ok(response)
}
