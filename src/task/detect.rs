//! Face detection: a picture in, the faces that it shows out.
//!
//! A picture is scaled to a long side that the caller chooses among the manifest's, and laid on a canvas;
//! the network says of each cell of its grids whether a face is centred there; boxes that overlap a surer
//! one are dropped, and the others mapped back to the picture. `looks` says where one look is not enough.
//!
//! Invariant: what is answered lies within the upright picture, in its own pixels, and is finite.

mod canvas;
mod grids;
mod looks;
mod suppression;

use std::{path::Path, sync::Arc};

use self::{
    canvas::{Canvas, STEP, lay},
    grids::{Candidate, Grids, N_LANDMARKS, Number},
    suppression::suppress,
};
use super::{
    Answer, Bucket, Cut, Encoded, Frame, Further, Input, Kept, Look, Prepared, Sample, SpecError, Task,
    TaskOptions, Weight, Workload,
    fit::{Listed, all_filled, input, listed, misfit, normalisation, temperature},
    glimpse,
    probes::{N_PROBES, Pattern},
};
use crate::{
    engine::{Dim, Signature},
    error::Error,
    image::{Channels, ImageLimits, Letterbox, Letterboxing, Picture},
    manifest::FaceDetectionSpec,
    tensor::{DType, Data, Tensor, Tensors},
};

/// Faces that are answered for one picture at most, the surest.
pub const MOST_FACES: usize = 256;

/// Long sides that a manifest may list, in pixels, and how many of them: each has plans of its own.
const SIDES: std::ops::RangeInclusive<u32> = 64..=1280;
const MOST_SIDES: usize = 4;

/// How much an error of a place, in cells, or of the logarithm of a size counts against one of a score: a
/// tenth of a cell as a hundredth.
const PLACE_WEIGHT: f32 = 0.1;

/// A part of a picture, in pixels of the upright original.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// A face in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// Within the picture.
    pub area: Area,
    /// How sure the network is that it is one, 0 to 1.
    pub confidence: f32,
    /// Left eye, right eye, nose, left and right corner of the mouth, as they stand in the picture; beyond its
    /// edge where the face is cut. Nothing where the network gives none.
    pub landmarks: Option<[[f32; 2]; N_LANDMARKS]>,
    /// The region around it, where that was asked for.
    pub cut: Option<Picture>,
}

/// A network that finds faces.
pub struct FaceDetection {
    labels: Arc<[Arc<str>]>,
    temperature: f32,
    overlap: f32,
    sides: Vec<u32>,
    /// For each side, the logit of the least sure face that is answered.
    least: Vec<f32>,
    limits: ImageLimits,
    letterboxing: Letterboxing,
    grids: Grids,
    /// Outputs of the network, those that no grid names included.
    n_outputs: usize,
}

impl FaceDetection {
    /// Reads the label from `dir` and holds `spec` to the network's `signature`.
    pub(super) fn build(
        spec: &FaceDetectionSpec,
        dir: &Path,
        signature: &Signature,
        options: TaskOptions,
    ) -> Result<Self, SpecError> {
        let Listed { source, labels } = listed(dir, &spec.labels)?;
        if labels.len() != 1 {
            let n_labels = labels.len();
            return Err(misfit(format!("{source} has {n_labels} labels, but a detector finds 1 thing")));
        }
        let within = |name: &str, share: f32| match share > 0.0 && share < 1.0 {
            true => Ok(share),
            false => Err(misfit(format!("{name} is {share}, but it must be between 0 and 1"))),
        };
        let temperature = temperature(spec.temperature)?;
        let sides = sides(&spec.sides)?;
        let (n_thresholds, n_sides) = (spec.thresholds.len(), sides.len());
        if n_thresholds != 1 && n_thresholds != n_sides {
            return Err(misfit(format!(
                "thresholds has {n_thresholds} values, but 1 or {n_sides} are allowed, one for each side"
            )));
        }
        let least = |threshold: &f32| {
            let threshold = within("thresholds", *threshold)?;
            Ok((threshold / (1.0 - threshold)).ln() * temperature)
        };
        Ok(Self {
            labels,
            temperature,
            least: spec.thresholds.iter().cycle().take(n_sides).map(least).collect::<Result<_, _>>()?,
            overlap: within("overlap", spec.overlap)?,
            sides,
            limits: options.image,
            letterboxing: letterboxing(spec, signature)?,
            grids: Grids::build(&spec.outputs, signature)?,
            n_outputs: signature.outputs.len(),
        })
    }

    /// The side that is meant, the caller's or the first, and the logit of the least sure face that is
    /// answered there.
    fn side(&self, look: &Look) -> Result<(u32, f32), Error> {
        let meant = look.side.unwrap_or(self.usual_side());
        let mut sides = self.sides.iter().copied().zip(self.least.iter().copied());
        sides
            .find(|(side, _)| *side == meant)
            .ok_or_else(|| Error::malformed(format!("side is {meant}; allowed are {}", listing(&self.sides))))
    }

