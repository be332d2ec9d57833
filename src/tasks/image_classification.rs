//! Image classification: a picture in, one of the labels out.
//!
//! Invariant: the row is the same for a picture in any format and orientation that shows the same.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    About, Answer, BuildContext, Context, Descriptor, HuggingFace, Input, Item, Modality, Output, OutputKind,
    Prepared, ProfileInput, RequestSize, ShapeClass, SpecError, Task, TaskSpec, Workload,
    calibration::{N_INPUTS, Pattern},
    descriptor::TOP_K,
    fit::{all_filled, axis, input, misfit, normalisation},
    glimpse,
    scores::{Scoring, ScoringSpec},
    spec::section,
};
use crate::{
    engine::Signature,
    error::Error,
    hugging_face::{HuggingFaceFolder, Problem},
    image::{Channels, ImageLimits, Picture, Preprocessing},
    manifest::{Fit, ImageInputSpec, Labels, Layout, Scores},
    tensor::{DType, Tensor, Tensors},
};

/// The kind of task.
pub(super) static DESCRIPTOR: Descriptor = Descriptor {
    name: "image-classification",
    about: "says what a picture shows: one of the labels, or several",
    modality: Modality::Image,
    output: OutputKind::Classes,
    options: &[TOP_K],
    read: |text| Ok(Box::new(section::<ImageClassificationSpec>(text, DESCRIPTOR.name)?)),
    hugging_face: Some(HuggingFace {
        claims: |folder| folder.is_for_images("ForImageClassification"),
        summary: |folder| {
            folder.pictures()?;
            Ok(folder.summary(&format!("image classification into {} labels", folder.classes()?.len())))
        },
        spec: |folder, signature| Ok(Box::new(ImageClassificationSpec::described(folder, signature)?)),
    }),
};

/// An image in, one of the labels out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageClassificationSpec {
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
    /// Logits are divided by this before the softmax (Guo et al. 2017, temperature scaling).
    #[serde(default = "crate::manifest::one")]
    pub temperature: f32,
    pub input: ImageInputSpec,
}

impl ImageClassificationSpec {
    /// What a folder of Hugging Face says, for a network of that signature.
    pub(crate) fn described(folder: &HuggingFaceFolder<'_>, signature: &Signature) -> Result<Self, String> {
        let classes = folder.classes()?;
        let (output, Problem { scores, threshold }) = (classes.output(signature)?, classes.problem);
        let input = folder.pictures()?.input(signature)?;
        Ok(Self { labels: classes.labels(), output, scores, threshold, temperature: 1.0, input })
    }
}

impl TaskSpec for ImageClassificationSpec {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn files(&self) -> Vec<&Path> {
        self.labels.file().into_iter().collect()
    }

    fn build(&self, context: &BuildContext<'_>) -> Result<Arc<dyn Task>, SpecError> {
        Ok(Arc::new(ImageClassification::build(self, context)?))
    }
}

/// Longest side of a network's input, in pixels.
const MAX_SIDE: u32 = 4096;

/// A network that says what a picture shows.
struct ImageClassification {
    scoring: Scoring,
    limits: ImageLimits,
    preprocessing: Preprocessing,
    /// f32, or u8 where the network takes the levels as they are.
    dtype: DType,
}

impl ImageClassification {
    fn build(spec: &ImageClassificationSpec, context: &BuildContext<'_>) -> Result<Self, SpecError> {
        let ImageClassificationSpec { labels, output, scores, threshold, temperature, input } = spec;
        let (preprocessing, dtype) = preprocessing(input, context.signature)?;
        all_filled(context.signature, &[&input.name])?;
        let scoring = ScoringSpec {
            labels,
            output: output.as_deref(),
            scores: *scores,
            threshold: *threshold,
            temperature: *temperature,
        };
        let scoring = Scoring::build(scoring, context)?;
        Ok(Self { scoring, limits: context.options.image, preprocessing, dtype })
    }

