//! Which part of a picture fills which part of a row: pure arithmetic.
//!
//! Invariant: what is cut lies within the region that it was cut from. Cuts are whole pixels, as a
//! training recipe cuts them, so that a row never shows what lies outside its region.

use super::{Rect, Size};
use crate::manifest::Fit;

/// What to resize and where to put it; the rest of the target is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) source: Rect,
    pub(super) target: Rect,
}

/// Fits `region` into a target of `size`, to the nearest pixel.
pub(super) fn place(region: Rect, size: Size, fit: Fit) -> Placement {
    let target = Rect { x: 0, y: 0, width: size.width, height: size.height };
    let (across, down) =
        (f64::from(region.width) / f64::from(size.width), f64::from(region.height) / f64::from(size.height));
    match fit {
        Fit::Stretch => Placement { source: region, target },
        Fit::Cover => {
            let per_pixel = across.min(down);
            let width = rounded(f64::from(size.width) * per_pixel, region.width);
            let height = rounded(f64::from(size.height) * per_pixel, region.height);
            Placement { source: centred(region, width, height), target }
        }
        Fit::Contain => {
            let per_pixel = across.max(down);
            let width = rounded(f64::from(region.width) / per_pixel, size.width);
            let height = rounded(f64::from(region.height) / per_pixel, size.height);
            Placement { source: region, target: centred(target, width, height) }
        }
    }
}

/// The nearest whole number of pixels, at least one and at most `most`.
fn rounded(length: f64, most: u32) -> u32 {
    (length.round() as u32).clamp(1, most)
}

fn centred(within: Rect, width: u32, height: u32) -> Rect {
    let x = within.x + (within.width - width) / 2;
    let y = within.y + (within.height - height) / 2;
    Rect { x, y, width, height }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn regions_and_sizes() -> impl Strategy<Value = (Rect, Size)> {
        (0u32..5000, 0u32..5000, 1u32..5000, 1u32..5000, 1u32..600, 1u32..600).prop_map(
            |(x, y, width, height, target_width, target_height)| {
                (Rect { x, y, width, height }, Size { width: target_width, height: target_height })
            },
        )
    }

    fn lies_within(inner: Rect, outer: Rect) -> bool {
        inner.width > 0
            && inner.height > 0
            && inner.x >= outer.x
            && inner.y >= outer.y
            && inner.x + inner.width <= outer.x + outer.width
            && inner.y + inner.height <= outer.y + outer.height
    }

    #[test]
    fn cover_cuts_the_longer_side_in_the_middle() {
        let region = Rect { x: 10, y: 20, width: 100, height: 60 };
        let placement = place(region, Size { width: 30, height: 30 }, Fit::Cover);
        assert_eq!(placement.source, Rect { x: 30, y: 20, width: 60, height: 60 });
        assert_eq!(placement.target, Rect { x: 0, y: 0, width: 30, height: 30 });
    }

    #[test]
    fn contain_pads_the_shorter_side_in_the_middle() {
        let region = Rect { x: 0, y: 0, width: 100, height: 50 };
        let placement = place(region, Size { width: 40, height: 40 }, Fit::Contain);
        assert_eq!(placement.source, region);
        assert_eq!(placement.target, Rect { x: 0, y: 10, width: 40, height: 20 });
    }

    proptest! {
        #[test]
        fn nothing_leaves_its_bounds((region, size) in regions_and_sizes()) {
            let bounds = Rect { x: 0, y: 0, width: size.width, height: size.height };
            for fit in [Fit::Cover, Fit::Contain, Fit::Stretch] {
                let Placement { source, target } = place(region, size, fit);
                prop_assert!(lies_within(source, region));
                prop_assert!(lies_within(target, bounds));
            }
        }

        #[test]
        fn cover_fills_the_target_and_keeps_the_aspect_to_half_a_pixel((region, size) in regions_and_sizes()) {
            let Placement { source, target } = place(region, size, Fit::Cover);
            prop_assert_eq!((target.width, target.height), (size.width, size.height));
            prop_assert!(source.width == region.width || source.height == region.height);
            let per_pixel = (f64::from(region.width) / f64::from(size.width))
                .min(f64::from(region.height) / f64::from(size.height));
            let exact = |side: u32| (f64::from(side) * per_pixel).max(1.0);
            prop_assert!((f64::from(source.width) - exact(size.width)).abs() <= 0.5 + 1e-9);
            prop_assert!((f64::from(source.height) - exact(size.height)).abs() <= 0.5 + 1e-9);
        }

        #[test]
        fn contain_shows_everything_and_keeps_the_aspect_to_half_a_pixel((region, size) in regions_and_sizes()) {
            let Placement { source, target } = place(region, size, Fit::Contain);
            prop_assert_eq!(source, region);
            prop_assert!(target.width == size.width || target.height == size.height);
            let per_pixel = (f64::from(region.width) / f64::from(size.width))
                .max(f64::from(region.height) / f64::from(size.height));
            let exact = |side: u32| (f64::from(side) / per_pixel).max(1.0);
            prop_assert!((f64::from(target.width) - exact(region.width)).abs() <= 0.5 + 1e-9);
            prop_assert!((f64::from(target.height) - exact(region.height)).abs() <= 0.5 + 1e-9);
        }
    }
}
