//! From a text to a row of tokens: what the tasks that read texts share.
//!
//! Invariant: a row is padded to the shortest length of a few that holds its tokens, so that rows of one length share a
//! run and at most a quarter of any row is padding.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    About, BuildContext, Context, Input, Item, Modality, Prepared, ProfileInput, RequestSize, ShapeClass,
    SpecError, Supported, Truncated,
    calibration::{N_INPUTS, TEXT_TOKENS},
    fit::{all_filled, input, misfit, read},
};
use crate::{
    engine::{Dim, Port, Signature},
    error::Error,
    hugging_face::{TEXT_INPUTS, Texts, named, refuse_others},
    manifest::{Language, TruncationSide, WordPieceSpec},
    tensor::{DType, Tensor, Tensors},
    text::{Buckets, Encoded, Limit, Tokenizer, wordpiece},
};

/// Longest texts that a manifest may ask for.
const MAX_TOKENS: usize = 8192;

/// Largest `tokenizer.json`, in bytes.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Tokens of a row that is compared with itself padded: about a clause, so that padding is a part that tells.
const PADDED_TOKENS: usize = 6;

/// Bytes of text that make a token, roughly; for weighing only.
const BYTES_PER_TOKEN: usize = 4;

/// How a text becomes the network's inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextInputSpec {
    /// File in the format of Hugging Face tokenizers, or a vocabulary of WordPiece with a token a line.
    #[serde(default = "default_tokenizer")]
    pub tokenizer: PathBuf,
    /// What a vocabulary leaves open; for a `tokenizer` that is one.
    #[serde(default)]
    pub wordpiece: Option<WordPieceSpec>,
    /// Longer texts are cut here, and the answer says so.
    pub max_tokens: usize,
    /// The side at which they are cut.
    #[serde(default)]
    pub truncation_side: TruncationSide,
    /// The languages that the model reads: the answer tells of other texts that they are not supported. None where it
    /// does not say.
    #[serde(default)]
    pub languages: Vec<Language>,
    /// Rows of shorter texts are padded up to here: what the network's widest window needs.
    #[serde(default)]
    pub min_tokens: usize,
    /// The id that fills a row up to its length.
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

pub(super) fn default_tokenizer() -> PathBuf {
    "tokenizer.json".into()
}

impl TextInputSpec {
    /// What a folder of Hugging Face says, for a network of that signature.
    pub(super) fn described(texts: &Texts<'_>, signature: &Signature) -> Result<Self, String> {
        let input = |name: &str| signature.input(name).map(|(_, port)| port.name.clone());
        refuse_others(signature, &TEXT_INPUTS)?;
        let tokens = &texts.tokens;
        Ok(Self {
            tokenizer: tokens.tokenizer.into(),
            wordpiece: tokens.wordpiece.clone(),
            max_tokens: tokens.max_tokens,
            truncation_side: tokens.truncation_side,
            languages: Vec::new(),
            min_tokens: 0,
            pad_id: texts.pad_id(),
            ids: named(signature, "input_ids")?.name.clone(),
            ids_reversed: None,
            mask: input("attention_mask"),
            token_types: input("token_type_ids"),
            positions: input("position_ids"),
            first_position: tokens.first_position as i64,
        })
    }
}

/// Makes rows of texts.
pub(super) struct TextRows {
    tokenizer: Tokenizer,
    lengths: Buckets,
    languages: Vec<Language>,
    pad_id: i64,
    first_position: i64,
    /// How each input of the network is filled, in signature order.
    fills: Vec<Fill>,
}

/// How one input of the network is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fill {
    content: Content,
    dtype: DType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Token ids, padded at the end.
    Ids,
    /// The same ids from the last to the first, padded at the end.
    IdsReversed,
    /// 1 for a token, 0 for padding.
    Mask,
    /// 0 for every token: there is one sentence.
    Types,
    /// The numbers from the first position on, for padding too.
    Positions,
}

