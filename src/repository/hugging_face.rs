//! Folders as other tools write them: `config.json` with `preprocessor_config.json`, or with `tokenizer.json` or
//! `vocab.txt`.
//!
//! Invariant: what a [`Manifest`] cannot say is refused with its name, never approximated, so that
//! a model answers here as it does where it was made.
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

use self::{
    labels::{Config, Problem},
    processor::Preprocessor,
    tokens::{TOKENIZER, Tokens, VOCABULARY},
};
use super::folder::Folder;
use crate::{
    engine::{Dim, Port, Signature},
    manifest::{BatchSpec, Labels},
    tasks::{
        Descriptor, ImageClassificationSpec, TASKS, TaskSpec, TextClassificationSpec, TextInputSpec,
        descriptor_of,
    },
    tensor::DType,
};

pub(super) const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

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

/// What the files say; the names of the network's inputs are its own.
#[derive(Debug)]
pub(super) struct Description {
    config: Config,
    labels: Vec<String>,
    problem: Problem,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Image(Box<Preprocessor>),
    Text(Tokens),
}

impl Description {
    /// Reads the description in `folder`, which has a [`CONFIG`].
    pub(super) fn read(folder: &Folder) -> Result<Self, String> {
        let config: Config = json::read(folder, CONFIG)?;
        let (problem, labels) = (config.problem()?, config.labels()?);
        let kind = match Takes::find(folder, &config)? {
            Takes::Images => Kind::Image(Box::new(json::read(folder, PREPROCESSOR)?)),
            Takes::Texts => Kind::Text(Tokens::read(folder, &config)?),
        };
        Ok(Self { config, labels, problem, kind })
    }

    /// What the model is, in one line.
    pub(super) fn summary(&self) -> String {
        let kind = match self.kind {
            Kind::Image(_) => "image",
            Kind::Text(_) => "text",
        };
        let of = self.config.model_type.as_deref().map(|kind| format!("{kind}, ")).unwrap_or_default();
        format!("{of}{kind} classification into {} labels", self.labels.len())
    }

    /// How its rows may be batched: as far as the measurements say that it pays.
    pub(super) fn batch(&self) -> BatchSpec {
        BatchSpec { max_rows: MAX_ROWS, ..BatchSpec::default() }
    }

    /// The task that the folder is for.
    pub(super) fn descriptor(&self) -> &'static Descriptor {
        let name = match self.kind {
            Kind::Image(_) => "image-classification",
            Kind::Text(_) => "text-classification",
        };
        descriptor_of(name).unwrap_or(TASKS[0])
    }

    /// Turns the description into a task's section for a network of that signature.
    pub(super) fn spec(&self, signature: &Signature) -> Result<Box<dyn TaskSpec>, String> {
        Ok(match &self.kind {
            Kind::Image(preprocessor) => Box::new(self.image(preprocessor, signature)?),
            Kind::Text(tokens) => Box::new(self.text(tokens, signature)?),
        })
    }

    fn image(
        &self,
        preprocessor: &Preprocessor,
        signature: &Signature,
    ) -> Result<ImageClassificationSpec, String> {
        let (output, Problem { scores, threshold }) = (self.output(signature)?, self.problem);
        let input = preprocessor.input(&self.config, pixels(signature)?)?;
        let labels = Labels::Inline(self.labels.clone());
        Ok(ImageClassificationSpec { labels, output, scores, threshold, temperature: 1.0, input })
    }

    fn text(&self, tokens: &Tokens, signature: &Signature) -> Result<TextClassificationSpec, String> {
        let (output, Problem { scores, threshold }) = (self.output(signature)?, self.problem);
        let input = self.text_input(tokens, signature)?;
        let labels = Labels::Inline(self.labels.clone());
        Ok(TextClassificationSpec { output, scores, threshold, ..TextClassificationSpec::new(labels, input) })
    }

    fn text_input(&self, tokens: &Tokens, signature: &Signature) -> Result<TextInputSpec, String> {
        let input = |name: &str| signature.input(name).map(|(_, port)| port.name.clone());
        refuse_others(signature, &TEXT_INPUTS)?;
        Ok(TextInputSpec {
            tokenizer: tokens.tokenizer.into(),
            wordpiece: tokens.wordpiece.clone(),
            max_tokens: tokens.max_tokens,
            truncation_side: tokens.truncation_side,
            languages: Vec::new(),
            min_tokens: 0,
            pad_id: self.config.pad_token_id.unwrap_or(0),
            ids: named(signature, "input_ids")?.name.clone(),
            ids_reversed: None,
            mask: input("attention_mask"),
            token_types: input("token_type_ids"),
            positions: input("position_ids"),
            first_position: tokens.first_position as i64,
        })
    }

    /// The output that holds the logits, `logits` or else the only one with a number per label; refuses labels that
    /// are not as many.
    fn output(&self, signature: &Signature) -> Result<Option<String>, String> {
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

/// What a network takes.
enum Takes {
    Images,
    Texts,
}

impl Takes {
    /// By the files that there are, and where there are those of both, by the architecture.
    fn find(folder: &Folder, config: &Config) -> Result<Self, String> {
        let images = folder.has(Path::new(PREPROCESSOR));
        let texts = folder.has(Path::new(TOKENIZER)) || folder.has(Path::new(VOCABULARY));
        let is = |task: &str| config.architectures.iter().flatten().any(|name| name.contains(task));
        match (images, texts) {
            (true, false) => Ok(Self::Images),
            (false, true) => Ok(Self::Texts),
            (true, true) if is("ForImageClassification") => Ok(Self::Images),
            (true, true) if is("ForSequenceClassification") => Ok(Self::Texts),
            (true, true) => Err(format!(
                "there are both {PREPROCESSOR} and a tokenizer, and {CONFIG} names no architecture \
                 ...ForImageClassification or ...ForSequenceClassification; a network that takes both is not served"
            )),
            (false, false) => {
                let other = OTHER_TOKENIZERS.into_iter().find(|file| folder.has(Path::new(file)));
                let there = match other {
                    Some(file) => format!(
                        "there is a {file}, but no {TOKENIZER}: save_pretrained of the fast tokenizer writes one"
                    ),
                    None => format!("there is neither {PREPROCESSOR} nor {TOKENIZER} nor {VOCABULARY}"),
                };
                Err(format!(
                    "{there}; expected {PREPROCESSOR} for images, {TOKENIZER} or {VOCABULARY} for texts"
                ))
            }
        }
    }
}

/// The inputs of a network for texts that can be filled.
const TEXT_INPUTS: [&str; 4] = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];

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

fn named<'s>(signature: &'s Signature, name: &str) -> Result<&'s Port, String> {
    let found = signature.input(name).map(|(_, port)| port);
    found.ok_or_else(|| format!("the network has no input `{name}`; it has {}", inputs(signature)))
}

/// Refuses a network with an input that is none of `known`.
fn refuse_others(signature: &Signature, known: &[&str]) -> Result<(), String> {
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

#[cfg(test)]
mod tests;
