//! PNG: every colour type and depth, interlaced or not; of an animation the default picture.
//!
//! Invariant: only image data is ever inflated, and no more of it than the picture has rows. Text
//! and profile chunks are skipped as they are stored, so it costs nothing what they inflate to.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, Transformations};

use super::{
    Channels, ImageLimits, Picture, Size,
    layout::Layout,
    orientation::Orientation,
    survey::{Survey, admit, afford, cut_off, damaged},
};
use crate::error::Error;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const FORMAT: &str = "PNG image";

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, Error> {
    let Survey { size, orientation } = survey(bytes, limits)?;
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(refusal)?;
    if reader
        .info()
        .frame_control()
        .is_some_and(|frame| (frame.width, frame.height) != (size.width, size.height))
    {
        return Err(damaged(FORMAT, "its first frame is not as large as the picture"));
    }
    let layout = match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => Layout::Gray,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => Layout::GrayAlpha,
        (ColorType::Rgb, BitDepth::Eight) => Layout::Rgb,
        (ColorType::Rgba, BitDepth::Eight) => Layout::Rgba,
        (color, depth) => {
            return Err(Error::Internal(format!("the PNG decoder made {color:?} of {depth:?} bits")));
        }
    };
    let channels = layout.kept(wanted);
    let row_bytes = size.width as usize * layout.count();
    let mut samples = Vec::new();
    let whole = if reader.info().interlaced { layout.count() } else { 0 };
    afford(size.pixels() * (whole + channels.count()) as u64, limits)?;
    if reader.info().interlaced {
        // Passes are scattered over the picture, so it is needed whole before it is converted.
        let mut pixels = vec![0; row_bytes * size.height as usize];
        reader.next_frame(&mut pixels).map_err(refusal)?;
        samples.reserve_exact(size.pixels() as usize * channels.count());
        layout.append(&pixels, channels, &mut samples);
    } else {
        samples.reserve_exact(size.pixels() as usize * channels.count());
        let mut row = vec![0; row_bytes];
        for _ in 0..size.height {
            reader.read_row(&mut row).map_err(refusal)?;
            layout.append(&row, channels, &mut samples);
        }
        // Checks the sum over the last chunk of image data.
        reader.read_row(&mut row).map_err(refusal)?;
    }
    Ok(Picture { samples, channels, stored: size, orientation })
}

fn refusal(error: DecodingError) -> Error {
    match error {
        DecodingError::IoError(_) => cut_off(FORMAT),
        DecodingError::LimitsExceeded => damaged(FORMAT, "its chunks are larger than a picture needs"),
        other => damaged(FORMAT, other),
    }
}

/// Walks the chunks to the last one (W3C PNG, 5.3), inflating nothing.
fn survey(bytes: &[u8], limits: ImageLimits) -> Result<Survey, Error> {
    let mut chunks = Chunks { rest: bytes.get(SIGNATURE.len()..).unwrap_or_default() };
    let size = match chunks.next() {
        Some((b"IHDR", [w0, w1, w2, w3, h0, h1, h2, h3, ..])) => Size {
            width: u32::from_be_bytes([*w0, *w1, *w2, *w3]),
            height: u32::from_be_bytes([*h0, *h1, *h2, *h3]),
        },
        Some(_) => return Err(damaged(FORMAT, "its first chunk is not its header")),
        None => return Err(cut_off(FORMAT)),
    };
    admit(size, limits)?;
    let mut orientation = Orientation::default();
    for (name, data) in chunks {
        match name {
            b"eXIf" => orientation = Orientation::from_exif(data),
            b"IEND" => return Ok(Survey { size, orientation }),
            _ => {}
        }
    }
    Err(cut_off(FORMAT))
}

