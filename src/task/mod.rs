//! What a network is for: pure functions of inputs and tensors.
//!
//! No async, no locks, no I/O after construction. A task prepares one row of the network's input
//! from one caller's input, and makes that caller's answer from one row of the network's outputs.
//! Rows of equal shape may share a run; the pool needs to know no more than that.

pub mod base64;
pub mod classify;
mod crop;
pub mod detect;
mod fit;
mod glimpse;
mod input;
mod probes;
mod scores;
pub mod sentiment;

use std::{path::Path, sync::Arc};

pub use self::{
    crop::Crop,
    detect::{Area, Face},
    input::{Cut, Encoded, Input, Look, Weight},
    scores::settle,
};
pub use crate::text::{Supported, Truncated};
use crate::{
    config::LimitsConfig,
    engine::Signature,
    error::Error,
    image::{ImageLimits, Letterbox, Picture, Rect},
    manifest::TaskSpec,
    tensor::{Tensor, Tensors},
};
pub use lepton_scheduler::workload::Workload;

/// What one network is for.
pub trait Task: Send + Sync {
    /// The task's name, as in `model.toml`: `image-classification`.
    fn kind(&self) -> &'static str;

    /// The labels that answers choose from.
    fn labels(&self) -> &[Arc<str>];

    /// Tells the shape of the row that an input prepares to, without looking into it.
    fn bucket(&self, weight: Weight) -> Bucket;

    /// Tells how much there is to prepare of an input by at most about `most_bytes` of it: cheap, and never an error.
    fn workload(&self, input: &Input, _most_bytes: usize) -> Workload {
        Workload::of_bytes(input.n_bytes())
    }

    /// The same of an input that is not there yet; `None` where its bytes say nothing of the work.
    fn foreseen(&self, weight: Weight) -> Option<Workload> {
        Some(Workload::of_bytes(weight.bytes))
    }

    /// The long sides that a picture may be scaled to, the one that is used where nobody chooses first;
    /// none where there is no choice.
    fn sides(&self) -> &[u32] {
        &[]
    }

    /// How faces are to be cut out of pictures for this model; nothing where it classifies none.
    fn crop(&self) -> Option<&Arc<Crop>> {
        None
    }

    /// Turns an input into one row: one tensor per network input, in signature order, without the
    /// batch axis.
    fn prepare(&self, input: Input) -> Result<Prepared, Error>;

    /// The shape of a further row that is run, alone, for every input of that weight.
    fn then(&self, _: Weight) -> Option<usize> {
        None
    }

    /// A further row that the answer needs; nothing where the outputs so far are enough: those of `row`, and
    /// after them those of the further rows before.
    fn further(&self, _row: &Tensors, _outputs: &[Tensor], _frame: &Frame) -> Result<Option<Further>, Error> {
        Ok(None)
    }

    /// Turns the network's outputs for one row (without the batch axis), and for its further rows, into the
    /// answer.
    fn answer(&self, outputs: Tensors, frame: &Frame) -> Result<Answer, Error>;

    /// What two ways to run the network are compared by: what a caller would read of these outputs, as
    /// numbers from 0 to 1, in an order that depends on the row's shape alone.
    fn compared(&self, outputs: Tensors, frame: &Frame) -> Result<Vec<f32>, Error> {
        let scores = match self.answer(outputs, frame)? {
            Answer::Image { scores, .. } | Answer::Text { scores, .. } => scores,
            Answer::Faces { .. } => Ranked::default(),
        };
        let of = |(number, label): (u32, &Arc<str>)| {
            let is_it = |scored: &&Scored| match scored.index {
                Some(index) => index == number,
                None => scored.label == *label,
            };
            scores.scores.iter().find(is_it).map_or(f32::NAN, |scored| scored.score)
        };
        Ok((0..).zip(self.labels()).map(of).collect())
    }

    /// One row of each bucket that `prepare` can make, the cheapest first: what a warm-up runs.
    fn samples(&self) -> Vec<Sample>;

    /// The same input without padding and with some, where a row is padded and no input tells the network so.
    fn padded(&self) -> Option<[Prepared; 2]> {
        None
    }

    /// Rows as different from each other as callers' rows are, the same at each call: what two ways to
    /// run the network are compared by. None where the task cannot make any.
    fn probes(&self) -> Vec<Prepared> {
        Vec::new()
    }
}

