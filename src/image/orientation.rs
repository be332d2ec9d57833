//! How a stored picture is turned to stand upright (EXIF 2.32, tag 0x0112).
//!
//! Invariant: turning a region there and back gives the same region. Pictures themselves are never
//! turned: a region is turned to where its samples are stored, and only the small row is turned.

use super::{Rect, Size};

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
    fn from_value(value: u16) -> Option<Self> {
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

    /// Reads the orientation of an EXIF block, which starts with its TIFF header. A block that says
    /// nothing, or is broken, leaves the picture as it is stored: it is a note, not the picture.
    pub(super) fn from_exif(tiff: &[u8]) -> Self {
        read_orientation(tiff).and_then(Self::from_value).unwrap_or_default()
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

/// Finds tag 0x0112, a SHORT, in the first directory of a TIFF block.
fn read_orientation(tiff: &[u8]) -> Option<u16> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let pair = [*tiff.get(at)?, *tiff.get(at.checked_add(1)?)?];
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let long = |at: usize| {
        let (a, b) = (u32::from(short(at)?), u32::from(short(at + 2)?));
        Some(if little { b << 16 | a } else { a << 16 | b })
    };
    let directory = long(4)? as usize;
    let n_entries = usize::from(short(directory)?);
    (0..n_entries)
        .map_while(|entry| {
            let at = directory.checked_add(2 + entry * 12)?;
            Some((short(at)?, short(at + 2)?, long(at + 4)?, short(at + 8)?))
        })
        .find_map(|(tag, kind, count, value)| (tag == 0x0112 && kind == 3 && count == 1).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::pictures, *};

    #[test]
    fn exif_in_both_byte_orders_is_read() {
        for value in 1..=8 {
            let expected = Orientation::from_value(value).unwrap();
            assert_eq!(Orientation::from_exif(&pictures::exif(value)), expected);
            let mut big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
            big.extend([value as u8, 0, 0, 0, 0, 0, 0]);
            assert_eq!(Orientation::from_exif(&big), expected);
        }
    }

    #[test]
    fn undefined_and_broken_exif_leaves_the_picture_as_stored() {
        for value in [0, 9, 0xffff] {
            assert_eq!(Orientation::from_exif(&pictures::exif(value)), Orientation::default());
        }
        let whole = pictures::exif(6);
        for length in 0..whole.len() - 6 {
            assert_eq!(Orientation::from_exif(&whole[..length]), Orientation::default());
        }
        assert_eq!(Orientation::from_exif(b"II*\0\xff\xff\xff\xff"), Orientation::default());
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
            value in 1u16..=8, width in 1u32..9000, height in 1u32..9000,
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
        fn a_walk_visits_every_sample_once(value in 1u16..=8, width in 1u32..20, height in 1u32..20) {
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
