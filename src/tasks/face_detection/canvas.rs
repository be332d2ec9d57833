//! Which canvas a picture is laid on: pure arithmetic.
//!
//! A network that takes pictures of any ratio has a plan for each canvas, which takes time to make and
//! memory to keep. So there are twelve canvases a side and no more, whatever callers send: the short side
//! is one of six rungs, chosen so that the common ratios (1:1, 5:4, 4:3, 3:2, 16:9) lose little to padding, and
//! pictures that are too small to be enlarged to the side share one small square.
//!
//! Invariant: sides of canvases are multiples of [`STEP`], and a picture fits its canvas.

use crate::image::Letterbox;

/// What the sides of a canvas are multiples of: the largest stride.
pub(super) const STEP: u32 = 32;

/// Rungs of the short side, in tenths of the long one. At 320 pixels: 64, 128, 192, 224, 256 and 320.
const RUNGS: [u32; 6] = [2, 4, 6, 7, 8, 10];

/// The rung of the square for pictures that are too small to be enlarged to the side.
const SMALL: u32 = 4;

/// The rung that most photographs need.
const USUAL: u32 = 8;

/// The most that a picture is enlarged: beyond that it shows nothing more, and costs more.
const MOST_ENLARGED: f64 = 2.0;

/// Width and height of a canvas, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Canvas {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Canvas {
    /// The task's number for rows of such a canvas: its area, in squares of [`STEP`]. Canvases of one area
    /// cost the same, whichever side is the long one.
    pub(super) fn shape(self) -> usize {
        (self.width / STEP) as usize * (self.height / STEP) as usize
    }

    /// The canvas that a photograph of unknown ratio is likely to need.
    pub(super) fn usual(side: u32) -> Self {
        Self { width: side, height: rung(side, USUAL) }
    }

    /// A canvas of each shape at that side, the long side across.
    pub(super) fn all(side: u32) -> impl Iterator<Item = Self> {
        let small = rung(side, SMALL);
        let rungs = RUNGS.into_iter().map(move |tenths| Self { width: side, height: rung(side, tenths) });
        std::iter::once(Self { width: small, height: small }).chain(rungs)
    }
}

/// Lays a picture of `width` by `height` pixels on a canvas for that long side.
pub(super) fn lay(width: u32, height: u32, side: u32) -> Letterbox {
    let (long, small) = (f64::from(width.max(height)), rung(side, SMALL));
    let scale = (f64::from(side) / long).min(MOST_ENLARGED);
    let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).clamp(1, side);
    let shown = [scaled(width), scaled(height)];
    let short = |length: u32| {
        let rungs = RUNGS.into_iter().map(|tenths| rung(side, tenths));
        rungs.into_iter().find(|rung| *rung >= length).unwrap_or(side)
    };
    let canvas = match shown {
        [width, height] if width.max(height) <= small => [small, small],
        [width, height] if width >= height => [side, short(height)],
        [width, _] => [short(width), side],
    };
    Letterbox { picture: [width, height], shown, canvas }
}

/// The side of the square for small pictures.
pub(super) fn small(side: u32) -> u32 {
    rung(side, SMALL)
}

/// So many tenths of a side, rounded up to a multiple of [`STEP`]; never more than the side, which is one.
fn rung(side: u32, tenths: u32) -> u32 {
    (side * tenths).div_ceil(10).next_multiple_of(STEP).min(side)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn canvas(width: u32, height: u32, side: u32) -> [u32; 2] {
        lay(width, height, side).canvas
    }

    #[test]
    fn common_ratios_lose_little_to_padding() {
        let cases = [
            ((4000, 3000), [320, 256], [640, 512]),
            ((3000, 4000), [256, 320], [512, 640]),
            ((6000, 4000), [320, 224], [640, 448]),
            ((1920, 1080), [320, 192], [640, 384]),
            ((1080, 1350), [256, 320], [512, 640]),
            ((1024, 1024), [320, 320], [640, 640]),
            ((3000, 100), [320, 64], [640, 128]),
        ];
        for ((width, height), cheap, accurate) in cases {
            assert_eq!(canvas(width, height, 320), cheap, "{width} x {height}");
            assert_eq!(canvas(width, height, 640), accurate, "{width} x {height}");
        }
    }

    #[test]
    fn a_small_picture_is_enlarged_twice_at_most() {
        let small = lay(48, 40, 320);
        assert_eq!((small.shown, small.canvas), ([96, 80], [128, 128]));
        let middle = lay(250, 250, 640);
        assert_eq!((middle.shown, middle.canvas), ([500, 500], [640, 512]));
        assert_eq!(lay(1, 1, 320).shown, [2, 2]);
    }

    #[test]
    fn rows_of_every_canvas_are_among_the_samples() {
        for side in [64, 320, 640, 1280] {
            let shapes: HashSet<usize> = Canvas::all(side).map(Canvas::shape).collect();
            assert!(shapes.contains(&Canvas::usual(side).shape()));
            for width in (1..3000).step_by(37) {
                for height in (1..3000).step_by(41) {
                    let [width, height] = canvas(width, height, side);
                    assert!(shapes.contains(&Canvas { width, height }.shape()), "{width} x {height}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn there_are_few_canvases_and_every_picture_fits_one(
            sizes in prop::collection::vec((1u32..9000, 1u32..9000), 1..400), side in 2u32..41,
        ) {
            let side = side * STEP;
            let mut canvases = HashSet::new();
            for (width, height) in sizes {
                let Letterbox { picture, shown, canvas } = lay(width, height, side);
                prop_assert_eq!(picture, [width, height]);
                prop_assert!(shown[0] <= canvas[0] && shown[1] <= canvas[1] && shown.iter().all(|n| *n > 0));
                prop_assert!(canvas.iter().all(|n| n % STEP == 0 && *n <= side));
                let scale = (f64::from(side) / f64::from(width.max(height))).min(2.0);
                for (shown, of) in shown.iter().zip([width, height]) {
                    prop_assert!((f64::from(*shown) - f64::from(of) * scale).abs() <= 1.0);
                }
                canvases.insert(canvas);
            }
            prop_assert!(canvases.len() <= 12);
        }
    }
}
