//! Text classification: a text in, one of the labels out.
//!
//! Invariant: a row is padded to the shortest bucket that holds its tokens, so that rows of one
//! bucket share a run and at most a quarter of any row is padding.

use std::{path::Path, sync::Arc};

use super::{
    Answer, Bucket, Frame, Input, Prepared, Sample, SpecError, Supported, Task, Truncated, Weight,
    fit::{all_filled, input, labels, misfit, read, temperature},
    probes::{N_PROBES, PROBE_TOKENS},
    scores::rank,
};
use crate::{
    engine::{Dim, Port, Signature},
    error::Error,
    manifest::{Language, TextClassificationSpec},
    tensor::{DType, Data, Tensor, Tensors},
    text::{Buckets, Encoded, Limit, Tokenizer},
};

/// Longest texts that a manifest may ask for.
const MAX_TOKENS: usize = 8192;

/// Largest `tokenizer.json`, in bytes.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Bytes of text that make a token, roughly; for weighing only.
const BYTES_PER_TOKEN: usize = 4;

/// A network that says what a text is.
pub struct TextClassification {
    labels: Arc<[Arc<str>]>,
    temperature: f32,
    tokenizer: Tokenizer,
    buckets: Buckets,
    languages: Vec<Language>,
    pad_id: i64,
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
        let fills = fills(spec, signature)?;
        let json = read(dir, &spec.tokenizer, MAX_TOKENIZER_BYTES)?;
        let limit = Limit { max_tokens, side: spec.truncation_side };
        let tokenizer = Tokenizer::from_json(&json, limit)
            .map_err(|reason| SpecError::File { file: spec.tokenizer.display().to_string(), reason })?;
        Ok(Self {
            labels: labels(dir, &spec.labels, signature)?,
            temperature: temperature(spec.temperature)?,
            tokenizer,
            buckets: Buckets::new(max_tokens),
            languages: spec.languages.clone(),
            pad_id: spec.pad_id,
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

/// Finds how every input of the network is filled.
fn fills(spec: &TextClassificationSpec, signature: &Signature) -> Result<Vec<Fill>, SpecError> {
    let mut named = vec![("ids", spec.ids.as_str(), Content::Ids)];
    named.extend(spec.ids_reversed.as_deref().map(|name| ("ids_reversed", name, Content::IdsReversed)));
    named.extend(spec.mask.as_deref().map(|name| ("mask", name, Content::Mask)));
    let mut fills = Vec::new();
    for (key, name, content) in &named {
        let (at, port) = input(signature, key, name)?;
        if let Some((_, other, _)) = fills.iter().find(|(taken, _, _)| *taken == at) {
            return Err(misfit(format!("{other} and {key} both name the input {name:?}")));
        }
        fills.push((at, key, Fill { content: *content, dtype: port_type(port, *content)? }));
    }
    let names: Vec<&str> = named.iter().map(|(_, name, _)| *name).collect();
    all_filled(signature, &names)?;
    if fills.iter().any(|(_, _, fill)| fill.dtype == DType::I32) && i32::try_from(spec.pad_id).is_err() {
        return Err(misfit(format!("pad_id is {}, but the network takes i32", spec.pad_id)));
    }
    fills.sort_by_key(|(at, _, _)| *at);
    Ok(fills.into_iter().map(|(_, _, fill)| fill).collect())
}

/// Refuses an input that cannot take rows of any length.
fn port_type(port: &Port, content: Content) -> Result<DType, SpecError> {
    let (name, found) = (&port.name, port.describe());
    let types: &[DType] = match content {
        Content::Ids | Content::IdsReversed => &[DType::I64, DType::I32],
        Content::Mask => &[DType::I64, DType::I32, DType::F32, DType::Bool],
    };
    if !types.contains(&port.dtype) || port.shape.len() != 2 {
        let names: Vec<String> = types.iter().map(DType::to_string).collect();
        let allowed = names.join(" or ");
        return Err(misfit(format!("input {name:?} is {found}, but it must be {allowed} [batch, length]")));
    }
    if let Some(Dim::Fixed(length)) = port.shape.get(1) {
        return Err(misfit(format!(
            "input {name:?} takes {length} tokens always, but rows are of any length"
        )));
    }
    Ok(port.dtype)
}

impl Task for TextClassification {
    fn kind(&self) -> &'static str {
        "text-classification"
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
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
        Ok(Answer::Text {
            tokens,
            truncated,
            supported,
            scores: rank(&outputs, &self.labels, self.temperature)?,
        })
    }

    fn samples(&self) -> Vec<Sample> {
        // Full rows of id 0, which every vocabulary has.
        let sample = |length: &usize| {
            let row = self.row(&vec![0; *length], *length).ok()?;
            Some(Sample { bucket: *length, row })
        };
        self.buckets.lengths().iter().filter_map(sample).collect()
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
mod tests {
    use super::*;
    use crate::{
        manifest::{Labels, Manifest, TaskSpec, TruncationSide},
        text::fixtures,
    };

    fn port(name: &str, dtype: DType, shape: &[Dim]) -> Port {
        Port { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }

    fn free(name: &str) -> Dim {
        Dim::Free(name.to_owned())
    }

    /// The manifest's order of inputs is not the network's.
    fn signature() -> Signature {
        let shape = [free("batch"), free("length")];
        Signature {
            inputs: vec![
                port("mask", DType::F32, &shape),
                port("ids", DType::I64, &shape),
                port("reversed", DType::I32, &shape),
            ],
            outputs: vec![port("logits", DType::F32, &[free("batch"), Dim::Fixed(2)])],
        }
    }

    fn spec() -> TextClassificationSpec {
        TextClassificationSpec {
            labels: Labels::default(),
            tokenizer: "tokenizer.json".into(),
            temperature: 0.5,
            max_tokens: 7,
            truncation_side: TruncationSide::Right,
            languages: Vec::new(),
            pad_id: 99,
            ids: "ids".to_owned(),
            ids_reversed: Some("reversed".to_owned()),
            mask: Some("mask".to_owned()),
        }
    }

    fn build(spec: &TextClassificationSpec, signature: &Signature) -> Result<TextClassification, SpecError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("labels.txt"), "negative\npositive\n").unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), fixtures::plain()).unwrap();
        TextClassification::build(spec, dir.path(), signature)
    }

    fn task() -> TextClassification {
        build(&spec(), &signature()).unwrap()
    }

    fn text(text: &str) -> Input {
        Input::Text(text.to_owned())
    }

    fn refusal(change: impl FnOnce(&mut TextClassificationSpec, &mut Signature)) -> String {
        let (mut spec, mut signature) = (spec(), signature());
        change(&mut spec, &mut signature);
        build(&spec, &signature).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_text_becomes_one_padded_tensor_per_input_in_signature_order() {
        let Prepared { row, frame, .. } = task().prepare(text("very good film")).unwrap();
        assert_eq!(frame, Frame::Text { tokens: 3, truncated: Truncated::No, supported: Supported::Unsaid });
        assert_eq!(row[0].data(), &Data::F32(vec![1.0, 1.0, 1.0, 0.0]));
        assert_eq!(row[1].data(), &Data::I64(vec![5, 2, 4, 99]));
        assert_eq!(row[2].data(), &Data::I32(vec![4, 2, 5, 99]));
        assert!(row.iter().all(|tensor| tensor.shape() == [4]));
    }

    #[test]
    fn a_long_text_is_cut_and_the_answer_says_so() {
        let task = task();
        let Prepared { row, frame, .. } = task.prepare(text(&"good ".repeat(40))).unwrap();
        assert_eq!(row[1].shape(), [7]);
        let logits = Tensor::new(vec![2], Data::F32(vec![0.0, 0.5 * 3f32.ln()])).unwrap();
        let Answer::Text { tokens: 7, truncated: Truncated::Yes, scores, .. } =
            task.answer(vec![logits], &frame).unwrap()
        else {
            panic!("no answer about a text that was cut");
        };
        assert_eq!(&*scores.0[0].label, "positive");
        assert!((scores.0[0].score - 0.75).abs() < 1e-6);
    }

    #[test]
    fn there_is_a_sample_of_every_shape_the_shortest_first() {
        let task = task();
        let shapes: Vec<usize> = task.samples().iter().map(|sample| sample.row[0].shape()[0]).collect();
        assert_eq!(shapes, [1, 2, 4, 6, 7]);
        for n_words in 1..20 {
            let Prepared { row, bucket, .. } = task.prepare(text(&"good ".repeat(n_words))).unwrap();
            assert!(shapes.contains(&bucket));
            assert_eq!(row[0].shape(), [bucket]);
        }
    }

    #[test]
    fn the_bucket_is_guessed_from_the_bytes() {
        let guess = |bytes| task().bucket(Weight::of(bytes));
        assert_eq!([guess(0), guess(14), guess(9999)], [1, 4, 7].map(Bucket::Likely));
    }

    #[test]
    fn no_text_and_an_image_are_invalid() {
        for input in [text(""), text(" \n"), Input::Image(vec![0xff, 0xd8].into())] {
            assert!(matches!(task().prepare(input), Err(Error::Invalid(_))));
        }
    }

    #[test]
    fn a_spec_that_does_not_fit_is_refused_with_what_would() {
        let cases = [
            (refusal(|spec, _| spec.max_tokens = 0), "max_tokens is 0, but 1 to 8192 are allowed"),
            (refusal(|spec, _| spec.max_tokens = 9000), "max_tokens is 9000, but 1 to 8192 are allowed"),
            (
                refusal(|spec, _| spec.ids = "tokens".to_owned()),
                "ids names the input \"tokens\", but the network's inputs are mask, ids, reversed",
            ),
            (
                refusal(|spec, _| spec.mask = None),
                "the network also takes \"mask\", f32 [batch, length], which model.toml does not fill",
            ),
            (
                refusal(|spec, _| spec.ids_reversed = Some("ids".to_owned())),
                "ids and ids_reversed both name the input \"ids\"",
            ),
            (
                refusal(|_, signature| signature.inputs[1].dtype = DType::F32),
                "input \"ids\" is f32 [batch, length], but it must be i64 or i32 [batch, length]",
            ),
            (
                refusal(|_, signature| signature.inputs[1].shape[1] = Dim::Fixed(128)),
                "input \"ids\" takes 128 tokens always, but rows are of any length",
            ),
            (
                refusal(|_, signature| signature.outputs[0].shape[1] = Dim::Fixed(5)),
                "labels.txt has 2 labels, but the network gives 5 logits",
            ),
            (refusal(|spec, _| spec.pad_id = 1 << 40), "pad_id is 1099511627776, but the network takes i32"),
        ];
        for (refusal, expected) in cases {
            assert_eq!(refusal, expected);
        }
        assert!(refusal(|spec, _| spec.tokenizer = "labels.txt".into()).contains("cannot read labels.txt"));
    }

    #[test]
    fn the_manifest_of_a_classifier_is_read() {
        let text = "[task.text-classification]\nmax_tokens = 7\npad_id = 99\ntemperature = 0.5\nids = 'ids'\n\
                    ids_reversed = 'reversed'\nmask = 'mask'\n";
        let manifest: Manifest = toml::from_str(text).unwrap();
        assert_eq!(manifest.task, TaskSpec::TextClassification(spec()));
    }
}
