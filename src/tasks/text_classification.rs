//! Text classification: a text in, one of the labels out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    About, Answer, BuildContext, Context, Descriptor, HuggingFace, Input, Modality, Output, OutputKind,
    Prepared, ProfileInput, RequestSize, ShapeClass, SpecError, Task, TaskSpec,
    descriptor::TOP_K,
    scores::{Scoring, ScoringSpec},
    spec::section,
    text_input::{TextInputSpec, TextRows, default_tokenizer},
};
use crate::{
    engine::Signature,
    error::Error,
    hugging_face::{HuggingFaceFolder, Problem},
    manifest::{Labels, Language, Scores, TruncationSide, WordPieceSpec, one},
    tensor::Tensors,
};

/// The kind of task.
pub(super) static DESCRIPTOR: Descriptor = Descriptor {
    name: "text-classification",
    about: "says what a text is: one of the labels, or several",
    modality: Modality::Text,
    output: OutputKind::Classes,
    options: &[TOP_K],
    read: |text| Ok(Box::new(section::<TextClassificationSpec>(text, DESCRIPTOR.name)?)),
    hugging_face: Some(HuggingFace {
        claims: |folder| folder.is_for_texts("ForSequenceClassification"),
        summary: |folder| {
            folder.texts()?;
            Ok(folder.summary(&format!("text classification into {} labels", folder.classes()?.len())))
        },
        spec: |folder, signature| Ok(Box::new(TextClassificationSpec::described(folder, signature)?)),
    }),
};

/// A text in, one of the labels out. The keys from `tokenizer` on are those of [`TextInputSpec`].
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
    /// Logits are divided by this before the softmax.
    #[serde(default = "one")]
    pub temperature: f32,
    #[serde(default = "default_tokenizer")]
    pub tokenizer: PathBuf,
    #[serde(default)]
    pub wordpiece: Option<WordPieceSpec>,
    pub max_tokens: usize,
    #[serde(default)]
    pub truncation_side: TruncationSide,
    #[serde(default)]
    pub languages: Vec<Language>,
    #[serde(default)]
    pub min_tokens: usize,
    #[serde(default)]
    pub pad_id: i64,
    pub ids: String,
    #[serde(default)]
    pub ids_reversed: Option<String>,
    #[serde(default)]
    pub mask: Option<String>,
    #[serde(default)]
    pub token_types: Option<String>,
    #[serde(default)]
    pub positions: Option<String>,
    #[serde(default)]
    pub first_position: i64,
}

impl TextClassificationSpec {
    /// A classifier of texts that are read like that.
    pub fn new(labels: Labels, input: TextInputSpec) -> Self {
        Self {
            labels,
            output: None,
            scores: None,
            threshold: None,
            temperature: 1.0,
            tokenizer: input.tokenizer,
            wordpiece: input.wordpiece,
            max_tokens: input.max_tokens,
            truncation_side: input.truncation_side,
            languages: input.languages,
            min_tokens: input.min_tokens,
            pad_id: input.pad_id,
            ids: input.ids,
            ids_reversed: input.ids_reversed,
            mask: input.mask,
            token_types: input.token_types,
            positions: input.positions,
            first_position: input.first_position,
        }
    }

    /// What a folder of Hugging Face says, for a network of that signature.
    pub(crate) fn described(folder: &HuggingFaceFolder<'_>, signature: &Signature) -> Result<Self, String> {
        let classes = folder.classes()?;
        let (output, Problem { scores, threshold }) = (classes.output(signature)?, classes.problem);
        let input = TextInputSpec::described(&folder.texts()?, signature)?;
        Ok(Self { output, scores, threshold, ..Self::new(classes.labels(), input) })
    }

    fn input(&self) -> TextInputSpec {
        let this = self.clone();
        TextInputSpec {
            tokenizer: this.tokenizer,
            wordpiece: this.wordpiece,
            max_tokens: this.max_tokens,
            truncation_side: this.truncation_side,
            languages: this.languages,
            min_tokens: this.min_tokens,
            pad_id: this.pad_id,
            ids: this.ids,
            ids_reversed: this.ids_reversed,
            mask: this.mask,
            token_types: this.token_types,
            positions: this.positions,
            first_position: this.first_position,
        }
    }
}

impl TaskSpec for TextClassificationSpec {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn files(&self) -> Vec<&Path> {
        self.labels.file().into_iter().chain([self.tokenizer.as_path()]).collect()
    }

    fn build(&self, context: &BuildContext<'_>) -> Result<Arc<dyn Task>, SpecError> {
        Ok(Arc::new(TextClassification::build(self, context)?))
    }
}

/// A network that says what a text is.
struct TextClassification {
    scoring: Scoring,
    rows: TextRows,
}

impl TextClassification {
    fn build(spec: &TextClassificationSpec, context: &BuildContext<'_>) -> Result<Self, SpecError> {
        let rows = TextRows::build(&spec.input(), context)?;
        let TextClassificationSpec { labels, output, scores, threshold, temperature, .. } = spec;
        let scoring = ScoringSpec {
            labels,
            output: output.as_deref(),
            scores: *scores,
            threshold: *threshold,
            temperature: *temperature,
        };
        Ok(Self { scoring: Scoring::build(scoring, context)?, rows })
    }
}

impl Task for TextClassification {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn labels(&self) -> &[Arc<str>] {
        self.scoring.labels()
    }

    fn shape_class(&self, size: &RequestSize) -> ShapeClass {
        self.rows.shape_class(size)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        self.rows.preprocess(input)
    }

    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error> {
        let about = *context.get::<About>()?;
        Ok(Answer { output: Output::Classes(self.scoring.rank(&outputs)?), about })
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        self.rows.profile_inputs()
    }

    fn advice(&self, shape: usize) -> Option<String> {
        self.rows.advice(shape)
    }

    fn padded(&self) -> Option<[Prepared; 2]> {
        self.rows.padded()
    }

    fn calibration_inputs(&self) -> Vec<Prepared> {
        self.rows.calibration_inputs()
    }
}

#[cfg(test)]
mod tests;
