//! WebP: lossy, lossless, with transparency; of an animation the first frame.
//!
//! Invariant: every bitstream that is decoded says a size within the limits. The container's size
//! is not enough: a frame may claim another one, and is allocated before the two are compared.

use std::io::Cursor;

use image::{ColorType, ImageDecoder, ImageError, codecs::webp::WebPDecoder};

use super::{
    Channels, ImageLimits, Picture, Size,
    layout::Layout,
    orientation::Orientation,
    survey::{Survey, admit, afford, cut_off, damaged},
};
use crate::error::Error;

const FORMAT: &str = "WebP image";

/// Bytes a pixel that the decoder itself keeps at most: red, green, blue and alpha of a lossless picture.
const DECODER_BYTES: usize = 4;

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, Error> {
    let (survey, file) = survey(bytes, limits)?;
    let decoder = WebPDecoder::new(Cursor::new(file)).map_err(refusal)?;
    if decoder.dimensions() != (survey.size.width, survey.size.height) {
        return Err(damaged(FORMAT, "its headers contradict each other"));
    }
    let layout = if decoder.color_type() == ColorType::Rgba8 { Layout::Rgba } else { Layout::Rgb };
    let channels = layout.kept(wanted);
    afford(survey.size.pixels() * (layout.bytes(channels) + DECODER_BYTES) as u64, limits)?;
    let mut pixels = vec![0; survey.size.pixels() as usize * layout.count()];
    decoder.read_image(&mut pixels).map_err(refusal)?;
    let samples = layout.convert(pixels, channels);
    Ok(Picture { samples, channels, stored: survey.size, orientation: survey.orientation })
}

fn refusal(error: ImageError) -> Error {
    match error {
        ImageError::IoError(_) => damaged(FORMAT, "a chunk is shorter than its picture needs"),
        other => damaged(FORMAT, other),
    }
}

/// Walks the chunks (RFC 9649, 2.3); gives the file without what follows it.
fn survey(bytes: &[u8], limits: ImageLimits) -> Result<(Survey, &[u8]), Error> {
    let length = bytes.get(4..8).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let file = bytes.get(..length.saturating_add(8)).ok_or_else(|| cut_off(FORMAT))?;
    let mut size = None;
    let mut orientation = Orientation::default();
    for (name, data) in (Chunks { rest: file.get(12..).unwrap_or_default() }) {
        match name {
            b"VP8X" if size.is_none() => size = Some(admitted(canvas_size(data), limits)?),
            b"VP8 " | b"VP8L" => {
                let found = admitted(frame_size(name, data), limits)?;
                size.get_or_insert(found);
            }
            b"ANMF" => {
                let frames = Chunks { rest: data.get(16..).unwrap_or_default() };
                for (name, data) in frames.filter(|(name, _)| matches!(*name, b"VP8 " | b"VP8L")) {
                    admitted(frame_size(name, data), limits)?;
                }
            }
            b"EXIF" => orientation = Orientation::from_exif(data.strip_prefix(b"Exif\0\0").unwrap_or(data)),
            _ => {}
        }
    }
    let size = size.ok_or_else(|| damaged(FORMAT, "it holds no picture"))?;
    Ok((Survey { size, orientation }, file))
}

fn admitted(size: Option<Size>, limits: ImageLimits) -> Result<Size, Error> {
    let size = size.ok_or_else(|| damaged(FORMAT, "a header is too short or of an unknown kind"))?;
    admit(size, limits).map(|()| size)
}

/// Reads the canvas of an extended file: 24 bits each, less one.
fn canvas_size(data: &[u8]) -> Option<Size> {
    let [w0, w1, w2, h0, h1, h2] = *data.get(4..10)?.first_chunk()?;
    Some(Size {
        width: u32::from_le_bytes([w0, w1, w2, 0]) + 1,
        height: u32::from_le_bytes([h0, h1, h2, 0]) + 1,
    })
}

/// Reads the size that a bitstream says of itself: 14 bits each.
fn frame_size(name: &[u8; 4], data: &[u8]) -> Option<Size> {
    match (name, data) {
        (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => Some(Size {
            width: u32::from(u16::from_le_bytes([*w0, *w1]) & 0x3fff),
            height: u32::from(u16::from_le_bytes([*h0, *h1]) & 0x3fff),
        }),
        (b"VP8L", [0x2f, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([*b0, *b1, *b2, *b3]);
            Some(Size { width: (bits & 0x3fff) + 1, height: (bits >> 14 & 0x3fff) + 1 })
        }
        _ => None,
    }
}

/// The chunks that lie whole within the bytes, padded to even length: name and content.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (data, rest) = rest.split_at_checked(length)?;
        self.rest = rest.get(length % 2..).unwrap_or_default();
        Some((name, data))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pictures, *};
    use crate::error::Amount;

    const LIMITS: ImageLimits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };

    #[test]
    fn lossless_colours_come_as_drawn() {
        let drawing = pictures::draw(21, 17);
        let picture = decode(&pictures::webp(&drawing), LIMITS, Channels::Rgb).unwrap();
        assert_eq!(&picture.samples, drawing.as_raw());
    }

    #[test]
    fn a_lossy_picture_is_read() {
        let picture = decode(&pictures::lossy_webp(), LIMITS, Channels::Rgb).unwrap();
        assert_eq!((picture.width(), picture.height()), (2, 2));
        let [red, green, blue] = picture.samples[..3] else { panic!("no pixel") };
        assert!(red > 200 && green < 60 && blue < 60, "{red} {green} {blue}");
    }

    #[test]
    fn of_an_animation_the_first_frame_is_read() {
        let first = pictures::draw(12, 8);
        let bytes = pictures::animated_webp(&[first.clone(), pictures::smooth(12, 8)]);
        assert_eq!(&decode(&bytes, LIMITS, Channels::Rgb).unwrap().samples, first.as_raw());
    }

    #[test]
    fn a_frame_larger_than_its_canvas_is_refused_before_it_is_decoded() {
        let mut bytes = pictures::extended_webp(&pictures::webp(&pictures::draw(16, 16)), None);
        let at = bytes.windows(4).position(|name| name == b"VP8L").unwrap() + 9;
        bytes[at..at + 4].copy_from_slice(&(16383u32 | 16383 << 14).to_le_bytes());
        let expected =
            Error::TooLarge { what: "image side in pixels", got: Amount::Exactly(16384), limit: 8192 };
        assert_eq!(decode(&bytes, LIMITS, Channels::Rgb).err(), Some(expected));
    }

    #[test]
    fn a_note_that_claims_gigabytes_costs_nothing() {
        let mut bytes = pictures::extended_webp(&pictures::webp(&pictures::draw(16, 16)), Some(6));
        let at = bytes.windows(4).position(|name| name == b"EXIF").unwrap() + 4;
        bytes[at..at + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        let picture = decode(&bytes, LIMITS, Channels::Rgb).unwrap();
        assert_eq!((picture.width(), picture.height()), (16, 16));
    }
}