    fn row(&self, levels: Vec<f32>) -> Result<Tensors, Error> {
        let shape = self.preprocessing.row_shape();
        let tensor = match self.dtype {
            // They are whole numbers from 0 to 255: anything else was refused with the spec.
            DType::U8 => Tensor::new(shape, levels.iter().map(|level| *level as u8).collect()),
            _ => Tensor::new(shape, levels),
        };
        Ok(vec![tensor.map_err(|e| Error::Internal(e.to_string()))?])
    }
}

/// Longest side that a picture may be scaled to before it is cut, in pixels.
const MAX_SCALED: u32 = 8192;

/// Holds an input's spec to the network: `f32` or `u8`, `[batch, channels, height, width]` or the layout that the
/// spec names.
fn preprocessing(spec: &ImageInputSpec, signature: &Signature) -> Result<(Preprocessing, DType), SpecError> {
    for (side, name) in [(spec.width, "width"), (spec.height, "height")] {
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(misfit(format!("{name} is {side}, but 1 to {MAX_SIDE} pixels are allowed")));
        }
    }
    let scaled = match spec.fit {
        Fit::ShortestSide(side) => vec![side],
        Fit::StretchTo { width, height } => vec![width, height],
        Fit::Cover | Fit::Contain | Fit::Stretch | Fit::Unscaled => Vec::new(),
    };
    if let Some(side) = scaled.into_iter().find(|side| !(1..=MAX_SCALED).contains(side)) {
        return Err(misfit(format!("fit scales to {side} pixels, but 1 to {MAX_SCALED} are allowed")));
    }
    let preprocessing = Preprocessing::new(spec);
    let [channels, height, width] = preprocessing.shape();
    normalisation(channels, spec.scale, &spec.mean, &spec.std)?;
    let (_, port) = input(signature, "input.name", &spec.name)?;
    let (layout, axes) = match spec.layout {
        Layout::Nchw => {
            ("channels, height, width", [("channels", channels), ("height", height), ("width", width)])
        }
        Layout::Nhwc => {
            ("height, width, channels", [("height", height), ("width", width), ("channels", channels)])
        }
    };
    if !matches!(port.dtype, DType::F32 | DType::U8) || port.shape.len() != 4 {
        let (name, found) = (&port.name, port.describe());
        return Err(misfit(format!(
            "input {name:?} is {found}, but pictures are f32 or u8 [batch, {layout}]"
        )));
    }
    for (at, (what, wanted)) in (1..).zip(axes) {
        axis(port, at, what, wanted)?;
    }
    let plain = |values: &[f32], wanted: f32| values.iter().all(|value| *value == wanted);
    if port.dtype == DType::U8 && !(spec.scale == 1.0 && plain(&spec.mean, 0.0) && plain(&spec.std, 1.0)) {
        let name = &port.name;
        return Err(misfit(format!(
            "input {name:?} takes u8, levels as they are; allowed are scale 1, mean 0 and std 1"
        )));
    }
    Ok((preprocessing, port.dtype))
}

/// Every picture becomes a row of the same shape.
const SHAPE: usize = 0;

impl Task for ImageClassification {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn labels(&self) -> &[Arc<str>] {
        self.scoring.labels()
    }

    fn shape_class(&self, _: &RequestSize) -> ShapeClass {
        ShapeClass::Known(SHAPE)
    }

    fn workload(&self, input: &Input, most_bytes: usize) -> Workload {
        glimpse::workload(input, self.limits, most_bytes)
    }

    fn foreseen(&self, _: &RequestSize) -> Option<Workload> {
        None
    }

    fn pixels(&self) -> Option<&Preprocessing> {
        Some(&self.preprocessing)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        let needs_color = input.needs_color();
        let keeps = input.step.is_some();
        let (picture, levels) = match input.item {
            Item::Image(image) => {
                let channels = if needs_color { Channels::Rgb } else { self.preprocessing.channels() };
                let picture = Picture::decode(&image.decoded()?, self.limits, channels)?;
                let row = self.preprocessing.row(&picture, picture.whole())?;
                (picture, row)
            }
            Item::Pixels(picture) => {
                let row = self.preprocessing.row_of_cut(&picture)?;
                (picture, row)
            }
            _ => return Err(input.misplaced(DESCRIPTOR.modality)),
        };
        let about = About::Image { width: picture.width(), height: picture.height() };
        let picture = keeps.then_some(picture);
        Ok(Prepared { row: self.row(levels)?, shape: SHAPE, context: Context::new(about), picture })
    }

    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error> {
        let about = *context.get::<About>()?;
        Ok(Answer { output: Output::Classes(self.scoring.rank(&outputs)?), about })
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        let n = self.preprocessing.shape().iter().product();
        self.row(vec![0.0; n]).into_iter().map(|row| ProfileInput { shape: SHAPE, row }).collect()
    }

