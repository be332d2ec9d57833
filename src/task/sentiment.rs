//! Text classification: a text in, one of the labels out.
//!
//! Invariant: a row is padded to the shortest bucket that holds its tokens, so that rows of one
//! bucket share a run and at most a quarter of any row is padding.

use std::{path::Path, sync::Arc};

use super::{
    Answer, Bucket, Frame, Input, Prepared, Sample, SpecError, Supported, Task, Truncated, Weight,
    fit::{all_filled, input, misfit, read},
    probes::{N_PROBES, PROBE_TOKENS},
    scores::Scoring,
};
use crate::{
    engine::{Dim, Port, Signature},
    error::Error,
    manifest::{Language, TextClassificationSpec},
    tensor::{DType, Data, Tensor, Tensors},
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

/// A network that says what a text is.
pub struct TextClassification {
    scoring: Scoring,
    tokenizer: Tokenizer,
    buckets: Buckets,
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

impl TextClassification {
    /// Reads labels and tokenizer from `dir` and holds `spec` to the network's `signature`.
    pub(super) fn build(
        spec: &TextClassificationSpec,
        dir: &Path,
        signature: &Signature,
    ) -> Result<Self, SpecError> {
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
        let (fills, always) = fills(spec, signature)?;
        let max_tokens = always.map_or(max_tokens, |length| length.min(max_tokens));
        let bytes = read(dir, &spec.tokenizer, MAX_TOKENIZER_BYTES)?;
        let tokenizer = tokenizer(spec, &bytes, Limit { max_tokens, side: spec.truncation_side })
            .map_err(|reason| SpecError::File { file: spec.tokenizer.display().to_string(), reason })?;
        let buckets = match always {
            Some(length) => Buckets::only(length),
            None => Buckets::new(max_tokens).starting_at(tokenizer.shortest().max(min_tokens)),
        };
        Ok(Self {
            scoring: Scoring::build(spec.into(), dir, signature)?,
            tokenizer,
            buckets,
            languages: spec.languages.clone(),
            pad_id: spec.pad_id,
            first_position: spec.first_position,
            fills,
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
                let data = cast(values, fill.dtype)?;
                Tensor::new(vec![length], data).map_err(|e| Error::Internal(e.to_string()))
            })
            .collect()
    }
}

fn padded(values: impl Iterator<Item = i64>, pad: i64, n: usize) -> Vec<i64> {
    values.chain(std::iter::repeat_n(pad, n)).collect()
}

fn cast(values: Vec<i64>, dtype: DType) -> Result<Data, Error> {
    Ok(match dtype {
        DType::I64 => Data::I64(values),
        DType::I32 => Data::I32(values.iter().map(|value| *value as i32).collect()),
        DType::F32 => Data::F32(values.iter().map(|value| *value as f32).collect()),
        DType::Bool => Data::Bool(values.iter().map(|value| *value != 0).collect()),
        DType::U8 => return Err(Error::Internal("tokens were to be cast to u8".to_owned())),
    })
}

/// Reads the tokenizer's own file, or a vocabulary.
fn tokenizer(spec: &TextClassificationSpec, bytes: &[u8], limit: Limit) -> Result<Tokenizer, String> {
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
fn fills(
    spec: &TextClassificationSpec,
    signature: &Signature,
) -> Result<(Vec<Fill>, Option<usize>), SpecError> {
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

impl Task for TextClassification {
    fn kind(&self) -> &'static str {
        "text-classification"
    }

    fn labels(&self) -> &[Arc<str>] {
        self.scoring.labels()
    }

    fn bucket(&self, weight: Weight) -> Bucket {
        Bucket::Likely(self.buckets.of(weight.bytes.div_ceil(BYTES_PER_TOKEN)))
    }

    fn prepare(&self, input: Input) -> Result<Prepared, Error> {
        let Input::Text(text) = input else {
            return Err(Error::invalid("this model takes a text, not an image"));
        };
        let supported = Supported::of(&text, &self.languages);
        let Encoded { ids, truncated } = self.tokenizer.encode(&text)?;
        let tokens = ids.len();
        let bucket = self.buckets.of(tokens);
        let row = self.row(&ids, bucket)?;
        Ok(Prepared { row, bucket, frame: Frame::Text { tokens, truncated, supported } })
    }

    fn answer(&self, outputs: Tensors, frame: &Frame) -> Result<Answer, Error> {
        let Frame::Text { tokens, truncated, supported } = *frame else {
            return Err(Error::Internal("a text's answer was asked for an image".to_owned()));
        };
        let scores = self.scoring.rank(&outputs)?;
        Ok(Answer::Text { tokens, truncated, supported, scores })
    }

    fn samples(&self) -> Vec<Sample> {
        // Full rows of id 0, which every vocabulary has.
        let sample = |length: &usize| {
            let row = self.row(&vec![0; *length], *length).ok()?;
            Some(Sample { bucket: *length, row })
        };
        self.buckets.lengths().iter().filter_map(sample).collect()
    }

    fn padded(&self) -> Option<[Prepared; 2]> {
        if self.fills.iter().any(|fill| fill.content == Content::Mask) {
            return None;
        }
        let lengths = self.buckets.lengths();
        let [tokens, longer] = *lengths.windows(2).find(|pair| pair[0] >= PADDED_TOKENS)? else {
            return None;
        };
        let (mut rng, n_words) = (fastrand::Rng::with_seed(1), self.tokenizer.n_words().max(1));
        let ids: Vec<u32> = (0..tokens).map(|_| rng.u32(..n_words)).collect();
        let row = |length: usize| {
            let frame = Frame::Text { tokens, truncated: Truncated::No, supported: Supported::Unsaid };
            Some(Prepared { row: self.row(&ids, length).ok()?, bucket: length, frame })
        };
        Some([row(tokens)?, row(longer)?])
    }

    fn probes(&self) -> Vec<Prepared> {
        let n_words = self.tokenizer.n_words().max(1);
        let longest = self.buckets.lengths().last().copied().unwrap_or(1);
        let probe = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let tokens = (PROBE_TOKENS[seed as usize % PROBE_TOKENS.len()]).min(longest);
            let ids: Vec<u32> = (0..tokens).map(|_| rng.u32(..n_words)).collect();
            let bucket = self.buckets.of(tokens);
            let row = self.row(&ids, bucket).ok()?;
            Some(Prepared {
                row,
                bucket,
                frame: Frame::Text { tokens, truncated: Truncated::No, supported: Supported::Unsaid },
            })
        };
        (0..N_PROBES).filter_map(probe).collect()
    }
}

#[cfg(test)]
mod tests;
