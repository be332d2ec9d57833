//! Logits to calibrated probabilities.
//!
//! Invariant: scores are finite, add up to one, and come best first.

use std::sync::Arc;

use super::{Ranked, Scored};
use crate::{error::Error, tensor::Tensors};

/// Ranks `labels` by the softmax of the first output over `temperature` (Guo et al. 2017). Equal
/// scores keep the labels' order.
///
/// # Errors
/// [`Error::Internal`] for an output that is not one finite logit per label.
pub(super) fn rank(outputs: &Tensors, labels: &[Arc<str>], temperature: f32) -> Result<Ranked, Error> {
    let output = outputs.first().ok_or_else(|| Error::Internal("the network gave no output".to_owned()))?;
    let logits = output.as_f32().map_err(|e| Error::Internal(e.to_string()))?;
    if logits.len() != labels.len() {
        let (got, want) = (output.describe(), labels.len());
        return Err(Error::Internal(format!("the network gave {got} for {want} labels")));
    }
    if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
        return Err(Error::Internal(format!("the network gave {} for {:?}", logits[at], labels[at])));
    }
    let scores = softmax(logits, temperature);
    let mut ranked: Vec<Scored> =
        labels.iter().zip(scores).map(|(label, score)| Scored { label: label.clone(), score }).collect();
    // The sort is stable, which keeps equal scores in the labels' order.
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(Ranked(ranked))
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensor::{Data, Tensor};

    fn labels(n: usize) -> Vec<Arc<str>> {
        (0..n).map(|label| Arc::from(format!("label {label}"))).collect()
    }

    fn ranked(logits: &[f32], temperature: f32) -> Result<Ranked, Error> {
        let output = Tensor::new(vec![logits.len()], Data::F32(logits.to_vec())).unwrap();
        rank(&vec![output], &labels(logits.len()), temperature)
    }

    fn names(ranked: &Ranked) -> Vec<&str> {
        ranked.0.iter().map(|scored| &*scored.label).collect()
    }

    #[test]
    fn the_best_comes_first_with_its_probability() {
        let ranked = ranked(&[0.0, 3f32.ln(), 0.0], 1.0).unwrap();
        assert_eq!(names(&ranked), ["label 1", "label 0", "label 2"]);
        assert!((ranked.0[0].score - 0.6).abs() < 1e-6);
        assert!((ranked.0[1].score - 0.2).abs() < 1e-6);
    }

    #[test]
    fn a_temperature_divides_the_logits() {
        let ranked = ranked(&[2.0 * 3f32.ln(), 0.0], 2.0).unwrap();
        assert!((ranked.0[0].score - 0.75).abs() < 1e-6);
    }

    #[test]
    fn logits_that_are_not_finite_are_a_fault_of_ours() {
        for logit in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(ranked(&[0.0, logit], 1.0), Err(Error::Internal(_))));
        }
    }

    #[test]
    fn an_output_of_another_length_or_type_is_a_fault_of_ours() {
        let long = Tensor::new(vec![3], Data::F32(vec![0.0; 3])).unwrap();
        let whole = Tensor::new(vec![2], Data::I64(vec![0; 2])).unwrap();
        for outputs in [vec![long], vec![whole], vec![]] {
            assert!(matches!(rank(&outputs, &labels(2), 1.0), Err(Error::Internal(_))));
        }
    }

    proptest! {
        #[test]
        fn any_finite_logits_give_probabilities_in_order(
            logits in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 1..20),
            temperature in 1e-3f32..1e3,
        ) {
            let ranked = ranked(&logits, temperature).unwrap();
            let sum: f64 = ranked.0.iter().map(|scored| f64::from(scored.score)).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5);
            prop_assert!(ranked.0.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    }
}
