//! One connection, from its first byte to its last.
//!
//! Invariant: what is wrong with a head is answered here or marked for whoever answers, counted and logged. Over
//! HTTP/1.1 an answer is made for one request at a time, and whoever sends many at once waits for others in between;
//! over HTTP/2 each stream is a task, and their number is limited.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderValue, Request, Response, Version,
        header::{CONNECTION, HOST},
    },
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncReadExt,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{
    App, Closing,
    faults::{Fault, Faults},
    http2::{self, HEADS, StreamBody, Streams},
    socket::{Socket, Timeouts},
    state::{Came, ConnectionState, Exchange, PermitKind},
    transport::{Handshake, Protocol, Transport},
    unread::UnreadBody,
};
use crate::http::{Listened, Objection};

/// Bytes that a connection buffers, and so the longest head of a request.
const BUFFER: usize = 64 << 10;

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a caller that was told of the end of its HTTP/2 connection has to close it, once nothing is open and no
/// byte goes either way.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// One end of a connection.
pub(super) struct Link {
    pub(super) peer: SocketAddr,
    pub(super) state: Arc<ConnectionState>,
    pub(super) timeouts: Timeouts,
    pub(super) faults: Arc<Faults>,
}

/// Serves one connection to its end.
pub(super) async fn serve_connection(
    accepted: impl Handshake,
    app: impl App,
    link: Link,
    mut closing: watch::Receiver<Closing>,
) {
    let ended = match timeout(link.timeouts.head, accepted.handshake()).await {
        Ok(Ok(stream)) => {
            let mut socket = Socket::new(stream, link.timeouts, Arc::clone(&link.state));
            match protocol(&mut socket, &link.state, &mut closing).await {
                Ok(Some(Protocol::Http1)) => serve_http1(socket, app, &link, closing).await,
                Ok(Some(Protocol::Http2)) => return serve_http2(socket, app, link, closing).await,
                Ok(None) => return,
                Err(error) => Err(Ended::Early(error)),
            }
        }
        Ok(Err(error)) => Err(Ended::Early(error)),
        Err(_) => Err(Ended::Early(io::ErrorKind::TimedOut.into())),
    };
    link.note(ended);
}

/// Why a connection broke.
enum Ended {
    /// Before its protocol was known.
    Early(io::Error),
    Later(hyper::Error),
}

impl Link {
    /// Counts and logs the end of a connection, where it was a fault.
    fn note(&self, ended: Result<(), Ended>) {
        let (fault, error): (_, &dyn std::error::Error) = match &ended {
            Ok(()) => return,
            Err(Ended::Early(error)) => {
                ((error.kind() == io::ErrorKind::TimedOut).then_some(Fault::HeadTimeout), error)
            }
            Err(Ended::Later(error)) => (Fault::of(error, &self.state), error),
        };
        match fault {
            Some(fault) => self.faults.note(fault, Some(self.peer)),
            None => debug!(error, "a connection broke"),
        }
    }
}

/// Tells the protocol that the caller speaks; `None` where the connection ends before.
async fn protocol<S: Transport>(
    socket: &mut Socket<S>,
    state: &ConnectionState,
    closing: &mut watch::Receiver<Closing>,
) -> io::Result<Option<Protocol>> {
    if let Some(agreed) = socket.agreed() {
        socket.speak(agreed, &[]);
        return Ok(Some(agreed));
    }
    let (mut bytes, mut n_bytes) = ([0; PREFACE.len()], 0);
    let protocol = loop {
        let n_read = tokio::select! {
            biased;
            read = socket.read(&mut bytes[n_bytes..]) => read?,
            // The socket looks whether it can end now.
            () = state.nudged() => continue,
            _ = closing.wait_for(|closing| *closing == Closing::Yes), if n_bytes == 0 => return Ok(None),
        };
        n_bytes += n_read;
        if n_bytes == 0 {
            return Ok(None);
        }
        if n_read == 0 || bytes[..n_bytes] != PREFACE[..n_bytes] {
            break Protocol::Http1;
        }
        if n_bytes == PREFACE.len() {
            break Protocol::Http2;
        }
    };
    socket.speak(protocol, &bytes[..n_bytes]);
    Ok(Some(protocol))
}

async fn asked_to_close(closing: &mut watch::Receiver<Closing>) {
    // An error says that the sender is gone, which asks for the same.
    let _ = closing.wait_for(|closing| *closing == Closing::Yes).await;
}

async fn serve_http1<S: Transport>(
    socket: Socket<S>,
    app: impl App,
    link: &Link,
    mut closing: watch::Receiver<Closing>,
) -> Result<(), Ended> {
    let service = service_fn(|request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(answer(app, link, Protocol::Http1, request).await.0) }
    });
    let mut builder = http1::Builder::new();
    // The socket keeps time itself: hyper's own timeout cannot tell a slow head from an idle connection.
    builder.header_read_timeout(None).max_buf_size(BUFFER);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut asked_to_close = pin!(asked_to_close(&mut closing));
    let mut closes = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(Ended::Later),
            () = asked_to_close.as_mut(), if !closes => {
                closes = true;
                connection.as_mut().graceful_shutdown();
            }
            // The socket looks whether it can end now.
            () = link.state.nudged() => {}
        }
    }
}

