//! Text embedding: a text in, a vector out, so that texts which mean the same lie close to each other.
//!
//! The network gives a state for each token, which are pooled into one, or the pooled vector itself (Reimers and
//! Gurevych 2019, Sentence-BERT).
//!
//! Invariant: a vector is finite and does not depend on how its row was padded; one that is normalised has length 1.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    About, Answer, BuildContext, Context, Descriptor, HuggingFace, Input, Modality, OptionKind, OptionSpec,
    Output, OutputKind, Prepared, ProfileInput, RequestSize, ShapeClass, SpecError, Task, TaskSpec,
    fit::misfit,
    spec::section,
    text_input::{TextInputSpec, TextRows},
};
use crate::{
    engine::{Dim, Port, Signature},
    error::Error,
    hugging_face::{Certainty, HuggingFaceFolder},
    tensor::{DType, Tensors},
};

/// Whether vectors have length 1.
const NORMALIZE: OptionSpec = OptionSpec {
    name: "normalize",
    kind: OptionKind::Flag,
    about: "scale vectors to length 1, or leave them as they are; left out, as the model says",
};

/// The kind of task.
pub(super) static DESCRIPTOR: Descriptor = Descriptor {
    name: "text-embedding",
    about: "turns a text into a vector that lies close to those of texts which mean the same",
    modality: Modality::Text,
    output: OutputKind::Vector,
    options: &[NORMALIZE],
    read: |text| Ok(Box::new(section::<TextEmbeddingSpec>(text, DESCRIPTOR.name)?)),
    hugging_face: Some(HuggingFace {
        claims: |folder| folder.has(MODULES).then_some(Certainty::Named),
        summary: |folder| {
            let Modules { pooling, .. } = Modules::read(folder)?;
            Ok(folder.summary(&format!("text embedding, {} pooling", pooling.name())))
        },
        spec: |folder, signature| Ok(Box::new(TextEmbeddingSpec::described(folder, signature)?)),
    }),
};

/// How the states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The state of the first token, `[CLS]` in BERT.
    First,
    /// The largest value of each dimension.
    Max,
    /// The state of the last token.
    Last,
}

impl Pooling {
    /// The name that manifests write.
    fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::First => "first",
            Self::Max => "max",
            Self::Last => "last",
        }
    }

    /// Pools `states`, one of `n_dims` numbers for each token.
    fn pool(self, states: &[f32], n_dims: usize) -> Vec<f32> {
        let mut tokens = states.chunks_exact(n_dims);
        let first = tokens.next().unwrap_or_default();
        match self {
            Self::First => first.to_vec(),
            Self::Last => tokens.next_back().unwrap_or(first).to_vec(),
            Self::Max => tokens.fold(first.to_vec(), |mut largest, token| {
                largest.iter_mut().zip(token).for_each(|(largest, value)| *largest = largest.max(*value));
                largest
            }),
            Self::Mean => {
                // In f64, so that the order of a long sum does not show.
                let mut sums: Vec<f64> = first.iter().map(|value| f64::from(*value)).collect();
                for token in tokens {
                    sums.iter_mut().zip(token).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                let n_tokens = (states.len() / n_dims).max(1) as f64;
                sums.into_iter().map(|sum| (sum / n_tokens) as f32).collect()
            }
        }
    }
}

/// A text in, a vector out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextEmbeddingSpec {
    /// Name of the output that holds the states, `[batch, length, dimensions]`, or vectors that are pooled already,
    /// `[batch, dimensions]`; left out, the first that may.
    #[serde(default)]
    output: Option<String>,
    /// How states become one vector.
    #[serde(default)]
    pooling: Pooling,
    /// Whether vectors are scaled to length 1, where a request does not say.
    #[serde(default)]
    normalize: bool,
    input: TextInputSpec,
}

impl TaskSpec for TextEmbeddingSpec {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.input.tokenizer]
    }

    fn build(&self, context: &BuildContext<'_>) -> Result<Arc<dyn Task>, SpecError> {
        Ok(Arc::new(TextEmbedding::build(self, context)?))
    }
}

/// The list of a folder's modules, as sentence-transformers writes it.
const MODULES: &str = "modules.json";

/// One of them.
#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

/// How a module pools. Newer versions name the mode; older ones have a key for each.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_lasttoken: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
}

