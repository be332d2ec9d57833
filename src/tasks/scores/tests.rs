//! Outputs made by hand, and what becomes of them.

use proptest::prelude::*;

use std::path::Path;

use super::*;
use crate::{image::ImageLimits, tasks::TaskOptions, tensor::Tensor};

fn port(name: &str, shape: &[Dim]) -> Port {
    let batch = Dim::Free("batch".to_owned());
    let shape = std::iter::once(batch).chain(shape.iter().cloned()).collect();
    Port { name: name.to_owned(), dtype: DType::F32, shape, batch_axis: Some(0) }
}

fn signature(outputs: &[(&str, &[Dim])]) -> Signature {
    Signature { inputs: vec![], outputs: outputs.iter().map(|(name, shape)| port(name, shape)).collect() }
}

fn labels(n: usize) -> Labels {
    Labels::Inline((0..n).map(|label| format!("label {label}")).collect())
}

fn spec(labels: &Labels) -> ScoringSpec<'_> {
    ScoringSpec { labels, output: None, scores: None, threshold: None, temperature: 1.0 }
}

fn build(spec: ScoringSpec<'_>, n_logits: usize) -> Result<Scoring, String> {
    let signature = signature(&[("logits", &[Dim::Fixed(n_logits)])]);
    Scoring::build(spec, &context(&signature, &[])).map_err(|error| error.to_string())
}

fn context<'a>(signature: &'a Signature, endings: &'a [Ending]) -> BuildContext<'a> {
    let options = TaskOptions { image: ImageLimits { pixels: 1, side: 1, memory: 1 } };
    BuildContext { dir: Path::new("nowhere"), signature, endings, options }
}

fn row(numbers: &[f32]) -> Tensors {
    vec![Tensor::new::<f32>(vec![numbers.len()], numbers.to_vec()).unwrap()]
}

fn ranked(logits: &[f32], temperature: f32) -> Result<Ranked, Error> {
    let labels = labels(logits.len());
    let spec = ScoringSpec { temperature, scores: Some(Scores::Softmax), ..spec(&labels) };
    build(spec, logits.len()).unwrap().rank(&row(logits))
}

fn names(ranked: &Ranked) -> Vec<&str> {
    ranked.scores.iter().map(|scored| &*scored.label).collect()
}

fn scores(ranked: &Ranked) -> Vec<f32> {
    ranked.scores.iter().map(|scored| scored.score).collect()
}

#[test]
fn the_best_comes_first_with_its_probability() {
    let ranked = ranked(&[0.0, 3f32.ln(), 0.0], 1.0).unwrap();
    assert_eq!(names(&ranked), ["label 1", "label 0", "label 2"]);
    assert!((ranked.scores[0].score - 0.6).abs() < 1e-6);
    assert!((ranked.scores[1].score - 0.2).abs() < 1e-6);
}

#[test]
fn a_temperature_divides_the_logits() {
    let ranked = ranked(&[2.0 * 3f32.ln(), 0.0], 2.0).unwrap();
    assert!((ranked.scores[0].score - 0.75).abs() < 1e-6);
}

#[test]
fn one_logit_is_a_sigmoid_unless_it_is_a_value() {
    let labels = labels(1);
    let one = build(spec(&labels), 1).unwrap();
    assert!((one.rank(&row(&[3f32.ln()])).unwrap().scores[0].score - 0.75).abs() < 1e-6);
    let value = build(ScoringSpec { scores: Some(Scores::Values), ..spec(&labels) }, 1).unwrap();
    assert_eq!(scores(&value.rank(&row(&[-3.5])).unwrap()), [-3.5]);
}

#[test]
fn each_label_over_the_threshold_is_found_where_several_may_be_right() {
    let labels = labels(3);
    let several = build(ScoringSpec { threshold: Some(0.5), ..spec(&labels) }, 3).unwrap();
    let ranked = several.rank(&row(&[3f32.ln(), -3f32.ln(), 0.0])).unwrap();
    assert_eq!((names(&ranked), ranked.found), (vec!["label 0", "label 2", "label 1"], Some(2)));
    for (score, expected) in scores(&ranked).iter().zip([0.75, 0.5, 0.25]) {
        assert!((score - expected).abs() < 1e-6, "{ranked:?}");
    }
    assert_eq!(several.rank(&row(&[-9.0; 3])).unwrap().found, Some(0));
}

#[test]
fn probabilities_stay_what_they_are() {
    let labels = labels(2);
    let inside = build(ScoringSpec { scores: Some(Scores::Probabilities), ..spec(&labels) }, 2).unwrap();
    assert_eq!(scores(&inside.rank(&row(&[0.25, 0.75])).unwrap()), [0.75, 0.25]);
    assert_eq!(scores(&inside.rank(&row(&[-1e-7, 1.000_000_2])).unwrap()), [1.0, 0.0]);
}