/// The chunks that lie whole within the bytes: name and content.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (_checksum, rest) = rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some((name, data))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pictures, *};

    const LIMITS: ImageLimits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };

    #[test]
    fn colours_come_as_drawn_and_grey_as_their_luma() {
        let drawing = pictures::draw(21, 17);
        let bytes = pictures::png(&drawing);
        let picture = decode(&bytes, LIMITS, Channels::Rgb).unwrap();
        assert_eq!(&picture.samples, drawing.as_raw());
        let gray = decode(&bytes, LIMITS, Channels::Gray).unwrap();
        let mut lumas = Vec::new();
        Layout::Rgb.append(drawing.as_raw(), Channels::Gray, &mut lumas);
        assert_eq!(gray.samples, lumas);
    }

    #[test]
    fn every_depth_is_read_as_eight_bits() {
        let gray = |depth, data: &[u8]| {
            let bytes = pictures::raw_png(4, 1, pictures::PngKind::Gray, depth, data);
            decode(&bytes, LIMITS, Channels::Rgb).unwrap().samples
        };
        assert_eq!(gray(1, &[0b0110_0000]), [0, 255, 255, 0]);
        assert_eq!(gray(2, &[0b0001_1011]), [0, 85, 170, 255]);
        assert_eq!(gray(4, &[0x0f, 0x37]), [0, 255, 51, 119]);
        assert_eq!(gray(16, &[1, 255, 2, 0, 128, 9, 255, 255]), [1, 2, 128, 255]);
    }

    #[test]
    fn palettes_and_transparency_are_resolved() {
        let bytes = pictures::raw_png(4, 1, pictures::PngKind::Palette, 2, &[0b0001_1011]);
        // The helper's palette: black, red, green at half alpha, blue.
        let picture = decode(&bytes, LIMITS, Channels::Rgb).unwrap();
        assert_eq!(picture.samples, [0, 0, 0, 255, 0, 0, 0, 128, 0, 0, 0, 255]);
        let data = [10, 20, 30, 255, 10, 20, 30, 0];
        let bytes = pictures::raw_png(2, 1, pictures::PngKind::Rgba, 8, &data);
        let picture = decode(&bytes, LIMITS, Channels::Rgb).unwrap();
        assert_eq!(picture.samples, [10, 20, 30, 0, 0, 0]);
    }

    #[test]
    fn an_interlaced_picture_equals_the_plain_one() {
        // One pixel is wholly within the first of the seven passes.
        let bytes = pictures::interlaced_png_of_one_pixel(77);
        assert_eq!(decode(&bytes, LIMITS, Channels::Gray).unwrap().samples, [77]);
    }

    /// The most memory that this process has held, in MiB, where the system says.
    fn peak_mebibytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
    }

    #[test]
    fn what_would_inflate_to_a_gigabyte_is_skipped() {
        let drawing = pictures::draw(8, 8);
        for name in [b"zTXt", b"iCCP"] {
            let bytes = pictures::inflating_png(&drawing, name);
            assert!(bytes.len() < 8 << 20);
            assert_eq!(&decode(&bytes, LIMITS, Channels::Rgb).unwrap().samples, drawing.as_raw());
        }
        // A header of 1 x 1 pixels before rows that would inflate to a gigabyte.
        let picture = decode(&pictures::data_bomb_png(), LIMITS, Channels::Rgb).unwrap();
        assert_eq!(picture.samples, [0]);
        match peak_mebibytes() {
            Some(peak) => assert!(peak < 700, "the tests have held {peak} MiB"),
            None => eprintln!("memory was not checked: the system has no /proc/self/status"),
        }
    }

    #[test]
    fn of_an_animation_the_default_picture_is_read() {
        let first = pictures::draw(12, 8);
        let bytes = pictures::animated_png(&first, &pictures::smooth(12, 8));
        assert_eq!(&decode(&bytes, LIMITS, Channels::Rgb).unwrap().samples, first.as_raw());
    }

    #[test]
    fn a_wrong_checksum_of_image_data_is_refused() {
        let mut bytes = pictures::png(&pictures::draw(9, 9));
        let at = bytes.len() - 14;
        bytes[at] ^= 1;
        assert!(matches!(decode(&bytes, LIMITS, Channels::Rgb), Err(Error::Malformed(_))));
    }
}