    fn usual_side(&self) -> u32 {
        // There is always one: `sides` refuses an empty list.
        self.sides.first().copied().unwrap_or(*SIDES.end())
    }

    /// The logit of the least sure face that is answered at the usual side.
    fn usual_least(&self) -> f32 {
        self.least.first().copied().unwrap_or_default()
    }

    fn row(&self, canvas: Canvas, levels: Vec<f32>) -> Result<Tensors, Error> {
        let channels = self.letterboxing.channels().count();
        let shape = vec![channels, canvas.height as usize, canvas.width as usize];
        let tensor = Tensor::new(shape, Data::F32(levels)).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(vec![tensor])
    }

    fn probability(&self, logit: f32) -> f32 {
        // In f64, in which the exponential of any logit's negative is a number.
        (1.0 / (1.0 + (-f64::from(logit) / f64::from(self.temperature)).exp())) as f32
    }

    /// A candidate in pixels of the picture; nothing where no part of it lies within.
    fn face(&self, candidate: &Candidate, letterbox: &Letterbox) -> Option<Face> {
        let [width, height] = letterbox.picture.map(|side| side as f32);
        let clipped = |[x, y]: [f32; 2]| [x.clamp(0.0, width), y.clamp(0.0, height)];
        let [left, top] = clipped(letterbox.to_picture(candidate.from));
        let [right, bottom] = clipped(letterbox.to_picture(candidate.to));
        let area = Area { x: left, y: top, width: right - left, height: bottom - top };
        (area.width > 0.0 && area.height > 0.0).then(|| Face {
            area,
            confidence: self.probability(candidate.logit),
            landmarks: candidate.landmarks.map(|marks| marks.map(|mark| letterbox.to_picture(mark))),
            cut: None,
        })
    }
}

/// The sides that may be asked for.
fn sides(sides: &[u32]) -> Result<Vec<u32>, SpecError> {
    if !(1..=MOST_SIDES).contains(&sides.len()) {
        return Err(misfit(format!("sides has {} values, but 1 to {MOST_SIDES} are allowed", sides.len())));
    }
    for (idx, side) in sides.iter().enumerate() {
        if !SIDES.contains(side) || side % STEP != 0 {
            let (least, most) = (SIDES.start(), SIDES.end());
            return Err(misfit(format!(
                "sides has {side}, but multiples of {STEP} from {least} to {most} are allowed"
            )));
        }
        if sides[..idx].contains(side) {
            return Err(misfit(format!("sides has {side} twice")));
        }
    }
    Ok(sides.to_vec())
}

/// Holds the input's spec to the network: `f32 [batch, channels, height, width]`, the last two free.
fn letterboxing(spec: &FaceDetectionSpec, signature: &Signature) -> Result<Letterboxing, SpecError> {
    let letterboxing = Letterboxing::new(&spec.input);
    let channels = letterboxing.channels().count();
    normalisation(channels, spec.input.scale, &spec.input.mean, &spec.input.std)?;
    let (_, port) = input(signature, "input.name", &spec.input.name)?;
    match (port.dtype, port.shape.as_slice()) {
        (DType::F32, [_, Dim::Fixed(n), Dim::Free(_), Dim::Free(_)]) if *n == channels => {}
        (DType::F32, [_, Dim::Free(_), Dim::Free(_), Dim::Free(_)]) => {}
        _ => {
            let (name, found) = (&port.name, port.describe());
            return Err(misfit(format!(
                "input {name:?} is {found}, but pictures of any size are f32 [batch, {channels}, height, width], the \
                 last two free"
            )));
        }
    }
    all_filled(signature, &[&spec.input.name])?;
    Ok(letterboxing)
}

