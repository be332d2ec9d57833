//! A small tokenizer of words and their pieces, written by code, for tests.

use serde_json::{Value, json};

/// The ids of the small tokenizer: a word's id is its place.
pub const VOCABULARY: [&str; 12] =
    ["[PAD]", "[UNK]", "good", "bad", "film", "very", "##s", "!", "[CLS]", "[SEP]", "cafe", "##ly"];

/// A `tokenizer.json` without special tokens around a text.
pub fn plain() -> String {
    tokenizer(Value::Null).to_string()
}

/// A `tokenizer.json` that puts `[CLS]` before and `[SEP]` after each text.
pub fn bracketed() -> String {
    tokenizer(json!({"type": "BertProcessing", "sep": ["[SEP]", 9], "cls": ["[CLS]", 8]})).to_string()
}

/// A `tokenizer.json` that normalises and splits as BERT's does.
pub fn bert() -> String {
    let mut tokenizer =
        tokenizer(json!({"type": "BertProcessing", "sep": ["[SEP]", 9], "cls": ["[CLS]", 8]}));
    tokenizer["normalizer"] = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                                     "strip_accents": null, "lowercase": true});
    tokenizer["pre_tokenizer"] = json!({"type": "BertPreTokenizer"});
    tokenizer.to_string()
}

/// A `tokenizer.json` that cuts and pads on its own account.
pub fn padding() -> String {
    let mut tokenizer = tokenizer(Value::Null);
    tokenizer["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"
    });
    tokenizer.to_string()
}

fn tokenizer(post_processor: Value) -> Value {
    let ids: serde_json::Map<String, Value> =
        VOCABULARY.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"String": "<br />"}, "content": " "}
        ]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"\w+|[^\w\s]"},
                          "behavior": "Removed", "invert": true},
        "post_processor": post_processor,
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 64, "vocab": ids}
    })
}
