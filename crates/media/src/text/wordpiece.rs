//! A vocabulary of WordPiece, one token a line, into the `tokenizer.json` that says the same.
//!
//! Invariant: the tokenizer is the one that transformers makes of a slow `BertTokenizer` (its `BertConverter`):
//! BERT's normaliser and splits, the vocabulary by lines, one token before and one behind every text.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

/// What makes a WordPiece tokenizer of a vocabulary (Devlin et al. 2019, BERT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WordPieceSpec {
    /// Whether texts are lowercased.
    pub lowercase: bool,
    /// Whether accents are stripped; left out, as `lowercase`.
    pub strip_accents: Option<bool>,
    /// Whether each Chinese character is a word.
    pub split_chinese: bool,
    /// The token that stands for words that the vocabulary lacks.
    pub unknown: String,
    /// The token before every text.
    pub first: String,
    /// The token after every text.
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

/// Writes the `tokenizer.json` of the vocabulary `bytes`.
///
/// # Errors
/// A text for the log where the bytes are not UTF-8, or lack a token that `spec` names.
pub fn tokenizer_json(bytes: &[u8], spec: &WordPieceSpec) -> Result<Vec<u8>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    // As Python reads lines: the last one may lack its end, and a later line of the same token counts.
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let vocabulary: HashMap<&str, usize> =
        lines.map(|line| line.strip_suffix('\r').unwrap_or(line)).zip(0..).collect();
    let id = |token: &str| {
        let id = vocabulary.get(token).copied();
        id.ok_or_else(|| {
            format!("it has no token {token:?}; expected one token a line, {token:?} among them")
        })
    };
    let WordPieceSpec { lowercase, strip_accents, split_chinese, unknown, first, last } = spec;
    let (unknown_id, first_id, last_id) = (id(unknown)?, id(first)?, id(last)?);
    let special = |id: usize, token: &str| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let mut added = vec![special(unknown_id, unknown), special(first_id, first), special(last_id, last)];
    added.sort_by_key(|token| token["id"].as_u64());
    let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let put = |id: usize, token: &str| json!({"id": token, "ids": [id], "tokens": [token]});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": split_chinese,
            "strip_accents": strip_accents, "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece(first), {"Sequence": {"id": "A", "type_id": 0}}, piece(last)],
            "pair": [piece(first), {"Sequence": {"id": "A", "type_id": 0}}, piece(last),
                {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": last, "type_id": 1}}],
            "special_tokens": {first: put(first_id, first), last: put(last_id, last)}
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary}
    });
    serde_json::to_vec(&tokenizer).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Limit, Tokenizer, TruncationSide};

    const VOCABULARY: &str =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nfilm\n##s\n\u{4e2d}\n\u{6587}\ncafe\ncaf\u{e9}\nGood\n!\n";

    fn ids(spec: &WordPieceSpec, vocabulary: &str, text: &str) -> Vec<u32> {
        let json = tokenizer_json(vocabulary.as_bytes(), spec).unwrap();
        Tokenizer::from_json(&json, Limit { max_tokens: 32, side: TruncationSide::Right })
            .unwrap()
            .encode(text)
            .unwrap()
            .ids
    }

    #[test]
    fn a_vocabulary_is_a_tokenizer_with_the_settings_of_bert() {
        // BertTokenizerFast(vocab_file, do_lower_case=...)(text).input_ids of transformers 4.57.6
        let lower = WordPieceSpec::default();
        assert_eq!(
            ids(&lower, VOCABULARY, "Good FILMS! caf\u{e9} \u{4e2d}\u{6587} x"),
            [2, 4, 5, 6, 12, 9, 7, 8, 1, 3]
        );
        let cased = WordPieceSpec { lowercase: false, split_chinese: false, ..lower.clone() };
        assert_eq!(ids(&cased, VOCABULARY, "Good caf\u{e9} \u{4e2d}\u{6587}"), [2, 11, 10, 1, 3]);
        let accents = WordPieceSpec { strip_accents: Some(false), ..lower };
        assert_eq!(ids(&accents, VOCABULARY, "caf\u{c9}"), [2, 10, 3]);
    }

    #[test]
    fn lines_may_end_as_on_windows_and_the_last_of_two_counts() {
        let spec = WordPieceSpec::default();
        assert_eq!(ids(&spec, &VOCABULARY.replace('\n', "\r\n"), "good"), [2, 4, 3]);
        assert_eq!(ids(&spec, &format!("{VOCABULARY}good"), "good"), [2, 13, 3]);
    }

    #[test]
    fn a_vocabulary_without_a_token_that_is_needed_is_refused_by_its_name() {
        let error = tokenizer_json(b"good\n[CLS]\n[SEP]\n", &WordPieceSpec::default()).unwrap_err();
        assert!(error.contains("no token \"[UNK]\""), "{error}");
        assert!(tokenizer_json(b"\xff", &WordPieceSpec::default()).unwrap_err().contains("UTF-8"));
    }
}
