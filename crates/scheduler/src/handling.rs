//! What preparing and answering an input costs, by its workload: learnt from every input that was answered.
//!
//! Invariant: only a recent measurement of an input of the same kind and size is evidence. Anything else is
//! extrapolated, says so, and is bounded by a multiple of the task's own guess: nobody is refused for it alone, and
//! old measurements stop being evidence, so that no estimate keeps out the callers who would correct it.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::workload::Workload;

/// Weight of the newest input. A dozen forget what was.
const NEWEST: f64 = 0.25;

/// No single input counts as more than this many times what was expected.
const STRANGEST: f64 = 4.0;

/// A measurement is evidence for this long.
const FRESH: Duration = Duration::from_secs(3);

/// What was measured loses half of its weight against the next measurement in this time.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// An estimate without evidence is at most this many times the guess, and at least its inverse.
const FURTHEST: f64 = 8.0;

/// Classes of inputs by their size, each twice as large as the one before.
const CLASSES: usize = 64;

/// What is known by the bytes of an input loses half of itself in this time.
const LEAST_HALF_LIFE: Duration = Duration::from_millis(500);

/// Weight of an input that costs more than the least of its bytes.
const RISE: f64 = 0.1;

/// What an input is expected to cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// CPU seconds.
    pub seconds: f64,
    pub evidence: Evidence,
}

/// What an estimate rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Inputs of the same kind and size that were answered a moment ago.
    Measured,
    /// A guess, other sizes, or measurements that are too old.
    Extrapolated,
}

impl Estimate {
    /// CPU seconds that were measured; 0 where they are extrapolated.
    pub fn measured(&self) -> f64 {
        match self.evidence {
            Evidence::Measured => self.seconds,
            Evidence::Extrapolated => 0.0,
        }
    }
}

/// What was learnt of preparing the inputs of one model.
#[derive(Debug, Default)]
pub struct Handling {
    /// By kind, then by the class of the units.
    kinds: BTreeMap<u8, BTreeMap<usize, Cell>>,
    /// The least that inputs of some bytes cost, by the class of the bytes.
    least: BTreeMap<usize, Least>,
    /// Kinds and classes of which one input is on trial.
    trials: Vec<(u8, usize)>,
}

/// Inputs of one kind and class.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// CPU seconds for each unit.
    rate: f64,
    at: Instant,
}

/// A lower bound of what inputs cost, which fades to nothing.
#[derive(Debug, Clone, Copy)]
struct Least {
    seconds: f64,
    at: Instant,
}

impl Handling {
    /// What preparing and answering an input of that workload is likely to take.
    pub fn estimate(&self, workload: Workload, now: Instant) -> Estimate {
        let extrapolated = |seconds| Estimate { seconds, evidence: Evidence::Extrapolated };
        let (guess, units, class) = (workload.guess.as_secs_f64(), units(workload), class(workload.units));
        let Some(cells) = self.kinds.get(&workload.kind) else { return extrapolated(guess) };
        let Some((other, near)) = nearest(cells, class) else { return extrapolated(guess) };
        let seconds = near.rate * units;
        let age = now.saturating_duration_since(near.at);
        if other == class && age < FRESH {
            return Estimate { seconds, evidence: Evidence::Measured };
        }
        extrapolated(seconds.clamp(guess / FURTHEST, guess * FURTHEST))
    }

    /// The least that inputs of this number of bytes have cost lately, in CPU seconds: what is known before a body is read.
    /// Bytes say little of the work, so it is 0 soon after nobody was answered.
    pub fn least(&self, n_bytes: usize, now: Instant) -> f64 {
        self.least.get(&class(n_bytes as u64)).map_or(0.0, |least| least.at(now))
    }

    /// Learns from an input of `n_bytes` bytes that was answered after `seconds` of CPU time.
    pub fn learn(&mut self, workload: Workload, n_bytes: usize, seconds: f64, now: Instant) {
        let rate = seconds / units(workload);
        let cells = self.kinds.entry(workload.kind).or_default();
        cells
            .entry(class(workload.units))
            .and_modify(|cell| {
                let kept = halved(now.saturating_duration_since(cell.at), HALF_LIFE);
                let weight = (1.0 - kept).max(NEWEST);
                // Never from nothing: a rate of 0 could not grow by any factor.
                let most = (cell.rate * STRANGEST).max(1e-6 / units(workload));
                cell.rate += weight * (rate.min(most) - cell.rate);
                cell.at = now;
            })
            .or_insert(Cell { rate, at: now });
        let least = self.least.entry(class(n_bytes as u64)).or_insert(Least { seconds: 0.0, at: now });
        let known = least.at(now);
        let seconds = if seconds < known { seconds } else { known + RISE * (seconds - known) };
        *least = Least { seconds, at: now };
    }

    /// Learns from an input that could not be prepared after `seconds`: it says nothing of others, unless it already
    /// cost more than a whole one is expected to.
    pub fn learn_failed(&mut self, workload: Workload, seconds: f64, now: Instant) {
        if seconds > 2.0 * self.estimate(workload, now).seconds {
            let rate = seconds / units(workload);
            let cells = self.kinds.entry(workload.kind).or_default();
            let cell = cells.entry(class(workload.units)).or_insert(Cell { rate, at: now });
            cell.rate += NEWEST * (rate.min(cell.rate * STRANGEST) - cell.rate);
        }
    }

    /// Starts the trial of an input whose cost nothing recent tells; false while one of its kind and size is on trial.
    pub fn begin_trial(&mut self, workload: Workload) -> bool {
        let key = (workload.kind, class(workload.units));
        let is_free = !self.trials.contains(&key);
        if is_free {
            self.trials.push(key);
        }
        is_free
    }

    /// Ends a trial.
    pub fn end_trial(&mut self, workload: Workload) {
        let key = (workload.kind, class(workload.units));
        self.trials.retain(|other| *other != key);
    }
}

impl Least {
    fn at(&self, now: Instant) -> f64 {
        self.seconds * halved(now.saturating_duration_since(self.at), LEAST_HALF_LIFE)
    }
}

/// The cell of the class that is nearest to `class`.
fn nearest(cells: &BTreeMap<usize, Cell>, class: usize) -> Option<(usize, Cell)> {
    let below = cells.range(..=class).next_back();
    let above = cells.range(class..).next();
    let near = below.into_iter().chain(above).min_by_key(|(other, _)| other.abs_diff(class));
    near.map(|(other, cell)| (*other, *cell))
}

fn units(workload: Workload) -> f64 {
    workload.units.max(1) as f64
}

/// The class of an input by its size.
fn class(size: u64) -> usize {
    (size.max(1).ilog2() as usize).min(CLASSES - 1)
}

/// What is left after `age` of something that loses half of itself in each `half_life`.
fn halved(age: Duration, half_life: Duration) -> f64 {
    0.5_f64.powf(age.as_secs_f64() / half_life.as_secs_f64())
}
