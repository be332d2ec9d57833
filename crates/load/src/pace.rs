//! Waiting until a moment, to the tenth of a millisecond.
//!
//! The runtime's own timers tick in whole milliseconds and round up, which would add up to one to every
//! latency of an open loop. The kernel's timer (timerfd) is a file that becomes readable in time, so that
//! waiting costs no CPU either, as spinning would, on cores that belong to the server.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// Shorter waits are this long: arrivals that are closer together share a wake-up. It shows in the lag.
const SHORTEST: Duration = Duration::from_micros(50);

/// A timer that one task waits for. The runtime knows it as the reading end of a pipe: what it does with
/// one, waiting until it is readable and reading bytes, is all that a timer takes, and its way for files
/// of any kind (`AsyncFd`) needs `unsafe`.
pub(super) struct Pacer(Receiver);

impl Pacer {
    /// Makes a timer. Needs a runtime with I/O.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Waits until `due`, at once if that is over. May be dropped half way and used again.
    pub(super) async fn until(&mut self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let left = left.max(SHORTEST);
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        // This also takes back what an earlier wait left unread.
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn it_waits_until_then_and_not_for_what_is_over() {
        let mut pacer = Pacer::new().unwrap();
        pacer.until(Instant::now()).await.unwrap();
        for _ in 0..3 {
            let due = Instant::now() + Duration::from_millis(2);
            pacer.until(due).await.unwrap();
            assert!(Instant::now() >= due, "it came back too early");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_wait_that_was_dropped_leaves_nothing_to_the_next() {
        let mut pacer = Pacer::new().unwrap();
        let soon = Instant::now() + Duration::from_millis(1);
        {
            let mut wait = std::pin::pin!(pacer.until(soon));
            let once = std::future::poll_fn(|cx| {
                let _pending = wait.as_mut().poll(cx);
                std::task::Poll::Ready(())
            });
            once.await;
        }
        while Instant::now() < soon {
            tokio::task::yield_now().await;
        }
        let due = Instant::now() + Duration::from_millis(3);
        pacer.until(due).await.unwrap();
        assert!(Instant::now() >= due, "the wait that was dropped woke this one");
    }
}
