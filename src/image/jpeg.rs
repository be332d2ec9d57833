//! JPEG: baseline, extended and progressive; grey, colour and CMYK.
//!
//! Invariant: the decoder sees only what a picture is made of. Notes (EXIF, XMP, ICC, comments) are
//! left out, since thousands of them would cost it quadratic time, and a file without an end marker
//! never reaches it, since it would fill the rest of the picture with grey.

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::{
    Channels, ImageLimits, Picture, Size, exif,
    layout::Layout,
    orientation::Orientation,
    survey::{Survey, admit, afford, cut_off, damaged},
};
use crate::error::Error;

const FORMAT: &str = "JPEG image";
const ALLOWED: &str = "JPEGs are read as baseline or progressive, 8 bits a sample";

/// Most scans of a progressive picture; encoders write about ten.
const MAX_SCANS: usize = 64;

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, Error> {
    let (survey, coefficients, essence) = survey(bytes, limits)?;
    // Only a walk that has seen the end marker comes here, so a lenient reading of the headers does
    // no harm; the picture itself is read strictly, since leniency there means grey blocks.
    let options = DecoderOptions::default()
        .set_max_width(limits.side as usize)
        .set_max_height(limits.side as usize)
        .jpeg_set_max_scans(MAX_SCANS)
        .set_strict_mode(false);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(essence.as_slice()), options);
    decoder.decode_headers().map_err(refusal)?;
    // The Y of YCbCr is BT.601 luma already, so the other planes need no transform.
    let (space, layout) = match (decoder.input_colorspace(), wanted) {
        (Some(ColorSpace::Luma), _) | (Some(ColorSpace::YCbCr), Channels::Gray) => {
            (ColorSpace::Luma, Layout::Gray)
        }
        _ => (ColorSpace::RGB, Layout::Rgb),
    };
    let channels = layout.kept(wanted);
    let pixels = survey.size.pixels() * layout.bytes(channels) as u64;
    afford(pixels + coefficients + essence.len() as u64, limits)?;
    decoder.set_options(options.set_strict_mode(true).jpeg_set_out_colorspace(space));
    let pixels = decoder.decode().map_err(refusal)?;
    if pixels.len() as u64 != survey.size.pixels() * layout.count() as u64 {
        return Err(damaged(FORMAT, "its headers contradict each other"));
    }
    let samples = layout.convert(pixels, channels);
    Ok(Picture { samples, channels, stored: survey.size, orientation: survey.orientation })
}

fn refusal(error: DecodeErrors) -> Error {
    match error {
        DecodeErrors::Unsupported(_) => unsupported(),
        other => damaged(FORMAT, format!("{other:?}")),
    }
}

fn unsupported() -> Error {
    Error::Unsupported { got: "a JPEG of a rare coding".to_owned(), allowed: ALLOWED }
}

/// Walks the markers up to the end marker (ITU-T T.81, annex B), and copies what makes the picture.
/// Gives with it the bytes of coefficients that decoding keeps.
fn survey(bytes: &[u8], limits: ImageLimits) -> Result<(Survey, u64, Vec<u8>), Error> {
    let mut coefficients = 0;
    let mut essence = Vec::new();
    let mut size = None;
    let mut exif_segments = exif::Segments::default();
    let mut has_scan = false;
    let mut at = 2;
    // What lies before `copied` is in `essence` or was left out.
    let mut copied = 0;
    loop {
        let Some(marker) = next_marker(bytes, at) else { return Err(cut_off(FORMAT)) };
        let Marker { at: marker_at, code } = marker;
        at = marker_at + 2;
        if code == 0xd9 {
            break;
        }
        let segment = segment(bytes, at).ok_or_else(|| cut_off(FORMAT))?;
        let segment_at = at;
        at += 2 + segment.len();
        match code {
            // Frames: huffman-coded baseline, extended and progressive ones can be read.
            0xc0..=0xc2 => {
                let found = frame_size(segment)?;
                admit(found, limits)?;
                if size.replace(found).is_some_and(|earlier| earlier != found) {
                    return Err(damaged(FORMAT, "it holds two frames of different size"));
                }
                // Baseline pictures are decoded as they come; progressive ones need all of their
                // coefficients, 16 bits each, until the last scan.
                coefficients = if code == 0xc2 { 2 * coded_samples(segment, found) } else { 0 };
                // Only from here on is the file worth a copy.
                essence.reserve_exact(bytes.len() - copied);
            }
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return Err(unsupported()),
            0xda => has_scan = true,
            0xe1 => segment.strip_prefix(exif::PREFIX).into_iter().for_each(|part| exif_segments.push(part)),
            _ => {}
        }
        // APP14 says how colours are coded; every other APPn and COM is a note.
        let is_note = matches!(code, 0xe0..=0xed | 0xef | 0xfe);
        if is_note {
            essence.extend_from_slice(&bytes[copied..segment_at - 2]);
            copied = at;
        }
    }
    let Some(size) = size.filter(|_| has_scan) else {
        return Err(damaged(FORMAT, "it ends without a picture"));
    };
    essence.extend_from_slice(&bytes[copied..at]);
    let orientation = exif_segments.find_map(Orientation::from_exif).unwrap_or_default();
    Ok((Survey { size, orientation }, coefficients, essence))
}

/// The samples that a frame codes, over all components: chroma is often halved (T.81, A.1.1).
fn coded_samples(frame: &[u8], size: Size) -> u64 {
    let components = frame.get(6..).unwrap_or_default().as_chunks::<3>().0;
    let factors =
        || components.iter().map(|[_, factors, _]| (u64::from(factors >> 4), u64::from(factors & 15)));
    let (across, down) = factors().fold((1, 1), |(a, d), (h, v)| (h.max(a), v.max(d)));
    factors().map(|(h, v)| size.pixels() * h * v / (across * down)).sum()
}

