//! What `config.json` says of a network and its labels.
//!
//! Invariant: labels stand in the order of the network's logits, as transformers would name them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::CONFIG;
use crate::manifest::Scores;

/// The labels of a network whose configuration names none (`PretrainedConfig`: `num_labels` is 2).
const USUAL_LABELS: usize = 2;

/// Most labels that are named by number.
const MOST_LABELS: usize = 1 << 20;

/// The score from which `multi_label_classification` counts a label as found, the middle of a sigmoid.
const THRESHOLD: f32 = 0.5;

/// The keys of `config.json` that matter here; the many others describe the network, which is in its own file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) model_type: Option<String>,
    pub(super) architectures: Option<Vec<String>>,
    pub(super) image_processor_type: Option<String>,
    problem_type: Option<String>,
    id2label: Option<BTreeMap<String, Value>>,
    label2id: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
    /// As older versions wrote it.
    _num_labels: Option<usize>,
    max_position_embeddings: Option<usize>,
    /// The same, of GPT-2 and its kin.
    n_positions: Option<usize>,
    pub(super) pad_token_id: Option<i64>,
}

/// How the output becomes scores; what is left open, the network's last operator tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Problem {
    pub(crate) scores: Option<Scores>,
    pub(crate) threshold: Option<f32>,
}

impl Config {
    fn n_labels(&self) -> Option<usize> {
        self.num_labels.or(self._num_labels)
    }

    /// Rows of the network's table of positions.
    pub(super) fn positions(&self) -> Option<usize> {
        self.max_position_embeddings.or(self.n_positions)
    }

    /// The kind of problem that the network was trained for.
    pub(super) fn problem(&self) -> Result<Problem, String> {
        match self.problem_type.as_deref() {
            None | Some("single_label_classification") => Ok(Problem { scores: None, threshold: None }),
            Some("multi_label_classification") => Ok(Problem { scores: None, threshold: Some(THRESHOLD) }),
            Some("regression") => Ok(Problem { scores: Some(Scores::Values), threshold: None }),
            Some(problem) => Err(format!(
                "{CONFIG}: the problem_type {problem:?} is not served; expected \"single_label_classification\", \
                 \"multi_label_classification\" or \"regression\""
            )),
        }
    }

    /// The labels by their numbers, which must be 0 and up without a gap. A configuration that names none means
    /// `LABEL_0` and so on, as many as `num_labels`, or two.
    pub(super) fn labels(&self) -> Result<Vec<String>, String> {
        let mut numbered: Vec<(u64, String)> = Vec::new();
        for (id, label) in self.id2label.iter().flatten() {
            let number = id
                .parse()
                .map_err(|_| format!("{CONFIG}: id2label has the key {id:?}; expected numbers from 0"))?;
            numbered.push((number, text(label, id)?));
        }
        if numbered.is_empty() {
            for (label, id) in self.label2id.iter().flatten() {
                let number = id.as_u64().or_else(|| id.as_str()?.parse().ok());
                let number = number.ok_or_else(|| {
                    format!("{CONFIG}: label2id has {id} for {label:?}; expected numbers from 0")
                })?;
                numbered.push((number, label.clone()));
            }
        }
        numbered.sort();
        if numbered.is_empty() {
            let n_labels = self.n_labels().unwrap_or(USUAL_LABELS);
            if !(1..=MOST_LABELS).contains(&n_labels) {
                return Err(format!(
                    "{CONFIG}: num_labels is {n_labels}; expected 1 to {MOST_LABELS}, or id2label"
                ));
            }
            return Ok((0..n_labels).map(|number| format!("LABEL_{number}")).collect());
        }
        if let Some((expected, (found, _))) =
            (0u64..).zip(&numbered).find(|(expected, (found, _))| expected != found)
        {
            return Err(format!(
                "{CONFIG}: the labels are not numbered without a gap: {found} stands for {expected}"
            ));
        }
        Ok(numbered.into_iter().map(|(_, label)| label).collect())
    }

