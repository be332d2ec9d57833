//! Image classification: a picture in, one of the labels out.
//!
//! Invariant: the row is the same for a picture in any format and orientation that shows the same.

use std::{path::Path, sync::Arc};

use super::{
    Answer, Bucket, Crop, Encoded, Frame, Input, Prepared, Sample, SpecError, Task, TaskOptions, Weight,
    Workload,
    fit::{all_filled, axis, input, misfit, normalisation},
    glimpse,
    probes::{N_PROBES, Pattern},
    scores::Scoring,
};
use crate::{
    engine::Signature,
    error::Error,
    image::{ImageLimits, Picture, Preprocessing, Rect},
    manifest::{Fit, ImageClassificationSpec, ImageInputSpec, Layout},
    tensor::{DType, Data, Tensor, Tensors},
};

/// Longest side of a network's input, in pixels.
const MAX_SIDE: u32 = 4096;

/// A network that says what a picture shows.
pub struct ImageClassification {
    scoring: Scoring,
    limits: ImageLimits,
    crop: Arc<Crop>,
    /// f32, or u8 where the network takes the levels as they are.
    dtype: DType,
}

impl ImageClassification {
    /// Reads the labels from `dir` and holds `spec` to the network's `signature`.
    pub(super) fn build(
        spec: &ImageClassificationSpec,
        dir: &Path,
        signature: &Signature,
        options: TaskOptions,
    ) -> Result<Self, SpecError> {
        let (preprocessing, dtype) = preprocessing(&spec.input, signature)?;
        all_filled(signature, &[&spec.input.name])?;
        Ok(Self {
            scoring: Scoring::build(spec.into(), dir, signature)?,
            limits: options.image,
            crop: Arc::new(Crop::new(preprocessing, margin(spec.margin)?)),
            dtype,
        })
    }

    fn row(&self, levels: Vec<f32>) -> Result<Tensors, Error> {
        let shape = self.crop.preprocessing().row_shape().to_vec();
        let data = match self.dtype {
            // They are whole numbers from 0 to 255: anything else was refused with the spec.
            DType::U8 => Data::U8(levels.iter().map(|level| *level as u8).collect()),
            _ => Data::F32(levels),
        };
        let tensor = Tensor::new(shape, data).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(vec![tensor])
    }
}

/// Margins that a manifest may give: a region has some of its box in it, and is not mostly surroundings.
const MARGINS: std::ops::RangeInclusive<f32> = -0.4..=2.0;