    fn calibration_inputs(&self) -> Vec<Prepared> {
        let [_, height, width] = self.preprocessing.shape();
        let about = About::Image { width: width as u32, height: height as u32 };
        let drawn = |seed| {
            let pattern = Pattern::new(seed);
            let levels = self.preprocessing.drawn(|channel, x, y| {
                pattern.level(channel, x as f32 / width as f32, y as f32 / height as f32)
            });
            Some(Prepared::new(self.row(levels).ok()?, SHAPE, Context::new(about)))
        };
        (0..N_INPUTS).filter_map(drawn).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lepton_testkit::pictures;

    use super::{super::TaskOptions, *};
    use crate::{
        engine::{Dim, Port},
        image::Rect,
        manifest::{Color, Filter, Resampling},
    };

    const OPTIONS: TaskOptions =
        TaskOptions { image: ImageLimits { pixels: 1_000_000, side: 4096, memory: 1 << 28 } };

    fn port(name: &str, dtype: DType, shape: &[usize]) -> Port {
        let batch = Dim::Free("batch".to_owned());
        let dims = std::iter::once(batch).chain(shape.iter().map(|n| Dim::Fixed(*n))).collect();
        Port { name: name.to_owned(), dtype, shape: dims, batch_axis: Some(0) }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![port("image", DType::F32, &[3, 24, 32])],
            outputs: vec![port("logits", DType::F32, &[2])],
        }
    }

    fn spec() -> ImageClassificationSpec {
        ImageClassificationSpec {
            labels: Labels::default(),
            output: None,
            scores: None,
            threshold: None,
            temperature: 1.0,
            input: ImageInputSpec {
                name: "image".to_owned(),
                width: 32,
                height: 24,
                color: Color::Rgb,
                layout: Layout::Nchw,
                fit: Fit::Cover,
                filter: Filter::Bilinear,
                resampling: Resampling::Fast,
                scale: 1.0 / 255.0,
                mean: vec![0.5],
                std: vec![0.5, 0.5, 0.5],
            },
        }
    }

