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

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header::CONNECTION},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tower::ServiceExt;
use tracing::{debug, error, info, warn};

use self::{
    leftover::Leftover,
    socket::{Patience, Socket, Turn},
};
use crate::{
    config::ServerConfig,
    http::{AppState, router},
};

/// Bytes that a connection buffers, and so the longest head of a request.
const BUFFER: usize = 64 << 10;

/// How long a connection may stay open between two requests. Longer than what balancers usually keep
/// theirs (60 s), so that it is they who close first and no request meets a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a caller may take no byte of its answer.
const WRITE_STALL: Duration = Duration::from_secs(30);

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
        let mut connections = Connections::new(router(self.state.clone()), &config);

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

/// The open connections, each a task of its own.
struct Connections {
    app: Router,
    patience: Patience,
    permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
    closing: watch::Sender<Closing>,
}

/// Whether connections are asked to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Yes,
}

impl Connections {
    fn new(app: Router, config: &ServerConfig) -> Self {
        let patience = Patience { head: config.header_timeout, keep_alive: KEEP_ALIVE, write: WRITE_STALL };
        Self {
            app,
            patience,
            permits: Arc::new(Semaphore::new(config.max_connections)),
            tasks: JoinSet::new(),
            closing: watch::Sender::new(Closing::No),
        }
    }

    async fn accept_until(&mut self, listener: &TcpListener, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        let mut pause = ACCEPT_PAUSE;
        loop {
            // A permit comes before the connection: those for which there is none wait in the kernel.
            let accept = async {
                let permit = self.permits.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = &mut until => return,
                Some(ended) = self.tasks.join_next() => {
                    log_end(ended);
                    continue;
                }
                accepted = accept => accepted,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { return };
            match accepted {
                Ok((stream, _)) => {
                    pause = ACCEPT_PAUSE;
                    self.start(stream, permit);
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

    /// Takes in what the kernel has accepted already, then closes the listener.
    async fn accept_backlog(&mut self, listener: TcpListener) {
        while let Ok(permit) = self.permits.clone().try_acquire_owned() {
            // Ready at once or not at all: nothing new is waited for.
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = std::future::ready(()) => return,
            };
            match accepted {
                Ok((stream, _)) => self.start(stream, permit),
                Err(error) if is_the_callers(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn start(&mut self, stream: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) {
        let conversation = converse(stream, self.app.clone(), self.patience, self.closing.subscribe());
        self.tasks.spawn(async move {
            conversation.await;
            drop(permit);
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
async fn converse(stream: TcpStream, app: Router, patience: Patience, mut closing: watch::Receiver<Closing>) {
    // Answers are small and written whole: waiting for more to send could only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection without TCP_NODELAY");
    }
    let turn = Arc::new(Turn::default());
    let socket = Socket::new(stream, patience, turn.clone());
    let service = service_fn(|request| answer(app.clone(), turn.clone(), request));
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
    app: Router,
    turn: Arc<Turn>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    turn.begin();
    let (request, leftover) = Leftover::watch(request);
    let mut response = app.oneshot(request).await?;
    if !leftover.drained().await {
        // What is left would be taken for the next request. The socket lingers, so that a caller that
        // is still sending gets to read its answer.
        turn.linger();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    turn.end();
    Ok(response)
}
