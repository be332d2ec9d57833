//! A socket that knows how long to wait, and how to close.
//!
//! Invariant: no wait on a caller is without end. Between requests, within a request's head and
//! within an answer each wait has its own limit; a body's is the handler's, which can still answer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// The longest waits on a caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a request's head to its last; also for the first byte of all.
    pub(super) head: Duration,
    /// From one request to the next.
    pub(super) keep_alive: Duration,
    /// For the caller to take a byte of its answer.
    pub(super) write: Duration,
}

/// How long a closing socket reads on for a caller that is still sending, and how much. Closing with
/// bytes unread resets the connection, and a reset takes the answer with it (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(10);
const LINGER_BYTES: usize = 64 << 20;

/// Whose turn it is to speak, shared by a connection's socket and its service.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Odd while a request is being answered.
    count: AtomicU64,
    linger: AtomicBool,
}

impl Turn {
    /// A request's head has been read.
    pub(super) fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is made.
    pub(super) fn end(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Some of a request's body will never be read.
    pub(super) fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }
}

/// What the socket waits for when it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// The first byte of the first request.
    First,
    /// The first byte of the next request.
    Next,
    /// The rest of a request's head.
    Head,
    /// A body, or nothing: a request is being answered.
    Answer,
}

/// A caller's socket.
pub(super) struct Socket {
    stream: TcpStream,
    patience: Patience,
    turn: Arc<Turn>,
    awaits: Awaits,
    seen: u64,
    read_timer: Pin<Box<Sleep>>,
    /// Runs while the caller takes no byte.
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Once the socket is closing: until when it reads on, and how many bytes.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, patience: Patience, turn: Arc<Turn>) -> Self {
        Self {
            stream,
            patience,
            turn,
            awaits: Awaits::First,
            seen: 0,
            read_timer: Box::pin(sleep(patience.head)),
            write_timer: None,
            lingering: None,
        }
    }

    /// Follows the service: a request has begun or ended since the last look.
    fn follow_turn(&mut self) {
        let count = self.turn.count.load(Ordering::Relaxed);
        if count == self.seen {
            return;
        }
        self.seen = count;
        if count % 2 == 1 {
            self.awaits = Awaits::Answer;
        } else {
            self.awaits = Awaits::Next;
            self.read_timer.as_mut().reset(Instant::now() + self.patience.keep_alive);
        }
    }

    fn poll_written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write_timer = None;
            self.follow_turn();
            if self.awaits == Awaits::Next {
                // Nothing reads again until the caller sends, so it is here that the wait for it has to
                // start. Once it is over the timer wakes the connection, whose read then ends it.
                let _ = self.read_timer.as_mut().poll(context);
            }
            return written;
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(self.patience.write)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.follow_turn();
        let filled = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buf) {
            if buf.filled().len() > filled && matches!(self.awaits, Awaits::First | Awaits::Next) {
                self.awaits = Awaits::Head;
                let until = Instant::now() + self.patience.head;
                self.read_timer.as_mut().reset(until);
            }
            return Poll::Ready(read);
        }
        if self.awaits == Awaits::Answer {
            return Poll::Pending;
        }
        ready!(self.read_timer.as_mut().poll(context));
        match self.awaits {
            // As if the caller had closed: an idle connection ends without an error.
            Awaits::First | Awaits::Next => Poll::Ready(Ok(())),
            Awaits::Head | Awaits::Answer => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buf);
        self.poll_written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.poll_written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes this side, then reads on for a caller that is still sending, so that it gets to read its
    /// answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.turn.linger.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let (timer, bytes) = this.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        if timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 16 << 10];
        while *bytes > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut buf))?;
            match buf.filled().len() {
                0 => return Poll::Ready(Ok(())),
                n => *bytes = bytes.saturating_sub(n),
            }
        }
        Poll::Ready(Ok(()))
    }
}
