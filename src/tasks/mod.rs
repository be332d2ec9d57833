//! What networks are for: pure functions from a caller's input to a row, and from the network's outputs to an answer.
//!
//! No async, no locks, no I/O after construction. A task is one file with its section of `model.toml`, registered here by
//! its `mod` and its line in [`TASKS`]; everything else asks its [`Descriptor`]. Closed over few things that change slowly are only
//! what passes through: [`Item`] and [`Output`].

pub mod base64;
mod calibration;
mod descriptor;
pub mod face_detection;
mod fit;
mod glimpse;
mod image_classification;
mod input;
mod options;
mod output;
mod scores;
mod spec;
mod text_classification;
mod text_embedding;
mod text_input;

use std::{any::Any, sync::Arc};

pub use self::{
    descriptor::{Descriptor, HuggingFace, Modality, OptionKind, OptionSpec, OutputKind, TOP_K, top_k},
    face_detection::{FaceDetectionSpec, GridSpec},
    image_classification::ImageClassificationSpec,
    input::{EncodedImage, Input, Item, RegionStep, RequestSize},
    options::{OptionFault, OptionValue, Options},
    output::{About, Answer, Area, Detection, Output, Ranked, Scored, Span},
    spec::{BuildContext, SpecError, TaskName, TaskOptions, TaskSpec},
    text_classification::TextClassificationSpec,
    text_input::TextInputSpec,
};
pub use lepton_scheduler::workload::Workload;

pub use crate::text::{Supported, Truncated};
use crate::{
    error::Error,
    image::{Picture, Preprocessing},
    tensor::{Tensor, Tensors},
};

/// Every task, in the order in which errors and pages list them.
pub static TASKS: &[&Descriptor] = &[
    &image_classification::DESCRIPTOR,
    &face_detection::DESCRIPTOR,
    &text_classification::DESCRIPTOR,
    &text_embedding::DESCRIPTOR,
];

/// Finds a task by its name in `model.toml`.
pub fn descriptor_of(name: &str) -> Option<&'static Descriptor> {
    TASKS.iter().copied().find(|task| task.name == name)
}

/// The names of all tasks, for errors.
pub fn names() -> String {
    TASKS.iter().map(|task| format!("`{}`", task.name)).collect::<Vec<_>>().join(", ")
}

/// One network's task, as its model was built.
pub trait Task: Send + Sync {
    /// The kind of task that this is one of.
    fn descriptor(&self) -> &'static Descriptor;

    /// The labels that answers choose from; none where answers have no labels.
    fn labels(&self) -> &[Arc<str>] {
        &[]
    }

    /// Rejects options that the kind of task has but this model does not offer.
    ///
    /// # Errors
    /// [`Error::Malformed`] that names the option and the values that are allowed.
    fn check(&self, _options: &Options) -> Result<(), Error> {
        Ok(())
    }

    /// Estimates the shape of the row that an input becomes, without reading the input.
    fn shape_class(&self, size: &RequestSize) -> ShapeClass;

    /// Estimates how much there is to preprocess of an input, from at most about `most_bytes` of it. Cheap, and never an
    /// error.
    fn workload(&self, input: &Input, _most_bytes: usize) -> Workload {
        Workload::of_bytes(input.n_bytes())
    }

    /// The same for an input that has not arrived yet; `None` where its bytes say nothing of the work.
    fn foreseen(&self, size: &RequestSize) -> Option<Workload> {
        Some(Workload::of_bytes(size.bytes.unwrap_or_default()))
    }

    /// How a region of a picture becomes a row; `None` where the task reads no pictures that are decoded already.
    fn pixels(&self) -> Option<&Preprocessing> {
        None
    }

    /// Turns an input into one row: one tensor for each input of the network, in signature order, without the batch
    /// axis.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an input that is broken, [`Error::Invalid`] for one of another modality,
    /// [`Error::TooLarge`] for one beyond the limits.
    fn preprocess(&self, input: Input) -> Result<Prepared, Error>;

    /// The shape number of a further row that runs, alone, for every input of that size.
    fn then(&self, _size: &RequestSize) -> Option<usize> {
        None
    }