    fn build(
        spec: &ImageClassificationSpec,
        signature: &Signature,
    ) -> Result<ImageClassification, SpecError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("labels.txt"), "yes\nno\n").unwrap();
        let context = BuildContext { dir: dir.path(), signature, endings: &[], options: OPTIONS };
        ImageClassification::build(spec, &context)
    }

    fn task() -> ImageClassification {
        build(&spec(), &signature()).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut ImageClassificationSpec, &mut Signature)) -> String {
        let (mut spec, mut signature) = (spec(), signature());
        change(&mut spec, &mut signature);
        build(&spec, &signature).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_picture_becomes_a_row_and_an_answer_about_the_whole_of_it() {
        let task = task();
        let bytes = Bytes::from(pictures::oriented_jpeg(&pictures::draw(60, 90), 6));
        let Prepared { row, context, picture, .. } = task.preprocess(Input::image(bytes)).unwrap();
        assert_eq!(row[0].shape(), [3, 24, 32]);
        assert_eq!(picture, None, "nothing asks for it");
        let logits = Tensor::new::<f32>(vec![2], vec![0.0, 3f32.ln()]).unwrap();
        let Answer { output: Output::Classes(scores), about } =
            task.postprocess(vec![logits], &context).unwrap()
        else {
            panic!("no labels");
        };
        assert_eq!(about, About::Image { width: 90, height: 60 });
        assert_eq!(&*scores.scores[0].label, "no");
        assert!((scores.scores[0].score - 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_region_that_was_cut_out_becomes_the_row_of_its_region() {
        let task = task();
        let bytes = Bytes::from(pictures::png(&pictures::draw(90, 60)));
        let picture = Picture::decode(&bytes, OPTIONS.image, Channels::Rgb).unwrap();
        let region = Rect { x: 14, y: 6, width: 36, height: 27 };
        let cut = task.preprocessing.cut(&picture, region).unwrap();
        assert_eq!((cut.width(), cut.height()), (32, 24));
        let expected = task.preprocessing.row(&picture, region);
        let Prepared { row, .. } = task.preprocess(Input::new(Item::Pixels(cut))).unwrap();
        assert_eq!(row[0].as_slice::<f32>().unwrap(), expected.unwrap());
    }

    #[test]
    fn the_sample_has_the_shape_of_every_row() {
        let inputs = task().profile_inputs();
        assert_eq!(inputs.len(), 1);
        assert_eq!(inputs[0].row[0].shape(), [3, 24, 32]);
    }

    #[test]
    fn a_text_is_invalid_and_a_broken_image_malformed() {
        assert!(matches!(task().preprocess(Input::text("good")), Err(Error::Invalid(_))));
        let bytes = Bytes::from_static(b"\xff\xd8\xff\xe0");
        assert!(matches!(task().preprocess(Input::image(bytes)), Err(Error::Malformed(_))));
    }

    #[test]
    fn a_picture_beyond_the_limits_is_too_large() {
        let bytes = Bytes::from(pictures::png_header(30_000, 30_000));
        assert!(matches!(task().preprocess(Input::image(bytes)), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_spec_that_does_not_fit_the_network_is_refused_with_both_numbers() {
        let cases = [
            (refusal(|spec, _| spec.input.width = 48), "width is 48, but input \"image\" takes 32"),
            (refusal(|spec, _| spec.input.height = 20), "height is 20, but input \"image\" takes 24"),
            (
                refusal(|spec, _| {
                    spec.input.color = Color::Gray;
                    spec.input.std = vec![0.5];
                }),
                "channels is 1, but input \"image\" takes 3",
            ),
            (
                refusal(|spec, _| spec.input.mean = vec![0.1, 0.2]),
                "mean has 2 values, but 1 or 3 are allowed",
            ),
            (
                refusal(|_, signature| signature.outputs[0].shape[1] = Dim::Fixed(7)),
                "labels.txt has 2 labels, but the network gives 7 logits",
            ),
            (
                refusal(|spec, _| spec.input.name = "pixels".to_owned()),
                "input.name names the input \"pixels\", but the network's inputs are image",
            ),
            (
                refusal(|_, signature| signature.inputs[0].shape.truncate(3)),
                "input \"image\" is f32 [batch, 3, 24], but pictures are f32 or u8 [batch, channels, height, width]",
            ),
            (
                refusal(|_, signature| signature.inputs.push(port("mask", DType::Bool, &[4]))),
                "the network also takes \"mask\", bool [batch, 4], which nothing fills",
            ),
            (refusal(|spec, _| spec.input.width = 0), "width is 0, but 1 to 4096 pixels are allowed"),
        ];
        for (refusal, expected) in cases {
            assert_eq!(refusal, expected);
        }
    }

    #[test]
    fn numbers_that_make_nonsense_are_refused() {
        assert!(refusal(|spec, _| spec.input.std = vec![0.0]).contains("divided by 0"));
        assert!(refusal(|spec, _| spec.input.mean = vec![f32::NAN]).contains("finite"));
        assert!(refusal(|spec, _| spec.input.scale = 0.0).contains("scale is 0"));
        assert!(refusal(|spec, _| spec.temperature = -1.0).contains("temperature is -1"));
        assert!(refusal(|_, signature| signature.outputs.clear()).contains("no output"));
        assert!(refusal(|spec, _| spec.labels = Labels::File("../labels.txt".into())).contains("plain name"));
    }

    #[test]
    fn the_manifest_of_a_classifier_is_read() {
        let text = "[task.image-classification]\n[task.image-classification.input]\nname = 'image'\n\
                    width = 32\nheight = 24\ncolor = 'rgb'\nmean = [0.5]\nstd = [0.5, 0.5, 0.5]\n";
        assert_eq!(section::<ImageClassificationSpec>(text, DESCRIPTOR.name).unwrap(), spec());
    }
}
