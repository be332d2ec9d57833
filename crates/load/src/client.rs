//! One kept-alive connection that asks one thing at a time.
//!
//! Invariant: a connection is used again only where the last answer was read to its end and nothing
//! followed it.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    answer::{Head, Keep, LONGEST_HEAD, Malformed, Method, Reading},
    target::Target,
};

/// Bytes read at once. Answers of a server of networks fit in.
const BUFFER: usize = 16 << 10;

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The server did not take a connection.
    Connect(io::ErrorKind),
    /// The server closed the connection before the answer was whole.
    Closed,
    /// The connection broke.
    Broken(io::ErrorKind),
    /// The answer was not there in time.
    TimedOut,
    /// What came is no HTTP/1.1; the text says why.
    Malformed(&'static str),
}

impl Fault {
    /// The kind of fault in one word, for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::TimedOut => "timed_out",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(kind) => write!(f, "no connection: {kind}"),
            Self::Closed => f.write_str("closed before the answer was whole"),
            Self::Broken(kind) => write!(f, "the connection broke: {kind}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Malformed(why) => write!(f, "no HTTP/1.1: {why}"),
        }
    }
}

/// Sends the first request of `target` on a connection of its own, and returns the status of the answer. An answer
/// that is not whole after `timeout` is a fault.
pub async fn status(target: &Target, timeout: Duration) -> Result<u16, Fault> {
    let ask = async {
        let opened = Connection::open(target.address).await;
        let mut connection = opened.map_err(|error| Fault::Connect(error.kind()))?;
        let request = target.requests.first().map(Bytes::as_ref).unwrap_or_default();
        Ok(connection.exchange(request, target.method).await?.status)
    };
    tokio::time::timeout(timeout, ask).await.unwrap_or(Err(Fault::TimedOut))
}

/// An answer, its body thrown away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<u64>,
    /// Bytes of head and body.
    pub(super) received: u64,
    /// Whether the connection can be used again.
    pub(super) connection: Keep,
}

/// An open connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER], filled: 0 })
    }

    /// Whether the server has left, or said something that nobody asked for. Costs no system call while
    /// it has not.
    pub(super) fn is_stale(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads its answer. A server may answer before it has read all.
    pub(super) async fn exchange(&mut self, request: &[u8], method: Method) -> Result<Answer, Fault> {
        self.filled = 0;
        let mut turn = Turn { unsent: request, reading: Reading::new(method), received: 0, broken: None };
        poll_fn(|cx| self.poll(cx, &mut turn)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<Result<Answer, Fault>> {
        while !turn.unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, turn.unsent) {
                Poll::Ready(Ok(sent)) => turn.unsent = turn.unsent.get(sent..).unwrap_or_default(),
                Poll::Ready(Err(error)) => {
                    // The answer that says why may already be here.
                    turn.broken = Some(error.kind());
                    break;
                }
                Poll::Pending => break,
            }
        }
        loop {
            if self.filled == self.buffer.len() {
                // Only a head is kept, and `Reading` refuses one that is longer than this.
                self.buffer.resize(LONGEST_HEAD, 0);
            }
            let mut room = ReadBuf::new(self.buffer.get_mut(self.filled..).unwrap_or_default());
            match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(turn.fault(error.kind()))),
                Poll::Ready(Ok(())) => {}
            }
            let n_read = room.filled().len();
            if n_read == 0 {
                return Poll::Ready(turn.end());
            }
            self.filled += n_read;
            turn.received += n_read as u64;
            match self.take(turn) {
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(Fault::Malformed(why))),
            }
        }
    }

    /// Reads what is in the buffer and keeps what has to be shown again.
    fn take(&mut self, turn: &mut Turn<'_>) -> Result<Option<Answer>, Malformed> {
        let taken = turn.reading.take(self.buffer.get(..self.filled).unwrap_or_default())?;
        if taken == self.filled {
            self.filled = 0;
        } else if taken > 0 {
            self.buffer.copy_within(taken..self.filled, 0);
            self.filled -= taken;
        }
        let whole = turn.unsent.is_empty() && self.filled == 0;
        Ok(turn.reading.finished().map(|head| {
            let connection = if whole { head.connection } else { Keep::Closed };
            turn.answer(Head { connection, ..head })
        }))
    }
}

/// A request on its way and its answer.
struct Turn<'r> {
    unsent: &'r [u8],
    reading: Reading,
    received: u64,
    /// Why the request could not be sent whole.
    broken: Option<io::ErrorKind>,
}

impl Turn<'_> {
    fn answer(&self, head: Head) -> Answer {
        let Head { status, retry_after, connection } = head;
        Answer { status, retry_after, received: self.received, connection }
    }

    /// What the end of the connection makes of it.
    fn end(&self) -> Result<Answer, Fault> {
        let head = self.reading.ended().map(|head| Head { connection: Keep::Closed, ..head });
        head.map(|head| self.answer(head)).ok_or(self.broken.map_or(Fault::Closed, broken))
    }

    fn fault(&self, kind: io::ErrorKind) -> Fault {
        broken(self.broken.unwrap_or(kind))
    }
}

/// A connection that the other side ended is closed, whether politely or not.
fn broken(kind: io::ErrorKind) -> Fault {
    match kind {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            Fault::Closed
        }
        kind => Fault::Broken(kind),
    }
}
