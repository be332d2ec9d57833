//! When the next row of a shape is expected, as rows have come lately and as waiting for one went.
//!
//! Invariant: plain data, with no clock of its own.
//!
//! How often rows come says little of how often one comes while another waits: a caller who asks for one
//! answer after the other sends nothing while they wait. So each wait in vain doubles the number of rows
//! that run without any (truncated binary exponential backoff, Metcalfe and Boggs 1976), and company that
//! came ends the doubt.

use std::time::{Duration, Instant};

use crate::policy::Arriving;

/// Weight of the newest time between two arrivals in the mean.
const NEWEST: f64 = 0.2;

/// No pause counts as more than so many times the mean: one between two bursts says nothing of the pace
/// within them.
const PAUSE: u32 = 4;

/// The first one counts as no more than this, so that the mean of a stream that begins is soon found.
const FIRST: Duration = Duration::from_secs(10);

/// Most rows that run without a wait after one in vain.
const MOST_DOUBT: u32 = 64;

/// How the rows of one shape come.
#[derive(Debug, Default)]
pub struct ArrivalRate {
    last: Option<Instant>,
    /// Mean time between two of them, where two have come.
    gap: Option<Duration>,
    /// Rows that run without a wait after the last wait in vain, and those of them that are still to come.
    doubt: u32,
    doubted: u32,
}

impl ArrivalRate {
    /// Records a row. Those of one moment are of one request, and count as one.
    pub fn came(&mut self, at: Instant) {
        let Some(last) = self.last else {
            self.last = Some(at);
            return;
        };
        let gap = at.saturating_duration_since(last);
        if gap.is_zero() {
            return;
        }
        self.last = Some(at);
        self.doubted = self.doubted.saturating_sub(1);
        self.gap = Some(match self.gap {
            None => gap.min(FIRST),
            Some(mean) => mean.mul_f64(1.0 - NEWEST) + gap.min(mean * PAUSE).mul_f64(NEWEST),
        });
    }

    /// Records a run: the first of its rows `waited`, and of those that waited with it there were `others`.
    pub fn ran(&mut self, waited: Duration, others: usize) {
        if others > 0 {
            (self.doubt, self.doubted) = (0, 0);
        } else if self.expected().is_some_and(|next| waited >= next.gap) {
            self.doubt = (self.doubt * 2).clamp(1, MOST_DOUBT);
            self.doubted = self.doubt;
        }
    }

    /// How rows come, where more are expected at all.
    pub fn expected(&self) -> Option<Arriving> {
        let (last, gap) = self.last.zip(self.gap)?;
        (self.doubted == 0).then_some(Arriving { last, gap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_is_expected_before_two_have_come() {
        let (mut arrivals, epoch) = (ArrivalRate::default(), Instant::now());
        assert_eq!(arrivals.expected(), None);
        arrivals.came(epoch);
        arrivals.came(epoch);
        assert_eq!(arrivals.expected(), None, "two rows of one request are no pace");
        arrivals.came(epoch + 5 * MS);
        assert_eq!(arrivals.expected(), Some(Arriving { last: epoch + 5 * MS, gap: 5 * MS }));
    }

    #[test]
    fn a_pause_says_little_of_the_pace_and_a_new_pace_is_soon_learnt() {
        let mut arrivals = ArrivalRate::default();
        let mut now = Instant::now();
        let mut come = |arrivals: &mut ArrivalRate, after: Duration, times: usize| {
            for _ in 0..times {
                now += after;
                arrivals.came(now);
            }
            arrivals.expected().unwrap().gap
        };
        assert_eq!(come(&mut arrivals, 5 * MS, 9).as_millis(), 5);
        assert!(come(&mut arrivals, Duration::from_secs(3600), 1) <= 8 * MS, "an hour in which nobody came");
        assert!(come(&mut arrivals, 500 * MS, 30) > 450 * MS);
        assert!(come(&mut arrivals, 5 * MS, 30) < 7 * MS);
    }

    #[test]
    fn each_wait_in_vain_halves_how_often_one_waits_until_others_come() {
        let mut arrivals = ArrivalRate::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for row in 0..200 {
            now += 100 * MS;
            arrivals.came(now);
            if arrivals.expected().is_some() {
                waits.push(row);
                arrivals.ran(300 * MS, 0);
            } else {
                arrivals.ran(Duration::ZERO, 0);
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 192]);
        arrivals.ran(MS, 1);
        assert!(arrivals.expected().is_some(), "somebody came");
        arrivals.ran(99 * MS, 0);
        assert!(arrivals.expected().is_some(), "nobody was due to come so soon");
    }
}
