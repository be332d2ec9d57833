//! WebP: lossy, lossless, with transparency; of an animation the first frame.
//!
//! Invariant: what is decoded is what was surveyed: one frame, whose bitstream says the size that the container
//! says of it, and whose headers have told what decoding takes.

use image::{ColorType, ImageDecoder, ImageError, codecs::webp::WebPDecoder};

use super::{
    Channels, ImageLimits, Picture, Size,
    layout::PixelLayout,
    metered::{Metered, within},
    orientation::Orientation,
    survey::{Survey, admit, afford, cut_off, damaged},
    vp8,
    vp8l::{self, Constant, Walk},
};
use crate::error::MediaError;

const FORMAT: &str = "WebP image";

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, MediaError> {
    let (survey, frame, file) = survey(bytes, limits)?;
    let layout = if frame.has_alpha { PixelLayout::Rgba } else { PixelLayout::Rgb };
    let channels = layout.kept(wanted);
    let n_pixels = survey.size.pixels();
    // What is kept comes into being when the decoder is gone.
    let kept = n_pixels * (layout.bytes(channels) - layout.count()) as u64;
    // A header is worth no more work than its pixels are.
    afford(n_pixels * layout.bytes(channels) as u64, limits)?;
    let Foreseen { memory, constant } = frame.foresee(survey.size)?;
    let picture =
        |samples| Picture { samples, channels, stored: survey.size, orientation: survey.orientation };
    if let Some(constant) = constant {
        let needed = n_pixels * channels.count() as u64 + 16 * u64::from(survey.size.width) + memory;
        return within(needed, limits, || Ok(picture(fill(&constant, layout, channels))));
    }
    within(n_pixels * layout.count() as u64 + memory.max(kept), limits, || {
        let decoder = WebPDecoder::new(Metered::new(file)).map_err(refusal)?;
        let found = (decoder.dimensions(), decoder.color_type() == ColorType::Rgba8);
        if found != ((survey.size.width, survey.size.height), frame.has_alpha) {
            return Err(contradiction());
        }
        let mut pixels = vec![0; n_pixels as usize * layout.count()];
        decoder.read_image(&mut pixels).map_err(refusal)?;
        Ok(picture(layout.convert(pixels, channels)))
    })
}

/// Makes the samples of a picture whose pixels are all coded the same.
fn fill(constant: &Constant, layout: PixelLayout, channels: Channels) -> Vec<u8> {
    let mut samples = Vec::with_capacity(constant.n_pixels() * channels.count());
    let mut opaque = Vec::new();
    constant.rows(|row, n_times| {
        let begin = samples.len();
        // Without the flag for it, what is coded as alpha means nothing.
        let row = if layout == PixelLayout::Rgba {
            row
        } else {
            opaque.clear();
            opaque.extend(row.iter().map(|[red, green, blue, _]| [*red, *green, *blue, 255]));
            &opaque
        };
        PixelLayout::Rgba.append(row.as_flattened(), channels, &mut samples);
        let end = samples.len();
        (1..n_times).for_each(|_| samples.extend_from_within(begin..end));
    });
    samples
}

fn refusal(error: ImageError) -> MediaError {
    match error {
        ImageError::IoError(_) => damaged(FORMAT, "a chunk is shorter than its picture needs"),
        other => damaged(FORMAT, other),
    }
}

fn contradiction() -> MediaError {
    damaged(FORMAT, "its headers contradict each other")
}

/// The bitstreams of the one frame that is decoded.
#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    coding: Coding<'a>,
    /// The content of an `ALPH` chunk.
    alpha: Option<&'a [u8]>,
    /// Smaller than the canvas in an animation only.
    size: Size,
    is_animated: bool,
    /// Whether pixels with alpha are made.
    has_alpha: bool,
}

