//! A network's output to scores that mean something.
//!
//! Invariant: scores are finite and come best first. Of labels of which one is right they add up to one; where
//! each label may be right, each is a probability of its own; the values of a regression are the network's.

use std::{collections::HashSet, sync::Arc};

use super::{
    BuildContext, Ranked, Scored, SpecError,
    fit::{Listed, listed, misfit, temperature},
};
use crate::{
    engine::{Dim, Ending, Port, Signature},
    error::Error,
    manifest::{Labels, Scores},
    tensor::{DType, Tensors},
};

/// What a section says of labels and scores.
pub(super) struct ScoringSpec<'a> {
    pub(super) labels: &'a Labels,
    pub(super) output: Option<&'a str>,
    pub(super) scores: Option<Scores>,
    pub(super) threshold: Option<f32>,
    pub(super) temperature: f32,
}

/// How one output of a network becomes labels with scores.
#[derive(Debug)]
pub(super) struct Scoring {
    labels: Arc<[Arc<str>]>,
    /// Where the output stands among the network's.
    output: usize,
    scores: Scores,
    temperature: f32,
    threshold: Option<f32>,
    /// Two labels read the same, so that their numbers tell them apart.
    labels_repeat: bool,
}

impl Scoring {
    /// Reads the labels and holds the section to the network. Where the section leaves open how the output becomes
    /// scores, the network's last operator says.
    pub(super) fn build(spec: ScoringSpec<'_>, context: &BuildContext<'_>) -> Result<Self, SpecError> {
        let Listed { source, labels } = listed(context.dir, spec.labels)?;
        let output = output_of(context.signature, spec.output)?;
        let port = &context.signature.outputs[output];
        let (n_labels, n_logits) = (labels.len(), n_logits(port)?);
        if n_labels == 0 || n_logits.is_some_and(|n_logits| n_logits != n_labels) {
            let n_logits = n_logits.map_or("free".to_owned(), |n_logits| n_logits.to_string());
            return Err(misfit(format!(
                "{source} has {n_labels} labels, but the network gives {n_logits} logits"
            )));
        }
        let scores = spec.scores.unwrap_or(match (context.ending(output), n_labels, spec.threshold) {
            (Ending::Probabilities, ..) => Scores::Probabilities,
            (Ending::Open, 1, _) | (Ending::Open, _, Some(_)) => Scores::Sigmoid,
            (Ending::Open, ..) => Scores::Softmax,
        });
        let temperature = temperature(spec.temperature)?;
        if temperature != 1.0 && matches!(scores, Scores::Probabilities | Scores::Values) {
            let name = scores.name();
            return Err(misfit(format!(
                "temperature is {temperature}, but the scores are {name:?}, which nothing divides"
            )));
        }
        match spec.threshold {
            Some(threshold) if !(0.0..=1.0).contains(&threshold) => {
                return Err(misfit(format!("threshold is {threshold}, but 0 to 1 are allowed")));
            }
            Some(_) if matches!(scores, Scores::Softmax | Scores::Values) => {
                let name = scores.name();
                return Err(misfit(format!(
                    "a threshold is given, but the scores are {name:?}; expected \"sigmoid\" or \"probabilities\""
                )));
            }
            _ => {}
        }
        let distinct: HashSet<&Arc<str>> = labels.iter().collect();
        let labels_repeat = distinct.len() < n_labels;
        Ok(Self { labels, output, scores, temperature, threshold: spec.threshold, labels_repeat })
    }

    /// In the order of the network's logits.
    pub(super) fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    /// Ranks the labels by their scores. Equal scores keep the labels' order.
    ///
    /// # Errors
    /// [`Error::Internal`] for an output that is not one finite number per label.
    pub(super) fn rank(&self, outputs: &Tensors) -> Result<Ranked, Error> {
        let output = outputs
            .get(self.output)
            .ok_or_else(|| Error::Internal("the network gave no output".to_owned()))?;
        let logits = output.as_slice::<f32>().map_err(|e| Error::Internal(e.to_string()))?;
        if logits.len() != self.labels.len() {
            let (got, want) = (output.describe(), self.labels.len());
            return Err(Error::Internal(format!("the network gave {got} for {want} labels")));
        }
        if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
            let (logit, label) = (logits[at], &self.labels[at]);
            return Err(Error::Internal(format!("the network gave {logit} for {label:?}")));
        }
        let scores = match self.scores {
            Scores::Softmax => softmax(logits, self.temperature),
            Scores::Sigmoid => logits.iter().map(|logit| sigmoid(*logit, self.temperature)).collect(),
            Scores::Probabilities => logits.iter().map(|score| score.clamp(0.0, 1.0)).collect(),
            Scores::Values => logits.to_vec(),
        };
        let numbered = (0u32..).zip(self.labels.iter().zip(scores));
        let mut ranked: Vec<Scored> = numbered
            .map(|(number, (label, score))| Scored {
                label: label.clone(),
                score,
                index: self.labels_repeat.then_some(number),
            })
            .collect();
        // The sort is stable, which keeps equal scores in the labels' order.
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        let n_found = |threshold| ranked.iter().take_while(|scored| scored.score >= threshold).count();
        let found = self.threshold.map(n_found);
        Ok(Ranked { scores: ranked, found })
    }
}

/// The output that holds the logits: the one that is named, or else `logits`, or else the first that may.
fn output_of(signature: &Signature, name: Option<&str>) -> Result<usize, SpecError> {
    let outputs = &signature.outputs;
    let called = |name: &str| outputs.iter().position(|port| port.name == name);
    if let Some(name) = name {
        return called(name).ok_or_else(|| {
            let names: Vec<&str> = outputs.iter().map(|port| port.name.as_str()).collect();
            misfit(format!("output names {name:?}, but the network's outputs are {}", names.join(", ")))
        });
    }
    let may = |port: &Port| n_logits(port).is_ok();
    let found = called("logits").or_else(|| outputs.iter().position(may)).or(outputs.first().map(|_| 0));
    found.ok_or_else(|| misfit("the network has no output"))
}

/// How many logits an output gives for a row; nothing where only a run tells.
fn n_logits(port: &Port) -> Result<Option<usize>, SpecError> {
    match (port.dtype, port.shape.as_slice()) {
        (DType::F32, [_]) => Ok(Some(1)),
        (DType::F32, [_, Dim::Fixed(n)]) => Ok(Some(*n)),
        (DType::F32, [_, Dim::Free(_)]) => Ok(None),
        _ => {
            let (name, found) = (&port.name, port.describe());
            Err(misfit(format!("output {name:?} is {found}, but logits are f32 [batch, labels]")))
        }
    }
}

/// In f64, in which no logit overflows.
fn sigmoid(logit: f32, temperature: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit) / f64::from(temperature)).exp())) as f32
}

/// Exponentials of differences to the largest logit, which cannot overflow. Differences are taken
/// in f64, in which even those of the largest f32 are finite.
fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|logit| ((f64::from(*logit) - f64::from(largest)) / f64::from(temperature)).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

#[cfg(test)]
mod tests;
