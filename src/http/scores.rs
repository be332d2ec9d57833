//! Labels with their probabilities, as answers write them.

use serde::Serialize;

use crate::task::Ranked;

/// A label and its calibrated probability.
#[derive(Serialize)]
pub(super) struct ScoreBody<'a> {
    label: &'a str,
    score: f32,
}

impl<'a> ScoreBody<'a> {
    /// The best `top_k` scores.
    pub(super) fn best(Ranked(scores): &'a Ranked, top_k: usize) -> Vec<Self> {
        scores.iter().take(top_k).map(|scored| Self { label: &scored.label, score: scored.score }).collect()
    }
}