    /// A further row that the answer needs; `None` where the outputs so far are enough: those of `row`, and after them
    /// those of the further rows before.
    ///
    /// # Errors
    /// [`Error::Internal`] for outputs that the network cannot give.
    fn further(
        &self,
        _row: &Tensors,
        _outputs: &[Tensor],
        _context: &Context,
    ) -> Result<Option<Further>, Error> {
        Ok(None)
    }

    /// Turns the network's outputs for one row (without the batch axis), followed by those of its further rows, into the
    /// answer.
    ///
    /// # Errors
    /// [`Error::Internal`] for outputs that are no answer, such as numbers that are not finite.
    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error>;

    /// The numbers by which two ways to run the network are compared: what a caller reads of these outputs, on a scale
    /// from 0 to 1, in an order that depends on the row's shape alone.
    ///
    /// # Errors
    /// As [`Task::postprocess`].
    fn scores(&self, outputs: Tensors, context: &Context) -> Result<Vec<f32>, Error> {
        Ok(self.postprocess(outputs, context)?.output.scores(self.labels()))
    }

    /// One row of each shape that [`Task::preprocess`] can make, the cheapest first: what a warm-up runs and measures.
    fn profile_inputs(&self) -> Vec<ProfileInput>;

    /// What an operator can do where the network fails on a row of that shape.
    fn advice(&self, _shape: usize) -> Option<String> {
        None
    }

    /// The same input without padding and with padding, where rows are padded and no input tells the network so.
    fn padded(&self) -> Option<[Prepared; 2]> {
        None
    }

    /// Rows that differ as much as callers' rows do, the same at each call: what two ways to run the network are
    /// compared by. None where the task cannot make any.
    fn calibration_inputs(&self) -> Vec<Prepared> {
        Vec::new()
    }
}

/// What is known of a row's shape before any work. Rows of one class cost the same; those of one shape may share a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeClass {
    /// It is this one, whatever the input.
    Known(usize),
    /// It is likely this one; preprocessing tells.
    Likely(usize),
}

impl ShapeClass {
    /// The task's number for the shape.
    pub fn number(self) -> usize {
        let (Self::Known(number) | Self::Likely(number)) = self;
        number
    }
}

/// A row that stands for all rows of its shape.
#[derive(Debug, Clone)]
pub struct ProfileInput {
    /// The task's number for the shape.
    pub shape: usize,
    pub row: Tensors,
}

impl ProfileInput {
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
    pub shape: usize,
    pub context: Context,
    /// The decoded picture, kept where the input has a [`RegionStep`].
    pub picture: Option<Picture>,
}

impl Prepared {
    /// A row whose picture is not needed any more, or that never had one.
    pub fn new(row: Tensors, shape: usize, context: Context) -> Self {
        Self { row, shape, context, picture: None }
    }
}

/// What a task remembers of an input until its answer is made. Only the task that made it can read it.
#[derive(Debug)]
pub struct Context(Box<dyn Any + Send>);

impl Context {
    /// Wraps what the task needs to remember.
    pub fn new<T: Send + 'static>(value: T) -> Self {
        Self(Box::new(value))
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Error::Internal`] where another task made it.
    pub fn get<T: 'static>(&self) -> Result<&T, Error> {
        let wrong =
            || Error::Internal("an answer was asked of a task that did not prepare its row".to_owned());
        self.0.downcast_ref().ok_or_else(wrong)
    }
}

/// A further row of an input, to be run alone.
#[derive(Debug)]
pub struct Further {
    pub row: Tensors,
    /// The task's number for the row's shape.
    pub shape: usize,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_options_too() {
        for (idx, task) in TASKS.iter().enumerate() {
            assert!(TASKS[..idx].iter().all(|other| other.name != task.name), "{}", task.name);
            for (idx, option) in task.options.iter().enumerate() {
                assert!(task.options[..idx].iter().all(|other| other.name != option.name), "{}", option.name);
                assert!(!option.about.is_empty());
            }
        }
    }
}
