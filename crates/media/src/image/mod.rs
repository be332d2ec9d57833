//! Bytes to pixels to numbers: decode within limits, stand upright, crop, resize, normalise.
//!
//! Invariant: nothing is allocated for pixels before the header's size is within [`ImageLimits`],
//! and a picture is whole or an error, never half. The only room that names image codecs.
//!
//! - `decode` tells formats apart; `jpeg`, `png`, `webp` (with `vp8` and `vp8l`), `gif`, `bmp` and `tiff` survey a
//!   file before its decoder runs, run it `metered`, and keep of the decoder's `layout` what is wanted.
//! - `exif` finds how a camera was held; `orientation` and `geometry` are arithmetic: which samples of the stored
//!   picture a row shows.
//! - `resize` fills a row with a region, `letterbox` one with a whole picture, its `levels` spread where
//!   they are narrow; `samples` turns levels into the numbers that a network takes.

mod bmp;
#[cfg(test)]
mod corpus;
mod decode;
mod exif;
mod geometry;
mod gif;
#[cfg(test)]
mod golden;
mod jpeg;
mod layout;
mod letterbox;
mod levels;
mod metered;
mod orientation;
mod pillow;
mod png;
mod price;
mod resize;
mod samples;
mod spec;
mod survey;
mod tiff;
mod vp8;
mod vp8l;
mod webp;

use crate::error::MediaError;
pub use letterbox::{Letterbox, Letterboxing};
use orientation::Orientation;
pub use price::{Coding, Outline, Priced, Source, price};
pub use resize::Preprocessing;
use spec::Normalisation;
pub use spec::{Color, Filter, Fit, ImageInputSpec, Layout, Resampling, SceneInputSpec};

/// An axis-aligned region of a picture, in pixels of the upright original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// How large a picture may be; checked against its header, before any pixel is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Most pixels, width times height.
    pub pixels: u64,
    /// Longest side.
    pub side: u32,
    /// Most bytes that decoding may take.
    pub memory: u64,
}

/// The samples of one pixel, each 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One sample of ITU-R BT.601 luma.
    Gray,
    /// Red, green and blue.
    Rgb,
}

impl Channels {
    /// Samples per pixel.
    pub fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb => 3,
        }
    }
}

/// A decoded picture. Its samples lie as they were stored; every size and region that it takes or
/// gives is in pixels of the upright picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    samples: Vec<u8>,
    channels: Channels,
    stored: Size,
    orientation: Orientation,
}

impl Picture {
    /// Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF, the first frame or page where there are several.
    /// Transparency is composited over black. A picture of grey samples stays grey even if colours are `wanted`;
    /// one of colours becomes luma if grey is.
    ///
    /// # Errors
    /// [`MediaError::Unsupported`] for another format, [`MediaError::TooLarge`] for a size beyond `limits`,
    /// [`MediaError::Malformed`] for a file that is cut off or damaged.
    pub fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Self, MediaError> {
        decode::decode(bytes, limits, wanted)
    }

    /// Width of the upright picture.
    pub fn width(&self) -> u32 {
        self.orientation.turn(self.stored).width
    }

    /// Height of the upright picture.
    pub fn height(&self) -> u32 {
        self.orientation.turn(self.stored).height
    }

    /// The region that is the whole picture.
    pub fn whole(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.width(), height: self.height() }
    }

    /// What each pixel holds.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// The bytes that its samples take.
    pub fn n_bytes(&self) -> usize {
        self.samples.len()
    }
}

/// The samples would only fill a log.
impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {}, {:?})", self.width(), self.height(), self.channels)
    }
}

/// Width and height, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
}

impl Size {
    fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// ITU-R BT.601 luma in 16-bit fixed point, to the bit as Pillow's `convert("L")`.
fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000;
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_is_what_pillow_makes_of_a_colour() {
        // Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
        let golden = [
            ((255, 255, 255), 255),
            ((255, 0, 0), 76),
            ((0, 255, 0), 150),
            ((0, 0, 255), 29),
            ((1, 2, 3), 2),
            ((200, 100, 50), 124),
            ((17, 230, 91), 150),
        ];
        for ((red, green, blue), expected) in golden {
            assert_eq!(luma(red, green, blue), expected, "of {red} {green} {blue}");
        }
    }

    #[test]
    fn luma_keeps_every_grey() {
        for gray in 0..=255 {
            assert_eq!(luma(gray, gray, gray), gray);
        }
    }
}
