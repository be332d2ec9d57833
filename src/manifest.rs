//! What a model folder says of its network, typed: names, versions, and the values that several sections share.
//!
//! Plain data. Unknown keys are errors. Each task has its own section beside it, in `tasks`.

mod id;
mod labels;
mod scores;

use std::borrow::Cow;

pub use lepton_engine::PrecisionPolicy;
pub use lepton_media::{
    image::{Color, Filter, Fit, ImageInputSpec, Layout, Resampling, SceneInputSpec},
    text::{Language, TruncationSide, WordPieceSpec},
};
use serde::{Deserialize, Serialize};

pub use lepton_scheduler::balance::Balance;

pub use self::{id::ModelId, labels::Labels, scores::Scores};

/// How rows may be batched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSpec {
    /// Most rows that one run takes. How many it really takes is measured.
    #[serde(default = "one_row")]
    pub max_rows: usize,
    /// How long a row may linger for others to share its run, where a request does not say.
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

pub(crate) fn one() -> f32 {
    1.0
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
