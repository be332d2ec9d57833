//! Chooses the precision of a network's products by comparing what callers would read.
//!
//! Invariant: bf16 is served where it was asked for, or where every score of every calibration input is within the
//! tolerance of that in f32; nothing is guessed from the network's shape.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use lepton_kernels::Precision;
use serde::{Deserialize, Serialize};

use crate::{Artifact, Engine, EngineError, LoadOptions, Session, loader, run_rows, tensor::Tensors};

/// How long to compare, and the fewest inputs that are worth a judgement.
const LONGEST: Duration = Duration::from_millis(20);
const FEWEST: usize = 4;

/// The precision that an operator asks for. Sums are kept in f32 whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionPolicy {
    /// As the network was made.
    F32,
    /// Factors in bf16, where the processor has tiles for it; f32 elsewhere.
    Bf16,
    /// Factors in bf16 where that is faster and a comparison at load finds the same answers.
    #[default]
    Auto,
}

impl PrecisionPolicy {
    /// Returns the name that manifests write.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for PrecisionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The policy, and the largest difference of a score, a probability, with which `auto` still takes bf16.
#[derive(Debug, Clone, Copy)]
pub struct Criteria {
    pub policy: PrecisionPolicy,
    pub tolerance: f32,
}

/// What two precisions are compared by: inputs, and what callers read of the outputs.
pub trait Evidence {
    /// Returns the input at that position, one row; `None` after the last. They are asked for in order, and not beyond
    /// what there is time for.
    fn input(&self, position: usize) -> Option<&Tensors>;

    /// Returns the scores that a caller would read of that input's outputs.
    ///
    /// # Errors
    /// Why there are none, which decides for f32.
    fn scores(&self, position: usize, outputs: Tensors) -> Result<Vec<f32>, String>;
}

/// The precision of a loaded network, and why it is that.
#[derive(Debug, Clone, PartialEq)]
pub struct PrecisionDecision {
    pub policy: PrecisionPolicy,
    pub used: Precision,
    /// How far apart the answers in f32 and in bf16 were, where they were compared.
    pub comparison: Option<PrecisionComparison>,
    /// Why it is not bf16, where bf16 or the better of both was asked for.
    pub reason: Option<String>,
}

/// Answers to the same inputs in f32 and in bf16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionComparison {
    pub n_inputs: usize,
    /// The largest difference between the scores of any label.
    pub largest_difference: f32,
}

impl fmt::Display for PrecisionDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (asked for {}", self.used, self.policy)?;
        if let Some(PrecisionComparison { n_inputs, largest_difference }) = self.comparison {
            write!(f, "; scores differ by at most {largest_difference:.1e} over {n_inputs} probes")?;
        }
        match &self.reason {
            Some(reason) => write!(f, "; {reason})"),
            None => f.write_str(")"),
        }
    }
}

/// Keeps `exact`, which was loaded in f32, or loads the network in bf16 in its place, by `criteria`.
///
/// # Errors
/// As [`load`](crate::load), of the network in bf16.
pub fn choose_precision(
    artifact: &Artifact<'_>,
    exact: Arc<dyn Engine>,
    criteria: Criteria,
    evidence: &dyn Evidence,
) -> Result<(Arc<dyn Engine>, PrecisionDecision), EngineError> {
    let policy = criteria.policy;
    if policy == PrecisionPolicy::F32 {
        return Ok((exact, in_f32(policy, None, None)));
    }
    let loader = loader(artifact)?;
    if !loader.supports(Precision::Bf16) {
        let reason = "this processor has no kernels in bf16".to_owned();
        return Ok((exact, in_f32(policy, None, Some(reason))));
    }
    let options = LoadOptions { precision: Precision::Bf16, ..LoadOptions::default() };
    let rounded = loader.load(artifact, options)?;
    let decision = judge(criteria, compare(evidence, &*exact, &*rounded));
    let engine = match decision.used {
        Precision::F32 => exact,
        Precision::Bf16 => rounded,
    };
    Ok((engine, decision))
}

