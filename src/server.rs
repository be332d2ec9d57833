//! A listener, a router, and a stop that loses nothing.
//!
//! Invariant: a request whose bytes have reached this process is answered, unless it outlives the
//! drain. So a stop follows the data: readiness fails, a grace period lets balancers notice, what the
//! kernel has already accepted is taken in, accepting stops, what is in flight finishes, the pool
//! closes.

mod connection;
mod faults;
mod http2;
mod places;
mod socket;
mod state;
#[cfg(test)]
mod tests;
mod transport;
mod unread;

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};
use tower::Service;
use tracing::{debug, error, info, warn};

use self::{
    connection::{Link, serve_connection},
    faults::{Fault, Faults},
    places::Places,
    socket::Timeouts,
    state::{ConnectionPermit, ConnectionState, PermitKind},
    transport::{Accept, Handshake},
};
use crate::{
    config::ServerConfig,
    http::{AppState, Routes},
    metrics::OpenConnection,
};

/// How long a connection may stay open between two requests. Longer than what balancers usually keep
/// theirs (60 s), so that it is they who close first and no request meets a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a caller may take no byte of its answer.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// How long a closing connection waits for a caller that is still sending.
const LINGER: Duration = Duration::from_secs(10);

/// The longest wait of each kind on a connection beyond the limit: it keeps others out.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection that was accepted waits for a place.
const PERMIT_WAIT: Duration = Duration::from_secs(1);

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
        let faults = Faults::new(Arc::clone(self.state.metrics()), self.state.config().log.peer);
        let mut connections = Connections::new(Routes::new(self.state.clone()), &config, faults);

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
    timeouts: Timeouts,
    places: Places,
    faults: Arc<Faults>,
    tasks: JoinSet<()>,
    closing: watch::Sender<Closing>,
}

/// Whether a connection got a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Yes,
    No,
}

/// Whether connections are asked to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Yes,
}

impl<A: App> Connections<A> {
    fn new(app: A, config: &ServerConfig, faults: Faults) -> Self {
        let timeouts = Timeouts {
            head: config.header_timeout,
            keep_alive: KEEP_ALIVE,
            write: WRITE_STALL,
            linger: LINGER,
        };
        Self {
            app,
            timeouts,
            places: Places::new(config.max_connections),
            faults: Arc::new(faults),
            tasks: JoinSet::new(),
            closing: watch::Sender::new(Closing::No),
        }
    }

    async fn accept_until(&mut self, listener: &impl Accept, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        let mut pause = ACCEPT_PAUSE;
        loop {
            // A place comes before the connection: those for which there is none wait in the kernel. Which
            // place it is shows once somebody is there, for a better one may be free by then.
            let accept = async {
                self.places.room().await;
                listener.accept().await
            };
            let accepted = tokio::select! {
                biased;
                () = &mut until => return,
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.places.forget(log_end(ended));
                    continue;
                }
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE;
                    let _: Admission = self.permit(stream, peer).await;
                }
                Err(error) if is_the_callers(&error) => {
                    debug!(%error, "a caller left before it was accepted")
                }
                Err(error) => {
                    // Out of descriptors or memory: connections have to end before one can begin.
                    self.faults.accept_failed(&error);
                    self.places.make_way();
                    tokio::select! {
                        () = &mut until => return,
                        () = sleep(pause) => {}
                    }
                    pause = LONGEST_ACCEPT_PAUSE.min(pause * 2);
                }
            }
        }
    }

    /// Serves a connection that was accepted, as soon as there is a place for it, or ends it.
    async fn permit(&mut self, stream: impl Handshake, peer: SocketAddr) -> Admission {
        let until = Instant::now() + PERMIT_WAIT;
        loop {
            if let Some(permit) = self.places.take(&self.faults) {
                self.start(stream, peer, permit);
                return Admission::Yes;
            }
            // Whoever was to make way for it has begun a request in this moment.
            if timeout_at(until, self.places.room()).await.is_err() {
                self.faults.note(Fault::NoPlace, Some(peer));
                return Admission::No;
            }
        }
    }

    /// Takes in what the kernel has accepted already, then closes the listener.
    async fn accept_backlog(&mut self, listener: impl Accept) {
        loop {
            // Ready at once or not at all: nothing new is waited for.
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = std::future::ready(()) => return,
            };
            match accepted {
                Ok((stream, peer)) => match self.permit(stream, peer).await {
                    Admission::Yes => {}
                    // For those behind it there is none either.
                    Admission::No => return,
                },
                Err(error) if is_the_callers(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn start(&mut self, stream: impl Handshake, peer: SocketAddr, permit: ConnectionPermit) {
        let timeouts = match permit.kind {
            PermitKind::Regular => self.timeouts,
            PermitKind::Reserve => self.timeouts.at_most(RESERVE_TIMEOUT),
        };
        let state = Arc::new(ConnectionState::new(permit));
        let open = Open { state: Arc::clone(&state), _counted: self.faults.opened() };
        let link = Link { peer, state: Arc::clone(&state), timeouts, faults: Arc::clone(&self.faults) };
        let connection = serve_connection(stream, self.app.clone(), link, self.closing.subscribe());
        let task = self.tasks.spawn(async move {
            let _open = open;
            connection.await;
        });
        self.places.remember(task.id(), state);
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
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.places.forget(log_end(ended));
        }
    }
}

/// A connection while it is open: its place is given back when this is dropped.
struct Open {
    state: Arc<ConnectionState>,
    _counted: OpenConnection,
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.state.make_way());
    }
}

/// Tells which task has ended, and logs its end where that was a panic.
fn log_end(ended: Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => id,
        Err(error) => {
            if error.is_panic() {
                error!(%error, "a connection's task panicked");
            }
            error.id()
        }
    }
}

/// Whether an accept failed for one connection only (accept(2), "error handling").
fn is_the_callers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