/// Numbers as a refusal lists them.
fn listing(sides: &[u32]) -> String {
    sides.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

impl Task for FaceDetection {
    fn kind(&self) -> &'static str {
        "face-detection"
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    fn bucket(&self, weight: Weight) -> Bucket {
        let side = weight.side.filter(|side| self.sides.contains(side)).unwrap_or(self.usual_side());
        Bucket::Likely(Canvas::usual(side).bucket())
    }

    fn workload(&self, input: &Input, most_bytes: usize) -> Workload {
        glimpse::workload(input, self.limits, most_bytes)
    }

    fn foreseen(&self, _: Weight) -> Option<Workload> {
        None
    }

    fn then(&self, weight: Weight) -> Option<usize> {
        let usual = self.usual_side();
        weight.side.filter(|side| *side > usual).map(|_| Canvas::usual(usual).bucket())
    }

    fn further(&self, row: &Tensors, outputs: &[Tensor], frame: &Frame) -> Result<Option<Further>, Error> {
        let (letterbox, least, _) = scene(frame)?;
        self.next_look(row, outputs, letterbox, least)
    }

    fn sides(&self) -> &[u32] {
        &self.sides
    }

    fn prepare(&self, input: Input) -> Result<Prepared, Error> {
        let (image, look) = match input {
            Input::Image(bytes) => (Encoded::Plain(bytes), Look::default()),
            Input::ImageBase64(text) => (Encoded::Base64(text), Look::default()),
            Input::Scene(image, look) => (image, look),
            Input::Cut(_) => {
                return Err(Error::invalid("this model takes whole images, not what was cut out of them"));
            }
            Input::Text(_) => return Err(Error::invalid("this model takes an image, not a text")),
        };
        let (side, least) = self.side(&look)?;
        let wanted = |cut: &Cut| cut.crop.preprocessing().channels() == Channels::Rgb;
        let channels = match look.cut.as_ref().is_some_and(wanted) {
            true => Channels::Rgb,
            false => self.letterboxing.channels(),
        };
        let picture = Picture::decode(&image.bytes()?, self.limits, channels)?;
        let letterbox = lay(picture.width(), picture.height(), side);
        let [width, height] = letterbox.canvas;
        let canvas = Canvas { width, height };
        let row = self.row(canvas, self.letterboxing.row(&picture, &letterbox)?)?;
        Ok(Prepared {
            row,
            bucket: canvas.bucket(),
            frame: Frame::Scene { letterbox, least, kept: look.cut.map(|cut| Kept { picture, cut }) },
        })
    }

    fn answer(&self, outputs: Tensors, frame: &Frame) -> Result<Answer, Error> {
        let (letterbox, least, kept) = scene(frame)?;
        let found = suppress(self.found(&outputs, letterbox, least)?, self.overlap, MOST_FACES);
        let mut faces: Vec<Face> =
            found.iter().filter_map(|candidate| self.face(candidate, letterbox)).collect();
        if faces.is_empty() {
            faces.extend(self.glanced(&outputs, letterbox)?);
        }
        if let Some(Kept { picture, cut: Cut { crop, most } }) = kept {
            for face in faces.iter_mut().take(*most) {
                face.cut = Some(crop.cut(picture, face.area)?);
            }
        }
        let [width, height] = letterbox.picture;
        Ok(Answer::Faces { width, height, faces })
    }

    fn compared(&self, outputs: Tensors, frame: &Frame) -> Result<Vec<f32>, Error> {
        let mut compared = Vec::new();
        self.grids.numbers(&outputs, scene(frame)?.0, |number, value| {
            compared.push(match number {
                Number::Logit => self.probability(value),
                Number::Place => value * PLACE_WEIGHT,
            });
        })?;
        Ok(compared)
    }

    fn samples(&self) -> Vec<Sample> {
        let mut canvases: Vec<Canvas> = self.sides.iter().flat_map(|side| Canvas::all(*side)).collect();
        canvases.sort_by_key(|canvas| canvas.bucket());
        canvases.dedup_by_key(|canvas| canvas.bucket());
        let sample = |canvas: Canvas| {
            let n = self.letterboxing.channels().count() * (canvas.width * canvas.height) as usize;
            let row = self.row(canvas, vec![0.0; n]).ok()?;
            Some(Sample { bucket: canvas.bucket(), row })
        };
        canvases.into_iter().filter_map(sample).collect()
    }

    fn probes(&self) -> Vec<Prepared> {
        // The smallest canvas has every operator in it, and costs the least.
        let Some(canvas) = self.sides.iter().flat_map(|side| Canvas::all(*side)).min_by_key(|it| it.bucket())
        else {
            return Vec::new();
        };
        let size = [canvas.width, canvas.height];
        let probe = |seed| {
            let pattern = Pattern::new(seed);
            let row = self.letterboxing.drawn(size, |channel, x, y| {
                pattern.level(channel, x as f32 / size[0] as f32, y as f32 / size[1] as f32)
            });
            let letterbox = Letterbox { picture: size, shown: size, canvas: size };
            // Numbers are compared, not faces answered.
            let frame = Frame::Scene { letterbox, least: 0.0, kept: None };
            Some(Prepared { row: self.row(canvas, row).ok()?, bucket: canvas.bucket(), frame })
        };
        (0..N_PROBES).filter_map(probe).collect()
    }
}

/// What was prepared, the logit of the least sure face that is answered, and the picture with what is to be
/// cut out of it.
fn scene(frame: &Frame) -> Result<(&Letterbox, f32, Option<&Kept>), Error> {
    match frame {
        Frame::Scene { letterbox, least, kept } => Ok((letterbox, *least, kept.as_ref())),
        _ => Err(Error::Internal("a detector's answer was asked for what it did not prepare".to_owned())),
    }
}

#[cfg(test)]
mod tests;
