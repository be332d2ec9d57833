//! What the components of a picture mean, and how they become levels of red, green and blue.
//!
//! Invariant: colours are those of libjpeg, to the bit (`jdapimin.c` decides, `jdcolor.c` converts), and
//! inks those that Pillow makes of libjpeg's.

use lepton_kernels::pixels::ycbcr_to_rgb;

use super::frame::Frame;
use crate::image::{Channels, layout::PixelLayout};

/// What the components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Gray,
    YCbCr,
    Rgb,
    /// Inks; as Adobe writes them, 255 is none.
    Cmyk,
    /// Inks of which three are coded as YCbCr.
    Ycck,
}

impl Space {
    /// Decides as libjpeg does: by JFIF's segment first, then by the transform in Adobe's, then by the
    /// names of the components.
    pub(super) fn new(frame: &Frame, has_jfif: bool, adobe: Option<u8>) -> Self {
        let names: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (names.as_slice(), adobe) {
            ([_], _) => Self::Gray,
            ([_, _, _, _], None | Some(0)) => Self::Cmyk,
            ([_, _, _, _], Some(_)) => Self::Ycck,
            (b"RGB", None) if !has_jfif => Self::Rgb,
            (_, Some(0)) if !has_jfif => Self::Rgb,
            _ => Self::YCbCr,
        }
    }

    /// How many components are needed for what is `wanted`. The Y of YCbCr is BT.601 luma already.
    pub(super) fn n_needed(self, wanted: Channels) -> usize {
        match (self, wanted) {
            (Self::Gray, _) | (Self::YCbCr, Channels::Gray) => 1,
            (Self::YCbCr | Self::Rgb, _) => 3,
            (Self::Cmyk | Self::Ycck, _) => 4,
        }
    }

    /// What is kept when `wanted`: grey pictures stay grey.
    pub(super) fn kept(self, wanted: Channels) -> Channels {
        if self == Self::Gray { Channels::Gray } else { wanted }
    }
}

/// Makes rows of pixels from rows of samples.
#[derive(Debug)]
pub(super) struct Converter {
    space: Space,
    kept: Channels,
    width: usize,
    /// A row of colours on the way to luma.
    colours: Vec<u8>,
}

impl Converter {
    pub(super) fn new(space: Space, kept: Channels, width: usize) -> Self {
        let is_direct = kept == Channels::Rgb || space.n_needed(kept) == 1;
        Self { space, kept, width, colours: if is_direct { Vec::new() } else { vec![0; 3 * width] } }
    }

    /// Appends a row of pixels to `samples`, which has room for it. There is a row of each component
    /// that is needed.
    pub(super) fn append(&mut self, rows: &[&[u8]; 4], samples: &mut Vec<u8>) {
        let rows = rows.map(|row| row.get(..self.width).unwrap_or_default());
        if self.space.n_needed(self.kept) == 1 {
            samples.extend_from_slice(rows[0]);
        } else if self.kept == Channels::Rgb {
            let at = samples.len();
            samples.resize(at + 3 * self.width, 0);
            convert(self.space, rows, &mut samples[at..]);
        } else {
            convert(self.space, rows, &mut self.colours);
            PixelLayout::Rgb.append(&self.colours, Channels::Gray, samples);
        }
    }
}

fn convert(space: Space, [a, b, c, k]: [&[u8]; 4], colours: &mut [u8]) {
    match space {
        Space::YCbCr | Space::Ycck => ycbcr_to_rgb(a, b, c, colours),
        _ => {
            for (((pixel, a), b), c) in colours.as_chunks_mut::<3>().0.iter_mut().zip(a).zip(b).zip(c) {
                *pixel = [*a, *b, *c];
            }
        }
    }
    match space {
        Space::Cmyk => inks(colours, k, |ink| ink),
        Space::Ycck => inks(colours, k, |ink| 255 - ink),
        _ => {}
    }
}

/// Lays black over inks, as Pillow does.
fn inks(colours: &mut [u8], black: &[u8], ink: impl Fn(u8) -> u8) {
    for (pixel, white) in colours.as_chunks_mut::<3>().0.iter_mut().zip(black) {
        *pixel = pixel.map(|level| {
            let covered = u32::from(255 - ink(level)) * u32::from(*white) + 128;
            white.saturating_sub(((covered + (covered >> 8)) >> 8) as u8)
        });
    }
}
