//! Folders as other tools write them: `config.json` with `preprocessor_config.json`, or with `tokenizer.json` or
//! `vocab.txt`.
//!
//! Invariant: what a section of `model.toml` cannot say is refused with its name, never approximated, so that a model
//! answers here as it does where it was made. Which task a folder is for, the tasks say.
//!
//! - `labels` reads `config.json`; `processor` and its `classes` turn pictures into inputs; `tokens` finds the
//!   tokenizer; `json` reads what Python writes.

mod classes;
mod json;
mod labels;
mod processor;
mod sizes;
mod tokens;

use std::path::Path;

use serde::de::DeserializeOwned;

pub(crate) use self::labels::Problem;
use self::{
    labels::Config,
    processor::Preprocessor,
    tokens::{TOKENIZER, Tokens, VOCABULARY},
};
use crate::{
    engine::{Dim, Port, Signature},
    folder::Folder,
    manifest::{BatchSpec, ImageInputSpec, Labels},
    tensor::DType,
};

/// The file that makes a folder one of these.
pub(crate) const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

/// Largest JSON description, in bytes.
const MAX_JSON: u64 = 4 << 20;

/// Files that other tokenizers are kept in; each needs the tool that knows it to write a [`TOKENIZER`].
const OTHER_TOKENIZERS: [&str; 7] = [
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "bpe.codes",
];

/// Most rows that one run takes where nobody says.
const MAX_ROWS: usize = 32;

/// How sure a task is that a folder is for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// There are the files that it needs.
    Files,
    /// A file names the task, or an architecture that was made for it.
    Named,
}

/// A folder with a [`CONFIG`].
#[derive(Debug)]
pub struct HuggingFaceFolder<'f> {
    folder: &'f Folder,
    config: Config,
}

impl<'f> HuggingFaceFolder<'f> {
    /// Reads the folder's [`CONFIG`].
    pub(crate) fn open(folder: &'f Folder) -> Result<Self, String> {
        Ok(Self { folder, config: json::read(folder, CONFIG)? })
    }

    /// Returns whether there is such a file.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.folder.has(Path::new(file))
    }

    /// Reads another JSON file of the folder.
    pub(crate) fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T, String> {
        json::read(self.folder, file)
    }

    /// How sure it is that the folder is for pictures, for a task whose architectures have `architecture` in their
    /// names.
    pub(crate) fn is_for_images(&self, architecture: &str) -> Option<Certainty> {
        self.certainty(self.has(PREPROCESSOR), self.has_tokenizer(), architecture)
    }

    /// How sure it is that the folder is for texts, for a task whose architectures have `architecture` in their names.
    pub(crate) fn is_for_texts(&self, architecture: &str) -> Option<Certainty> {
        self.certainty(self.has_tokenizer(), self.has(PREPROCESSOR), architecture)
    }

    /// Where there are the files of another modality, too, the architecture has to tell.
    fn certainty(&self, has_files: bool, has_others: bool, architecture: &str) -> Option<Certainty> {
        let is_named = self.config.architectures.iter().flatten().any(|name| name.contains(architecture));
        match (has_files, has_others) {
            (true, _) if is_named => Some(Certainty::Named),
            (true, false) => Some(Certainty::Files),
            _ => None,
        }
    }

    fn has_tokenizer(&self) -> bool {
        self.has(TOKENIZER) || self.has(VOCABULARY)
    }

    /// Why no task is for this folder.
    pub(crate) fn unclaimed(&self) -> String {
        if self.has(PREPROCESSOR) && self.has_tokenizer() {
            return format!(
                "there are both {PREPROCESSOR} and a tokenizer, and {CONFIG} names no architecture \
                 ...ForImageClassification or ...ForSequenceClassification; a network that takes both is not served"
            );
        }
        let there = match OTHER_TOKENIZERS.into_iter().find(|file| self.has(file)) {
            Some(file) => format!(
                "there is a {file}, but no {TOKENIZER}: save_pretrained of the fast tokenizer writes one"
            ),
            None => format!("there is neither {PREPROCESSOR} nor {TOKENIZER} nor {VOCABULARY}"),
        };
        format!("{there}; expected {PREPROCESSOR} for images, {TOKENIZER} or {VOCABULARY} for texts")
    }

    /// What the model is, in one line, before what its task does.
    pub(crate) fn summary(&self, does: &str) -> String {
        let of = self.config.model_type.as_deref().map(|kind| format!("{kind}, ")).unwrap_or_default();
        format!("{of}{does}")
    }

    /// How rows may be batched: as far as the measurements say that it pays.
    pub(crate) fn batch() -> BatchSpec {
        BatchSpec { max_rows: MAX_ROWS, ..BatchSpec::default() }
    }

    /// What the folder says of labels and scores.
    pub(crate) fn classes(&self) -> Result<Classes<'_>, String> {
        let (problem, labels) = (self.config.problem()?, self.config.labels()?);
        Ok(Classes { config: &self.config, labels, problem })
    }

    /// What the folder says of pictures.
    pub(crate) fn pictures(&self) -> Result<Pictures<'_>, String> {
        Ok(Pictures { config: &self.config, preprocessor: Box::new(self.json(PREPROCESSOR)?) })
    }

    /// What the folder says of tokens.
    pub(crate) fn texts(&self) -> Result<Texts<'_>, String> {
        Ok(Texts { config: &self.config, tokens: Tokens::read(self.folder, &self.config)? })
    }
}

