//! How a stored picture is turned to stand upright (EXIF 2.32, tag 0x0112).
//!
//! Invariant: turning a region there and back gives the same region. Pictures themselves are never
//! turned: a region is turned to where its samples are stored, and only the small row is turned.

use super::{Rect, Size, exif};

/// The eight ways a camera may have been held. The upright pixel (x, y) is stored at (y, x) if
/// `swap`, counted from the right if `mirror_x` and from the bottom if `mirror_y`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Orientation {
    swap: bool,
    mirror_x: bool,
    mirror_y: bool,
}

/// Where the pixels of an upright picture lie among stored ones: (x, y) is at
/// `origin + x * right + y * down`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) origin: isize,
    pub(super) right: isize,
    pub(super) down: isize,
}

impl Orientation {
    /// The orientation of an EXIF value; `None` for a value that EXIF does not define.
    fn from_value(value: u32) -> Option<Self> {
        let (swap, mirror_x, mirror_y) = match value {
            1 => (false, false, false),
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, false, true),
            7 => (true, true, true),
            8 => (true, true, false),
            _ => return None,
        };
        Some(Self { swap, mirror_x, mirror_y })
    }

    /// Returns the orientation that an EXIF block states. The block starts with its TIFF header, which
    /// the `Exif\0\0` of a JPEG segment may precede. `None` if it is broken or states no value that EXIF
    /// defines: it is metadata, so the picture is good without it.
    pub(super) fn from_exif(block: &[u8]) -> Option<Self> {
        Self::from_value(exif::orientation(block.strip_prefix(exif::PREFIX).unwrap_or(block))?)
    }

    /// Whether the picture's rows are stored as columns.
    pub(super) fn is_turned(self) -> bool {
        self.swap
    }

    /// Turns a size; it is its own inverse.
    pub(super) fn turn(self, size: Size) -> Size {
        if self.swap { Size { width: size.height, height: size.width } } else { size }
    }

    /// Maps a region of the upright picture to where its samples are stored.
    pub(super) fn to_stored(self, region: Rect, stored: Size) -> Rect {
        self.mirror(self.transpose(region), stored)
    }

    /// Maps a region of the stored samples to the upright picture.
    #[cfg(test)]
    fn to_upright(self, region: Rect, stored: Size) -> Rect {
        self.transpose(self.mirror(region, stored))
    }

    /// Walks `stored` samples in upright order.
    pub(super) fn walk(self, stored: Size) -> Walk {
        let (width, height) = (stored.width as isize, stored.height as isize);
        let origin =
            if self.mirror_x { width - 1 } else { 0 } + if self.mirror_y { (height - 1) * width } else { 0 };
        let along_x = if self.mirror_x { -1 } else { 1 };
        let along_y = if self.mirror_y { -width } else { width };
        let (right, down) = if self.swap { (along_y, along_x) } else { (along_x, along_y) };
        Walk { origin, right, down }
    }

    fn transpose(self, region: Rect) -> Rect {
        let Rect { x, y, width, height } = region;
        if self.swap { Rect { x: y, y: x, width: height, height: width } } else { region }
    }

    fn mirror(self, region: Rect, stored: Size) -> Rect {
        let Rect { mut x, mut y, width, height } = region;
        if self.mirror_x {
            x = stored.width - x - width;
        }
        if self.mirror_y {
            y = stored.height - y - height;
        }
        Rect { x, y, width, height }
    }
}

#[cfg(test)]
mod tests {
    use lepton_testkit::pictures;
    use proptest::prelude::*;

    use super::{
        super::{Channels, ImageLimits, Picture},
        *,
    };

    #[test]
    fn every_defined_value_is_read_with_and_without_the_prefix_of_a_segment() {
        for value in 1..=8 {
            let expected = Orientation::from_value(value.into());
            assert!(expected.is_some());
            let block = pictures::exif(value);
            assert_eq!(Orientation::from_exif(&block), expected);
            assert_eq!(Orientation::from_exif(&[exif::PREFIX, &block].concat()), expected);
        }
    }