/// What is known of a row's shape before any work. Rows of one bucket cost the same; those of one shape may
/// share a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// It is this one, whatever the input.
    Sure(usize),
    /// It is likely this one; preparing tells.
    Likely(usize),
}

impl Bucket {
    /// The task's number for the shape.
    pub fn number(self) -> usize {
        let (Self::Sure(number) | Self::Likely(number)) = self;
        number
    }
}

/// A row that stands for all rows of its bucket.
#[derive(Debug, Clone)]
pub struct Sample {
    pub bucket: usize,
    pub row: Tensors,
}

impl Sample {
    /// Numbers in the row, over all inputs.
    pub fn size(&self) -> usize {
        self.row.iter().map(|tensor| tensor.shape().iter().product::<usize>()).sum()
    }
}

/// One row, ready to run.
#[derive(Debug)]
pub struct Prepared {
    pub row: Tensors,
    /// The task's number for the row's shape.
    pub bucket: usize,
    pub frame: Frame,
}

/// A further row of an input, to be run alone.
#[derive(Debug)]
pub struct Further {
    pub row: Tensors,
    /// The task's number for the row's shape.
    pub bucket: usize,
    pub billing: Billing,
}

/// How the cost of a further run is foreseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// By [`Task::then`]: its cost was part of what the input was charged with.
    Upfront,
    /// It depends on what the network gave: its cost is part of what answering takes on average.
    OnAverage,
}

/// What the answer needs to remember of the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The upright picture's size in pixels, and the region of it that the row shows.
    Image { width: u32, height: u32, region: Rect },
    /// How the picture lies on the row's canvas, the logit of the least sure face that is answered, and the
    /// picture itself where faces are to be cut out of it.
    Scene { letterbox: Letterbox, least: f32, kept: Option<Kept> },
    /// Tokens in the row, and whether the text had more.
    Text { tokens: usize, truncated: Truncated, supported: Supported },
}

/// A decoded picture, and what is to be cut out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub picture: Picture,
    pub cut: Cut,
}

/// What a caller gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Image {
        width: u32,
        height: u32,
        region: Rect,
        scores: Ranked,
    },
    /// The faces in a picture of that size, the surest first.
    Faces {
        width: u32,
        height: u32,
        faces: Vec<Face>,
    },
    Text {
        tokens: usize,
        truncated: Truncated,
        /// Whether the model reads the text's language.
        supported: Supported,
        scores: Ranked,
    },
}

/// Labels with their scores, best first. Never empty in an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranked {
    pub scores: Vec<Scored>,
    /// How many of the first labels were found, where several may be right; nothing where one is.
    pub found: Option<usize>,
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

impl From<Vec<Scored>> for Ranked {
    /// Scores, best first, of labels of which one is right.
    fn from(scores: Vec<Scored>) -> Self {
        Self { scores, found: None }
    }
}

/// What a task needs besides its spec.
#[derive(Debug, Clone, Copy)]
pub struct TaskOptions {
    /// How large a picture may be.
    pub image: ImageLimits,
}

impl From<&LimitsConfig> for TaskOptions {
    fn from(limits: &LimitsConfig) -> Self {
        let LimitsConfig { image_pixels: pixels, image_side: side, image_memory, .. } = *limits;
        Self { image: ImageLimits { pixels, side, memory: image_memory.0 } }
    }
}

/// Builds the task that a manifest names, reading its labels and tokenizer from `dir`; refuses a
/// spec that does not fit the network, naming both numbers.
pub fn build(
    spec: &TaskSpec,
    dir: &Path,
    signature: &Signature,
    options: TaskOptions,
) -> Result<Arc<dyn Task>, SpecError> {
    Ok(match spec {
        TaskSpec::ImageClassification(spec) => {
            Arc::new(classify::ImageClassification::build(spec, dir, signature, options)?)
        }
        TaskSpec::FaceDetection(spec) => {
            Arc::new(detect::FaceDetection::build(spec, dir, signature, options)?)
        }
        TaskSpec::TextClassification(spec) => {
            Arc::new(sentiment::TextClassification::build(spec, dir, signature)?)
        }
    })
}

/// Why a manifest's task does not fit its files or its network.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("cannot read {file}: {reason}")]
    File { file: String, reason: String },
    #[error("{0}")]
    Misfit(String),
}
