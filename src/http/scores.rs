//! Labels with their probabilities, as answers write them.

use serde::Serialize;

use super::written::{push_json, push_text};
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

    /// Appends it as JSON, as it serialises.
    pub(super) fn push(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(b"{\"label\":");
        push_text(json, self.label);
        json.extend_from_slice(b",\"score\":");
        push_json(json, &self.score);
        json.push(b'}');
    }
}
