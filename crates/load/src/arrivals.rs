//! When requests arrive in an open loop: by chance at a rate, or as recorded.
//!
//! Invariant: arrivals never run backwards, and the same seed gives the same arrivals.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use fastrand::Rng;

/// Requests a second: above zero, at most ten million.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

const RATE_EXPECTED: &str = "requests a second, from 0.001 to 10000000";

impl Rate {
    /// Takes a rate in requests a second; `None` where it is out of range.
    pub fn per_second(rate: f64) -> Option<Self> {
        (0.001..=1e7).contains(&rate).then_some(Self(rate))
    }

    /// The rate in requests a second.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.trim().parse().ok().and_then(Self::per_second);
        rate.ok_or_else(|| format!("expected {RATE_EXPECTED}"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// When requests arrive.
#[derive(Debug, Clone)]
pub enum Arrivals {
    /// A Poisson process: many callers who know nothing of each other. Gaps are exponential.
    Poisson { rate: Rate, seed: u64 },
    /// Offsets from the start, in order.
    Recorded(Arc<[Duration]>),
}

impl Arrivals {
    /// Reads recorded arrivals: a line for each, in seconds from the start, none before the one above.
    /// Empty lines and what follows a `#` are skipped. An error names the line.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut offsets: Vec<Duration> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let offset = line.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let Some(offset) = offset else {
                return Err(format!("line {number} is {line:?}; expected seconds from the start, as 0.25"));
            };
            if let Some(last) = offsets.last().filter(|last| offset < **last) {
                let last = last.as_secs_f64();
                return Err(format!(
                    "line {number} is {line}, before the {last} above it; expected rising offsets"
                ));
            }
            offsets.push(offset);
        }
        if offsets.is_empty() {
            return Err(
                "there is no arrival in it; expected a line for each, in seconds from the start".to_owned()
            );
        }
        Ok(Self::Recorded(offsets.into()))
    }

    /// The arrivals as offsets from the start, in order.
    pub fn schedule(&self) -> Schedule {
        match self {
            Self::Poisson { rate, seed } => {
                Schedule(Kind::Poisson { rate: rate.0, rng: Rng::with_seed(*seed), now: 0.0 })
            }
            Self::Recorded(offsets) => Schedule(Kind::Recorded { offsets: Arc::clone(offsets), next: 0 }),
        }
    }

    /// The rate that they have on average; `None` where all come at once.
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Poisson { rate, .. } => Some(rate.0),
            Self::Recorded(offsets) => {
                let last = offsets.last()?.as_secs_f64();
                (last > 0.0).then(|| offsets.len() as f64 / last)
            }
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisson { rate, .. } => write!(f, "Poisson {rate}"),
            Self::Recorded(offsets) => write!(f, "{} recorded", offsets.len()),
        }
    }
}

/// Offsets from the start, one for each arrival. Those of a rate have no end.
#[derive(Debug)]
pub struct Schedule(Kind);

#[derive(Debug)]
enum Kind {
    Poisson { rate: f64, rng: Rng, now: f64 },
    Recorded { offsets: Arc<[Duration]>, next: usize },
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match &mut self.0 {
            Kind::Poisson { rate, rng, now } => {
                // In (0, 1], so its logarithm is finite.
                *now -= (1.0 - rng.f64()).ln() / *rate;
                Duration::try_from_secs_f64(*now).ok()
            }
            Kind::Recorded { offsets, next } => {
                let offset = offsets.get(*next).copied();
                *next += 1;
                offset
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn poisson(rate: f64, seed: u64) -> Schedule {
        Arrivals::Poisson { rate: Rate::per_second(rate).unwrap(), seed }.schedule()
    }

    proptest! {
        #[test]
        fn a_seed_gives_the_same_arrivals_and_they_rise(rate in 0.001f64..1e7, seed in any::<u64>()) {
            let offsets: Vec<Duration> = poisson(rate, seed).take(500).collect();
            prop_assert!(offsets.is_sorted());
            prop_assert_eq!(offsets, poisson(rate, seed).take(500).collect::<Vec<_>>());
        }

        #[test]
        fn gaps_have_the_mean_and_the_spread_of_an_exponential(rate in 1f64..1e4, seed in any::<u64>()) {
            const N: usize = 20_000;
            let offsets: Vec<f64> = poisson(rate, seed).take(N).map(|at| at.as_secs_f64()).collect();
            let gaps: Vec<f64> = offsets.windows(2).map(|pair| (pair[1] - pair[0]) * rate).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            // Six standard errors: of the mean 1/sqrt(N), of the variance sqrt(8/N).
            let root = (N as f64).sqrt();
            prop_assert!((mean - 1.0).abs() < 6.0 / root, "the mean gap is {} of what it should be", mean);
            prop_assert!((variance - 1.0).abs() < 6.0 * 8f64.sqrt() / root, "the variance is {}", variance);
        }
    }

    #[test]
    fn recorded_arrivals_are_read_and_a_wrong_line_is_named() {
        let read = Arrivals::from_text("# from production\n0\n0.25\n\n0.25 # two at once\n1e1\n").unwrap();
        let offsets: Vec<f64> = read.schedule().map(|at| at.as_secs_f64()).collect();
        assert_eq!(offsets, [0.0, 0.25, 0.25, 10.0]);
        assert_eq!(read.rate(), Some(0.4));
        for (text, says) in [
            ("0\nsoon", "line 2 is \"soon\""),
            ("1\n0.5", "line 2 is 0.5, before the 1 above it"),
            ("-1", "line 1"),
            ("NaN", "line 1"),
            ("inf", "line 1"),
            (" # nothing\n", "no arrival"),
        ] {
            let error = Arrivals::from_text(text).unwrap_err();
            assert!(error.contains(says) && error.contains("expected"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_rate_is_a_number_of_requests_a_second() {
        assert_eq!("250.5".parse::<Rate>().map(Rate::get), Ok(250.5));
        for bad in ["0", "-1", "NaN", "inf", "fast", "", "1e9"] {
            assert!(bad.parse::<Rate>().unwrap_err().contains("0.001 to 10000000"), "{bad:?}");
        }
    }
}
