//! What a kind of task offers to callers, known before any model of it is loaded.
//!
//! Invariant: HTTP, the command line, the repository and the configuration learn of a task from here, and match on no
//! task by name.

use std::fmt;

use super::{Options, TaskSpec};
use crate::{
    engine::Signature,
    hugging_face::{Certainty, HuggingFaceFolder},
};

/// One kind of task.
#[derive(Debug)]
pub struct Descriptor {
    /// The name of its section below `[task]` in `model.toml`, such as `image-classification`.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What a caller sends.
    pub modality: Modality,
    /// What a caller gets.
    pub output: OutputKind,
    /// What a caller may choose, beside the deadline and the like that all requests have.
    pub options: &'static [OptionSpec],
    /// Reads its section from the text of a `model.toml`.
    pub read: fn(&str) -> Result<Box<dyn TaskSpec>, toml::de::Error>,
    /// Reads folders as Hugging Face's tools write them; `None` where the task knows none.
    pub hugging_face: Option<HuggingFace>,
}

/// How a task reads a folder as Hugging Face's tools write it.
#[derive(Debug)]
pub struct HuggingFace {
    /// How sure the task is that the folder is for it; `None` where it is not.
    pub claims: fn(&HuggingFaceFolder<'_>) -> Option<Certainty>,
    /// What the model is, in one line; an error names the file and the key that cannot be served.
    pub summary: fn(&HuggingFaceFolder<'_>) -> Result<String, String>,
    /// The section for a network of that signature.
    pub spec: fn(&HuggingFaceFolder<'_>, &Signature) -> Described,
}

/// The section of a task, or the file and the key that cannot be served.
type Described = Result<Box<dyn TaskSpec>, String>;

impl Descriptor {
    /// Finds an option by its name.
    pub fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        self.options.iter().find(|option| option.name == name)
    }
}

impl PartialEq for &'static Descriptor {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// What a caller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    Image,
    Text,
    /// Two texts, such as a question and a passage.
    Pair,
    /// Named tensors, as the network takes them.
    Tensors,
}

impl Modality {
    /// What several items are called, in requests and in refusals.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Text => "texts",
            Self::Pair => "pairs",
            Self::Tensors => "tensors",
        }
    }

    /// One item with its article, for refusals.
    pub fn one(self) -> &'static str {
        match self {
            Self::Image => "an image",
            Self::Text => "a text",
            Self::Pair => "a pair of texts",
            Self::Tensors => "tensors",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}

/// The shape of an answer: the variants of [`super::Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    Classes,
    Detections,
    Spans,
    Vector,
    Score,
    Tensors,
}

/// Something that a caller may choose.
#[derive(Debug)]
pub struct OptionSpec {
    /// The name of the query parameter.
    pub name: &'static str,
    pub kind: OptionKind,
    /// What it does, in one line.
    pub about: &'static str,
}

/// The values that an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionKind {
    /// A whole number from `least` on; `unit` says what it counts.
    Integer { least: u64, unit: &'static str },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// How many of the ranked labels an answer lists: an option of each task that ranks labels.
pub const TOP_K: OptionSpec = OptionSpec {
    name: "top_k",
    kind: OptionKind::Integer { least: 1, unit: "labels" },
    about: "answer the best labels only",
};

/// The most labels that an answer lists.
pub fn top_k(options: &Options) -> usize {
    options.integer(TOP_K.name).map_or(usize::MAX, |top_k| usize::try_from(top_k).unwrap_or(usize::MAX))
}

impl OptionSpec {
    /// What the option takes, for refusals.
    pub fn allowed(&self) -> String {
        match self.kind {
            OptionKind::Integer { least: 0, unit } => format!("a whole number of {unit}"),
            OptionKind::Integer { least, unit } => format!("a whole number of {unit}, at least {least}"),
            OptionKind::Flag => "true or false".to_owned(),
            OptionKind::Word(words) => words.join(", "),
        }
    }
}
