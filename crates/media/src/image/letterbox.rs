//! A whole picture on a canvas: scaled without regard to the canvas's ratio, put to its upper left
//! corner, the rest empty.
//!
//! Invariant: a point of the canvas maps back to the point of the picture that it shows, on each axis by
//! the pixels that were really shown, so that rounding to whole pixels shifts nothing.

use super::{
    Channels, Filter, Normalisation, Picture, SceneInputSpec, Size,
    resize::resize,
    samples::{Padding, Samples},
};
use crate::error::MediaError;

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
        let SceneInputSpec { color, filter, scale, .. } = *spec;
        let normalisation = Normalisation { color, scale, mean: &spec.mean, std: &spec.std };
        Self { filter, samples: Samples::new(normalisation) }
    }

    /// What [`Picture::decode`] should keep.
    pub fn channels(&self) -> Channels {
        self.samples.channels()
    }

    /// Fills one row, channel by channel, with the picture, its levels spread where they are narrow; what it
    /// does not cover is the number 0.
    ///
    /// # Errors
    /// [`MediaError::Internal`] where the letterbox is not this picture's.
    pub fn row(&self, picture: &Picture, letterbox: &Letterbox) -> Result<Vec<f32>, MediaError> {
        let Letterbox { picture: of, shown, canvas } = *letterbox;
        if of != [picture.width(), picture.height()] || shown[0] > canvas[0] || shown[1] > canvas[1] {
            return Err(MediaError::Internal(format!("{letterbox:?} does not fit {picture:?}")));
        }
        let size = |[width, height]: [u32; 2]| Size { width, height };
        let mut resized = resize(picture, picture.whole(), size(shown), self.filter)?;
        resized.spread_levels();
        Ok(self.samples.row(&resized, [0, 0], size(canvas), Padding::Zero))
    }

    /// Fills the row of a smaller `canvas` with the picture at a smaller size: each number is the mean of those
    /// that it covers in the row that `from` describes.
    pub fn smaller(&self, row: &[f32], from: &Letterbox, to: &Letterbox) -> Vec<f32> {
        let area = |[width, height]: [u32; 2]| width as usize * height as usize;
        let [across, down] = [0, 1].map(|axis| spans(from.shown[axis], to.shown[axis]));
        let (from_width, to_width) = (from.canvas[0] as usize, to.canvas[0] as usize);
        let mut smaller = vec![0.0; self.channels().count() * area(to.canvas)];
        let planes = row.chunks_exact(area(from.canvas)).zip(smaller.chunks_exact_mut(area(to.canvas)));
        let mut line = vec![0.0; from_width];
        for (from_plane, to_plane) in planes {
            for (down, to_line) in down.iter().zip(to_plane.chunks_exact_mut(to_width)) {
                line.fill(0.0);
                for (from_line, share) in
                    from_plane.chunks_exact(from_width).skip(down.first).zip(&down.shares)
                {
                    line.iter_mut().zip(from_line).for_each(|(sum, value)| *sum += share * value);
                }
                for (across, value) in across.iter().zip(to_line) {
                    *value = line[across.first..]
                        .iter()
                        .zip(&across.shares)
                        .map(|(value, share)| value * share)
                        .sum();
                }
            }
        }
        smaller
    }

    /// Fills one row of a canvas with the levels that `draw` gives for channel, x and y.
    pub fn drawn(&self, [width, height]: [u32; 2], draw: impl Fn(usize, u32, u32) -> u8) -> Vec<f32> {
        self.samples.drawn(Size { width, height }, draw)
    }
}

/// What a pixel of a smaller picture covers of a larger one, on one axis.
struct Span {
    /// The first pixel of the larger one.
    first: usize,
    /// Of that pixel and those after it, their shares; 1 together.
    shares: Vec<f32>,
}

/// What each of `to` pixels covers of `from`.
fn spans(from: u32, to: u32) -> Vec<Span> {
    let step = f64::from(from) / f64::from(to);
    let span = |at: u32| {
        let (begin, end) = (f64::from(at) * step, (f64::from(at + 1) * step).min(f64::from(from)));
        let (first, last) = (begin.floor(), end.ceil());
        let share = |pixel: u32| {
            let covered = end.min(f64::from(pixel) + 1.0) - begin.max(f64::from(pixel));
            (covered.max(0.0) / (end - begin)) as f32
        };
        Span { first: first as usize, shares: (first as u32..last as u32).map(share).collect() }
    };
    (0..to).map(span).collect()
}

#[cfg(test)]
mod tests {
    use lepton_testkit::pictures;
    use proptest::prelude::*;

    use super::{
        super::{Color, ImageLimits},
        *,
    };

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
        assert!(matches!(letterboxing().row(&picture, &other), Err(MediaError::Internal(_))));
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

    #[test]
    fn a_smaller_row_holds_means_and_nothing_beside_the_picture() {
        let from = Letterbox { picture: [4, 2], shown: [4, 2], canvas: [5, 3] };
        let to = Letterbox { picture: [4, 2], shown: [2, 1], canvas: [3, 2] };
        let plane = [1.0, 3.0, 5.0, 7.0, 99.0, 1.0, 3.0, 5.0, 7.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0];
        let smaller = letterboxing().smaller(&plane.repeat(3), &from, &to);
        assert_eq!(smaller, [2.0, 6.0, 0.0, 0.0, 0.0, 0.0].repeat(3));
    }

    proptest! {
        #[test]
        fn what_is_even_stays_even_at_any_smaller_size(
            shown in (1u32..90, 1u32..90), by in (0.05f64..1.0, 0.05f64..1.0),
        ) {
            let smaller = |length: u32, by: f64| ((f64::from(length) * by) as u32).max(1);
            let from = Letterbox { picture: [9, 9], shown: [shown.0, shown.1], canvas: [96, 96] };
            let to = [smaller(shown.0, by.0), smaller(shown.1, by.1)];
            let to = Letterbox { picture: [9, 9], shown: to, canvas: [96, 96] };
            let mut plane = vec![0.0; 96 * 96];
            for y in 0..shown.1 as usize {
                plane[y * 96..][..shown.0 as usize].fill(2.5);
            }
            let row = letterboxing().smaller(&plane.repeat(3), &from, &to);
            for (at, value) in row[..96 * 96].iter().enumerate() {
                let inside = at % 96 < to.shown[0] as usize && at / 96 < to.shown[1] as usize;
                prop_assert!((value - if inside { 2.5 } else { 0.0 }).abs() < 1e-5, "{at}: {value}");
            }
        }

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
