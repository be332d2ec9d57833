//! Which part of a picture fills which part of a row: pure arithmetic.
//!
//! Invariant: what is cut lies within the region that it was cut from. Cuts are whole pixels, as a
//! training recipe cuts them, so that a row never shows what lies outside its region.

use super::{Fit, Rect, Size};

/// What to resize, what of it is shown, and where; the rest of the target is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    /// The part of the picture that is scaled.
    pub(super) source: Rect,
    /// The size that it is scaled to.
    pub(super) scaled: Size,
    /// The part of what is scaled that is shown.
    pub(super) shown: Rect,
    /// Where it is shown, in its own size.
    pub(super) target: Rect,
}

/// Fits `region` into a target of `size`, to the nearest pixel.
pub(super) fn place(region: Rect, size: Size, fit: Fit) -> Placement {
    let target = Rect { x: 0, y: 0, width: size.width, height: size.height };
    let whole = |source: Rect, target: Rect| Placement {
        source,
        scaled: Size { width: target.width, height: target.height },
        shown: Rect { x: 0, y: 0, ..target },
        target,
    };
    let (across, down) =
        (f64::from(region.width) / f64::from(size.width), f64::from(region.height) / f64::from(size.height));
    match fit {
        Fit::Stretch => whole(region, target),
        Fit::Cover => {
            let per_pixel = across.min(down);
            let width = rounded(f64::from(size.width) * per_pixel, region.width);
            let height = rounded(f64::from(size.height) * per_pixel, region.height);
            whole(centred(region, width, height), target)
        }
        Fit::Contain => {
            let per_pixel = across.max(down);
            let width = rounded(f64::from(region.width) / per_pixel, size.width);
            let height = rounded(f64::from(region.height) / per_pixel, size.height);
            whole(region, centred(target, width, height))
        }
        Fit::ShortestSide(side) => middle(region, with_shortest_side(region, side), size),
        Fit::StretchTo { width, height } => middle(region, Size { width, height }, size),
        Fit::Unscaled => middle(region, Size { width: region.width, height: region.height }, size),
    }
}

/// The size in which the shorter side has `side` pixels, the longer one rounded down, as torchvision and
/// transformers round it.
fn with_shortest_side(region: Rect, side: u32) -> Size {
    let (short, long) = (region.width.min(region.height), region.width.max(region.height));
    let longer = u64::from(side) * u64::from(long) / u64::from(short.max(1));
    let longer = u32::try_from(longer).unwrap_or(u32::MAX);
    match region.width <= region.height {
        true => Size { width: side, height: longer },
        false => Size { width: longer, height: side },
    }
}

/// The middle of what is scaled to `scaled`, in a target of `size`.
fn middle(source: Rect, scaled: Size, size: Size) -> Placement {
    let (x, left, width) = middle_of(scaled.width, size.width);
    let (y, top, height) = middle_of(scaled.height, size.height);
    let (shown, target) = (Rect { x, y, width, height }, Rect { x: left, y: top, width, height });
    Placement { source, scaled, shown, target }
}

/// Where the middle of `length` pixels begins, where it is put among `wanted`, and how long it is. Halves are
/// rounded as `center_crop` of transformers rounds them.
fn middle_of(length: u32, wanted: u32) -> (u32, u32, u32) {
    match length >= wanted {
        true => ((length - wanted) / 2, 0, wanted),
        false => (0, (wanted - length).div_ceil(2), length),
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
        assert_eq!(placement.shown, Rect { x: 0, y: 0, width: 30, height: 30 });
        assert_eq!(placement.target, Rect { x: 0, y: 0, width: 30, height: 30 });
    }

    #[test]
    fn contain_pads_the_shorter_side_in_the_middle() {
        let region = Rect { x: 0, y: 0, width: 100, height: 50 };
        let placement = place(region, Size { width: 40, height: 40 }, Fit::Contain);
        assert_eq!(placement.source, region);
        assert_eq!(placement.target, Rect { x: 0, y: 10, width: 40, height: 20 });
    }

    #[test]
    fn the_middle_of_what_was_scaled_is_cut_out_and_padded_as_transformers_does() {
        // (scaled, cut, padded): center_crop of transformers 4.57.6 on a picture that was scaled so.
        for (fit, (width, height), scaled, shown, target) in [
            (Fit::ShortestSide(256), (640, 481), (340, 256), (58, 16, 224, 224), (0, 0)),
            (Fit::ShortestSide(256), (481, 640), (256, 340), (16, 58, 224, 224), (0, 0)),
            (Fit::ShortestSide(100), (300, 100), (300, 100), (38, 0, 224, 100), (0, 62)),
            (Fit::ShortestSide(101), (101, 101), (101, 101), (0, 0, 101, 101), (62, 62)),
            (Fit::StretchTo { width: 256, height: 255 }, (10, 700), (256, 255), (16, 15, 224, 224), (0, 0)),
            (Fit::Unscaled, (301, 9), (301, 9), (38, 0, 224, 9), (0, 108)),
        ] {
            let region = Rect { x: 3, y: 5, width, height };
            let placement = place(region, Size { width: 224, height: 224 }, fit);
            assert_eq!(placement.source, region);
            assert_eq!(placement.scaled, Size { width: scaled.0, height: scaled.1 }, "{fit:?}");
            let (x, y, width, height) = shown;
            assert_eq!(placement.shown, Rect { x, y, width, height }, "{fit:?}");
            assert_eq!(placement.target, Rect { x: target.0, y: target.1, width, height }, "{fit:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_leaves_its_bounds((region, size) in regions_and_sizes(), side in 1u32..600) {
            let bounds = Rect { x: 0, y: 0, width: size.width, height: size.height };
            let to = Fit::StretchTo { width: side, height: 600 - side % 599 };
            for fit in [Fit::Cover, Fit::Contain, Fit::Stretch, Fit::ShortestSide(side), to, Fit::Unscaled] {
                let Placement { source, scaled, shown, target } = place(region, size, fit);
                prop_assert!(lies_within(source, region));
                prop_assert!(lies_within(target, bounds));
                let whole = Rect { x: 0, y: 0, width: scaled.width, height: scaled.height };
                prop_assert!(lies_within(shown, whole));
                prop_assert_eq!((shown.width, shown.height), (target.width, target.height));
            }
        }

        #[test]
        fn cover_fills_the_target_and_keeps_the_aspect_to_half_a_pixel((region, size) in regions_and_sizes()) {
            let Placement { source, target, .. } = place(region, size, Fit::Cover);
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
            let Placement { source, target, .. } = place(region, size, Fit::Contain);
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
