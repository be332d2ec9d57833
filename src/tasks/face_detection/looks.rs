//! The further looks that a detector takes at a picture: smaller, where that shows what the first could not.
//!
//! - At a side that is longer than the usual one, faces that are large on the canvas are larger than what the
//!   network learnt. A second look at the usual side sees them, and the boxes of both are merged.
//! - A picture that is all face shows nothing around it that the network knows faces by. Where no look finds
//!   any, a glance at a quarter of the usual side, with room around it, does. What it finds has to fill most
//!   of the picture, and is answered with a score below that of any other.
//!
//! Each look is made from the row of the first, so that the picture is neither decoded nor resized again.
//! `training/detector_looks.py` measures what they gain, and what they take for a face that is none.

use super::{
    Detection, FaceDetection,
    canvas::{Canvas, lay, small},
    grids::Candidate,
};
use crate::{
    error::Error,
    image::Letterbox,
    tasks::{Billing, Further},
    tensor::{Tensor, Tensors},
};

/// How much smaller than at the usual side a glance shows the picture.
const GLANCE: u32 = 4;

/// How sure the network has to be of a face that a glance finds. Of 815 cuts out of pictures that show no
/// face it is as sure of none, and of one where an even chance is enough.
const LEAST_OF_GLANCE: f32 = 0.6;

/// Share of the picture that such a face covers at least.
const MOST_OF_PICTURE: f32 = 0.5;

/// Share of what is shown that a face covers of which a longer side may see parts.
const LARGE: f32 = 0.08;

/// Pixels of a canvas that show the picture.
fn area(letterbox: &Letterbox) -> f32 {
    letterbox.shown[0] as f32 * letterbox.shown[1] as f32
}

/// The looks at one picture, the first excepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Looks {
    /// At the usual side, where the first was at a longer one.
    pub(super) usual: Option<Letterbox>,
    pub(super) glance: Letterbox,
}

impl Looks {
    /// What may follow a look at `first`, for a detector with that usual side.
    pub(super) fn after(first: &Letterbox, usual_side: u32) -> Self {
        let [width, height] = first.picture;
        let usual = lay(width, height, usual_side);
        let shown = usual.shown.map(|length| length.div_ceil(GLANCE));
        let glance = Letterbox { picture: first.picture, shown, canvas: [small(usual_side); 2] };
        let is_smaller = usual.shown[0] < first.shown[0] && usual.shown[1] < first.shown[1];
        Self { usual: is_smaller.then_some(usual), glance }
    }
}

impl FaceDetection {
    /// The next look that `outputs`, those of all looks so far, ask for.
    pub(super) fn next_look(
        &self,
        row: &Tensors,
        outputs: &[Tensor],
        first: &Letterbox,
        least: f32,
    ) -> Result<Option<Further>, Error> {
        let looks = Looks::after(first, self.usual_side());
        let n_looks = outputs.len() / self.n_outputs.max(1);
        let (letterbox, billing) = match (n_looks, looks.usual) {
            (1, Some(usual)) => (usual, Billing::Upfront),
            (1, None) | (2, Some(_)) => {
                if !self.found(outputs, first, least)?.is_empty() {
                    return Ok(None);
                }
                (looks.glance, Billing::OnAverage)
            }
            _ => return Ok(None),
        };
        let fault = |what: &str| Error::Internal(format!("a detector's row is {what}"));
        let values = row
            .first()
            .ok_or_else(|| fault("empty"))?
            .as_slice::<f32>()
            .map_err(|e| fault(&e.to_string()))?;
        let [width, height] = letterbox.canvas;
        let canvas = Canvas { width, height };
        let row = self.row(canvas, self.letterboxing.smaller(values, first, &letterbox))?;
        Ok(Some(Further { row, shape: canvas.shape(), billing }))
    }

    /// The candidates of the first look and of that at the usual side, where there was one, in pixels of the
    /// first look's canvas.
    pub(super) fn found(
        &self,
        outputs: &[Tensor],
        first: &Letterbox,
        least: f32,
    ) -> Result<Vec<Candidate>, Error> {
        let mut looks = outputs.chunks(self.n_outputs.max(1));
        let mut found = self.grids.candidates(looks.next().unwrap_or_default(), first, least)?;
        if let (Some(usual), Some(outputs)) = (Looks::after(first, self.usual_side()).usual, looks.next()) {
            let larger = [0, 1].map(|axis| first.shown[axis] as f32 / usual.shown[axis] as f32);
            let seen = self.grids.candidates(outputs, &usual, self.usual_least())?;
            let seen = seen.into_iter().map(|candidate| candidate.enlarged(larger)).collect::<Vec<_>>();
            // Of a face that is too large for it, a longer side sees an eye for a face.
            let large = seen.iter().filter(|face| face.area() >= LARGE * area(first));
            let large: Vec<&Candidate> = large.collect();
            found.retain(|part| !large.iter().any(|face| face.logit > part.logit && part.is_part_of(face)));
            found.extend(seen);
        }
        Ok(found)
    }

    /// The one face that fills the picture, if there was a glance that saw it.
    pub(super) fn glanced(&self, outputs: &[Tensor], first: &Letterbox) -> Result<Option<Detection>, Error> {
        let looks = Looks::after(first, self.usual_side());
        let n_before = if looks.usual.is_some() { 2 } else { 1 };
        let Some(outputs) = outputs.chunks(self.n_outputs.max(1)).nth(n_before) else { return Ok(None) };
        let least = (LEAST_OF_GLANCE / (1.0 - LEAST_OF_GLANCE)).ln() * self.temperature;
        let seen = self.grids.candidates(outputs, &looks.glance, least)?;
        let whole = first.picture[0] as f32 * first.picture[1] as f32;
        let faces = seen.iter().filter_map(|candidate| self.face(candidate, &looks.glance));
        let most = faces.filter(|face| face.area.width * face.area.height >= MOST_OF_PICTURE * whole);
        let surest = most.max_by(|one, other| one.score.total_cmp(&other.score));
        // Below the least that another face is answered with, so that callers can tell.
        let below = self.probability(self.usual_least());
        Ok(surest.map(|face| Detection { score: face.score * below, ..face }))
    }
}
