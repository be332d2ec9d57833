//! What rows of a model cost, measured as they run.
//!
//! Invariant: the table holds measurements only. Where nothing was measured it says nothing.

use std::{collections::BTreeMap, time::Duration};

/// Weight of the newest measurement. A dozen runs forget a noisy neighbour.
const NEWEST: f64 = 0.2;

/// Measured cost of runs of one batch size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Rows per run.
    pub rows: usize,
    /// Mean CPU time per row, in seconds: preparing, running and answering.
    pub seconds_per_row: f64,
    /// Runs seen.
    pub runs: u64,
}

/// Exponentially weighted means of the CPU time per row, by batch size and over all.
#[derive(Debug, Default)]
pub(super) struct CostTable {
    by_rows: BTreeMap<usize, Measured>,
    per_row: Option<f64>,
}

impl CostTable {
    /// Takes in a run: how many rows, and the CPU time of all of them together.
    pub(super) fn learn(&mut self, rows: usize, cpu: Duration) {
        if rows == 0 {
            return;
        }
        let sample = cpu.as_secs_f64() / rows as f64;
        self.per_row = Some(blend(self.per_row, sample));
        let entry = self.by_rows.entry(rows).or_insert(Measured { rows, seconds_per_row: sample, runs: 0 });
        entry.seconds_per_row = blend(Some(entry.seconds_per_row), sample);
        entry.runs += 1;
    }

    /// The mean CPU time of one row, over all batch sizes as they came; `None` before the first run.
    pub(super) fn per_row(&self) -> Option<Duration> {
        self.per_row.map(Duration::from_secs_f64)
    }

    /// One entry per batch size seen.
    pub(super) fn measured(&self) -> Vec<Measured> {
        self.by_rows.values().copied().collect()
    }
}

fn blend(mean: Option<f64>, sample: f64) -> f64 {
    mean.map_or(sample, |mean| mean + NEWEST * (sample - mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_claimed_before_the_first_run() {
        let table = CostTable::default();
        assert_eq!(table.per_row(), None);
        assert!(table.measured().is_empty());
    }

    #[test]
    fn a_change_of_speed_is_followed_within_a_dozen_runs() {
        let mut table = CostTable::default();
        (0..50).for_each(|_| table.learn(4, Duration::from_millis(4)));
        (0..12).for_each(|_| table.learn(4, Duration::from_millis(12)));
        let per_row = table.per_row().unwrap().as_secs_f64();
        assert!((0.0027..=0.003).contains(&per_row), "{per_row}");
    }

    #[test]
    fn batch_sizes_are_kept_apart() {
        let mut table = CostTable::default();
        table.learn(1, Duration::from_millis(3));
        table.learn(8, Duration::from_millis(8));
        let measured = table.measured();
        assert_eq!(measured.iter().map(|m| (m.rows, m.runs)).collect::<Vec<_>>(), [(1, 1), (8, 1)]);
        assert!((measured[1].seconds_per_row - 0.001).abs() < 1e-9);
    }
}