impl PoolingConfig {
    fn pooling(&self, file: &str) -> Result<Pooling, String> {
        let keys = [
            (self.pooling_mode_cls_token, "cls"),
            (self.pooling_mode_mean_tokens, "mean"),
            (self.pooling_mode_max_tokens, "max"),
            (self.pooling_mode_lasttoken, "lasttoken"),
            (self.pooling_mode_mean_sqrt_len_tokens, "mean_sqrt_len_tokens"),
            (self.pooling_mode_weightedmean_tokens, "weightedmean"),
        ];
        let set: Vec<&str> = match &self.pooling_mode {
            Some(mode) => vec![mode],
            None => keys.into_iter().filter(|(is_set, _)| *is_set).map(|(_, mode)| mode).collect(),
        };
        match set.as_slice() {
            ["cls"] => Ok(Pooling::First),
            ["mean"] => Ok(Pooling::Mean),
            ["max"] => Ok(Pooling::Max),
            ["lasttoken"] => Ok(Pooling::Last),
            other => Err(format!(
                "{file}: the pooling mode {} is not served; expected one of cls, mean, max and lasttoken",
                if other.is_empty() { "none".to_owned() } else { other.join(" and ") }
            )),
        }
    }
}

/// The keys of `sentence_bert_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Transformer {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

const TRANSFORMER: &str = "sentence_bert_config.json";

/// What a folder's modules come to.
struct Modules {
    pooling: Pooling,
    normalize: bool,
    max_tokens: Option<usize>,
}

