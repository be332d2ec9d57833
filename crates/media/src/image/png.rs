//! PNG: every colour type and depth, interlaced or not; of an animation the default picture; Apple's CgBI form.
//!
//! Invariant: only image data is ever inflated, and no more of it than the picture has rows. Text
//! and profile chunks are skipped as they are stored, so it costs nothing what they inflate to.

use flate2::Crc;
use png::{BitDepth, ColorType, Decoder, DecodingError, Transformations};

use super::{
    Channels, ImageLimits, Picture, Size,
    layout::PixelLayout,
    metered::{Metered, within},
    orientation::Orientation,
    survey::{admit, cut_off, damaged},
};
use crate::error::MediaError;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const FORMAT: &str = "PNG image";
const APPLE: &str = "Apple CgBI PNG image";

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, MediaError> {
    let survey = survey(bytes, limits)?;
    let foreseen = survey.foreseen(wanted);
    if survey.is_apple {
        return within(foreseen + bytes.len() as u64, limits, || {
            pixels(&survey, &standard(bytes), wanted).map_err(|error| match error {
                MediaError::Malformed(_) => damaged(APPLE, error),
                other => other,
            })
        });
    }
    within(foreseen, limits, || pixels(&survey, bytes, wanted))
}

fn pixels(survey: &Survey, bytes: &[u8], wanted: Channels) -> Result<Picture, MediaError> {
    let size = survey.size;
    let mut decoder = Decoder::new(Metered::new(bytes));
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Apple's streams have no sum; those of the chunks are checked where they are put together.
    decoder.ignore_checksums(survey.is_apple);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(refusal)?;
    if reader.info().size() != (size.width, size.height) {
        return Err(contradiction());
    }
    let frame = reader.info().frame_control().map_or((size.width, size.height), |f| (f.width, f.height));
    if frame != (size.width, size.height) {
        return Err(damaged(FORMAT, "its first frame is not as large as the picture"));
    }
    let layout = match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => PixelLayout::Gray,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => PixelLayout::GrayAlpha,
        (ColorType::Rgb, BitDepth::Eight) => PixelLayout::Rgb,
        (ColorType::Rgba, BitDepth::Eight) => PixelLayout::Rgba,
        (color, depth) => {
            return Err(MediaError::Internal(format!("the PNG decoder made {color:?} of {depth:?} bits")));
        }
    };
    if layout.count() > survey.layout.count() {
        return Err(contradiction());
    }
    let channels = layout.kept(wanted);
    let row_bytes = size.width as usize * layout.count();
    let mut samples = Vec::with_capacity(size.pixels() as usize * channels.count());
    let mut keep = |row: &mut [u8]| {
        if survey.is_apple {
            from_apple(row, layout);
        }
        layout.append(row, channels, &mut samples);
    };
    if reader.info().interlaced {
        // Passes are scattered over the picture, so it is needed whole before it is converted.
        let mut pixels = vec![0; row_bytes * size.height as usize];
        reader.next_frame(&mut pixels).map_err(refusal)?;
        keep(&mut pixels);
    } else {
        let mut row = vec![0; row_bytes];
        for _ in 0..size.height {
            reader.read_row(&mut row).map_err(refusal)?;
            keep(&mut row);
        }
        // Checks the sum over the last chunk of image data.
        reader.read_row(&mut row).map_err(refusal)?;
    }
    Ok(Picture { samples, channels, stored: size, orientation: survey.orientation })
}

fn refusal(error: DecodingError) -> MediaError {
    match error {
        DecodingError::IoError(_) => cut_off(FORMAT),
        DecodingError::LimitsExceeded => damaged(FORMAT, "its chunks are larger than a picture needs"),
        other => damaged(FORMAT, other),
    }
}

fn contradiction() -> MediaError {
    damaged(FORMAT, "its headers contradict each other")
}

/// Turns Apple's blue, green, red and alpha around. Its samples are multiplied by alpha already, which is what
/// compositing over black makes of them.
fn from_apple(pixels: &mut [u8], layout: PixelLayout) {
    pixels.chunks_exact_mut(layout.count()).for_each(|pixel| {
        pixel.swap(0, 2);
        pixel[3..].fill(255);
    });
}

/// Makes a standard file of one that Xcode has "optimised": image data without a header and a sum of zlib become
/// one chunk with both. Their sums are of zeros.
fn standard(bytes: &[u8]) -> Vec<u8> {
    let chunks = || Chunks::of(bytes);
    let data = || chunks().filter(|(name, _)| *name == b"IDAT");
    let n_bytes = 2 + 4 + data().map(|(_, data)| data.len()).sum::<usize>();
    let mut file = Vec::with_capacity(bytes.len() + SIGNATURE.len());
    file.extend(SIGNATURE);
    let mut put = |length: usize, name: &[u8], contents: &mut dyn Iterator<Item = &[u8]>| {
        file.extend((length as u32).to_be_bytes());
        file.extend(name);
        contents.for_each(|content| file.extend(content));
        file.extend([0; 4]);
    };
    let header = chunks().find(|(name, _)| *name == b"IHDR").map_or([].as_slice(), |(_, data)| data);
    put(header.len(), b"IHDR", &mut [header].into_iter());
    let zlib = [0x78, 0x01].as_slice();
    let parts = data().map(|(_, data)| data);
    put(n_bytes, b"IDAT", &mut [zlib].into_iter().chain(parts).chain([[0; 4].as_slice()]));
    put(0, b"IEND", &mut std::iter::empty());
    file
}

