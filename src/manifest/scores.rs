//! How a network's output becomes scores.

use serde::{Deserialize, Serialize};

/// What the numbers of the output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scores {
    /// Logits of labels of which one is right: their softmax.
    Softmax,
    /// Logits of labels each of which may be right: the sigmoid of each.
    Sigmoid,
    /// Probabilities, since the network ends in a softmax or a sigmoid of its own.
    Probabilities,
    /// Plain numbers, as of a regression.
    Values,
}

impl Scores {
    /// The name that manifests write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
            Self::Probabilities => "probabilities",
            Self::Values => "values",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_written_by_their_names() {
        for scores in [Scores::Softmax, Scores::Sigmoid, Scores::Probabilities, Scores::Values] {
            assert_eq!(serde_json::to_string(&scores).unwrap(), format!("\"{}\"", scores.name()));
        }
    }
}
