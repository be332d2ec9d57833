//! Labels with their scores, as answers write them.

use serde::Serialize;

use super::json_writer::{push_json, push_number, push_text};
use crate::tasks::{Ranked, Scored};

/// A label and its score.
#[derive(Serialize)]
pub(super) struct ScoreBody<'a> {
    label: &'a str,
    /// The label's number in the model; left out where no two of its labels read the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    score: f32,
}

impl<'a> ScoreBody<'a> {
    /// The best `top_k` scores.
    pub(super) fn best(ranked: &'a Ranked, top_k: usize) -> Vec<Self> {
        let body =
            |scored: &'a Scored| Self { label: &scored.label, index: scored.index, score: scored.score };
        ranked.scores.iter().take(top_k).map(body).collect()
    }

    /// Appends it as JSON, as it serialises.
    pub(super) fn push(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(b"{\"label\":");
        push_text(json, self.label);
        if let Some(index) = self.index {
            json.extend_from_slice(b",\"index\":");
            push_number(json, u64::from(index));
        }
        json.extend_from_slice(b",\"score\":");
        push_json(json, &self.score);
        json.push(b'}');
    }
}

/// Every label that was found, the surest first; nothing where one label is right.
pub(super) fn found(ranked: &Ranked) -> Option<Vec<&str>> {
    let found = &ranked.scores[..ranked.found?.min(ranked.scores.len())];
    Some(found.iter().map(|scored| &*scored.label).collect())
}
