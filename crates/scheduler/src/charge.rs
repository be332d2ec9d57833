//! What a request is charged with: the time of its inputs, what that rests on, and who may hold how many workers.
//!
//! Invariant: pure. An input is charged by its workload as soon as it is there; before that its bytes are a lower
//! bound. Nothing is refused on an extrapolated charge: one input of each kind and size is admitted as a trial.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::{
    cost::CostTable,
    demand::{Ask, Burden, Forecast},
    handling::{Estimate, Evidence},
    workload::Workload,
};

/// A row that holds a worker for longer than this is dear, and so is a request whose rows do together: half of the
/// time that callers in haste give.
pub const DEAR: Duration = Duration::from_millis(50);

/// What one input is charged with.
#[derive(Debug, Clone, Copy)]
pub struct Charge {
    pub workload: Workload,
    /// CPU time of preparing and answering.
    pub handling: Duration,
    pub evidence: Evidence,
    /// CPU time of the network for a row alone.
    pub network: Duration,
}

impl Charge {
    /// Charges an input of that workload, whose row is of the shape `shape class`.
    pub fn of(costs: &CostTable, shape_class: usize, workload: Workload, now: Instant) -> Self {
        let Estimate { seconds, evidence } = costs.handling.estimate(workload, now);
        Self {
            workload,
            handling: Duration::from_secs_f64(seconds),
            evidence,
            network: Duration::from_secs_f64(costs.run(shape_class, 1)),
        }
    }

    /// CPU time of all of it.
    pub fn whole(&self) -> Duration {
        self.handling + self.network
    }

    /// CPU time of what was measured of it.
    fn proven(&self) -> Duration {
        match self.evidence {
            Evidence::Measured => self.whole(),
            Evidence::Extrapolated => self.network,
        }
    }

    /// Returns whether the row may hold its worker for long, by what is expected or by what its task guesses: a kind
    /// may be cheap ten times and dear once.
    pub fn is_dear(&self) -> bool {
        self.whole().max(self.workload.guess + self.network) > DEAR
    }
}

/// What a request whose inputs are known asks for: all that they are charged with, and of it what is proven, where
/// that is less.
#[derive(Debug, Clone, Copy)]
pub struct Asks {
    pub ask: Ask,
    /// What is asked for without what was extrapolated, and the dearest workload of that.
    pub proven: Option<(Ask, Workload)>,
}

impl Asks {
    /// Sums up the inputs of a request that is due by then. `batch_delay` is how much longer than alone the dearest row
    /// takes in a batch.
    pub fn of(charges: &[Charge], due: Instant, batch_delay: Duration) -> Self {
        let whole = charges.iter().map(Charge::whole).sum();
        let burden =
            if whole > DEAR || charges.iter().any(Charge::is_dear) { Burden::Heavy } else { Burden::Light };
        let longest = charges.iter().map(Charge::whole).max().unwrap_or_default();
        let ask = Ask { due, whole, longest, batch_delay, burden };
        let extrapolated = charges.iter().filter(|charge| charge.evidence == Evidence::Extrapolated);
        let proven = extrapolated.max_by_key(|charge| charge.handling).map(|dearest| {
            let longest = charges.iter().map(Charge::proven).max().unwrap_or_default();
            (Ask { whole: charges.iter().map(Charge::proven).sum(), longest, ..ask }, dearest.workload)
        });
        Self { ask, proven }
    }
}

/// Whether a request is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Its answer is promised.
    Promised(Forecast),
    /// It would not fit if it cost what is extrapolated. It is queued to find out, and nothing is promised.
    Trial(Forecast),
    /// It would be late, or make others late.
    Refused(Forecast),
}

/// Decides on a request. `begin_trial` starts the trial of a workload, or returns false where one like it is on trial.
pub fn admit(
    asks: &Asks,
    mut forecast: impl FnMut(Ask) -> Forecast,
    begin_trial: impl FnOnce(Workload) -> bool,
) -> Admission {
    let full = forecast(asks.ask);
    if full.excess.is_zero() {
        return Admission::Promised(full);
    }
    match asks.proven {
        Some((proven, workload)) if forecast(proven).excess.is_zero() && begin_trial(workload) => {
            Admission::Trial(full)
        }
        _ => Admission::Refused(full),
    }
}