impl TextRows {
    /// Reads the tokenizer and holds `spec` to the network's signature.
    pub(super) fn build(spec: &TextInputSpec, context: &BuildContext<'_>) -> Result<Self, SpecError> {
        let max_tokens = spec.max_tokens;
        if !(1..=MAX_TOKENS).contains(&max_tokens) {
            return Err(misfit(format!("max_tokens is {max_tokens}, but 1 to {MAX_TOKENS} are allowed")));
        }
        let min_tokens = spec.min_tokens;
        if min_tokens > max_tokens {
            return Err(misfit(format!(
                "min_tokens is {min_tokens}, but 0 to max_tokens, {max_tokens}, are allowed"
            )));
        }
        let (fills, always) = fills(spec, context.signature)?;
        let max_tokens = always.map_or(max_tokens, |length| length.min(max_tokens));
        let bytes = read(context.dir, &spec.tokenizer, MAX_TOKENIZER_BYTES)?;
        let tokenizer = tokenizer(spec, &bytes, Limit { max_tokens, side: spec.truncation_side })
            .map_err(|reason| SpecError::File { file: spec.tokenizer.display().to_string(), reason })?;
        let lengths = match always {
            Some(length) => Buckets::only(length),
            None => Buckets::new(max_tokens).starting_at(tokenizer.shortest().max(min_tokens)),
        };
        let (pad_id, first_position) = (spec.pad_id, spec.first_position);
        Ok(Self { tokenizer, lengths, languages: spec.languages.clone(), pad_id, first_position, fills })
    }

    /// The length of the row that a text of that size likely becomes.
    pub(super) fn shape_class(&self, size: &RequestSize) -> ShapeClass {
        ShapeClass::Likely(self.lengths.of(size.bytes.unwrap_or_default().div_ceil(BYTES_PER_TOKEN)))
    }

    /// Turns a text into its row; the context is an [`About`].
    pub(super) fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        let Item::Text(text) = &input.item else { return Err(input.misplaced(Modality::Text)) };
        let supported = Supported::of(text, &self.languages);
        let Encoded { ids, truncated } = self.tokenizer.encode(text)?;
        self.prepared(&ids, self.lengths.of(ids.len()), truncated, supported)
    }

    fn prepared(
        &self,
        ids: &[u32],
        length: usize,
        truncated: Truncated,
        supported: Supported,
    ) -> Result<Prepared, Error> {
        let about = About::Text { tokens: ids.len(), truncated, supported };
        Ok(Prepared::new(self.row(ids, length)?, length, Context::new(about)))
    }

    fn sample(&self, ids: &[u32], length: usize) -> Option<Prepared> {
        self.prepared(ids, length, Truncated::No, Supported::Unsaid).ok()
    }

    /// Full rows of id 0, which every vocabulary has, one of each length.
    pub(super) fn profile_inputs(&self) -> Vec<ProfileInput> {
        let full = |length: &usize| {
            let row = self.row(&vec![0; *length], *length).ok()?;
            Some(ProfileInput { shape: *length, row })
        };
        self.lengths.lengths().iter().filter_map(full).collect()
    }

    /// The same text without padding and with padding, where no input of the network tells them apart.
    pub(super) fn padded(&self) -> Option<[Prepared; 2]> {
        if self.fills.iter().any(|fill| fill.content == Content::Mask) {
            return None;
        }
        let lengths = self.lengths.lengths();
        let [tokens, longer] = *lengths.windows(2).find(|pair| pair[0] >= PADDED_TOKENS)? else {
            return None;
        };
        let ids = self.drawn(1, tokens);
        Some([self.sample(&ids, tokens)?, self.sample(&ids, longer)?])
    }

    /// Texts of a few lengths with tokens drawn by chance.
    pub(super) fn calibration_inputs(&self) -> Vec<Prepared> {
        let longest = self.lengths.lengths().last().copied().unwrap_or(1);
        let input = |seed| {
            let tokens = (TEXT_TOKENS[seed as usize % TEXT_TOKENS.len()]).min(longest);
            self.sample(&self.drawn(seed, tokens), self.lengths.of(tokens))
        };
        (0..N_INPUTS).filter_map(input).collect()
    }

    fn drawn(&self, seed: u64, tokens: usize) -> Vec<u32> {
        let (mut rng, n_words) = (fastrand::Rng::with_seed(seed), self.tokenizer.n_words().max(1));
        (0..tokens).map(|_| rng.u32(..n_words)).collect()
    }

    /// What an operator can do where the network fails on rows of that length.
    pub(super) fn advice(&self, length: usize) -> Option<String> {
        (self.lengths.lengths().len() > 1).then(|| {
            format!(
                "the shortest texts have {length} tokens here: where the network needs more, min_tokens in a model.toml \
                 pads them"
            )
        })
    }

    /// Makes one row of `ids`, padded to `length`.
    fn row(&self, ids: &[u32], length: usize) -> Result<Tensors, Error> {
        self.fills
            .iter()
            .map(|fill| {
                let padding = length.saturating_sub(ids.len());
                let values: Vec<i64> = match fill.content {
                    Content::Ids => padded(ids.iter().map(|id| i64::from(*id)), self.pad_id, padding),
                    Content::IdsReversed => {
                        padded(ids.iter().rev().map(|id| i64::from(*id)), self.pad_id, padding)
                    }
                    Content::Mask => padded(ids.iter().map(|_| 1), 0, padding),
                    Content::Types => vec![0; length],
                    Content::Positions => (self.first_position..).take(length).collect(),
                };
                cast(values, fill.dtype)
            })
            .collect()
    }
}