#[derive(Debug, Clone, Copy)]
enum Coding<'a> {
    Lossy(&'a [u8]),
    Lossless(&'a [u8]),
}

/// What decoding takes, in bytes, beside the pixels that it makes.
struct Foreseen {
    memory: u64,
    constant: Option<Constant>,
}

impl<'a> Frame<'a> {
    /// Looks for the frame among chunks: the first one of either coding, and the first alpha.
    fn find(
        chunks: impl Iterator<Item = (&'a [u8; 4], &'a [u8])>,
        limits: ImageLimits,
    ) -> Result<Self, MediaError> {
        let (mut coding, mut alpha) = (None, None);
        for (name, data) in chunks {
            match name {
                b"VP8 " | b"VP8L" => {
                    let size = admitted(frame_size(name, data), limits)?;
                    let is_lossy = name == b"VP8 ";
                    let found = if is_lossy { Coding::Lossy(data) } else { Coding::Lossless(data) };
                    let (first, _) = *coding.get_or_insert((found, size));
                    if matches!(first, Coding::Lossy(_)) != is_lossy {
                        return Err(damaged(FORMAT, "it holds two pictures in place of one"));
                    }
                }
                b"ALPH" => {
                    alpha.get_or_insert(data);
                }
                _ => {}
            }
        }
        let (coding, size) = coding.ok_or_else(|| damaged(FORMAT, "it holds no picture"))?;
        Ok(Self { coding, alpha, size, is_animated: false, has_alpha: false })
    }

    fn foresee(&self, canvas: Size) -> Result<Foreseen, MediaError> {
        let n_pixels = self.size.pixels();
        let mut memory = if self.is_animated { 4 * canvas.pixels() } else { 0 };
        match self.coding {
            Coding::Lossless(data) => {
                let Walk { tables, constant } = vp8l::walk(data)?;
                if !self.is_animated && constant.is_some() {
                    return Ok(Foreseen { memory: tables, constant });
                }
                let is_in_place = self.has_alpha && !self.is_animated;
                memory += tables + if is_in_place { 0 } else { 4 * n_pixels };
            }
            Coding::Lossy(data) => {
                memory += vp8::survey(data, self.size)? + if self.is_animated { 4 * n_pixels } else { 0 };
                if let Some([head, stream @ ..]) = self.alpha {
                    let is_compressed = head & 3 == 1;
                    memory += if is_compressed {
                        vp8l::walk_alpha(stream, self.size)?.tables + 5 * n_pixels
                    } else {
                        n_pixels
                    };
                }
            }
        }
        Ok(Foreseen { memory, constant: None })
    }
}

/// Walks the chunks (RFC 9649, 2.3); gives the frame that is decoded, and the file without what follows it.
fn survey(bytes: &[u8], limits: ImageLimits) -> Result<(Survey, Frame<'_>, &[u8]), MediaError> {
    let length = bytes.get(4..8).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let file = bytes.get(..length.saturating_add(8)).ok_or_else(|| cut_off(FORMAT))?;
    let chunks = || Chunks { rest: file.get(12..).unwrap_or_default() };
    let orientation = chunks()
        .filter(|(name, _)| *name == b"EXIF")
        .find_map(|(_, data)| Orientation::from_exif(data))
        .unwrap_or_default();
    let Some((b"VP8X", head)) = chunks().next() else {
        let mut frame = Frame::find(chunks().take(1), limits)?;
        frame.has_alpha =
            matches!(frame.coding, Coding::Lossless([_, _, _, _, flags, ..]) if flags & 0x10 != 0);
        return Ok((Survey { size: frame.size, orientation }, frame, file));
    };
    let size = admitted(canvas_size(head), limits)?;
    let flags = head.first().copied().unwrap_or_default();
    let (has_alpha, is_animated) = (flags & 0x10 != 0, flags & 0x02 != 0);
    let animation = chunks().find(|(name, _)| *name == b"ANMF");
    let frame = match (is_animated, animation) {
        (false, None) => Frame::find(chunks(), limits)?,
        (true, Some((_, data))) => {
            let frame = Frame::find(Chunks { rest: data.get(16..).unwrap_or_default() }, limits)?;
            let (place, within) = frame_place(data).ok_or_else(contradiction)?;
            if frame.size != within
                || place[0] + within.width > size.width
                || place[1] + within.height > size.height
            {
                return Err(contradiction());
            }
            frame
        }
        (true, None) => return Err(damaged(FORMAT, "it holds no picture")),
        (false, Some(_)) => return Err(contradiction()),
    };
    if !is_animated && frame.size != size {
        return Err(contradiction());
    }
    Ok((Survey { size, orientation }, Frame { has_alpha, is_animated, ..frame }, file))
}

fn admitted(size: Option<Size>, limits: ImageLimits) -> Result<Size, MediaError> {
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

/// Reads where a frame of an animation lies, in pixels from the left and from above, and how large it is.
fn frame_place(data: &[u8]) -> Option<([u32; 2], Size)> {
    let number = |at: usize| data.get(at..at + 3).map(|b| u32::from_le_bytes([b[0], b[1], b[2], 0]));
    Some(([2 * number(0)?, 2 * number(3)?], Size { width: number(6)? + 1, height: number(9)? + 1 }))
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
    use lepton_testkit::pictures;

    use super::*;
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
            MediaError::TooLarge { what: "image side in pixels", got: Amount::Exactly(16384), limit: 8192 };
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
