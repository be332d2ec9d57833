//! A whole picture on a canvas: scaled without regard to the canvas's ratio, put to its upper left
//! corner, the rest empty.
//!
//! Invariant: a point of the canvas maps back to the point of the picture that it shows, on each axis by
//! the pixels that were really shown, so that rounding to whole pixels shifts nothing.

use super::{
    Channels, Picture, Size,
    resize::resize,
    samples::{Padding, Samples},
};
use crate::{
    error::Error,
    manifest::{Filter, SceneInputSpec},
};

/// How a picture lies on a canvas. Widths and heights in pixels, none of them 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letterbox {
    /// Width and height of the upright picture.
    pub picture: [u32; 2],
    /// Width and height that it has on the canvas, at most the canvas's own.
    pub shown: [u32; 2],
    pub canvas: [u32; 2],
}

impl Letterbox {
    /// The point of the picture that is shown at a point of the canvas.
    pub fn to_picture(self, [x, y]: [f32; 2]) -> [f32; 2] {
        // In f64, so that the far edge of what is shown is the picture's edge and nothing less.
        let back = |at: f32, axis: usize| {
            (f64::from(at) * f64::from(self.picture[axis]) / f64::from(self.shown[axis])) as f32
        };
        [back(x, 0), back(y, 1)]
    }
}

/// How pictures become rows of canvases: made once from the manifest.
#[derive(Debug, Clone)]
pub struct Letterboxing {
    filter: Filter,
    samples: Samples,
}

impl Letterboxing {
    /// Takes a spec whose `mean` and `std` hold one value, or one per channel.
    pub fn new(spec: &SceneInputSpec) -> Self {
        let samples = Samples::new(spec.color, spec.scale, &spec.mean, &spec.std);
        Self { filter: spec.filter, samples }
    }

    /// What [`Picture::decode`] should keep.
    pub fn channels(&self) -> Channels {
        self.samples.channels()
    }

    /// Fills one row, channel by channel, with the picture; what it does not cover is the number 0.
    ///
    /// # Errors
    /// [`Error::Internal`] where the letterbox is not this picture's.
    pub fn row(&self, picture: &Picture, letterbox: &Letterbox) -> Result<Vec<f32>, Error> {
        let Letterbox { picture: of, shown, canvas } = *letterbox;
        if of != [picture.width(), picture.height()] || shown[0] > canvas[0] || shown[1] > canvas[1] {
            return Err(Error::Internal(format!("{letterbox:?} does not fit {picture:?}")));
        }
        let size = |[width, height]: [u32; 2]| Size { width, height };
        let resized = resize(picture, picture.whole(), size(shown), self.filter)?;
        Ok(self.samples.row(&resized, [0, 0], size(canvas), Padding::Zero))
    }

    /// Fills one row of a canvas with the levels that `draw` gives for channel, x and y.
    pub fn drawn(&self, [width, height]: [u32; 2], draw: impl Fn(usize, u32, u32) -> u8) -> Vec<f32> {
        self.samples.drawn(Size { width, height }, draw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{ImageLimits, pictures},
        *,
    };
    use crate::manifest::Color;

    fn letterboxing() -> Letterboxing {
        Letterboxing::new(&SceneInputSpec {
            name: "image".to_owned(),
            color: Color::Rgb,
            filter: Filter::Bilinear,
            scale: 1.0,
            mean: vec![100.0],
            std: vec![1.0],
        })
    }

    fn decoded(bytes: &[u8]) -> Picture {
        let limits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };
        Picture::decode(bytes, limits, Channels::Rgb).unwrap()
    }

    #[test]
    fn a_picture_lies_at_the_upper_left_and_the_rest_is_the_number_0() {
        let picture = decoded(&pictures::raw_png(2, 1, pictures::PngKind::Rgb, 8, &[90; 6]));
        let letterbox = Letterbox { picture: [2, 1], shown: [2, 1], canvas: [3, 2] };
        let row = letterboxing().row(&picture, &letterbox).unwrap();
        assert_eq!(row, [-10.0, -10.0, 0.0, 0.0, 0.0, 0.0].repeat(3));
        let other = Letterbox { picture: [1, 2], ..letterbox };
        assert!(matches!(letterboxing().row(&picture, &other), Err(Error::Internal(_))));
    }

    #[test]
    fn a_picture_that_was_stored_turned_lies_upright() {
        let upright = pictures::smooth(60, 40);
        let letterbox = Letterbox { picture: [60, 40], shown: [30, 20], canvas: [32, 32] };
        let row = |bytes: &[u8]| letterboxing().row(&decoded(bytes), &letterbox).unwrap();
        let expected = row(&pictures::png(&upright));
        for orientation in 2..=8 {
            let stored = pictures::stored_as(&upright, orientation);
            let found = row(&pictures::oriented_png(&stored, orientation));
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1.0, "orientation {orientation}: {worst} levels");
        }
    }

    proptest! {
        #[test]
        fn corners_map_to_corners_whatever_was_rounded(
            picture in (1u32..9000, 1u32..9000), shown in (1u32..700, 1u32..700),
        ) {
            let letterbox =
                Letterbox { picture: [picture.0, picture.1], shown: [shown.0, shown.1], canvas: [700, 700] };
            prop_assert_eq!(letterbox.to_picture([0.0, 0.0]), [0.0, 0.0]);
            let corner = letterbox.to_picture([shown.0 as f32, shown.1 as f32]);
            prop_assert_eq!(corner, [picture.0 as f32, picture.1 as f32]);
        }

        #[test]
        fn a_point_maps_back_to_where_it_came_from(
            picture in (1u32..9000, 1u32..9000), shown in (1u32..700, 1u32..700), x in 0.0f32..1.0, y in 0.0f32..1.0,
        ) {
            let letterbox =
                Letterbox { picture: [picture.0, picture.1], shown: [shown.0, shown.1], canvas: [700, 700] };
            let [from_x, from_y] = [x * picture.0 as f32, y * picture.1 as f32];
            let there = [x * shown.0 as f32, y * shown.1 as f32];
            let [back_x, back_y] = letterbox.to_picture(there);
            prop_assert!((back_x - from_x).abs() <= picture.0 as f32 * 1e-6);
            prop_assert!((back_y - from_y).abs() <= picture.1 as f32 * 1e-6);
        }
    }
}
