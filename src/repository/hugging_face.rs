//! Folders as other tools write them: `config.json`, `preprocessor_config.json`, `tokenizer.json`.
//!
//! Invariant: what a [`Manifest`] cannot say is refused with its name, never approximated, so that
//! a model answers here as it does where it was made.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use super::{MAX_MANIFEST, folder::Folder};
use crate::{
    engine::{Dim, Signature},
    manifest::{
        Asked, BatchSpec, Color, Filter, Fit, ImageClassificationSpec, ImageInputSpec, Labels, Manifest,
        TaskSpec, TextClassificationSpec, TruncationSide,
    },
};

pub(super) const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Tokens that a text model reads where its files do not say.
const USUAL_MAX_TOKENS: usize = 512;

/// What the files say; the names of the network's inputs are its own.
#[derive(Debug)]
pub(super) struct Description {
    config: Config,
    labels: Vec<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Image(Box<Preprocessor>),
    Text { max_tokens: usize, truncation_side: TruncationSide },
}

/// The keys of `config.json` that matter here; there are many others.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    problem_type: Option<String>,
    id2label: BTreeMap<String, String>,
    label2id: BTreeMap<String, u64>,
    #[serde(alias = "n_positions")]
    max_position_embeddings: Option<usize>,
    pad_token_id: Option<i64>,
}

/// The keys of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    /// Written as 1e30 where there is no limit.
    model_max_length: Option<f64>,
    truncation_side: TruncationSide,
}

/// The keys of `preprocessor_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Preprocessor {
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Vec<f32>>,
    image_std: Option<Vec<f32>>,
}

/// A size as the various versions of the format write it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Shortest { shortest_edge: u32 },
    Exactly { width: u32, height: u32 },
    Number(u32),
}

impl Description {
    /// Reads the description in `folder`, which has a [`CONFIG`].
    pub(super) fn read(folder: &Folder) -> Result<Self, String> {
        let config: Config = json(folder, CONFIG)?;
        if let Some(problem) = config.problem_type.as_deref().filter(|p| *p != "single_label_classification")
        {
            return Err(format!(
                "{CONFIG}: the problem_type {problem:?} is not served; expected \"single_label_classification\""
            ));
        }
        let labels = labels(&config)?;
        let kind = match (folder.has(Path::new(PREPROCESSOR)), folder.has(Path::new(TOKENIZER))) {
            (true, false) => Kind::Image(Box::new(json(folder, PREPROCESSOR)?)),
            (false, true) => {
                let tokenizer: TokenizerConfig = match folder.has(Path::new(TOKENIZER_CONFIG)) {
                    true => json(folder, TOKENIZER_CONFIG)?,
                    false => TokenizerConfig::default(),
                };
                let max_tokens = max_tokens(&tokenizer, &config);
                Kind::Text { max_tokens, truncation_side: tokenizer.truncation_side }
            }
            (true, true) => {
                return Err(format!(
                    "there are both {PREPROCESSOR} and {TOKENIZER}; a network that takes images and texts is not served"
                ));
            }
            (false, false) => {
                return Err(format!("there is neither {PREPROCESSOR} nor {TOKENIZER}; expected one"));
            }
        };
        Ok(Self { config, labels, kind })
    }

    /// What the model is, in one line.
    pub(super) fn summary(&self) -> String {
        let kind = match self.kind {
            Kind::Image(_) => "image",
            Kind::Text { .. } => "text",
        };
        let of = self.config.model_type.as_deref().map(|kind| format!("{kind}, ")).unwrap_or_default();
        format!("{of}{kind} classification into {} labels", self.labels.len())
    }

    /// How its rows may be batched: as far as the measurements say that it pays.
    pub(super) fn batch(&self) -> BatchSpec {
        BatchSpec { max_rows: MAX_ROWS, ..BatchSpec::default() }
    }

    /// Turns the description into a manifest for a network of that signature.
    pub(super) fn manifest(&self, signature: &Signature) -> Result<Manifest, String> {
        let labels = Labels::Inline(self.labels.clone());
        let task = match &self.kind {
            Kind::Image(preprocessor) => TaskSpec::ImageClassification(ImageClassificationSpec {
                labels,
                temperature: 1.0,
                margin: 0.0,
                input: image_input(preprocessor, signature)?,
            }),
            Kind::Text { max_tokens, truncation_side } => {
                TaskSpec::TextClassification(TextClassificationSpec {
                    labels,
                    tokenizer: TOKENIZER.into(),
                    temperature: 1.0,
                    max_tokens: *max_tokens,
                    truncation_side: *truncation_side,
                    languages: Vec::new(),
                    pad_id: self.config.pad_token_id.unwrap_or(0),
                    ids: named(signature, "input_ids")?,
                    ids_reversed: None,
                    mask: signature.input("attention_mask").map(|(_, port)| port.name.clone()),
                })
            }
        };
        let batch = self.batch();
        let precision = Asked::default();
        Ok(Manifest { description: self.summary(), licence: String::new(), precision, task, batch })
    }
}