    /// Refuses labels that are not as many as the network's logits, with the key that says how many there are.
    pub(super) fn check(&self, n_labels: usize, n_logits: usize) -> Result<(), String> {
        if n_labels == n_logits {
            return Ok(());
        }
        let named = |labels: &Option<BTreeMap<String, Value>>| labels.as_ref().is_some_and(|l| !l.is_empty());
        let source = match (named(&self.id2label), named(&self.label2id), self.n_labels()) {
            (true, ..) => "id2label names",
            (_, true, _) => "label2id names",
            (_, _, Some(_)) => "num_labels says",
            _ => "id2label is left out, which means",
        };
        Err(format!(
            "{CONFIG}: {source} {n_labels} labels, but the network gives {n_logits}; expected an id2label of {n_logits}"
        ))
    }
}

/// A label may be written as a number.
fn text(label: &Value, id: &str) -> Result<String, String> {
    match label {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("{CONFIG}: id2label names {other} for {id}; expected a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    fn labels(json: &str) -> Result<Vec<String>, String> {
        config(json).labels()
    }

    #[test]
    fn labels_stand_in_the_order_of_their_numbers() {
        let named = r#"{"id2label": {"0": "cat", "10": "k", "2": "b", "1": "a", "3": "c", "4": "d", "5": "e", "6": "f",
            "7": "g", "8": "h", "9": 9}}"#;
        assert_eq!(labels(named).unwrap(), ["cat", "a", "b", "c", "d", "e", "f", "g", "h", "9", "k"]);
        assert_eq!(labels(r#"{"label2id": {"no": 0, "yes": "1"}}"#).unwrap(), ["no", "yes"]);
    }

    #[test]
    fn labels_that_nobody_named_are_called_as_transformers_calls_them() {
        // PretrainedConfig().id2label, PretrainedConfig(num_labels=3).id2label
        for left_out in ["{}", r#"{"id2label": null}"#, r#"{"id2label": {}, "label2id": {}}"#] {
            assert_eq!(labels(left_out).unwrap(), ["LABEL_0", "LABEL_1"], "{left_out}");
        }
        for three in [r#"{"num_labels": 3}"#, r#"{"_num_labels": 3}"#] {
            assert_eq!(labels(three).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
        }
    }

    #[test]
    fn labels_that_make_no_sense_are_refused() {
        for (config, expected) in [
            (r#"{"id2label": {"0": "a", "2": "b"}}"#, "2 stands for 1"),
            (r#"{"id2label": {"a": "b"}}"#, "expected numbers"),
            (r#"{"id2label": {"0": null}}"#, "expected a text"),
            (r#"{"label2id": {"a": "b"}}"#, "expected numbers"),
            (r#"{"num_labels": 0}"#, "num_labels is 0"),
        ] {
            let error = labels(config).unwrap_err();
            assert!(error.starts_with(CONFIG) && error.contains(expected), "{config}: {error}");
        }
    }

    #[test]
    fn another_number_of_logits_is_told_with_the_key_that_says_so() {
        let told = |json: &str, n_labels| config(json).check(n_labels, 3).unwrap_err();
        assert!(
            told("{}", 2).contains("id2label is left out, which means 2 labels, but the network gives 3")
        );
        assert!(told(r#"{"id2label": {"0": "a"}}"#, 1).contains("id2label names 1 labels"));
        assert!(told(r#"{"num_labels": 4}"#, 4).contains("num_labels says 4 labels"));
        assert!(config("{}").check(3, 3).is_ok());
    }

    #[test]
    fn the_problem_says_what_scores_are() {
        let problem = |name: &str| config(&format!(r#"{{"problem_type": {name}}}"#)).problem();
        let plain = Ok(Problem { scores: None, threshold: None });
        assert_eq!(problem("null"), plain);
        assert_eq!(problem("\"single_label_classification\""), plain);
        let several = problem("\"multi_label_classification\"").unwrap();
        assert_eq!((several.scores, several.threshold), (None, Some(0.5)));
        assert_eq!(problem("\"regression\"").unwrap().scores, Some(Scores::Values));
        assert!(problem("\"ranking\"").unwrap_err().contains("\"ranking\" is not served"));
    }
}
