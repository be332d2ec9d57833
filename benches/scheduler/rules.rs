//! How other servers make batches, to be measured against: policies for the same queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lepton::manifest::Balance;
use lepton_scheduler::policy::{Decision, GroupView, MeasuredPolicy, Policy, View, earliest_deadline};

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// As the measurements say.
    Measured,
    /// One row a run.
    Single,
    /// All that waits, up to the model's limit.
    Drain,
    /// Waits for `rows` rows, at most for `wait` from the first one's arrival.
    Window { rows: usize, wait: Duration },
}

impl Rule {
    pub(crate) fn policy(self) -> Arc<dyn Policy> {
        match self {
            Self::Measured => Arc::new(MeasuredPolicy),
            other => Arc::new(Other(other)),
        }
    }
}

/// A rule that asks no measurement.
struct Other(Rule);

impl Policy for Other {
    fn decide(&self, view: &View) -> Decision {
        let linger = |group: &GroupView| -> Option<Instant> {
            let Rule::Window { rows, wait } = self.0 else { return None };
            let until = group.since + wait;
            (group.queued < rows.min(group.max_rows) && until > view.now).then_some(until)
        };
        let rows = |group: &GroupView| {
            let most = group.queued.min(group.max_rows.max(1));
            match self.0 {
                Rule::Single => 1,
                Rule::Window { rows, .. } => most.min(rows.max(1)),
                Rule::Measured | Rule::Drain => most,
            }
        };
        earliest_deadline(view, linger, rows)
    }

    fn prepares_ahead(&self) -> bool {
        self.0 != Rule::Single
    }

    fn runs_at_once(&self, _: Balance) -> bool {
        !matches!(self.0, Rule::Window { .. })
    }

    fn runs_few_at_once(&self) -> bool {
        false
    }
}
