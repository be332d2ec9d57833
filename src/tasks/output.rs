//! What a caller gets: the closed set of shapes that answers have.

use std::sync::Arc;

use super::{Supported, Truncated};
use crate::tensor::Tensor;

/// An answer: what the network said, and what is known of the item that it was asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub output: Output,
    pub about: About,
}

/// What the network said. Each variant has one writer of JSON and one line on the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Labels with their scores.
    Classes(Ranked),
    /// Things in a picture, the surest first.
    Detections(Vec<Detection>),
    /// Parts of a text, in its order.
    Spans(Vec<Span>),
    /// An embedding.
    Vector(Vec<f32>),
    /// One number, such as how relevant a passage is.
    Score(f32),
    /// The network's outputs as they are, by their names.
    Tensors(Vec<(String, Tensor)>),
}

impl Output {
    /// The numbers that a caller reads: for classes, one for each of `labels`, in their order.
    pub fn scores(&self, labels: &[Arc<str>]) -> Vec<f32> {
        match self {
            Self::Classes(ranked) => {
                (0..).zip(labels).map(|(number, label)| ranked.score_of(number, label)).collect()
            }
            Self::Detections(detections) => detections.iter().map(|detection| detection.score).collect(),
            Self::Spans(spans) => spans.iter().map(|span| span.score).collect(),
            Self::Vector(vector) => vector.clone(),
            Self::Score(score) => vec![*score],
            Self::Tensors(tensors) => {
                let numbers = tensors.iter().filter_map(|(_, tensor)| tensor.as_slice::<f32>().ok());
                numbers.flatten().copied().collect()
            }
        }
    }
}

/// What is known of the item that an answer is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum About {
    /// The upright picture's size in pixels.
    Image {
        width: u32,
        height: u32,
    },
    Text {
        /// Tokens that the model read.
        tokens: usize,
        truncated: Truncated,
        /// Whether the model reads the text's language.
        supported: Supported,
    },
    Tensors,
}

/// Labels with their scores, best first. Never empty in an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranked {
    pub scores: Vec<Scored>,
    /// How many of the first labels were found, where several may be right; `None` where one is.
    pub found: Option<usize>,
}

impl Ranked {
    /// The score of a label; not a number where it has none.
    fn score_of(&self, number: u32, label: &Arc<str>) -> f32 {
        let is_it = |scored: &&Scored| match scored.index {
            Some(index) => index == number,
            None => scored.label == *label,
        };
        self.scores.iter().find(is_it).map_or(f32::NAN, |scored| scored.score)
    }
}

impl From<Vec<Scored>> for Ranked {
    /// Scores, best first, of labels of which one is right.
    fn from(scores: Vec<Scored>) -> Self {
        Self { scores, found: None }
    }
}

/// A label and its score: a calibrated probability, or the value of a regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub label: Arc<str>,
    pub score: f32,
    /// The label's number in the model, where labels of it read the same.
    pub index: Option<u32>,
}

impl Scored {
    /// A label that no other of its model reads like.
    pub fn new(label: impl Into<Arc<str>>, score: f32) -> Self {
        Self { label: label.into(), score, index: None }
    }
}

/// A part of a picture, in pixels of the upright original.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// A thing in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Where it is, within the picture.
    pub area: Area,
    pub label: Arc<str>,
    /// The label's number in the model.
    pub label_id: u32,
    /// How sure the network is of it, 0 to 1.
    pub score: f32,
    /// Points of it in pixels of the picture, in an order that the model's card names; beyond the picture's edge where
    /// the thing is cut. None where the network gives none.
    pub landmarks: Vec<[f32; 2]>,
}

/// A part of a text that means something.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Where it begins and where it ends, in characters of the text.
    pub start: usize,
    pub end: usize,
    pub label: Arc<str>,
    /// How sure the network is of it, 0 to 1.
    pub score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_compared_in_the_order_of_the_labels_also_where_labels_repeat() {
        let labels: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        let ranked = Ranked::from(vec![Scored::new("b", 0.7), Scored::new("a", 0.3)]);
        let scores = Output::Classes(ranked).scores(&labels);
        assert_eq!(scores[..2], [0.3, 0.7]);
        assert!(scores[2].is_nan());
        let labels: Vec<Arc<str>> = ["a", "a"].map(Arc::from).to_vec();
        let scored = |index, score| Scored { index: Some(index), ..Scored::new("a", score) };
        let ranked = Ranked::from(vec![scored(1, 0.9), scored(0, 0.1)]);
        assert_eq!(Output::Classes(ranked).scores(&labels), [0.1, 0.9]);
    }
}