fn padded(values: impl Iterator<Item = i64>, pad: i64, n: usize) -> Vec<i64> {
    values.chain(std::iter::repeat_n(pad, n)).collect()
}

/// A vector of one of the types that the input's network may have.
fn cast(values: Vec<i64>, dtype: DType) -> Result<Tensor, Error> {
    let shape = [values.len()];
    let tensor = match dtype {
        DType::I64 => Tensor::new(shape, values),
        DType::I32 => Tensor::new(shape, values.iter().map(|value| *value as i32).collect()),
        DType::F32 => Tensor::new(shape, values.iter().map(|value| *value as f32).collect()),
        DType::Bool => Tensor::new(shape, values.iter().map(|value| *value != 0).collect()),
        other => return Err(Error::Internal(format!("tokens were to be cast to {other}"))),
    };
    tensor.map_err(|e| Error::Internal(e.to_string()))
}

/// Reads the tokenizer's own file, or a vocabulary.
fn tokenizer(spec: &TextInputSpec, bytes: &[u8], limit: Limit) -> Result<Tokenizer, String> {
    let is_vocabulary = spec.tokenizer.extension().is_some_and(|extension| extension == "txt");
    match (&spec.wordpiece, is_vocabulary) {
        (None, false) => Tokenizer::from_json(bytes, limit),
        (Some(_), false) => Err("wordpiece is for a vocabulary, a file that ends in .txt".to_owned()),
        (settings, true) => {
            let json = wordpiece::tokenizer_json(bytes, &settings.clone().unwrap_or_default())?;
            Tokenizer::from_json(&json, limit)
        }
    }
}

/// Finds how every input of the network is filled, and the length that its rows always have, if there is one.
fn fills(spec: &TextInputSpec, signature: &Signature) -> Result<(Vec<Fill>, Option<usize>), SpecError> {
    let mut named = vec![("ids", spec.ids.as_str(), Content::Ids)];
    named.extend(spec.ids_reversed.as_deref().map(|name| ("ids_reversed", name, Content::IdsReversed)));
    named.extend(spec.mask.as_deref().map(|name| ("mask", name, Content::Mask)));
    named.extend(spec.token_types.as_deref().map(|name| ("token_types", name, Content::Types)));
    named.extend(spec.positions.as_deref().map(|name| ("positions", name, Content::Positions)));
    let mut fills = Vec::new();
    let mut lengths = Vec::new();
    for (key, name, content) in &named {
        let (at, port) = input(signature, key, name)?;
        if let Some((_, other, _)) = fills.iter().find(|(taken, _, _)| *taken == at) {
            return Err(misfit(format!("{other} and {key} both name the input {name:?}")));
        }
        fills.push((at, key, Fill { content: *content, dtype: port_type(port, *content)? }));
        lengths.push(match port.shape.get(1) {
            Some(Dim::Fixed(length)) => Some(*length),
            _ => None,
        });
    }
    lengths.dedup();
    let [always] = lengths[..] else {
        return Err(misfit("the network's inputs take rows of different lengths".to_owned()));
    };
    let names: Vec<&str> = named.iter().map(|(_, name, _)| *name).collect();
    all_filled(signature, &names)?;
    if fills.iter().any(|(_, _, fill)| fill.dtype == DType::I32) && i32::try_from(spec.pad_id).is_err() {
        return Err(misfit(format!("pad_id is {}, but the network takes i32", spec.pad_id)));
    }
    fills.sort_by_key(|(at, _, _)| *at);
    Ok((fills.into_iter().map(|(_, _, fill)| fill).collect(), always))
}

/// Refuses an input that cannot take rows of tokens.
fn port_type(port: &Port, content: Content) -> Result<DType, SpecError> {
    let (name, found) = (&port.name, port.describe());
    let types: &[DType] = match content {
        Content::Ids | Content::IdsReversed | Content::Types | Content::Positions => {
            &[DType::I64, DType::I32]
        }
        Content::Mask => &[DType::I64, DType::I32, DType::F32, DType::Bool],
    };
    if !types.contains(&port.dtype) || port.shape.len() != 2 {
        let names: Vec<String> = types.iter().map(DType::to_string).collect();
        let allowed = names.join(" or ");
        return Err(misfit(format!("input {name:?} is {found}, but it must be {allowed} [batch, length]")));
    }
    Ok(port.dtype)
}