/// A marker that begins a segment, or ends the file.
struct Marker {
    at: usize,
    code: u8,
}

/// Finds the next marker from `from` on: in coded data 0xff is stuffed with 0, and restart markers
/// are part of it.
fn next_marker(bytes: &[u8], from: usize) -> Option<Marker> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        match *bytes.get(at + 1)? {
            0xff => at += 1,
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            code => return Some(Marker { at, code }),
        }
    }
}

/// The content of the segment whose length is written at `at`.
fn segment(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]);
    bytes.get(at + 2..at + usize::from(length).max(2))
}

fn frame_size(segment: &[u8]) -> Result<Size, Error> {
    match *segment {
        [precision, ..] if precision != 8 => Err(unsupported()),
        [_, h0, h1, w0, w1, _, ..] => Ok(Size {
            width: u16::from_be_bytes([w0, w1]).into(),
            height: u16::from_be_bytes([h0, h1]).into(),
        }),
        _ => Err(damaged(FORMAT, "its frame header is too short")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pictures, *};

    const LIMITS: ImageLimits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };

    fn worst(a: &[u8], b: &[u8]) -> u8 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn baseline_and_progressive_pictures_look_as_drawn() {
        let drawing = pictures::smooth(50, 34);
        for bytes in [pictures::jpeg(&drawing), pictures::progressive_jpeg(&drawing)] {
            let picture = decode(&bytes, LIMITS, Channels::Rgb).unwrap();
            assert_eq!((picture.width(), picture.height()), (50, 34));
            assert!(worst(&picture.samples, drawing.as_raw()) <= 12);
        }
    }

    #[test]
    fn grey_is_the_luma_of_the_colours() {
        let bytes = pictures::jpeg(&pictures::smooth(50, 34));
        let gray = decode(&bytes, LIMITS, Channels::Gray).unwrap();
        let colours = decode(&bytes, LIMITS, Channels::Rgb).unwrap();
        let mut lumas = Vec::new();
        Layout::Rgb.append(&colours.samples, Channels::Gray, &mut lumas);
        assert!(worst(&gray.samples, &lumas) <= 1);
    }

    #[test]
    fn a_grey_picture_stays_grey() {
        let drawing = pictures::smooth_gray(33, 21);
        let picture = decode(&pictures::gray_jpeg(&drawing), LIMITS, Channels::Rgb).unwrap();
        assert_eq!(picture.channels(), Channels::Gray);
        assert!(worst(&picture.samples, drawing.as_raw()) <= 6);
    }

    #[test]
    fn cmyk_becomes_colours() {
        let drawing = pictures::smooth(32, 24);
        for wanted in [Channels::Rgb, Channels::Gray] {
            let picture = decode(&pictures::cmyk_jpeg(&drawing), LIMITS, wanted).unwrap();
            assert_eq!(picture.channels(), wanted);
            let mut expected = Vec::new();
            Layout::Rgb.append(drawing.as_raw(), wanted, &mut expected);
            assert!(worst(&picture.samples, &expected) <= 16);
        }
    }

    #[test]
    fn a_thumbnail_within_the_notes_is_not_the_end() {
        let drawing = pictures::draw(40, 30);
        let plain = pictures::jpeg(&drawing);
        let noted = pictures::insert_jpeg_segment(&plain, 0xe2, &pictures::jpeg(&pictures::draw(8, 8)));
        let picture = decode(&noted, LIMITS, Channels::Rgb).unwrap();
        assert!(picture == decode(&plain, LIMITS, Channels::Rgb).unwrap());
        assert!(decode(&noted[..noted.len() - 2], LIMITS, Channels::Rgb).is_err());
    }

    #[test]
    fn the_decoder_sees_no_notes() {
        let plain = pictures::jpeg(&pictures::draw(40, 30));
        let mut noted = plain.clone();
        for code in [0xe1, 0xe2, 0xed, 0xfe] {
            noted = pictures::insert_jpeg_segment(&noted, code, b"http://ns.adobe.com/xmp/extension/\0");
        }
        let (_, _, essence) = survey(&noted, LIMITS).unwrap();
        assert_eq!(essence, survey(&plain, LIMITS).unwrap().2);
        assert!(!essence.windows(8).any(|window| window == b"http://n"));
    }

    #[test]
    fn damaged_data_is_refused_rather_than_filled_with_grey() {
        let whole = pictures::jpeg(&pictures::draw(64, 64));
        let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14;
        let mut bytes = whole.clone();
        // No code of a JPEG is all ones, and 0xff is stuffed with 0.
        bytes[scan..scan + 40].copy_from_slice(&[0xff, 0].repeat(20));
        let error = decode(&bytes, LIMITS, Channels::Rgb).err().unwrap();
        assert!(matches!(error, Error::Malformed(_)), "{error}");
    }

    #[test]
    fn rare_codings_are_named_as_not_served() {
        let plain = pictures::jpeg(&pictures::draw(16, 16));
        let frame = plain.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let mut lossless = plain.clone();
        lossless[frame + 1] = 0xc3;
        let mut twelve_bits = plain;
        twelve_bits[frame + 4] = 12;
        for bytes in [lossless, twelve_bits] {
            assert!(matches!(decode(&bytes, LIMITS, Channels::Rgb), Err(Error::Unsupported { .. })));
        }
    }
}
