//! What goes wrong below the routes: heads that cannot be read, callers that stall, connections without a place.
//!
//! Invariant: each is counted; lines of log about them are few, whatever callers do, and say how many were left
//! out.

use std::{
    error::Error as _,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, error, info};

use super::state::{ConnectionState, Phase};
use crate::{
    config::LogPeer,
    metrics::{Metrics, OpenConnection},
};

/// Lines that may be written at once, and how long it takes until one more may.
const LINES: u32 = 20;
const LINE: Duration = Duration::from_millis(100);

/// Why a request was refused before its route was known, or a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The head is not HTTP/1.
    Malformed,
    /// The caller began as HTTP/2 does, and broke its rules.
    Http2,
    /// The caller began requests and reset them, more often than it let them be answered.
    ResetFlood,
    UriTooLong,
    HeadTooLarge,
    /// The head did not arrive in time.
    HeadTimeout,
    /// The caller took no byte of its answer in time.
    AnswerTimeout,
    /// The connection was idle, and its place was needed.
    MadeWay,
    /// There was no place, and nobody to make way.
    NoPlace,
}

impl Fault {
    /// What a connection's error comes down to; `None` where the caller has simply gone.
    pub(super) fn of(error: &hyper::Error, state: &ConnectionState) -> Option<Self> {
        if error.is_parse_too_large() {
            // hyper tells the two apart by its answer and by its words only.
            let is_uri = error.to_string().contains("URI");
            return Some(if is_uri { Self::UriTooLong } else { Self::HeadTooLarge });
        }
        let cause = error.source();
        if let Some(broken) = cause.and_then(|source| source.downcast_ref::<h2::Error>()) {
            return match broken.reason() {
                _ if state.timed_out() => Some(Self::AnswerTimeout),
                // What the caller itself ended, or the network.
                _ if !broken.is_library() => None,
                Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Self::ResetFlood),
                _ => Some(Self::Http2),
            };
        }
        if error.is_parse() {
            return Some(Self::Malformed);
        }
        let cause = cause.and_then(|source| source.downcast_ref::<io::Error>());
        if cause.is_none_or(|cause| cause.kind() != io::ErrorKind::TimedOut) {
            return None;
        }
        match state.phase() {
            Phase::Head => Some(Self::HeadTimeout),
            _ => Some(Self::AnswerTimeout),
        }
    }

    /// The stable name.
    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed-head",
            Self::Http2 => "http-2",
            Self::ResetFlood => "reset-flood",
            Self::UriTooLong => "uri-too-long",
            Self::HeadTooLarge => "head-too-large",
            Self::HeadTimeout => "head-timeout",
            Self::AnswerTimeout => "answer-timeout",
            Self::MadeWay => "made-way",
            Self::NoPlace => "no-place",
        }
    }

    /// The status that was answered, where something was.
    fn status(self) -> Option<u16> {
        match self {
            Self::Malformed => Some(400),
            Self::UriTooLong => Some(414),
            Self::HeadTooLarge => Some(431),
            Self::Http2
            | Self::ResetFlood
            | Self::HeadTimeout
            | Self::AnswerTimeout
            | Self::MadeWay
            | Self::NoPlace => None,
        }
    }
}

/// Counts and logs faults.
pub(super) struct Faults {
    metrics: Arc<Metrics>,
    peer: LogPeer,
    lines: Mutex<Lines>,
}

impl Faults {
    pub(super) fn new(metrics: Arc<Metrics>, peer: LogPeer) -> Self {
        Self { metrics, peer, lines: Mutex::default() }
    }

    /// Counts a connection as open until what it gives is dropped.
    pub(super) fn opened(&self) -> OpenConnection {
        self.metrics.connection()
    }

    /// The address, where the log is to have it.
    pub(super) fn tells_of(&self, peer: SocketAddr) -> Option<SocketAddr> {
        match self.peer {
            LogPeer::Address => Some(peer),
            LogPeer::None => None,
        }
    }

    /// Counts a fault, and logs it where lines are not too many.
    pub(super) fn note(&self, fault: Fault, peer: Option<SocketAddr>) {
        let (fault, status) = (fault.name(), fault.status());
        self.metrics.connection_fault(fault, status);
        let Some(left_out) = self.line() else { return };
        let peer = peer.and_then(|peer| self.tells_of(peer)).map(tracing::field::display);
        match status {
            Some(status) => info!(peer, status, fault, left_out, "refused before its route"),
            None => info!(peer, fault, left_out, "a connection was ended"),
        }
    }

    /// Counts and logs that no connection could be accepted.
    pub(super) fn accept_failed(&self, error: &io::Error) {
        self.metrics.connection_fault("accept", None);
        match self.line() {
            Some(left_out) => error!(%error, left_out, "cannot accept connections"),
            None => debug!(%error, "cannot accept connections"),
        }
    }

    fn line(&self) -> Option<u64> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now())
    }
}

/// How many lines there may be.
#[derive(Debug, Default)]
struct Lines {
    /// From when on as many lines may be written as there were intervals.
    since: Option<Instant>,
    left_out: u64,
}

impl Lines {
    /// Admits a line, and tells how many were left out since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let since = self.since.max(now.checked_sub(LINE * LINES)).unwrap_or(now);
        if self.since.is_some() && now.saturating_duration_since(since) < LINE {
            self.left_out += 1;
            return None;
        }
        self.since = Some(since + LINE);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_few_lines_which_say_how_many_there_were() {
        let (mut lines, epoch) = (Lines::default(), Instant::now() + Duration::from_secs(60));
        let mut at = |ms: u64| lines.admit(epoch + Duration::from_millis(ms));
        assert!((0..LINES.into()).all(|ms| at(ms) == Some(0)));
        let (mut n_lines, mut n_told) = (0, 0);
        for ms in 100..10_100 {
            let Some(left_out) = at(ms) else { continue };
            n_lines += 1;
            n_told += left_out + 1;
        }
        assert!((95..=105).contains(&n_lines), "{n_lines}");
        assert!((9_800..=10_000).contains(&n_told), "{n_told}");
    }
}