    #[test]
    fn undefined_values_state_nothing() {
        for value in [0, 9, 0xffff] {
            assert_eq!(Orientation::from_exif(&pictures::exif(value)), None);
        }
    }

    #[test]
    fn every_format_takes_the_first_block_that_states_something() {
        let drawing = pictures::draw(20, 10);
        let prefixed = |value| [exif::PREFIX, &pictures::exif(value)].concat();
        let jpeg = |contents: &[Vec<u8>]| {
            contents.iter().rev().fold(pictures::jpeg(&drawing), |jpeg, content| {
                pictures::insert_jpeg_segment(&jpeg, 0xe1, content)
            })
        };
        let png = |content: &[u8]| pictures::insert_png_chunk(&pictures::png(&drawing), b"eXIf", content);
        let stored = pictures::webp(&drawing);
        let webp = |contents: &[Vec<u8>]| pictures::webp_with_exif(&stored, contents);
        let limits = ImageLimits { pixels: 1 << 20, side: 8192, memory: 1 << 28 };
        let turned = |file: &[u8]| {
            let picture = Picture::decode(file, limits, Channels::Rgb).unwrap();
            (picture.width(), picture.height()) == (10, 20)
        };
        let plain = pictures::exif;
        assert!(turned(&jpeg(&[prefixed(6)])) && turned(&jpeg(&[prefixed(0), prefixed(6), prefixed(1)])));
        assert!(!turned(&jpeg(&[prefixed(1), prefixed(6)])));
        assert!(turned(&jpeg(&[prefixed(6), [exif::PREFIX, b"the rest of the first"].concat()])));
        for block in [plain(6), prefixed(6)] {
            assert!(turned(&png(&block)) && turned(&webp(&[block])));
        }
        assert!(turned(&webp(&[plain(0), prefixed(6), plain(1)])) && !turned(&webp(&[plain(1), plain(6)])));
    }

    #[test]
    fn a_clockwise_quarter_puts_the_stored_bottom_left_first() {
        // Stored:  0 1 2   upright:  3 0
        //          3 4 5             4 1
        //                            5 2
        let walk = Orientation::from_value(6).unwrap().walk(Size { width: 3, height: 2 });
        let upright: Vec<isize> = (0..3)
            .flat_map(|y| (0..2).map(move |x| (x, y)))
            .map(|(x, y)| walk.origin + x * walk.right + y * walk.down)
            .collect();
        assert_eq!(upright, [3, 0, 4, 1, 5, 2]);
    }

    proptest! {
        #[test]
        fn a_region_maps_there_and_back_exactly(
            value in 1u32..=8, width in 1u32..9000, height in 1u32..9000,
            a in 0.0..1.0, b in 0.0..1.0, c in 0.0..1.0, d in 0.0..1.0,
        ) {
            let orientation = Orientation::from_value(value).unwrap();
            let stored = Size { width, height };
            let upright = orientation.turn(stored);
            let part = |share: f64, of: u32| (share * f64::from(of)) as u32;
            let (x, y) = (part(a, upright.width), part(b, upright.height));
            let region = Rect {
                x, y,
                width: 1 + part(c, upright.width - x - 1),
                height: 1 + part(d, upright.height - y - 1),
            };
            let there = orientation.to_stored(region, stored);
            prop_assert!(there.x + there.width <= width && there.y + there.height <= height);
            prop_assert_eq!(orientation.to_upright(there, stored), region);
        }

        #[test]
        fn a_walk_visits_every_sample_once(value in 1u32..=8, width in 1u32..20, height in 1u32..20) {
            let orientation = Orientation::from_value(value).unwrap();
            let stored = Size { width, height };
            let upright = orientation.turn(stored);
            let walk = orientation.walk(stored);
            let mut seen: Vec<isize> = (0..upright.height as isize)
                .flat_map(|y| (0..upright.width as isize).map(move |x| (x, y)))
                .map(|(x, y)| walk.origin + x * walk.right + y * walk.down)
                .collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..(width * height) as isize).collect::<Vec<_>>());
        }
    }
}
