//! BMP: every depth, run lengths, masks, stored from the top or from the bottom.
//!
//! Invariant: the size that the decoder reads is the one that was admitted.

use image::{ColorType, ImageDecoder, ImageError, codecs::bmp::BmpDecoder};

use super::{
    Channels, ImageLimits, Picture, Size,
    layout::PixelLayout,
    metered::{Metered, within},
    orientation::Orientation,
    survey::{admit, cut_off, damaged},
};
use crate::error::MediaError;

const FORMAT: &str = "BMP image";

/// Lengths of the information header, which say its kind.
const HEADERS: [u32; 6] = [12, 40, 52, 56, 108, 124];

/// Returns whether a file that begins with `BM` is a bitmap as far as it goes.
pub(super) fn is_bitmap(bytes: &[u8]) -> bool {
    match bytes.get(14..18) {
        Some(length) => HEADERS.iter().any(|known| known.to_le_bytes() == length),
        None => true,
    }
}

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, MediaError> {
    let size = size(bytes).ok_or_else(|| cut_off(FORMAT))?;
    admit(size, limits)?;
    // The shorter headers have no mask for alpha.
    let layout = if bytes[14] < HEADERS[3] as u8 { PixelLayout::Rgb } else { PixelLayout::Rgba };
    let kept = layout.kept(wanted);
    // A stored row is read at once, of at most four bytes a pixel.
    let foreseen = size.pixels() * layout.bytes(kept) as u64 + 4 * u64::from(size.width);
    within(foreseen, limits, || {
        let decoder = BmpDecoder::new(Metered::new(bytes)).map_err(refusal)?;
        let found =
            if decoder.color_type() == ColorType::Rgba8 { PixelLayout::Rgba } else { PixelLayout::Rgb };
        if decoder.dimensions() != (size.width, size.height) || found.count() > layout.count() {
            return Err(damaged(FORMAT, "its headers contradict each other"));
        }
        let layout = found;
        let channels = layout.kept(wanted);
        let mut pixels = vec![0; size.pixels() as usize * layout.count()];
        decoder.read_image(&mut pixels).map_err(refusal)?;
        let samples = layout.convert(pixels, channels);
        Ok(Picture { samples, channels, stored: size, orientation: Orientation::default() })
    })
}

fn refusal(error: ImageError) -> MediaError {
    match error {
        ImageError::IoError(_) => cut_off(FORMAT),
        ImageError::Unsupported(_) => MediaError::Unsupported {
            got: "a BMP of a rare coding".to_owned(),
            allowed: "BMPs are read with 1 to 32 bits a pixel, plain or with run lengths",
        },
        other => damaged(FORMAT, other),
    }
}

/// Reads the size from the information header; a negative height is one from the top.
fn size(bytes: &[u8]) -> Option<Size> {
    let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if number(14)? == HEADERS[0] {
        let sides = number(18)?;
        return Some(Size { width: sides & 0xffff, height: sides >> 16 });
    }
    Some(Size { width: number(18)?, height: (number(22)? as i32).unsigned_abs() })
}
