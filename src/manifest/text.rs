//! What a folder says of a network that classifies texts. Plain data; `task` holds it to the network.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Labels, Language, Scores, TruncationSide, one};

/// A text in, one of the labels out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextClassificationSpec {
    /// In the order of the network's logits.
    #[serde(default)]
    pub labels: Labels,
    /// Name of the output that holds the logits; left out, `logits` or else the first output.
    #[serde(default)]
    pub output: Option<String>,
    /// How the output becomes scores; left out, as the network's last operator tells.
    #[serde(default)]
    pub scores: Option<Scores>,
    /// The score from which a label counts as found, for a network in which several may be.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// File in the format of Hugging Face tokenizers, or a vocabulary of WordPiece with a token a line.
    #[serde(default = "default_tokenizer")]
    pub tokenizer: PathBuf,
    /// What a vocabulary leaves open; for a `tokenizer` that is one.
    #[serde(default)]
    pub wordpiece: Option<WordPieceSpec>,
    /// Logits are divided by this before the softmax.
    #[serde(default = "one")]
    pub temperature: f32,
    /// Longer texts are cut here, and the answer says so.
    pub max_tokens: usize,
    /// The side at which they are cut.
    #[serde(default)]
    pub truncation_side: TruncationSide,
    /// The languages that the model reads: the answer tells of other texts that they are not supported. None
    /// where it does not say.
    #[serde(default)]
    pub languages: Vec<Language>,
    /// Rows of shorter texts are padded up to here: what the network's widest window needs.
    #[serde(default)]
    pub min_tokens: usize,
    /// The id that fills a row up to its bucket.
    #[serde(default)]
    pub pad_id: i64,
    /// Name of the input that takes the token ids, `[batch, length]`.
    pub ids: String,
    /// Name of the input that takes each row's ids in reverse, padded at the end, if there is one.
    #[serde(default)]
    pub ids_reversed: Option<String>,
    /// Name of the input that takes 1 for a token and 0 for padding, if there is one.
    #[serde(default)]
    pub mask: Option<String>,
    /// Name of the input that takes the number of the sentence that a token is of, if there is one: always 0.
    #[serde(default)]
    pub token_types: Option<String>,
    /// Name of the input that takes each token's position, if there is one.
    #[serde(default)]
    pub positions: Option<String>,
    /// The position of the first token.
    #[serde(default)]
    pub first_position: i64,
}

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

fn default_tokenizer() -> PathBuf {
    "tokenizer.json".into()
}