async fn serve_http2<S: Transport>(
    socket: Socket<S>,
    app: impl App,
    link: Link,
    mut closing: watch::Receiver<Closing>,
) {
    let link = Arc::new(link);
    let state = &link.state;
    // Dropped at the end, it ends the streams.
    let (_open, streams) = watch::channel(());
    let of_streams = Arc::clone(&link);
    let service = service_fn(move |request| {
        let (app, link) = (app.clone(), Arc::clone(&of_streams));
        async move {
            let (response, exchange) = answer(app, &link, Protocol::Http2, request).await;
            Ok::<_, Infallible>(StreamBody::of(response, exchange))
        }
    });
    let builder = http2::builder(Streams::new(Arc::clone(&link), streams));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut asked_to_close = pin!(asked_to_close(&mut closing));
    let (mut closes, mut is_told) = (false, false);
    let mut look = pin!(sleep(LOOK));
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended.map_err(Ended::Later),
            () = asked_to_close.as_mut(), if !closes => closes = true,
            () = state.nudged() => {}
            () = look.as_mut(), if is_told => {
                let now = Instant::now();
                if state.n_open() == 0 && state.still(now.into_std()) >= FAREWELL {
                    break Ok(());
                }
                look.as_mut().reset(now + LOOK);
            }
        }
        if state.is_flooded() {
            link.faults.note(Fault::ResetFlood, Some(link.peer));
            break Ok(());
        }
        if (closes || state.closes()) && !is_told {
            is_told = true;
            state.moved(Instant::now().into_std());
            look.as_mut().reset(Instant::now() + LOOK);
            // It says how far requests are still answered, and ends after the last of them.
            connection.as_mut().graceful_shutdown();
        }
    };
    link.note(ended);
}

/// Answers one request, and sees to what the router left unread of its body.
async fn answer(
    mut app: impl App,
    link: &Link,
    protocol: Protocol,
    request: Request<Incoming>,
) -> (Response<Body>, Exchange) {
    let state = &link.state;
    let head = match protocol {
        Protocol::Http1 => 0,
        Protocol::Http2 => http2::head_bytes(&request),
    };
    let mut exchange = state.begin(head);
    if protocol == Protocol::Http1 && exchange.came == Came::Before {
        // Sixteen such answers are made before hyper lets others have a turn, and sixty such turns before the
        // runtime looks for what has come on other sockets.
        tokio::task::yield_now().await;
    }
    let objection = match (host_fault(&request), state.kind()) {
        (Some(fault), _) => Some(Objection::Host(fault)),
        (None, PermitKind::Reserve) => Some(Objection::OverLimit),
        (None, PermitKind::Regular) if state.heads() > HEADS => Some(Objection::Heads),
        (None, PermitKind::Regular) => None,
    };
    let (mut request, unread) = UnreadBody::watch(request);
    let peer = link.faults.tells_of(link.peer);
    request.extensions_mut().insert(Listened { peer, objection });
    let mut response = match app.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    match protocol {
        Protocol::Http1 => {
            let is_read = match state.kind() {
                PermitKind::Regular => unread.drained().await,
                // Nobody waits in a place that others need.
                PermitKind::Reserve => unread.is_drained(),
            };
            if !is_read {
                // What is left would be taken for the next request. The socket lingers, so that a caller that
                // is still sending gets to read its answer.
                state.linger();
            }
            if !is_read || state.kind() == PermitKind::Reserve || state.makes_way() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Protocol::Http2 => {
            // The stream asks its caller to stop sending once the answer is on its way.
            drop(unread);
            // It has no such header, and says it in another way.
            response.headers_mut().remove(CONNECTION);
            if state.kind() == PermitKind::Reserve {
                state.close();
            }
        }
    }
    exchange.answered();
    (response, exchange)
}

/// What is wrong with the host that a request names (RFC 9112, section 3.2; RFC 9113, section 8.3.1): whoever reads another one than the
/// server does, a proxy before it for one, takes the request for another one.
fn host_fault<B>(request: &Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let is_http2 = request.version() >= Version::HTTP_2;
    let authority = request.uri().authority().filter(|_| is_http2);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if authority.is_some_and(|authority| authority.as_str().as_bytes() != host) => {
            Some("the Host header names another host than :authority")
        }
        (None, None) if is_http2 && authority.is_none() => {
            Some("the host is missing: there is neither :authority nor a Host header")
        }
        (None, None) if is_http2 => None,
        (_, Some(_)) => Some("the Host header is there more than once"),
        (Some(host), None) if !host.as_bytes().iter().all(is_of_a_host) => {
            Some("the Host header is not a host, or a host and its port")
        }
        (None, None) if request.version() >= Version::HTTP_11 => {
            Some("the Host header is missing, which HTTP/1.1 requires")
        }
        _ => None,
    }
}

/// Whether a host and its port may contain this byte (RFC 3986, section 3.2).
fn is_of_a_host(c: &u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(version: Version, hosts: &[&str]) -> Option<&'static str> {
        let mut request = Request::builder().version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        host_fault(&request.body(()).unwrap())
    }

    #[test]
    fn one_host_is_required_since_http_1_1() {
        for fine in ["", "localhost", "example.org:80", "127.0.0.1:8080", "[::1]:80", "a_b", "ex%41mple"] {
            assert_eq!(fault(Version::HTTP_11, &[fine]), None, "{fine:?}");
        }
        for odd in ["user@host", "a b", "a/b", "a\\b", "a?b", "\"a\"", "a\tb"] {
            assert!(fault(Version::HTTP_11, &[odd]).is_some(), "{odd:?}");
        }
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(fault(version, &["a", "a"]).is_some() && fault(version, &["a", "b", "c"]).is_some());
        }
        assert!(fault(Version::HTTP_11, &[]).is_some());
        assert_eq!(fault(Version::HTTP_10, &[]), None);
    }
}
