//! A socket that knows how long to wait, and how to close.
//!
//! Invariant: no wait on a caller is without end. Between requests, within a request's head and
//! within an answer each wait has its own limit; a body's is the handler's, which can still answer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    state::{ConnectionState, Phase},
    transport::{Protocol, Transport},
};

/// The longest waits on a caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the first byte of a request's head to its last; also for the first byte of all.
    pub(super) head: Duration,
    /// From one request to the next.
    pub(super) keep_alive: Duration,
    /// For the caller to take a byte of its answer.
    pub(super) write: Duration,
    /// For a caller that is still sending when its answer is made, after which the connection closes.
    pub(super) linger: Duration,
}

impl Timeouts {
    /// The same, and nothing longer than that.
    pub(super) fn at_most(self, longest: Duration) -> Self {
        Self {
            head: self.head.min(longest),
            keep_alive: self.keep_alive.min(longest),
            write: self.write.min(longest),
            linger: self.linger.min(longest),
        }
    }
}

/// How many bytes a closing socket reads on for a caller that is still sending. Closing with bytes unread resets
/// the connection, and a reset takes the answer with it (RFC 9112, section 9.6).
const LINGER_BYTES: usize = 64 << 20;

/// A caller's socket, over any transport.
pub(super) struct Socket<S> {
    stream: S,
    /// The protocol on it: until the first bytes tell, as if it were HTTP/1.1.
    protocol: Protocol,
    /// Bytes that were read to tell the protocol, in reverse.
    rewound: Vec<u8>,
    timeouts: Timeouts,
    state: Arc<ConnectionState>,
    /// What it waits for when it reads: `Answer` where that is a body, or nothing.
    awaits: Phase,
    seen: u64,
    /// When an answer was made that has not all been written yet.
    answered: Option<Instant>,
    read_timer: Pin<Box<Sleep>>,
    /// Runs while the caller takes no byte.
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Once the socket is closing: until when it reads on, and how many bytes.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S: Transport> Socket<S> {
    pub(super) fn new(stream: S, timeouts: Timeouts, state: Arc<ConnectionState>) -> Self {
        Self {
            stream,
            protocol: Protocol::Http1,
            rewound: Vec::new(),
            timeouts,
            state,
            awaits: Phase::First,
            seen: 0,
            answered: None,
            read_timer: Box::pin(sleep(timeouts.head)),
            write_timer: None,
            lingering: None,
        }
    }

    /// The protocol that the transport has agreed on.
    pub(super) fn agreed(&self) -> Option<Protocol> {
        self.stream.protocol()
    }

    /// Has `bytes`, which were read, read again, by a protocol that is known now.
    pub(super) fn speak(&mut self, protocol: Protocol, bytes: &[u8]) {
        self.protocol = protocol;
        self.rewound = bytes.iter().rev().copied().collect();
        if protocol == Protocol::Http2 {
            // What comes now belongs to the connection: only requests count, and the wait for them.
            let now = Instant::now();
            self.awaits = Phase::Next;
            self.state.enter(Phase::Next, now.into_std());
            self.read_timer.as_mut().reset(now + self.timeouts.keep_alive);
        }
    }

    /// Notes that bytes went either way, where the end of a connection depends on it.
    fn moved(&self) {
        if self.protocol == Protocol::Http2 {
            self.state.moved(Instant::now().into_std());
        }
    }

    /// Ends a wait on the caller.
    fn timed_out<T>(&self) -> Poll<io::Result<T>> {
        self.state.time_out();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Follows the service: a request has begun or ended since the last look.
    fn follow_state(&mut self) {
        let count = self.state.count();
        if count == self.seen {
            return;
        }
        self.seen = count;
        if self.state.n_open() > 0 {
            self.awaits = Phase::Answer;
        } else {
            let now = Instant::now();
            self.awaits = Phase::Next;
            match self.protocol {
                Protocol::Http1 => self.answered = Some(now),
                Protocol::Http2 => self.state.enter(Phase::Next, now.into_std()),
            }
            self.read_timer.as_mut().reset(now + self.timeouts.keep_alive);
        }
    }

    fn poll_written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.moved();
            if self.write_timer.take().is_some() {
                self.state.enter(self.awaits, Instant::now().into_std());
            }
            self.follow_state();
            if self.awaits == Phase::Next {
                // Nothing reads again until the caller sends, so it is here that the wait for it has to
                // start. Once it is over the timer wakes the connection, whose read then ends it.
                let _ = self.read_timer.as_mut().poll(context);
            }
            return written;
        }
        if self.write_timer.is_none() {
            self.state.enter(Phase::Stalled, Instant::now().into_std());
        } else if self.state.makes_way() {
            return self.timed_out();
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(self.timeouts.write)));
        ready!(timer.as_mut().poll(context));
        self.timed_out()
    }
}

impl<S: Transport> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.follow_state();
        if !self.rewound.is_empty() {
            while buf.remaining() > 0
                && let Some(byte) = self.rewound.pop()
            {
                buf.put_slice(&[byte]);
            }
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buf) {
            if buf.filled().len() > filled {
                self.state.feed();
                self.moved();
                if self.protocol == Protocol::Http1 && matches!(self.awaits, Phase::First | Phase::Next) {
                    let now = Instant::now();
                    self.awaits = Phase::Head;
                    self.state.enter(Phase::Head, now.into_std());
                    let until = now + self.timeouts.head;
                    self.read_timer.as_mut().reset(until);
                }
            }
            return Poll::Ready(read);
        }
        if self.awaits == Phase::Answer {
            return Poll::Pending;
        }
        if self.protocol == Protocol::Http2 {
            // The connection says that it ends, so that no request meets it closing.
            ready!(self.read_timer.as_mut().poll(context));
            self.state.close();
            return Poll::Pending;
        }
        // A request that is on the wire already is answered first.
        let makes_way = self.state.makes_way() && !self.stream.has_unread();
        if !makes_way {
            ready!(self.read_timer.as_mut().poll(context));
        }
        match self.awaits {
            // As if the caller had closed: an idle connection ends without an error.
            Phase::First | Phase::Next => Poll::Ready(Ok(())),
            _ => self.timed_out(),
        }
    }
}

impl<S: Transport> AsyncWrite for Socket<S> {
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
        // Everything has been written: nobody waits on this connection but for its caller.
        if let Some(answered) = self.answered.take() {
            self.state.enter(Phase::Next, answered.into_std());
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes this side, then reads on for a caller that is still sending, so that it gets to read its
    /// answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            // A head that could not be read is answered, and what follows it is still coming.
            if !this.state.lingers() && this.awaits != Phase::Head {
                return Poll::Ready(Ok(()));
            }
        }
        let (timer, bytes) = this.lingering.get_or_insert_with(|| {
            this.state.enter(Phase::Lingering, Instant::now().into_std());
            (Box::pin(sleep(this.timeouts.linger)), LINGER_BYTES)
        });
        if this.state.makes_way() {
            return Poll::Ready(Ok(()));
        }
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