#[test]
fn labels_that_read_the_same_are_told_apart_by_their_numbers() {
    let cranes = Labels::Inline(["crane", "tank", "crane"].map(str::to_owned).to_vec());
    let ranked = build(spec(&cranes), 3).unwrap().rank(&row(&[0.0, 1.0, 2.0])).unwrap();
    assert_eq!(names(&ranked), ["crane", "tank", "crane"]);
    let numbers: Vec<Option<u32>> = ranked.scores.iter().map(|scored| scored.index).collect();
    assert_eq!(numbers, [Some(2), Some(1), Some(0)]);
    let labels = labels(2);
    let ranked = build(spec(&labels), 2).unwrap().rank(&row(&[0.0, 1.0])).unwrap();
    assert!(ranked.scores.iter().all(|scored| scored.index.is_none()));
}

#[test]
fn the_logits_are_found_among_the_outputs() {
    let (states, logits): (&[Dim], &[Dim]) =
        (&[Dim::Free("length".to_owned()), Dim::Fixed(8)], &[Dim::Fixed(2)]);
    let labels = labels(2);
    let found = |outputs: &[(&str, &[Dim])], output: Option<&'static str>| {
        let signature = signature(outputs);
        let scoring = Scoring::build(ScoringSpec { output, ..spec(&labels) }, &context(&signature, &[]));
        scoring.map(|scoring| scoring.output).map_err(|error| error.to_string())
    };
    assert_eq!(found(&[("states", states), ("logits", logits)], None), Ok(1));
    assert_eq!(found(&[("states", states), ("y", logits)], None), Ok(1));
    assert_eq!(found(&[("a", logits), ("b", logits)], Some("b")), Ok(1));
    assert_eq!(found(&[("a", logits), ("b", logits)], None), Ok(0));
    assert_eq!(found(&[("logits", &[Dim::Free("labels".to_owned())])], None), Ok(0));
    let error = found(&[("a", logits)], Some("b")).unwrap_err();
    assert_eq!(error, "output names \"b\", but the network's outputs are a");
    let error = found(&[("states", states)], None).unwrap_err();
    assert!(error.contains("logits are f32 [batch, labels]"), "{error}");
    assert_eq!(found(&[], None).unwrap_err(), "the network has no output");
}

#[test]
fn a_spec_that_makes_no_sense_is_refused_with_what_would() {
    let labels = labels(2);
    let scoring = |scores, threshold, temperature| {
        let spec = ScoringSpec { scores, threshold, temperature, ..spec(&labels) };
        build(spec, 2).unwrap_err()
    };
    let probabilities = Some(Scores::Probabilities);
    assert!(scoring(probabilities, None, 1.5).contains("scores are \"probabilities\""));
    assert!(scoring(None, Some(1.5), 1.0).contains("threshold is 1.5, but 0 to 1 are allowed"));
    assert!(scoring(Some(Scores::Softmax), Some(0.5), 1.0).contains("expected \"sigmoid\""));
    assert!(build(spec(&labels), 3).unwrap_err().contains("2 labels, but the network gives 3 logits"));
}

#[test]
fn logits_that_are_not_finite_are_a_fault_of_ours() {
    for logit in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(matches!(ranked(&[0.0, logit], 1.0), Err(Error::Internal(_))));
    }
}

#[test]
fn an_output_of_another_length_or_type_is_a_fault_of_ours() {
    let long = Tensor::new::<f32>(vec![3], vec![0.0; 3]).unwrap();
    let whole = Tensor::new::<i64>(vec![2], vec![0; 2]).unwrap();
    let labels = labels(2);
    for outputs in [vec![long], vec![whole], vec![]] {
        assert!(matches!(build(spec(&labels), 2).unwrap().rank(&outputs), Err(Error::Internal(_))));
    }
}

proptest! {
    #[test]
    fn any_finite_logits_give_probabilities_in_order(
        logits in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 1..20),
        temperature in 1e-3f32..1e3,
    ) {
        let one = ranked(&logits, temperature).unwrap();
        let sum: f64 = scores(&one).iter().map(|score| f64::from(*score)).sum();
        prop_assert!((sum - 1.0).abs() < 1e-5);
        let labels = labels(logits.len());
        let spec = ScoringSpec { temperature, scores: Some(Scores::Sigmoid), ..spec(&labels) };
        let several = build(spec, logits.len()).unwrap().rank(&row(&logits)).unwrap();
        for ranked in [one, several] {
            prop_assert!(scores(&ranked).iter().all(|score| (0.0..=1.0).contains(score)));
            prop_assert!(ranked.scores.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    }
}