/// Takes bf16 where the operator wants it in any case, or where the comparison speaks for it.
fn judge(criteria: Criteria, compared: Result<Option<PrecisionComparison>, String>) -> PrecisionDecision {
    let Criteria { policy, tolerance } = criteria;
    match compared {
        Ok(Some(found)) if policy == PrecisionPolicy::Bf16 || found.largest_difference <= tolerance => {
            PrecisionDecision { policy, used: Precision::Bf16, comparison: Some(found), reason: None }
        }
        Ok(Some(found)) => {
            in_f32(policy, Some(found), Some(format!("the most that is accepted is {tolerance}")))
        }
        Ok(None) => in_f32(policy, None, Some("no kernel in bf16 runs a part of this network".to_owned())),
        Err(error) => in_f32(policy, None, Some(format!("the comparison failed: {error}"))),
    }
}

fn in_f32(
    policy: PrecisionPolicy,
    comparison: Option<PrecisionComparison>,
    reason: Option<String>,
) -> PrecisionDecision {
    PrecisionDecision { policy, used: Precision::F32, comparison, reason }
}

/// Answers the calibration inputs in both precisions; `None` where no part of the network is in bf16.
fn compare(
    evidence: &dyn Evidence,
    exact: &dyn Engine,
    rounded: &dyn Engine,
) -> Result<Option<PrecisionComparison>, String> {
    let text = |error: EngineError| error.to_string();
    let (mut in_f32, mut in_bf16) = (exact.open().map_err(text)?, rounded.open().map_err(text)?);
    let began = Instant::now();
    let mut found = PrecisionComparison { n_inputs: 0, largest_difference: 0.0 };
    while let Some(input) = evidence.input(found.n_inputs) {
        let scores = |session: &mut dyn Session| -> Result<Vec<f32>, String> {
            let rows = run_rows(session, &[input]).map_err(text)?;
            evidence.scores(found.n_inputs, rows.into_iter().next().unwrap_or_default())
        };
        let in_bf16 = scores(in_bf16.as_mut())?;
        if rounded.kernels().iter().all(|part| part.precision != Precision::Bf16) {
            return Ok(None);
        }
        for (score, expected) in in_bf16.iter().zip(scores(in_f32.as_mut())?) {
            let difference = (score - expected).abs();
            // `max` would pass over what is not a number.
            if difference.is_nan() || difference > found.largest_difference {
                found.largest_difference = difference;
            }
        }
        found.n_inputs += 1;
        if found.n_inputs >= FEWEST && began.elapsed() > LONGEST {
            break;
        }
    }
    if found.n_inputs == 0 {
        return Err("there is nothing to compare by".to_owned());
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_written_by_its_name() {
        for policy in [PrecisionPolicy::F32, PrecisionPolicy::Bf16, PrecisionPolicy::Auto] {
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
        }
    }

    #[test]
    fn bf16_is_taken_where_it_was_asked_for_or_answers_agree() {
        let found = |largest_difference| Ok(Some(PrecisionComparison { n_inputs: 16, largest_difference }));
        let told = |policy, tolerance, compared| judge(Criteria { policy, tolerance }, compared).to_string();
        let (auto, bf16) = (PrecisionPolicy::Auto, PrecisionPolicy::Bf16);
        insta::assert_snapshot!(told(auto, 0.01, found(0.001)), @"bf16 (asked for auto; scores differ by at most 1.0e-3 over 16 probes)");
        insta::assert_snapshot!(told(auto, 0.01, found(0.02)), @"f32 (asked for auto; scores differ by at most 2.0e-2 over 16 probes; the most that is accepted is 0.01)");
        insta::assert_snapshot!(told(auto, 0.01, found(f32::NAN)), @"f32 (asked for auto; scores differ by at most NaN over 16 probes; the most that is accepted is 0.01)");
        insta::assert_snapshot!(told(auto, 0.000_3, found(0.001)), @"f32 (asked for auto; scores differ by at most 1.0e-3 over 16 probes; the most that is accepted is 0.0003)");
        insta::assert_snapshot!(told(bf16, 0.01, found(0.02)), @"bf16 (asked for bf16; scores differ by at most 2.0e-2 over 16 probes)");
        insta::assert_snapshot!(told(bf16, 0.01, Ok(None)), @"f32 (asked for bf16; no kernel in bf16 runs a part of this network)");
        insta::assert_snapshot!(told(auto, 0.01, Err("no answer".to_owned())), @"f32 (asked for auto; the comparison failed: no answer)");
    }
}