fn margin(margin: f32) -> Result<f32, SpecError> {
    match MARGINS.contains(&margin) {
        true => Ok(margin),
        false => {
            let (least, most) = (MARGINS.start(), MARGINS.end());
            Err(misfit(format!("margin is {margin}, but {least} to {most} are allowed")))
        }
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
const BUCKET: usize = 0;

impl Task for ImageClassification {
    fn kind(&self) -> &'static str {
        "image-classification"
    }

    fn labels(&self) -> &[Arc<str>] {
        self.scoring.labels()
    }

    fn bucket(&self, _: Weight) -> Bucket {
        Bucket::Sure(BUCKET)
    }

    fn workload(&self, input: &Input, most_bytes: usize) -> Workload {
        glimpse::workload(input, self.limits, most_bytes)
    }

    fn foreseen(&self, _: Weight) -> Option<Workload> {
        None
    }

    fn crop(&self) -> Option<&Arc<Crop>> {
        Some(&self.crop)
    }

    fn prepare(&self, input: Input) -> Result<Prepared, Error> {
        let decoded = |image: Encoded| {
            Picture::decode(&image.bytes()?, self.limits, self.crop.preprocessing().channels())
        };
        let whole = |picture: Picture| {
            let row = self.crop.preprocessing().row(&picture, picture.whole())?;
            Ok::<_, Error>((picture, row))
        };
        let (picture, levels) = match input {
            Input::Image(bytes) => whole(decoded(Encoded::Plain(bytes))?)?,
            Input::ImageBase64(text) => whole(decoded(Encoded::Base64(text))?)?,
            Input::Scene(image, _) => whole(decoded(image)?)?,
            Input::Cut(cut) => {
                let row = self.crop.preprocessing().row_of_cut(&cut)?;
                (cut, row)
            }
            Input::Text(_) => {
                return Err(Error::invalid("this model takes an image, not a text"));
            }
        };
        let (width, height, region) = (picture.width(), picture.height(), picture.whole());
        let row = self.row(levels)?;
        Ok(Prepared { row, bucket: BUCKET, frame: Frame::Image { width, height, region } })
    }

    fn answer(&self, outputs: Tensors, frame: &Frame) -> Result<Answer, Error> {
        let Frame::Image { width, height, region } = *frame else {
            return Err(Error::Internal("an image's answer was asked for a text".to_owned()));
        };
        Ok(Answer::Image { width, height, region, scores: self.scoring.rank(&outputs)? })
    }

    fn samples(&self) -> Vec<Sample> {
        let n = self.crop.preprocessing().shape().iter().product();
        self.row(vec![0.0; n]).into_iter().map(|row| Sample { bucket: BUCKET, row }).collect()
    }

    fn probes(&self) -> Vec<Prepared> {
        let [_, height, width] = self.crop.preprocessing().shape();
        let (width, height) = (width as u32, height as u32);
        let region = Rect { x: 0, y: 0, width, height };
        let probe = |seed| {
            let pattern = Pattern::new(seed);
            let row = self.crop.preprocessing().drawn(|channel, x, y| {
                pattern.level(channel, x as f32 / width as f32, y as f32 / height as f32)
            });
            let row = self.row(row).ok()?;
            Some(Prepared { row, bucket: BUCKET, frame: Frame::Image { width, height, region } })
        };
        (0..N_PROBES).filter_map(probe).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{super::Area, *};
    use crate::{
        engine::{Dim, Port},
        image::{Channels, Rect, pictures},
        manifest::{Color, Filter, Labels, Manifest, Resampling, TaskSpec},
    };

    const OPTIONS: TaskOptions =
        TaskOptions { image: ImageLimits { pixels: 1_000_000, side: 4096, memory: 1 << 28 } };

    fn port(name: &str, dtype: DType, shape: &[usize]) -> Port {
        let batch = Dim::Free("batch".to_owned());
        let dims = std::iter::once(batch).chain(shape.iter().map(|n| Dim::Fixed(*n))).collect();
        Port { name: name.to_owned(), dtype, shape: dims }
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
            margin: 0.25,
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
        ImageClassification::build(spec, dir.path(), signature, OPTIONS)
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
        let Prepared { row, frame, .. } = task.prepare(Input::Image(bytes)).unwrap();
        assert_eq!(row[0].shape(), [3, 24, 32]);
        let region = Rect { x: 0, y: 0, width: 90, height: 60 };
        assert_eq!(frame, Frame::Image { width: 90, height: 60, region });
        let logits = Tensor::new(vec![2], Data::F32(vec![0.0, 3f32.ln()])).unwrap();
        let Answer::Image { width: 90, height: 60, region: shown, scores } =
            task.answer(vec![logits], &frame).unwrap()
        else {
            panic!("no answer about an image of 90 x 60");
        };
        assert_eq!(shown, region);
        assert_eq!(&*scores.scores[0].label, "no");
        assert!((scores.scores[0].score - 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_cut_becomes_the_row_of_its_region() {
        let task = task();
        let bytes = Bytes::from(pictures::png(&pictures::draw(90, 60)));
        let picture = Picture::decode(&bytes, OPTIONS.image, Channels::Rgb).unwrap();
        // With a quarter on each side, 24 x 18 pixels are 36 x 27: the network's own ratio.
        let cut = task.crop.cut(&picture, Area { x: 20.0, y: 10.0, width: 24.0, height: 18.0 }).unwrap();
        assert_eq!((cut.width(), cut.height()), (32, 24));
        let expected = task.crop.preprocessing().row(&picture, Rect { x: 14, y: 6, width: 36, height: 27 });
        let Prepared { row, .. } = task.prepare(Input::Cut(cut)).unwrap();
        assert_eq!(row[0].as_f32().unwrap(), expected.unwrap());
    }

    #[test]
    fn the_sample_has_the_shape_of_every_row() {
        let samples = task().samples();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].row[0].shape(), [3, 24, 32]);
    }

    #[test]
    fn a_text_is_invalid_and_a_broken_image_malformed() {
        assert!(matches!(task().prepare(Input::Text("good".to_owned())), Err(Error::Invalid(_))));
        let bytes = Bytes::from_static(b"\xff\xd8\xff\xe0");
        assert!(matches!(task().prepare(Input::Image(bytes)), Err(Error::Malformed(_))));
    }

    #[test]
    fn a_picture_beyond_the_limits_is_too_large() {
        let bytes = Bytes::from(pictures::png_header(30_000, 30_000));
        assert!(matches!(task().prepare(Input::Image(bytes)), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_spec_that_does_not_fit_the_network_is_refused_with_both_numbers() {
        let cases = [
            (refusal(|spec, _| spec.margin = -0.5), "margin is -0.5, but -0.4 to 2 are allowed"),
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
        let text = "[task.image-classification]\nmargin = 0.25\n[task.image-classification.input]\nname = 'image'\n\
                    width = 32\nheight = 24\ncolor = 'rgb'\nmean = [0.5]\nstd = [0.5, 0.5, 0.5]\n";
        let manifest: Manifest = toml::from_str(text).unwrap();
        assert_eq!(manifest.task, TaskSpec::ImageClassification(spec()));
    }
}
