//! What a classifier is shown of a face that a detector found.
//!
//! Invariant: a region lies within its picture, and shows the whole of its face where the picture has
//! room for it.

use super::Area;
use crate::{
    error::Error,
    image::{Picture, Preprocessing, Rect},
};

/// How faces are cut out for a classifier: made once from its manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Crop {
    preprocessing: Preprocessing,
    /// How much wider than the face's box the region is on each of its four sides, as a share of the box.
    margin: f32,
}

impl Crop {
    pub(super) fn new(preprocessing: Preprocessing, margin: f32) -> Self {
        Self { preprocessing, margin }
    }

    /// How a row is filled.
    pub(super) fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Cuts the region around a face out of a picture, no larger than the network's row shows it.
    pub(super) fn cut(&self, picture: &Picture, face: Area) -> Result<Picture, Error> {
        self.preprocessing.cut(picture, self.region(face, [picture.width(), picture.height()]))
    }

    /// The region around a face in a picture of that width and height: the box enlarged by the margin, its
    /// shorter side lengthened to the ratio of the network's input, around the same centre. What juts out
    /// of the picture is moved inside, which keeps the face in its size, and cut only where the picture is
    /// too small for it.
    fn region(&self, face: Area, [width, height]: [u32; 2]) -> Rect {
        let [_, rows, columns] = self.preprocessing.shape();
        let ratio = columns as f64 / rows as f64;
        let larger = 1.0 + 2.0 * f64::from(self.margin);
        let (across, down) = (f64::from(face.width) * larger, f64::from(face.height) * larger);
        let (across, down) = (across.max(down * ratio), down.max(across / ratio));
        let (x, across) = within(f64::from(face.x) + f64::from(face.width) / 2.0, across, width);
        let (y, down) = within(f64::from(face.y) + f64::from(face.height) / 2.0, down, height);
        Rect { x, y, width: across, height: down }
    }
}

/// Where a length around a centre begins, and how long it is, in whole pixels from 0 to `most`.
fn within(centre: f64, length: f64, most: u32) -> (u32, u32) {
    let whole = (length.round() as u32).clamp(1, most.max(1));
    let from = (centre - f64::from(whole) / 2.0).round().max(0.0) as u32;
    (from.min(most - whole.min(most)), whole)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{Color, Filter, Fit, ImageInputSpec, Layout, Resampling};

    /// A crop for grey rows of that width and height.
    pub(in crate::task) fn crop(width: u32, height: u32, margin: f32) -> Crop {
        let spec = ImageInputSpec {
            name: "image".to_owned(),
            width,
            height,
            color: Color::Gray,
            layout: Layout::Nchw,
            fit: Fit::Cover,
            filter: Filter::Bilinear,
            resampling: Resampling::Fast,
            scale: 1.0,
            mean: vec![0.0],
            std: vec![1.0],
        };
        Crop::new(Preprocessing::new(&spec), margin)
    }

    const FACE: Area = Area { x: 100.0, y: 50.0, width: 60.0, height: 80.0 };

    #[test]
    fn a_region_is_the_box_with_its_margin_in_the_networks_ratio() {
        let square = crop(48, 48, 0.0).region(FACE, [1000, 1000]);
        assert_eq!(square, Rect { x: 90, y: 50, width: 80, height: 80 });
        let wider = crop(48, 48, 0.25).region(FACE, [1000, 1000]);
        assert_eq!(wider, Rect { x: 70, y: 30, width: 120, height: 120 });
        let closer = crop(48, 48, -0.125).region(FACE, [1000, 1000]);
        assert_eq!(closer, Rect { x: 100, y: 60, width: 60, height: 60 });
        let broad = crop(96, 48, 0.0).region(FACE, [1000, 1000]);
        assert_eq!(broad, Rect { x: 50, y: 50, width: 160, height: 80 });
    }

    #[test]
    fn what_juts_out_is_moved_inside_and_cut_where_there_is_no_room() {
        let corner = Area { x: 0.0, y: 5.0, ..FACE };
        assert_eq!(
            crop(48, 48, 0.25).region(corner, [1000, 1000]),
            Rect { x: 0, y: 0, width: 120, height: 120 }
        );
        assert_eq!(crop(48, 48, 0.25).region(FACE, [160, 90]), Rect { x: 40, y: 0, width: 120, height: 90 });
    }

    proptest! {
        #[test]
        fn a_region_lies_within_its_picture_and_holds_the_face(
            width in 1u32..3000, height in 1u32..3000, margin in -0.45f32..3.0,
            a in 0.0f32..1.0, b in 0.0f32..1.0, c in 0.001f32..1.0, d in 0.001f32..1.0,
        ) {
            let (x, y) = (a * width as f32, b * height as f32);
            let face = Area { x, y, width: c * (width as f32 - x), height: d * (height as f32 - y) };
            let region = crop(48, 48, margin).region(face, [width, height]);
            prop_assert!(region.width > 0 && region.x + region.width <= width);
            prop_assert!(region.height > 0 && region.y + region.height <= height);
            if margin >= 0.0 {
                let slack = 1.0;
                prop_assert!(region.x as f32 <= face.x + slack);
                prop_assert!((region.x + region.width) as f32 + slack >= face.x + face.width);
                prop_assert!(region.y as f32 <= face.y + slack);
                prop_assert!((region.y + region.height) as f32 + slack >= face.y + face.height);
            }
        }
    }
}
