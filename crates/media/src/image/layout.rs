//! How the samples of a decoder's pixels lie, and what a picture keeps of them.

use super::{Channels, luma};

/// Composites one sample over black.
fn over_black(sample: u8, alpha: u8) -> u8 {
    ((u32::from(sample) * u32::from(alpha) + 127) / 255) as u8
}

/// How the samples of a decoder's pixels lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PixelLayout {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
}

impl PixelLayout {
    /// Samples per pixel.
    pub(super) fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }

    /// What pixels of this layout become when `wanted`: grey ones stay grey.
    pub(super) fn kept(self, wanted: Channels) -> Channels {
        match self {
            Self::Gray | Self::GrayAlpha => Channels::Gray,
            Self::Rgb | Self::Rgba => wanted,
        }
    }

    /// Bytes a pixel of a decoded picture and, where it is kept otherwise, of what it becomes.
    pub(super) fn bytes(self, kept: Channels) -> usize {
        if kept.count() == self.count() { self.count() } else { self.count() + kept.count() }
    }

    /// Turns a decoded picture into what is kept of it.
    pub(super) fn convert(self, pixels: Vec<u8>, kept: Channels) -> Vec<u8> {
        if kept.count() == self.count() {
            return pixels;
        }
        let mut samples = Vec::with_capacity(pixels.len() / self.count() * kept.count());
        self.append(&pixels, kept, &mut samples);
        samples
    }

    /// Appends pixels to `samples` as `kept` says, transparency composited over black.
    pub(super) fn append(self, pixels: &[u8], kept: Channels, samples: &mut Vec<u8>) {
        let colour = |[red, green, blue]: [u8; 3], samples: &mut Vec<u8>| match kept {
            Channels::Gray => samples.push(luma(red, green, blue)),
            Channels::Rgb => samples.extend([red, green, blue]),
        };
        match self {
            Self::Gray => samples.extend_from_slice(pixels),
            Self::Rgb if kept == Channels::Rgb => samples.extend_from_slice(pixels),
            Self::GrayAlpha => samples.extend(pixels.as_chunks().0.iter().map(|[v, a]| over_black(*v, *a))),
            Self::Rgb => pixels.as_chunks().0.iter().for_each(|pixel| colour(*pixel, samples)),
            Self::Rgba => pixels.as_chunks().0.iter().for_each(|[red, green, blue, alpha]| {
                colour([*red, *green, *blue].map(|sample| over_black(sample, *alpha)), samples);
            }),
        }
    }
}
