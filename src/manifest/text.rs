//! How texts become tokens. Plain data; `tasks` holds it to the network.

use serde::{Deserialize, Serialize};

/// What makes a WordPiece tokenizer of a vocabulary (Devlin et al. 2019, BERT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WordPieceSpec {
    pub lowercase: bool,
    /// Left out, as `lowercase`.
    pub strip_accents: Option<bool>,
    /// Whether each Chinese character is a word.
    pub split_chinese: bool,
    /// The token of what the vocabulary does not have.
    pub unknown: String,
    /// The tokens before and behind every text.
    pub first: String,
    pub last: String,
}

impl Default for WordPieceSpec {
    fn default() -> Self {
        Self {
            lowercase: true,
            strip_accents: None,
            split_chinese: true,
            unknown: "[UNK]".to_owned(),
            first: "[CLS]".to_owned(),
            last: "[SEP]".to_owned(),
        }
    }
}
