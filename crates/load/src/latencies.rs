//! Times, each of which is kept to three digits however long the measurement is.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Times in a histogram of high dynamic range: from 100 ns to an hour, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

const SHORTEST_NS: u64 = 100;
const LONGEST_NS: u64 = 3_600_000_000_000;

impl Latencies {
    pub(super) fn new() -> Self {
        // The bounds are constants that the library takes; its own default would only grow slower.
        Self(
            Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, 3)
                .unwrap_or_else(|_| unreachable!("the bounds are sound")),
        )
    }

    /// Counts one time.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS));
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that the share `quantile`, from 0 to 1, does not exceed; `None` where nothing was counted.
    pub fn at(&self, quantile: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.value_at_quantile(quantile)))
    }

    /// The longest time.
    pub fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.max()))
    }

    /// The mean time.
    pub fn mean(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.mean() as u64))
    }

    /// The share of times up to `limit`, from 0 to 1; `None` where nothing was counted.
    pub fn share_within(&self, limit: Duration) -> Option<f64> {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(LONGEST_NS);
        let within = self.0.iter_recorded().take_while(|step| step.value_iterated_to() <= limit);
        let n: u64 = within.map(|step| step.count_at_value()).sum();
        (!self.0.is_empty()).then(|| n as f64 / self.0.len() as f64)
    }

    /// The whole histogram: upper bound and count of each bucket that is not empty.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.0
            .iter_recorded()
            .map(|step| (Duration::from_nanos(step.value_iterated_to()), step.count_at_value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn times_keep_three_digits() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.at(0.5), latencies.max(), latencies.mean()), (None, None, None));
        for n in 1..=1000 {
            latencies.record(n * MS);
        }
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let ms = latencies.at(quantile).unwrap().as_secs_f64() * 1e3;
            assert!((ms / expected - 1.0).abs() < 1e-3, "{quantile}: {ms}");
        }
        assert_eq!(latencies.buckets().map(|(_, n)| n).sum::<u64>(), 1000);
        assert!((latencies.share_within(250 * MS).unwrap() - 0.25).abs() < 0.002);
        latencies.record(Duration::MAX);
        assert!(latencies.max().unwrap() >= Duration::from_secs(3600));
    }
}
