//! `model.toml`, typed: what a model folder says about its network.
//!
//! Plain data. Unknown keys are errors; the task is an externally tagged table, so that a typo is
//! reported at its own line.

mod detection;
mod id;
mod labels;
mod language;
mod scores;
mod text;
mod truncation;
mod vision;

use std::{borrow::Cow, path::Path};

pub use lepton_engine::Asked;
use serde::{Deserialize, Serialize};

pub use lepton_scheduler::balance::Balance;

pub use self::{
    detection::{FaceDetectionSpec, GridSpec, SceneInputSpec},
    id::ModelId,
    labels::Labels,
    language::Language,
    scores::Scores,
    text::{TextClassificationSpec, WordPieceSpec},
    truncation::TruncationSide,
    vision::{Color, Filter, Fit, ImageClassificationSpec, ImageInputSpec, Layout, Resampling},
};

/// One model folder's `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the model is for, in one line.
    #[serde(default)]
    pub description: String,
    /// Under which terms the network may be used.
    #[serde(default)]
    pub licence: String,
    /// What the factors of its products may be rounded to.
    #[serde(default)]
    pub precision: Asked,
    /// What the network is for.
    pub task: TaskSpec,
    /// How its rows may be batched.
    #[serde(default)]
    pub batch: BatchSpec,
}

impl Manifest {
    /// Reads the text of a `model.toml`; an error points at its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }
}

/// What a network is for: a variant per task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskSpec {
    ImageClassification(ImageClassificationSpec),
    FaceDetection(FaceDetectionSpec),
    TextClassification(TextClassificationSpec),
}

impl TaskSpec {
    /// The files besides the network that the task reads, relative to the model's folder.
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Self::ImageClassification(spec) => spec.labels.file().into_iter().collect(),
            Self::FaceDetection(spec) => spec.labels.file().into_iter().collect(),
            Self::TextClassification(spec) => {
                spec.labels.file().into_iter().chain([spec.tokenizer.as_path()]).collect()
            }
        }
    }
}

/// How rows may be batched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSpec {
    /// Most rows that one run takes. How many it really takes is measured.
    #[serde(default = "one_row")]
    pub max_rows: usize,
    /// Whether a worker may wait for company, where a request does not say.
    #[serde(default)]
    pub balance: Balance,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self { max_rows: one_row(), balance: Balance::default() }
    }
}

fn one_row() -> usize {
    1
}

fn one() -> f32 {
    1.0
}

fn one_255th() -> f32 {
    1.0 / 255.0
}

/// A model's name: `[a-z0-9][a-z0-9._-]{0,63}`, so that a name can never be a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Cow<'static, str>);

impl ModelName {
    /// Makes a name of the program's own. Meant for constants, where a bad name does not compile.
    pub const fn literal(text: &'static str) -> Self {
        assert!(is_name(text.as_bytes()), "not a model's name");
        Self(Cow::Borrowed(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says whether `text` may name a model. Written with a loop so that constants can use it.
const fn is_name(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        let fits = match text[at] {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'.' | b'_' | b'-' => at > 0,
            _ => false,
        };
        if !fits {
            return false;
        }
        at += 1;
    }
    0 < at && at <= 64
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for ModelName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if is_name(text.as_bytes()) { Ok(Self(Cow::Owned(text))) } else { Err(NameError { name: text }) }
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0.into_owned()
    }
}

/// A text that cannot be a model's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot be a model's name: allowed are 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit"
)]
pub struct NameError {
    name: String,
}

/// A version of a model: the number of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENTIMENT: &str = r#"
        description = "English sentiment"
        [task.text-classification]
        tokenizer = "tokenizer.json"
        max_tokens = 256
        ids = "ids"
        [batch]
        max_rows = 32
    "#;

    #[test]
    fn what_is_left_out_has_its_default() {
        let manifest = Manifest::parse(SENTIMENT).unwrap();
        assert_eq!(manifest.batch, BatchSpec { max_rows: 32, balance: Balance::Fast });
        assert_eq!((manifest.licence.as_str(), manifest.precision), ("", Asked::Auto));
        let TaskSpec::TextClassification(spec) = &manifest.task else { panic!("{manifest:?}") };
        assert_eq!(spec.labels, Labels::File("labels.txt".into()));
        assert_eq!((spec.temperature, spec.pad_id, spec.mask.as_deref()), (1.0, 0, None));
        assert_eq!(manifest.task.files(), [Path::new("labels.txt"), Path::new("tokenizer.json")]);
    }

    #[test]
    fn a_typo_is_reported_at_its_own_line_with_what_is_allowed() {
        let error = Manifest::parse(&SENTIMENT.replace("max_tokens", "max_token")).unwrap_err();
        assert!(error.contains("line 5"), "{error}");
        assert!(error.contains("unknown field `max_token`, expected one of"), "{error}");
        assert!(error.contains("^^^^^^^^^"), "{error}");
    }

    #[test]
    fn an_unknown_task_is_refused_with_those_that_exist() {
        let error =
            Manifest::parse(&SENTIMENT.replace("text-classification", "text-generation")).unwrap_err();
        assert!(error.contains("`image-classification`"), "{error}");
    }

    #[test]
    fn a_name_that_could_be_a_path_is_refused() {
        for bad in ["", ".", "..", ".git", "-x", "a/b", "A", "ä", "a b", "a\0", &"a".repeat(65)] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
        for good in ["a", "0", "face", "bge-m3.v1_5", &"a".repeat(64)] {
            assert_eq!(good.parse::<ModelName>().unwrap().as_str(), good);
        }
    }
}
