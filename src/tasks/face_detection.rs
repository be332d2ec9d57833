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

use serde::{Deserialize, Serialize};

use self::{
    canvas::{Canvas, STEP, lay},
    grids::{Candidate, Grids, Number},
    suppression::suppress,
};
use super::{
    About, Answer, Area, BuildContext, Context, Descriptor, Detection, Further, Input, Item, Modality,
    OptionKind, OptionSpec, Options, Output, OutputKind, Prepared, ProfileInput, RequestSize, ShapeClass,
    SpecError, Task, TaskSpec, Workload,
    calibration::{N_INPUTS, Pattern},
    fit::{Listed, all_filled, input, listed, misfit, normalisation, temperature},
    glimpse,
    spec::section,
};
use crate::{
    engine::{Dim, Signature},
    error::Error,
    image::{Channels, ImageLimits, Letterbox, Letterboxing, Picture},
    manifest::{BatchSpec, Labels, SceneInputSpec, one},
    tensor::{DType, Tensor, Tensors},
};

/// The long side that a picture is scaled to.
const SIDE: OptionSpec = OptionSpec {
    name: "side",
    kind: OptionKind::Integer { least: 1, unit: "pixels" },
    about: "the long side that pictures are scaled to: longer finds smaller faces and costs more",
};

/// The kind of task.
pub(super) static DESCRIPTOR: Descriptor = Descriptor {
    name: "face-detection",
    about: "finds the faces in a picture",
    modality: Modality::Image,
    output: OutputKind::Detections,
    options: &[SIDE],
    read: |text| Ok(Box::new(section::<FaceDetectionSpec>(text, DESCRIPTOR.name)?)),
    hugging_face: None,
};

/// An image in, the faces that it shows out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaceDetectionSpec {
    /// The one thing that is found.
    #[serde(default)]
    pub labels: Labels,
    /// Logits are divided by this before the sigmoid.
    #[serde(default = "one")]
    pub temperature: f32,
    /// Faces that are less sure are not answered. One value, or one for each side: small pictures of faces are seen less
    /// surely.
    #[serde(default = "half")]
    pub thresholds: Vec<f32>,
    /// Intersection over union above which the less sure of two faces is dropped.
    #[serde(default = "most_overlap")]
    pub overlap: f32,
    /// Long sides that a picture may be scaled to, in pixels; the first is used where the caller does not choose.
    pub sides: Vec<u32>,
    pub input: SceneInputSpec,
    /// The grids of cells that the network gives, one for each stride.
    pub outputs: Vec<GridSpec>,
}

/// An output that tells of each cell of a grid whether a face is centred in it, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridSpec {
    /// The output's name in the network.
    pub name: String,
    /// Pixels of the input that a cell is wide and high.
    pub stride: u32,
}

fn half() -> Vec<f32> {
    vec![0.5]
}

fn most_overlap() -> f32 {
    0.45
}

impl TaskSpec for FaceDetectionSpec {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn files(&self) -> Vec<&Path> {
        self.labels.file().into_iter().collect()
    }

    fn check_batch(&self, batch: &BatchSpec) -> Result<(), String> {
        // A batch would hold that many decoded pictures at once, and gain nothing by it.
        match batch.max_rows {
            1 => Ok(()),
            max_rows => Err(format!("batch.max_rows is {max_rows}; a detector allows 1")),
        }
    }

    fn build(&self, context: &BuildContext<'_>) -> Result<Arc<dyn Task>, SpecError> {
        Ok(Arc::new(FaceDetection::build(self, context)?))
    }
}

/// Faces that are answered for one picture at most, the surest.
pub const MOST_FACES: usize = 256;

/// Long sides that a manifest may list, in pixels, and how many of them: each has plans of its own.
const SIDES: std::ops::RangeInclusive<u32> = 64..=1280;
const MOST_SIDES: usize = 4;