/// What a folder says of pictures.
#[derive(Debug)]
pub(crate) struct Pictures<'f> {
    config: &'f Config,
    preprocessor: Box<Preprocessor>,
}

impl Pictures<'_> {
    /// How a picture becomes the network's input.
    pub(crate) fn input(&self, signature: &Signature) -> Result<ImageInputSpec, String> {
        self.preprocessor.input(self.config, pixels(signature)?)
    }
}

/// What a folder says of tokens.
#[derive(Debug)]
pub(crate) struct Texts<'f> {
    config: &'f Config,
    pub(crate) tokens: Tokens,
}

impl Texts<'_> {
    /// The id that fills rows up.
    pub(crate) fn pad_id(&self) -> i64 {
        self.config.pad_token_id.unwrap_or(0)
    }
}

/// What a folder says of labels and scores.
#[derive(Debug)]
pub(crate) struct Classes<'f> {
    config: &'f Config,
    labels: Vec<String>,
    pub(crate) problem: Problem,
}

impl Classes<'_> {
    /// The labels, in the order of the network's logits.
    pub(crate) fn labels(&self) -> Labels {
        Labels::Inline(self.labels.clone())
    }

    /// How many labels there are.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The output that holds the logits, `logits` or else the only one with a number per label; refuses labels that
    /// are not as many.
    pub(crate) fn output(&self, signature: &Signature) -> Result<Option<String>, String> {
        let may = |port: &&Port| port.dtype == DType::F32 && matches!(port.shape.len(), 1 | 2);
        let outputs = || signature.outputs.iter();
        let fits = |port: &&Port| matches!(port.shape.get(1), Some(Dim::Fixed(n)) if *n == self.labels.len());
        let found = outputs().find(|port| port.name == "logits");
        let found = found.or_else(|| outputs().filter(may).find(fits)).or_else(|| outputs().find(may));
        let Some(port) = found else {
            let has: Vec<String> =
                outputs().map(|port| format!("`{}` {}", port.name, port.describe())).collect();
            return Err(format!(
                "the network has no output of logits, f32 [batch, labels]; it has {}",
                has.join(", ")
            ));
        };
        let n_logits = match port.shape.get(1) {
            None => Some(1),
            Some(Dim::Fixed(n)) => Some(*n),
            Some(Dim::Free(_)) => None,
        };
        if let Some(n_logits) = n_logits {
            self.config.check(self.labels.len(), n_logits)?;
        }
        Ok(Some(port.name.clone()))
    }
}

/// The inputs of a network for texts that can be filled.
pub(crate) const TEXT_INPUTS: [&str; 4] = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];

/// The input that takes pictures: `pixel_values`, or the only one.
fn pixels(signature: &Signature) -> Result<&Port, String> {
    match signature.inputs.as_slice() {
        [only] if only.shape.len() == 4 => Ok(only),
        _ => {
            refuse_others(signature, &["pixel_values"])?;
            named(signature, "pixel_values")
        }
    }
}

pub(crate) fn named<'s>(signature: &'s Signature, name: &str) -> Result<&'s Port, String> {
    let found = signature.input(name).map(|(_, port)| port);
    found.ok_or_else(|| format!("the network has no input `{name}`; it has {}", inputs(signature)))
}

/// Refuses a network with an input that is none of `known`.
pub(crate) fn refuse_others(signature: &Signature, known: &[&str]) -> Result<(), String> {
    let has_one = signature.inputs.iter().any(|port| known.contains(&port.name.as_str()));
    match signature.inputs.iter().find(|port| !known.contains(&port.name.as_str())) {
        Some(port) if has_one => Err(format!(
            "the network also takes `{}`, {}; what can be filled is {}",
            port.name,
            port.describe(),
            known.join(", ")
        )),
        _ => Ok(()),
    }
}

fn inputs(signature: &Signature) -> String {
    signature.inputs.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ")
}