impl Modules {
    fn read(folder: &HuggingFaceFolder<'_>) -> Result<Self, String> {
        let mut modules = folder.json::<Vec<Module>>(MODULES)?.into_iter();
        let kind = |module: &Module| module.r#type.rsplit('.').next().unwrap_or_default().to_owned();
        let refused = |module: Option<Module>, expected: &str| {
            let found = module.map_or_else(|| "nothing".to_owned(), |module| format!("{:?}", module.r#type));
            format!("{MODULES}: there is {found} where {expected} is expected")
        };
        match modules.next() {
            Some(first) if kind(&first) == "Transformer" && first.path.is_empty() => {}
            other => return Err(refused(other, "a Transformer in the folder itself")),
        }
        let pooling = match modules.next() {
            Some(second) if kind(&second) == "Pooling" => {
                let file = format!("{}/config.json", second.path);
                folder.json::<PoolingConfig>(&file)?.pooling(&file)?
            }
            other => return Err(refused(other, "Pooling")),
        };
        let normalize = match modules.next() {
            None => false,
            Some(third) if kind(&third) == "Normalize" => true,
            other => return Err(refused(other, "Normalize, or the end,")),
        };
        if let Some(fourth) = modules.next() {
            return Err(refused(Some(fourth), "the end"));
        }
        let transformer =
            if folder.has(TRANSFORMER) { folder.json(TRANSFORMER)? } else { Transformer::default() };
        if transformer.do_lower_case {
            return Err(format!(
                "{TRANSFORMER}: do_lower_case is true; expected a tokenizer.json that does that"
            ));
        }
        Ok(Self { pooling, normalize, max_tokens: transformer.max_seq_length })
    }
}

impl TextEmbeddingSpec {
    /// What a folder of sentence-transformers says, for a network of that signature.
    fn described(folder: &HuggingFaceFolder<'_>, signature: &Signature) -> Result<Self, String> {
        let Modules { pooling, normalize, max_tokens } = Modules::read(folder)?;
        let mut input = TextInputSpec::described(&folder.texts()?, signature)?;
        input.max_tokens = max_tokens.map_or(input.max_tokens, |most| most.min(input.max_tokens));
        // What the folder says of pooling is for states; a vector that is pooled may lack what comes after.
        let states = signature.outputs.iter().find(|port| port.dtype == DType::F32 && port.shape.len() == 3);
        let output = states.map(|port| port.name.clone());
        Ok(Self { output, pooling, normalize, input })
    }
}

/// A network that embeds texts.
struct TextEmbedding {
    rows: TextRows,
    /// Where the output stands among the network's.
    output: usize,
    pooling: Pooling,
    normalize: bool,
}

/// What the answer needs to know of the input.
struct Asked {
    about: About,
    n_tokens: usize,
    normalize: bool,
}

impl TextEmbedding {
    fn build(spec: &TextEmbeddingSpec, context: &BuildContext<'_>) -> Result<Self, SpecError> {
        let rows = TextRows::build(&spec.input, context)?;
        let output = output_of(context.signature, spec.output.as_deref())?;
        Ok(Self { rows, output, pooling: spec.pooling, normalize: spec.normalize })
    }

    /// Remembers what the answer needs, in place of what the rows remember.
    fn asked(&self, prepared: Prepared, normalize: bool) -> Result<Prepared, Error> {
        let about = *prepared.context.get::<About>()?;
        let About::Text { tokens: n_tokens, .. } = about else {
            return Err(Error::Internal("a row of a text is about no text".to_owned()));
        };
        Ok(Prepared { context: Context::new(Asked { about, n_tokens, normalize }), ..prepared })
    }

    /// Turns the states of a row into its vector.
    fn vector(&self, outputs: &Tensors, asked: &Asked) -> Result<Vec<f32>, Error> {
        let missing = || Error::Internal("the network gave no output".to_owned());
        let output = outputs.get(self.output).ok_or_else(missing)?;
        let values = output.as_slice::<f32>().map_err(|error| Error::Internal(error.to_string()))?;
        let mut vector = match *output.shape() {
            [_] => values.to_vec(),
            [length, n_dims] if n_dims > 0 && asked.n_tokens <= length => {
                self.pooling.pool(&values[..asked.n_tokens.max(1).min(length) * n_dims], n_dims)
            }
            _ => {
                let (got, n_tokens) = (output.describe(), asked.n_tokens);
                return Err(Error::Internal(format!("the network gave {got} for {n_tokens} tokens")));
            }
        };
        if vector.is_empty() || vector.iter().any(|value| !value.is_finite()) {
            return Err(Error::Internal("the network gave a vector that is not finite".to_owned()));
        }
        if asked.normalize {
            normalize(&mut vector);
        }
        Ok(vector)
    }
}

/// Scales a vector to length 1. One without a direction stays 0.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

/// The output that holds the states or vectors: the one that is named, or else the first that may.
fn output_of(signature: &Signature, name: Option<&str>) -> Result<usize, SpecError> {
    let outputs = &signature.outputs;
    let is_meant = |port: &Port| match name {
        Some(name) => port.name == name,
        None => may(port),
    };
    let names = || outputs.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(found) = outputs.iter().position(is_meant) else {
        return Err(misfit(match name {
            Some(name) => format!("output names {name:?}, but the network's outputs are {}", names()),
            None => format!("no output of the network holds states or vectors; its outputs are {}", names()),
        }));
    };
    let port = &outputs[found];
    match may(port) {
        true => Ok(found),
        false => {
            let (name, found) = (&port.name, port.describe());
            Err(misfit(format!(
                "output {name:?} is {found}, but states are f32 [batch, length, dimensions] and vectors f32 [batch, \
                 dimensions]"
            )))
        }
    }
}

/// Returns whether an output can hold states or vectors.
fn may(port: &Port) -> bool {
    port.dtype == DType::F32
        && match port.shape.as_slice() {
            [_, Dim::Fixed(n_dims)] => *n_dims > 0,
            [_, _, last] => !matches!(last, Dim::Fixed(0)),
            [_, Dim::Free(_)] => true,
            _ => false,
        }
}

impl Task for TextEmbedding {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn shape_class(&self, size: &RequestSize) -> ShapeClass {
        self.rows.shape_class(size)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        let normalize = input.options.flag(NORMALIZE.name).unwrap_or(self.normalize);
        self.asked(self.rows.preprocess(input)?, normalize)
    }

    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error> {
        let asked = context.get::<Asked>()?;
        Ok(Answer { output: Output::Vector(self.vector(&outputs, asked)?), about: asked.about })
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        self.rows.profile_inputs()
    }

    fn advice(&self, shape: usize) -> Option<String> {
        self.rows.advice(shape)
    }

    fn padded(&self) -> Option<[Prepared; 2]> {
        let [plain, padded] = self.rows.padded()?;
        Some([self.asked(plain, true).ok()?, self.asked(padded, true).ok()?])
    }

    fn calibration_inputs(&self) -> Vec<Prepared> {
        // Normalised, so that what is compared has a scale.
        self.rows.calibration_inputs().into_iter().filter_map(|row| self.asked(row, true).ok()).collect()
    }
}

#[cfg(test)]
mod tests;