/// How much an error of a place, in cells, or of the logarithm of a size counts against one of a score: a
/// tenth of a cell as a hundredth.
const PLACE_WEIGHT: f32 = 0.1;

/// A network that finds faces.
struct FaceDetection {
    labels: Arc<[Arc<str>; 1]>,
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
    /// Reads the label and holds `spec` to the network's signature.
    fn build(spec: &FaceDetectionSpec, context: &BuildContext<'_>) -> Result<Self, SpecError> {
        let Listed { source, labels } = listed(context.dir, &spec.labels)?;
        let [label] = labels.as_ref() else {
            let n_labels = labels.len();
            return Err(misfit(format!("{source} has {n_labels} labels, but a detector finds 1 thing")));
        };
        let label = Arc::clone(label);
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
            labels: Arc::new([label]),
            temperature,
            least: spec.thresholds.iter().cycle().take(n_sides).map(least).collect::<Result<_, _>>()?,
            overlap: within("overlap", spec.overlap)?,
            sides,
            limits: context.options.image,
            letterboxing: letterboxing(spec, context.signature)?,
            grids: Grids::build(&spec.outputs, context.signature)?,
            n_outputs: context.signature.outputs.len(),
        })
    }

    /// The side that is meant, the caller's or the first, and the logit of the least sure face that is answered there.
    fn side(&self, options: &Options) -> Result<(u32, f32), Error> {
        let meant = options.integer(SIDE.name).unwrap_or(u64::from(self.usual_side()));
        let found = self.sides.iter().zip(&self.least).find(|(side, _)| u64::from(**side) == meant);
        found
            .map(|(side, least)| (*side, *least))
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
        let tensor = Tensor::new::<f32>(shape, levels).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(vec![tensor])
    }

    fn probability(&self, logit: f32) -> f32 {
        // In f64, in which the exponential of any logit's negative is a number.
        (1.0 / (1.0 + (-f64::from(logit) / f64::from(self.temperature)).exp())) as f32
    }

    /// A candidate in pixels of the picture; `None` where no part of it lies within.
    fn face(&self, candidate: &Candidate, letterbox: &Letterbox) -> Option<Detection> {
        let [width, height] = letterbox.picture.map(|side| side as f32);
        let clipped = |[x, y]: [f32; 2]| [x.clamp(0.0, width), y.clamp(0.0, height)];
        let [left, top] = clipped(letterbox.to_picture(candidate.from));
        let [right, bottom] = clipped(letterbox.to_picture(candidate.to));
        let area = Area { x: left, y: top, width: right - left, height: bottom - top };
        let landmarks = || candidate.landmarks.iter().flatten().map(|mark| letterbox.to_picture(*mark));
        let [label] = self.labels.as_ref();
        (area.width > 0.0 && area.height > 0.0).then(|| Detection {
            area,
            label: Arc::clone(label),
            label_id: 0,
            score: self.probability(candidate.logit),
            landmarks: landmarks().collect(),
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

/// What the answer needs to know of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scene {
    /// How the picture lies on the row's canvas.
    letterbox: Letterbox,
    /// The logit of the least sure face that is answered.
    least: f32,
}

impl Task for FaceDetection {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn labels(&self) -> &[Arc<str>] {
        self.labels.as_ref()
    }

    fn check(&self, options: &Options) -> Result<(), Error> {
        self.side(options).map(|_| ())
    }

    fn shape_class(&self, size: &RequestSize) -> ShapeClass {
        let side = self.side(&size.options).map_or(self.usual_side(), |(side, _)| side);
        ShapeClass::Likely(Canvas::usual(side).shape())
    }

    fn workload(&self, input: &Input, most_bytes: usize) -> Workload {
        glimpse::workload(input, self.limits, most_bytes)
    }

    fn foreseen(&self, _: &RequestSize) -> Option<Workload> {
        None
    }

    fn then(&self, size: &RequestSize) -> Option<usize> {
        let usual = self.usual_side();
        let asked = size.options.integer(SIDE.name)?;
        (asked > u64::from(usual)).then(|| Canvas::usual(usual).shape())
    }

    fn further(
        &self,
        row: &Tensors,
        outputs: &[Tensor],
        context: &Context,
    ) -> Result<Option<Further>, Error> {
        let Scene { letterbox, least } = context.get()?;
        self.next_look(row, outputs, letterbox, *least)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        let (side, least) = self.side(&input.options)?;
        let channels = if input.needs_color() { Channels::Rgb } else { self.letterboxing.channels() };
        let keeps = input.step.is_some();
        let picture = match input.item {
            Item::Image(image) => Picture::decode(&image.decoded()?, self.limits, channels)?,
            Item::Pixels(_) => {
                return Err(Error::invalid("this model takes whole images, not parts of them"));
            }
            _ => return Err(input.misplaced(DESCRIPTOR.modality)),
        };
        let letterbox = lay(picture.width(), picture.height(), side);
        let [width, height] = letterbox.canvas;
        let canvas = Canvas { width, height };
        let row = self.row(canvas, self.letterboxing.row(&picture, &letterbox)?)?;
        let context = Context::new(Scene { letterbox, least });
        Ok(Prepared { row, shape: canvas.shape(), context, picture: keeps.then_some(picture) })
    }

    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error> {
        let Scene { letterbox, least } = context.get()?;
        let found = suppress(self.found(&outputs, letterbox, *least)?, self.overlap, MOST_FACES);
        let mut faces: Vec<Detection> =
            found.iter().filter_map(|candidate| self.face(candidate, letterbox)).collect();
        if faces.is_empty() {
            faces.extend(self.glanced(&outputs, letterbox)?);
        }
        let [width, height] = letterbox.picture;
        Ok(Answer { output: Output::Detections(faces), about: About::Image { width, height } })
    }

    fn scores(&self, outputs: Tensors, context: &Context) -> Result<Vec<f32>, Error> {
        let Scene { letterbox, .. } = context.get()?;
        let mut scores = Vec::new();
        self.grids.numbers(&outputs, letterbox, |number, value| {
            scores.push(match number {
                Number::Logit => self.probability(value),
                Number::Place => value * PLACE_WEIGHT,
            });
        })?;
        Ok(scores)
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        let mut canvases: Vec<Canvas> = self.sides.iter().flat_map(|side| Canvas::all(*side)).collect();
        canvases.sort_by_key(|canvas| canvas.shape());
        canvases.dedup_by_key(|canvas| canvas.shape());
        let empty = |canvas: Canvas| {
            let n = self.letterboxing.channels().count() * (canvas.width * canvas.height) as usize;
            let row = self.row(canvas, vec![0.0; n]).ok()?;
            Some(ProfileInput { shape: canvas.shape(), row })
        };
        canvases.into_iter().filter_map(empty).collect()
    }

    fn calibration_inputs(&self) -> Vec<Prepared> {
        // The smallest canvas has every operator in it, and costs the least.
        let Some(canvas) = self.sides.iter().flat_map(|side| Canvas::all(*side)).min_by_key(|it| it.shape())
        else {
            return Vec::new();
        };
        let size = [canvas.width, canvas.height];
        let drawn = |seed| {
            let pattern = Pattern::new(seed);
            let levels = self.letterboxing.drawn(size, |channel, x, y| {
                pattern.level(channel, x as f32 / size[0] as f32, y as f32 / size[1] as f32)
            });
            let letterbox = Letterbox { picture: size, shown: size, canvas: size };
            // Numbers are compared, not faces answered.
            let context = Context::new(Scene { letterbox, least: 0.0 });
            Some(Prepared::new(self.row(canvas, levels).ok()?, canvas.shape(), context))
        };
        (0..N_INPUTS).filter_map(drawn).collect()
    }
}

#[cfg(test)]
mod tests;
