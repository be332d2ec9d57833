//! One connection, from its first byte to its last.
//!
//! Invariant: what is wrong with a head is answered here or marked for whoever answers, counted and logged; an
//! answer is made for one request at a time, and whoever sends many at once waits for others in between.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    http::{
        HeaderValue, Request, Response, Version,
        header::{CONNECTION, HOST},
    },
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::watch};
use tracing::debug;

use super::{
    App, Closing,
    faults::{Fault, Faults},
    leftover::Leftover,
    socket::{Patience, Socket},
    turn::{Came, SeatKind, Turn},
};
use crate::http::{Listened, Objection};

/// Bytes that a connection buffers, and so the longest head of a request.
const BUFFER: usize = 64 << 10;

/// One end of a connection.
pub(super) struct Link {
    pub(super) peer: SocketAddr,
    pub(super) turn: Arc<Turn>,
    pub(super) patience: Patience,
    pub(super) faults: Arc<Faults>,
}

/// Serves one connection to its end.
pub(super) async fn converse(
    stream: TcpStream,
    app: impl App,
    link: Link,
    mut closing: watch::Receiver<Closing>,
) {
    let Link { peer, turn, patience, faults } = link;
    // Answers are small and written whole: waiting for more to send could only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection without TCP_NODELAY");
    }
    let socket = Socket::new(stream, patience, turn.clone());
    let told = faults.tells_of(peer);
    let service = service_fn(|request| answer(app.clone(), turn.clone(), told, request));
    let mut builder = http1::Builder::new();
    // The socket keeps time itself: hyper's own timeout cannot tell a slow head from an idle connection.
    builder.header_read_timeout(None).max_buf_size(BUFFER);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut asked_to_close = std::pin::pin!(async {
        // An error says that the sender is gone, which asks for the same.
        let _ = closing.wait_for(|closing| *closing == Closing::Yes).await;
    });
    let mut closes = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = asked_to_close.as_mut(), if !closes => {
                closes = true;
                connection.as_mut().graceful_shutdown();
            }
            // The socket looks whether it can end now.
            () = turn.asked_to_make_way() => {}
        }
    };
    if let Err(error) = ended {
        match Fault::of(&error, &turn) {
            Some(fault) => faults.note(fault, Some(peer)),
            None => debug!(%error, "a connection broke"),
        }
    }
}

/// Answers one request, and sees to what the router left unread of its body.
async fn answer(
    mut app: impl App,
    turn: Arc<Turn>,
    peer: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if turn.begin() == Came::Before {
        // Sixteen such answers are made before hyper lets others have a turn, and sixty such turns before the
        // runtime looks for what has come on other sockets.
        tokio::task::yield_now().await;
    }
    let objection = match (host_fault(&request), turn.kind()) {
        (Some(fault), _) => Some(Objection::Host(fault)),
        (None, SeatKind::Reserve) => Some(Objection::Crowded),
        (None, SeatKind::Regular) => None,
    };
    let (mut request, leftover) = Leftover::watch(request);
    request.extensions_mut().insert(Listened { peer, objection });
    let mut response = app.call(request).await?;
    let is_read = match turn.kind() {
        SeatKind::Regular => leftover.drained().await,
        // Nobody waits in a place that others need.
        SeatKind::Reserve => leftover.is_drained(),
    };
    if !is_read {
        // What is left would be taken for the next request. The socket lingers, so that a caller that
        // is still sending gets to read its answer.
        turn.linger();
    }
    if !is_read || turn.kind() == SeatKind::Reserve || turn.makes_way() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    turn.end();
    Ok(response)
}

/// What is wrong with the Host header of a request (RFC 9112, section 3.2): whoever reads another one than the
/// server does, a proxy before it for one, takes the request for another one.
fn host_fault<B>(request: &Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
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
