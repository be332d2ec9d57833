//! How a folder of texts says which tokenizer it has, and how many tokens its network reads.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{json, labels::Config};
use crate::{
    folder::Folder,
    manifest::{TruncationSide, WordPieceSpec},
};

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const VOCABULARY: &str = "vocab.txt";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Tokens that a text model reads where its files do not say.
const USUAL_MAX_TOKENS: usize = 512;

/// Tokenizers that are BERT's under other names: a vocabulary is all that they need.
const OF_BERT: [&str; 9] = [
    "Bert",
    "ConvBert",
    "DistilBert",
    "DPRQuestionEncoder",
    "Electra",
    "LayoutLM",
    "Lxmert",
    "MobileBert",
    "SqueezeBert",
];

/// Model types whose tokenizer is BERT's where no file names one.
const MODELS_OF_BERT: [&str; 9] =
    ["bert", "convbert", "distilbert", "electra", "layoutlm", "lxmert", "mobilebert", "nezha", "squeezebert"];

/// The keys of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    tokenizer_class: Option<String>,
    /// Written as 1e30 where there is no limit.
    model_max_length: Option<f64>,
    truncation_side: TruncationSide,
    do_lower_case: Option<bool>,
    do_basic_tokenize: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    never_split: Option<Vec<String>>,
    unk_token: Option<Value>,
    cls_token: Option<Value>,
    sep_token: Option<Value>,
}

/// What the files of a folder say of its tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) tokenizer: &'static str,
    pub(crate) wordpiece: Option<WordPieceSpec>,
    pub(crate) max_tokens: usize,
    pub(crate) first_position: usize,
    pub(crate) truncation_side: TruncationSide,
}

impl Tokens {
    /// Reads them in a folder that has a [`TOKENIZER`] or a [`VOCABULARY`].
    pub(super) fn read(folder: &Folder, config: &Config) -> Result<Self, String> {
        let tokenizer: TokenizerConfig = match folder.has(Path::new(TOKENIZER_CONFIG)) {
            true => json::read(folder, TOKENIZER_CONFIG)?,
            false => TokenizerConfig::default(),
        };
        let (file, wordpiece) = match folder.has(Path::new(TOKENIZER)) {
            true => (TOKENIZER, None),
            false => (VOCABULARY, Some(tokenizer.wordpiece(config)?)),
        };
        let first_position = first_position(config);
        let max_tokens = max_tokens(&tokenizer, config);
        let truncation_side = tokenizer.truncation_side;
        Ok(Self { tokenizer: file, wordpiece, max_tokens, first_position, truncation_side })
    }
}

impl TokenizerConfig {
    /// The settings of a vocabulary that comes without a [`TOKENIZER`].
    fn wordpiece(&self, config: &Config) -> Result<WordPieceSpec, String> {
        let model_type = config.model_type.as_deref();
        match &self.tokenizer_class {
            Some(class) => {
                let stem = class.strip_suffix("Fast").unwrap_or(class);
                if !stem.strip_suffix("Tokenizer").is_some_and(|stem| OF_BERT.contains(&stem)) {
                    return Err(format!(
                        "{TOKENIZER_CONFIG}: a {VOCABULARY} of the tokenizer_class {class:?} is not enough; expected \
                         {TOKENIZER}, which the tokenizer's save_pretrained writes"
                    ));
                }
            }
            None if model_type.is_none_or(|model_type| MODELS_OF_BERT.contains(&model_type)) => {}
            None => {
                return Err(format!(
                    "a {VOCABULARY} is not enough for the model_type {:?}; expected {TOKENIZER}",
                    model_type.unwrap_or_default()
                ));
            }
        }
        if self.do_basic_tokenize == Some(false) {
            return Err(format!("{TOKENIZER_CONFIG}: do_basic_tokenize is false; expected {TOKENIZER}"));
        }
        if self.never_split.as_ref().is_some_and(|words| !words.is_empty()) {
            return Err(format!("{TOKENIZER_CONFIG}: never_split is not served; expected {TOKENIZER}"));
        }
        let usual = WordPieceSpec::default();
        Ok(WordPieceSpec {
            lowercase: self.do_lower_case.unwrap_or(usual.lowercase),
            strip_accents: self.strip_accents,
            split_chinese: self.tokenize_chinese_chars.unwrap_or(usual.split_chinese),
            unknown: token(&self.unk_token).unwrap_or(usual.unknown),
            first: token(&self.cls_token).unwrap_or(usual.first),
            last: token(&self.sep_token).unwrap_or(usual.last),
        })
    }
}

/// A special token is a text, or an object that holds one.
fn token(value: &Option<Value>) -> Option<String> {
    let value = value.as_ref()?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// The most tokens that both the tokenizer and the network's table of positions allow.
fn max_tokens(tokenizer: &TokenizerConfig, config: &Config) -> usize {
    let by_tokenizer = tokenizer.model_max_length.filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
    let by_positions = config.positions().map(|n| n.saturating_sub(first_position(config)).max(1));
    by_tokenizer.into_iter().chain(by_positions).min().unwrap_or(USUAL_MAX_TOKENS)
}

/// The row of the table of positions that the first token takes. RoBERTa and the models whose code is made
/// of its code count from `pad_token_id + 1`, so that padding has a row of its own.
fn first_position(config: &Config) -> usize {
    match config.model_type.as_deref() {
        Some(
            "roberta"
            | "roberta-prelayernorm"
            | "xlm-roberta"
            | "xlm-roberta-xl"
            | "xmod"
            | "camembert"
            | "longformer"
            | "ibert"
            | "data2vec-text"
            | "luke"
            | "mluke"
            | "lilt"
            | "markuplm"
            | "esm"
            | "bridgetower"
            | "layoutlmv3",
        ) => usize::try_from(config.pad_token_id.unwrap_or(1)).map_or(2, |pad| pad.saturating_add(1)),
        // Its code has the number itself, whatever the configuration says.
        Some("mpnet") => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wordpiece(tokenizer: &str, config: &str) -> Result<WordPieceSpec, String> {
        let tokenizer: TokenizerConfig = serde_json::from_str(tokenizer).unwrap();
        tokenizer.wordpiece(&serde_json::from_str(config).unwrap())
    }

    #[test]
    fn a_vocabulary_takes_the_settings_of_its_tokenizer() {
        let config = r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": false, "strip_accents": null,
            "tokenize_chinese_chars": false, "unk_token": {"content": "<unk>", "lstrip": false}, "cls_token": "<s>"}"#;
        let expected = WordPieceSpec {
            lowercase: false,
            strip_accents: None,
            split_chinese: false,
            unknown: "<unk>".to_owned(),
            first: "<s>".to_owned(),
            last: "[SEP]".to_owned(),
        };
        assert_eq!(wordpiece(config, "{}"), Ok(expected));
        assert_eq!(wordpiece("{}", r#"{"model_type": "electra"}"#), Ok(WordPieceSpec::default()));
    }

    #[test]
    fn a_vocabulary_of_another_tokenizer_is_refused_with_what_is_needed() {
        for (tokenizer, config) in [
            (r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#, "{}"),
            (r#"{"tokenizer_class": "EsmTokenizer"}"#, "{}"),
            ("{}", r#"{"model_type": "esm"}"#),
            (r#"{"do_basic_tokenize": false}"#, "{}"),
            (r#"{"never_split": ["x"]}"#, "{}"),
        ] {
            let error = wordpiece(tokenizer, config).unwrap_err();
            assert!(error.contains("expected tokenizer.json"), "{error}");
        }
    }
}