/// Most rows that one run takes where nobody says.
const MAX_ROWS: usize = 32;

fn json<T: DeserializeOwned>(folder: &Folder, file: &str) -> Result<T, String> {
    let bytes = folder.read(Path::new(file), MAX_MANIFEST)?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{file}: {error}"))
}

/// The labels by their numbers, which must be 0 and up without a gap.
fn labels(config: &Config) -> Result<Vec<String>, String> {
    let mut numbered: Vec<(u64, String)> = Vec::new();
    for (id, label) in &config.id2label {
        let number =
            id.parse().map_err(|_| format!("{CONFIG}: id2label has the key {id:?}; expected numbers"))?;
        numbered.push((number, label.clone()));
    }
    if numbered.is_empty() {
        numbered.extend(config.label2id.iter().map(|(label, id)| (*id, label.clone())));
    }
    numbered.sort();
    if numbered.is_empty() {
        return Err(format!("{CONFIG} names no labels; expected id2label"));
    }
    if let Some((expected, (found, _))) =
        (0u64..).zip(&numbered).find(|(expected, (found, _))| expected != found)
    {
        return Err(format!(
            "{CONFIG}: the labels are not numbered without a gap: {found} stands for {expected}"
        ));
    }
    Ok(numbered.into_iter().map(|(_, label)| label).collect())
}

/// The most tokens that both the tokenizer and the network's table of positions allow.
fn max_tokens(tokenizer: &TokenizerConfig, config: &Config) -> usize {
    let by_tokenizer = tokenizer.model_max_length.filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
    let by_positions =
        config.max_position_embeddings.map(|n| n.saturating_sub(first_position(config)).max(1));
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

fn named(signature: &Signature, name: &str) -> Result<String, String> {
    let has =
        || signature.inputs.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ");
    let found = signature.input(name).map(|(_, port)| port.name.clone());
    found.ok_or_else(|| format!("the network has no input `{name}`; it has {}", has()))
}

fn image_input(preprocessor: &Preprocessor, signature: &Signature) -> Result<ImageInputSpec, String> {
    let name = named(signature, "pixel_values")?;
    let (width, height, fit) = geometry(preprocessor)?;
    let filter = match preprocessor.resample {
        None | Some(2) => Filter::Bilinear,
        Some(3) => Filter::Bicubic,
        Some(other) => {
            return Err(format!(
                "{PREPROCESSOR}: resample {other} is not served; expected 2 (bilinear) or 3 (bicubic)"
            ));
        }
    };
    let scale = match preprocessor.do_rescale {
        Some(false) => 1.0,
        _ => preprocessor.rescale_factor.unwrap_or(1.0 / 255.0) as f32,
    };
    let (mean, std) = match (preprocessor.do_normalize, &preprocessor.image_mean, &preprocessor.image_std) {
        (Some(false), ..) => (vec![0.0], vec![1.0]),
        (_, Some(mean), Some(std)) => (mean.clone(), std.clone()),
        _ => return Err(format!("{PREPROCESSOR}: image_mean or image_std is missing")),
    };
    let color = match signature.input(&name).and_then(|(_, port)| port.shape.get(1)) {
        Some(Dim::Fixed(1)) => Color::Gray,
        _ => Color::Rgb,
    };
    Ok(ImageInputSpec { name, width, height, color, fit, filter, scale, mean, std })
}

/// The size of the network's input, and how a picture fills it.
fn geometry(preprocessor: &Preprocessor) -> Result<(u32, u32, Fit), String> {
    if preprocessor.do_resize == Some(false) {
        return Err(format!("{PREPROCESSOR}: do_resize is false; pictures of any size are not served"));
    }
    let size = preprocessor.size.ok_or_else(|| format!("{PREPROCESSOR} names no size"))?;
    let crop = preprocessor.crop_size.filter(|_| preprocessor.do_center_crop == Some(true));
    match (size, crop) {
        (Size::Exactly { width, height }, None) => Ok((width, height, Fit::Stretch)),
        (Size::Number(side), None) => Ok((side, side, Fit::Stretch)),
        // Cutting the whole stretched picture is no cut.
        (Size::Exactly { .. } | Size::Number(_), Some(cut)) if cut == size => {
            geometry(&Preprocessor { size: Some(size), ..Preprocessor::default() })
        }
        (Size::Shortest { shortest_edge: side }, Some(cut)) if square(cut) == Some(side) => {
            Ok((side, side, Fit::Cover))
        }
        (size, crop) => Err(format!(
            "{PREPROCESSOR}: the size {size:?} with the cut {crop:?} is not served; expected width and height, or a \
             shortest_edge with a square cut of that side; a model.toml can say what comes closest"
        )),
    }
}

fn square(size: Size) -> Option<u32> {
    match size {
        Size::Number(side) => Some(side),
        Size::Exactly { width, height } if width == height => Some(width),
        Size::Exactly { .. } | Size::Shortest { .. } => None,
    }
}

#[cfg(test)]
mod tests;