/// What the chunks say, without a pixel decoded.
struct Survey {
    size: Size,
    orientation: Orientation,
    /// What the pixels may be at most, by the colour type and whether transparency is there.
    layout: PixelLayout,
    bits: u64,
    is_interlaced: bool,
    is_apple: bool,
    /// Bytes of the note that the decoder copies.
    exif: u64,
}

impl Survey {
    /// What decoding takes, in bytes.
    fn foreseen(&self, wanted: Channels) -> u64 {
        let width = u64::from(self.size.width);
        let raw = width * self.bits / 8 + 2;
        let row = width * self.layout.count() as u64;
        let whole = if self.is_interlaced { self.size.pixels() * self.layout.count() as u64 } else { 0 };
        let kept = self.size.pixels() * self.layout.kept(wanted).count() as u64;
        // Inflated data wait for their rows: up to 128 kB or four rows, a window of 32 kB, and what comes next, in
        // a vector that grows. A note is gathered in another one, and copied.
        let waiting = (4 * raw).max(128 << 10) + 2 * raw + (48 << 10);
        let waiting = waiting.min(raw * u64::from(self.size.height) + (16 << 10)) * 3;
        kept + whole + 2 * row + 2 * raw + waiting + 4 * self.exif
    }
}

/// Walks the chunks to the last one (W3C PNG, 5.3), inflating nothing.
fn survey(bytes: &[u8], limits: ImageLimits) -> Result<Survey, MediaError> {
    let mut chunks = Chunks::of(bytes);
    let mut first = chunks.next();
    let is_apple = matches!(first, Some((b"CgBI", _)));
    let format = if is_apple { APPLE } else { FORMAT };
    if is_apple {
        first = chunks.next();
    }
    let (size, depth, colour, is_interlaced) = match first {
        Some((b"IHDR", [w0, w1, w2, w3, h0, h1, h2, h3, depth, colour, _, _, interlace, ..])) => {
            let width = u32::from_be_bytes([*w0, *w1, *w2, *w3]);
            let height = u32::from_be_bytes([*h0, *h1, *h2, *h3]);
            (Size { width, height }, *depth, *colour, *interlace != 0)
        }
        Some(_) => return Err(damaged(format, "its first chunk is not its header")),
        None => return Err(cut_off(format)),
    };
    admit(size, limits)?;
    if is_apple && (!matches!(colour, 2 | 6) || depth != 8) {
        return Err(MediaError::Unsupported {
            got: "an Apple CgBI PNG of a rare kind".to_owned(),
            allowed: "Apple's CgBI PNGs are read with 8 bits of red, green and blue, with or without alpha",
        });
    }
    let mut orientation = None;
    let mut survey = Survey {
        size,
        orientation: Orientation::default(),
        layout: layout(colour, false),
        bits: u64::from(depth) * [1, 1, 3, 1, 2, 1, 4].get(usize::from(colour)).copied().unwrap_or(4),
        is_interlaced,
        is_apple,
        exif: 0,
    };
    while let Some((name, data)) = chunks.next() {
        match name {
            b"eXIf" => {
                orientation = orientation.or_else(|| Orientation::from_exif(data));
                survey.exif = survey.exif.max(data.len() as u64);
            }
            b"tRNS" => survey.layout = layout(colour, true),
            b"IDAT" if is_apple && !chunks.is_sound(name, data) => {
                return Err(damaged(APPLE, "the checksum of its image data is wrong"));
            }
            b"IEND" => return Ok(Survey { orientation: orientation.unwrap_or_default(), ..survey }),
            _ => {}
        }
    }
    Err(cut_off(format))
}

/// What pixels of a colour type become.
fn layout(colour: u8, has_transparency: bool) -> PixelLayout {
    match (colour, has_transparency) {
        (0, false) => PixelLayout::Gray,
        (0, true) | (4, _) => PixelLayout::GrayAlpha,
        (2 | 3, false) => PixelLayout::Rgb,
        _ => PixelLayout::Rgba,
    }
}

/// The chunks that lie whole within the bytes: name and content.
struct Chunks<'a> {
    rest: &'a [u8],
    /// As it is stored, of the chunk that was given last.
    checksum: u32,
}

impl<'a> Chunks<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.get(SIGNATURE.len()..).unwrap_or_default(), checksum: 0 }
    }

    /// Returns whether the chunk that was given last has the right checksum.
    fn is_sound(&self, name: &[u8; 4], data: &[u8]) -> bool {
        let mut crc = Crc::new();
        crc.update(name);
        crc.update(data);
        crc.sum() == self.checksum
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        (self.rest, self.checksum) = (rest, u32::from_be_bytes(*checksum));
        Some((name, data))
    }
}

#[cfg(test)]
mod tests {
    use lepton_testkit::pictures;

    use super::*;

    const LIMITS: ImageLimits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };

    #[test]
    fn colours_come_as_drawn_and_grey_as_their_luma() {
        let drawing = pictures::draw(21, 17);
        let bytes = pictures::png(&drawing);
        let picture = decode(&bytes, LIMITS, Channels::Rgb).unwrap();
        assert_eq!(&picture.samples, drawing.as_raw());
        let gray = decode(&bytes, LIMITS, Channels::Gray).unwrap();
        let mut lumas = Vec::new();
        PixelLayout::Rgb.append(drawing.as_raw(), Channels::Gray, &mut lumas);
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
        assert!(matches!(decode(&bytes, LIMITS, Channels::Rgb), Err(MediaError::Malformed(_))));
    }
}
