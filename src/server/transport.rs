//! What a connection runs over: TCP today; TLS fits in as a handshake between the two.
//!
//! Invariant: a handshake is part of a connection, not of accepting: a slow one holds up nobody else.

use std::{future::Future, io, net::SocketAddr, os::fd::AsFd};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tracing::debug;

/// Gives connections as they come in.
pub(super) trait Accept: Sync {
    type Connection: Handshake;

    /// Waits for the next connection: what it is before its handshake, and the address of its other end.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, SocketAddr)>> + Send;
}

/// A connection that was accepted and not yet spoken on.
pub(super) trait Handshake: Send + 'static {
    type Stream: Transport;

    /// Agrees with the other end on all below HTTP.
    fn handshake(self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// A stream of bytes both ways.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether the caller has sent what the runtime has not told of yet.
    fn has_unread(&self) -> bool;

    /// The protocol that the handshake agreed on (ALPN); `None` where the first bytes tell.
    fn protocol(&self) -> Option<Protocol> {
        None
    }
}

/// The protocol on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Accept for TcpListener {
    type Connection = TcpStream;

    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send {
        TcpListener::accept(self)
    }
}

impl Handshake for TcpStream {
    type Stream = Self;

    async fn handshake(self) -> io::Result<Self> {
        // Answers are small and written whole: waiting for more to send could only delay them.
        if let Err(error) = self.set_nodelay(true) {
            debug!(%error, "a connection without TCP_NODELAY");
        }
        Ok(self)
    }
}

impl Transport for TcpStream {
    fn has_unread(&self) -> bool {
        let looked = self.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
        looked.and_then(|stream| stream.peek(&mut [0])).is_ok_and(|n| n > 0)
    }
}
