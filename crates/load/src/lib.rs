//! A load generator for any server that speaks HTTP/1.1: what is sent when, and what came of it.
//!
//! Invariant: every request that the plan intends is accounted for exactly once, and its latency counts
//! from the time at which it was intended to be sent, not from when there was a connection free for it.
//! A generator that waits for a slow server before it asks again measures only the server's good moments
//! (Gil Tene calls this coordinated omission); this one does so only where the load is closed, as asked.
//!
//! It shares the machine with the server that it measures, so it is lean: one timer, one write and one
//! read for a request, and nothing allocated between them.

mod answer;
mod arrivals;
mod client;
mod desk;
mod latencies;
mod pace;
pub mod report;
mod run;
mod stats;
mod steady;
mod target;
mod watch;
mod window;

use std::{io, net::SocketAddr, num::NonZeroUsize, time::Duration};

pub use self::{
    arrivals::{Arrivals, Rate, Schedule},
    client::{Fault, status},
    latencies::Latencies,
    run::run,
    stats::{Completions, Progress, RetryAfter, Slice, Tally},
    steady::Steadiness,
    target::{Ask, Body, Order, Target, Url, bodies},
};

/// One measurement: what is asked, how often, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to and what.
    pub target: Target,
    /// When.
    pub load: Load,
    /// What comes before the measurement and is not counted.
    pub warm_up: WarmUp,
    /// How long is measured; without it until the recorded arrivals end.
    pub duration: Option<Duration>,
    /// An answer is good if it is a 2xx within this time of the intended one. It only judges: what the
    /// server is told stands in [`Ask::deadline`].
    pub deadline: Option<Duration>,
    /// Longest wait for an answer, from the time when its request was sent.
    pub timeout: Duration,
}

/// When requests are sent.
#[derive(Debug, Clone)]
pub enum Load {
    /// So many callers, each of which asks again as soon as it is answered: what is offered depends on
    /// how fast the server is.
    Closed(NonZeroUsize),
    /// Requests arrive whatever the server does.
    Open {
        arrivals: Arrivals,
        /// Connections are opened as requests need them, up to so many. Where all are busy, a request
        /// waits in the generator, and its latency runs.
        most_connections: NonZeroUsize,
    },
}

/// What comes before the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmUp {
    /// A fixed time.
    For(Duration),
    /// Until latency and throughput are steady, but no longer than this.
    UntilSteady { at_most: Duration },
}

/// What a measurement found.
#[derive(Debug)]
pub struct Outcome {
    /// The load as in `8 connections` or `Poisson 500/s`.
    pub load: String,
    /// Requests a second that were meant to arrive, where the load is open and of a known rate.
    pub offered: Option<f64>,
    /// How long the warm-up took.
    pub warm_up: Duration,
    /// How long was measured.
    pub window: Duration,
    /// What came of each request.
    pub tally: Tally,
    /// The measured time in slices of [`Slice::LENGTH`].
    pub slices: Vec<Slice>,
    /// Whether the server had settled.
    pub steadiness: Steadiness,
    /// CPU time that this process used in the measured time, its own server's included if it has one.
    pub cpu: Duration,
    /// Connections opened since the start, and the most callers at once.
    pub connections_opened: u64,
    pub callers: usize,
    /// Why it ended.
    pub end: End,
}

/// Why a measurement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The time was over.
    Complete,
    /// All recorded arrivals were sent and answered.
    Exhausted,
    /// Somebody stopped it; what was measured until then holds.
    Interrupted,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No server takes connections there.
    #[error("cannot connect to {address}: {source}; is the server running?")]
    Unreachable { address: SocketAddr, source: io::Error },
    /// The kernel gives no timer.
    #[error("cannot make a timer")]
    Timer(#[source] io::Error),
    /// The plan has no end of its own.
    #[error("the plan has neither a duration nor recorded arrivals, so it would never end")]
    Endless,
}
