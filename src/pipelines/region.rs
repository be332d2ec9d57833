//! The region of a picture that a reader sees of a detection.
//!
//! Invariant: a region lies within its picture, and shows the whole of its detection where the picture has room for it.

use std::sync::Arc;

use crate::{
    error::Error,
    image::{Channels, Picture, Preprocessing, Rect},
    tasks::{Answer, Area, Item, Output, RegionStep, Task},
};

/// Cuts the surest detections out of a picture, once for each reader.
pub(super) struct CutRegions {
    pub(super) readers: Vec<Cut>,
    /// The most detections that are cut out.
    pub(super) most: usize,
}

/// How one reader wants its regions.
pub(super) struct Cut {
    /// Says to which size a region is cut, and with which channels.
    pub(super) task: Arc<dyn Task>,
    /// How much wider than the detection's box the region is on each of its four sides, as a share of the box.
    pub(super) margin: f32,
}

impl RegionStep for CutRegions {
    fn needs_color(&self) -> bool {
        let channels = self.readers.iter().filter_map(|cut| cut.task.pixels()).map(Preprocessing::channels);
        channels.into_iter().any(|channels| channels == Channels::Rgb)
    }

    /// One item for each detection and reader: all readers of the first detection, then those of the second.
    fn items(&self, picture: &Picture, answer: &Answer) -> Result<Vec<Item>, Error> {
        let Output::Detections(detections) = &answer.output else {
            return Err(Error::Internal("the first model of a pipeline gave no detections".to_owned()));
        };
        let size = [picture.width(), picture.height()];
        let mut items = Vec::with_capacity(detections.len().min(self.most) * self.readers.len());
        for detection in detections.iter().take(self.most) {
            for Cut { task, margin } in &self.readers {
                let none = || Error::Internal("a reader of regions reads no pictures".to_owned());
                let pixels = task.pixels().ok_or_else(none)?;
                let [_, rows, columns] = pixels.shape();
                let region = region(detection.area, *margin, columns as f64 / rows as f64, size);
                // No larger than the network's row shows it.
                items.push(Item::Pixels(pixels.cut(picture, region)?));
            }
        }
        Ok(items)
    }
}

/// The region around a box in a picture of that width and height: the box enlarged by the margin, its shorter side
/// lengthened to the ratio (width to height) of the network's input, around the same centre. What juts out of the picture
/// is moved inside, which keeps the detection in its size, and cut only where the picture is too small for it.
fn region(area: Area, margin: f32, ratio: f64, [width, height]: [u32; 2]) -> Rect {
    let larger = 1.0 + 2.0 * f64::from(margin);
    let (across, down) = (f64::from(area.width) * larger, f64::from(area.height) * larger);
    let (across, down) = (across.max(down * ratio), down.max(across / ratio));
    let (x, across) = within(f64::from(area.x) + f64::from(area.width) / 2.0, across, width);
    let (y, down) = within(f64::from(area.y) + f64::from(area.height) / 2.0, down, height);
    Rect { x, y, width: across, height: down }
}

/// Where a length around a centre begins, and how long it is, in whole pixels from 0 to `most`.
fn within(centre: f64, length: f64, most: u32) -> (u32, u32) {
    let whole = (length.round() as u32).clamp(1, most.max(1));
    let from = (centre - f64::from(whole) / 2.0).round().max(0.0) as u32;
    (from.min(most - whole.min(most)), whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    const FACE: Area = Area { x: 100.0, y: 50.0, width: 60.0, height: 80.0 };

    #[test]
    fn a_region_is_the_box_with_its_margin_in_the_networks_ratio() {
        let square = region(FACE, 0.0, 1.0, [1000, 1000]);
        assert_eq!(square, Rect { x: 90, y: 50, width: 80, height: 80 });
        let wider = region(FACE, 0.25, 1.0, [1000, 1000]);
        assert_eq!(wider, Rect { x: 70, y: 30, width: 120, height: 120 });
        let closer = region(FACE, -0.125, 1.0, [1000, 1000]);
        assert_eq!(closer, Rect { x: 100, y: 60, width: 60, height: 60 });
        let broad = region(FACE, 0.0, 2.0, [1000, 1000]);
        assert_eq!(broad, Rect { x: 50, y: 50, width: 160, height: 80 });
    }

    #[test]
    fn what_juts_out_is_moved_inside_and_cut_where_there_is_no_room() {
        let corner = Area { x: 0.0, y: 5.0, ..FACE };
        assert_eq!(region(corner, 0.25, 1.0, [1000, 1000]), Rect { x: 0, y: 0, width: 120, height: 120 });
        assert_eq!(region(FACE, 0.25, 1.0, [160, 90]), Rect { x: 40, y: 0, width: 120, height: 90 });
    }

    proptest! {
        #[test]
        fn a_region_lies_within_its_picture_and_holds_the_face(
            width in 1u32..3000, height in 1u32..3000, margin in -0.45f32..3.0,
            a in 0.0f32..1.0, b in 0.0f32..1.0, c in 0.001f32..1.0, d in 0.001f32..1.0,
        ) {
            let (x, y) = (a * width as f32, b * height as f32);
            let face = Area { x, y, width: c * (width as f32 - x), height: d * (height as f32 - y) };
            let region = region(face, margin, 1.0, [width, height]);
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
