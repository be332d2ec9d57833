//! Tells a format by its first bytes, and refuses those that are not served.

use super::{Channels, ImageLimits, Picture, bmp, gif, jpeg, png, survey::cut_off, tiff, webp};
use crate::error::MediaError;

/// What callers may send instead.
const ALLOWED: &str = "images are read as JPEG, PNG, WebP, GIF, BMP or TIFF";
const ALLOWED_FOR_HEIC: &str = "images are read as JPEG, PNG, WebP, GIF, BMP or TIFF; convert it, for example with \
    `heif-convert photo.heic photo.jpg`, or let an iPhone take JPEGs: Settings, Camera, Formats, Most Compatible";
const ALLOWED_FOR_AVIF: &str = "images are read as JPEG, PNG, WebP, GIF, BMP or TIFF; convert it, for example with \
    `avifdec picture.avif picture.png`";

/// Decodes a picture of any format that is served.
pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, MediaError> {
    match bytes {
        [] => Err(MediaError::invalid(
            "the image is empty: send the bytes of an image file, for example a JPEG",
        )),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes, limits, wanted),
        _ if bytes.starts_with(png::SIGNATURE) => png::decode(bytes, limits, wanted),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            webp::decode(bytes, limits, wanted)
        }
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => gif::decode(bytes, limits, wanted),
        [b'B', b'M', ..] if bmp::is_bitmap(bytes) => bmp::decode(bytes, limits, wanted),
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => tiff::decode(bytes, limits, wanted),
        _ if is_begun(bytes) => Err(cut_off("image")),
        _ => {
            let got = looks_like(bytes);
            let allowed = match got {
                "a HEIC image" => ALLOWED_FOR_HEIC,
                "an AVIF image" => ALLOWED_FOR_AVIF,
                _ => ALLOWED,
            };
            Err(MediaError::Unsupported { got: got.to_owned(), allowed })
        }
    }
}

/// Says whether `bytes` are the begin of a signature and nothing more.
fn is_begun(bytes: &[u8]) -> bool {
    let riff = bytes.len() < 12
        && b"RIFF".starts_with(&bytes[..bytes.len().min(4)])
        && b"WEBP".starts_with(bytes.get(8..).unwrap_or_default());
    let signatures: [&[u8]; 7] =
        [png::SIGNATURE, &[0xff, 0xd8, 0xff], b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"];
    riff || signatures.iter().any(|signature| signature.starts_with(bytes))
}

/// Names the format of a file that is not served, for the refusal.
fn looks_like(bytes: &[u8]) -> &'static str {
    let start = bytes.trim_ascii_start();
    let is_text = |tag: &str| start.get(..tag.len()).is_some_and(|s| s.eq_ignore_ascii_case(tag.as_bytes()));
    match bytes {
        [b'I', b'I', b'+', 0, ..] | [b'M', b'M', 0, b'+', ..] => "a BigTIFF image",
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand {
            [b'a', b'v', b'i', b'f' | b's', ..] => "an AVIF image",
            [b'h', b'e', b'i' | b'v', ..] | [b'm', b'i', b'f', b'1', ..] => "a HEIC image",
            _ => "a video or another ISO media file",
        },
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', ..] => "a JPEG XL image",
        [0, 0, 0, 12, b'j', b'P', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => "a JPEG 2000 image",
        [0, 0, 1, 0, ..] => "an icon",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop file",
        [b'q', b'o', b'i', b'f', ..] => "a QOI image",
        [b'R', b'I', b'F', b'F', ..] => "a RIFF file that is no WebP",
        [b'%', b'P', b'D', b'F', ..] => "a PDF",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive",
        [0x1f, 0x8b, ..] => "a gzip archive",
        _ if is_text("<svg") || is_text("<?xml") => "an SVG or XML file",
        _ if is_text("<!doctype") || is_text("<html") => "an HTML page",
        _ if is_text("data:") => "a data URL",
        _ if start.starts_with(b"{") || start.starts_with(b"[") => "JSON in place of an image",
        _ => "a file that is no known image",
    }
}

#[cfg(test)]
mod tests {
    use lepton_testkit::pictures;

    use super::{
        super::{Size, layout::PixelLayout, survey::admit},
        *,
    };
    use crate::error::Amount;

    const LIMITS: ImageLimits = ImageLimits { pixels: 25_000_000, side: 8192, memory: 1 << 28 };

    fn refusal(bytes: &[u8]) -> MediaError {
        match decode(bytes, LIMITS, Channels::Rgb) {
            Ok(picture) => panic!("{} x {} pixels were decoded", picture.width(), picture.height()),
            Err(error) => error,
        }
    }

    #[test]
    fn formats_that_are_not_served_are_named() {
        let cases: [(&[u8], &str); 14] = [
            (b"II+\0\x08\0\0\0", "a BigTIFF image"),
            (b"BMW builds cars and bikes", "a file that is no known image"),
            (b"GIF88a\x01\0\x01\0", "a file that is no known image"),
            (b"\0\0\0\x20ftypisom\0\0\0\0", "a video or another ISO media file"),
            (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
            (b"%PDF-1.7", "a PDF"),
            (b"PK\x03\x04", "a ZIP archive"),
            (b"  <svg xmlns=", "an SVG or XML file"),
            (b"<!DOCTYPE html>", "an HTML page"),
            (b"{\"image\": \"\"}", "JSON in place of an image"),
            (b"data:image/png;base64,AAAA", "a data URL"),
            (b"RIFF\x24\0\0\0WAVE", "a RIFF file that is no WebP"),
            (b"hello", "a file that is no known image"),
            (&[0; 64], "a file that is no known image"),
        ];
        for (bytes, got) in cases {
            assert_eq!(refusal(bytes), MediaError::Unsupported { got: got.to_owned(), allowed: ALLOWED });
        }
    }

    #[test]
    fn what_phones_write_and_is_not_served_is_named_with_how_to_convert_it() {
        for (bytes, named, how) in [
            (b"\0\0\0\x20ftypheic\0\0\0\0", "a HEIC image", "heif-convert"),
            (b"\0\0\0\x20ftypmif1\0\0\0\0", "a HEIC image", "Most Compatible"),
            (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF image", "avifdec"),
        ] {
            let error = refusal(bytes).to_string();
            assert!(error.contains(named) && error.contains(how), "{error}");
        }
    }

    #[test]
    fn an_empty_file_is_no_input() {
        assert!(matches!(refusal(&[]), MediaError::Invalid(_)));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_malformed_and_never_half_a_picture() {
        let drawing = pictures::draw(61, 47);
        for whole in [
            pictures::jpeg(&drawing),
            pictures::progressive_jpeg(&drawing),
            pictures::png(&drawing),
            pictures::webp(&drawing),
            pictures::lossy_webp(),
        ] {
            assert!(decode(&whole, LIMITS, Channels::Rgb).is_ok());
            let tenths = (1..10).map(|tenth| whole.len() * tenth / 10);
            for length in tenths.chain(1..64).chain(whole.len() - 24..whole.len()) {
                let error = refusal(&whole[..length]);
                assert!(matches!(error, MediaError::Malformed(_)), "{length} of {}: {error}", whole.len());
                assert!(error.to_string().contains("cut off"), "{length} of {}: {error}", whole.len());
            }
        }
    }

    #[test]
    fn what_follows_a_picture_is_ignored() {
        let drawing = pictures::draw(20, 10);
        for whole in [pictures::jpeg(&drawing), pictures::png(&drawing), pictures::webp(&drawing)] {
            let picture = decode(&whole, LIMITS, Channels::Rgb).unwrap();
            let longer = [whole.as_slice(), b"\0\0\0 a trailer of some camera \xff\xd8\xff"].concat();
            assert!(decode(&longer, LIMITS, Channels::Rgb).unwrap() == picture);
        }
    }

    #[test]
    fn a_flipped_byte_is_an_answer_or_malformed_but_never_a_panic() {
        let drawing = pictures::draw(40, 30);
        for whole in [
            pictures::jpeg(&drawing),
            pictures::progressive_jpeg(&drawing),
            pictures::png(&drawing),
            pictures::webp(&drawing),
            pictures::lossy_webp(),
        ] {
            for at in (0..whole.len()).step_by(whole.len() / 200 + 1) {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x55;
                let answer = decode(&bytes, LIMITS, Channels::Rgb);
                assert!(!matches!(answer, Err(MediaError::Internal(_))), "byte {at}: {:?}", answer.err());
            }
        }
    }

    #[test]
    fn sizes_are_refused_with_their_numbers_by_the_header_alone() {
        let too_wide =
            MediaError::TooLarge { what: "image side in pixels", got: Amount::Exactly(30_000), limit: 8192 };
        assert_eq!(refusal(&pictures::png_header(30_000, 30_000)), too_wide);
        assert_eq!(refusal(&pictures::jpeg_header(30_000, 100)), too_wide);
        let too_many = MediaError::TooLarge {
            what: "image pixels",
            got: Amount::Exactly(8192 * 8192),
            limit: 25_000_000,
        };
        assert_eq!(refusal(&pictures::png_header(8192, 8192)), too_many);
        assert_eq!(refusal(&pictures::jpeg_header(8192, 8192)), too_many);
        assert_eq!(refusal(&pictures::webp_header(8192, 8192)), too_many);
        assert!(matches!(refusal(&pictures::png_header(0, 10)), MediaError::Malformed(_)));
        assert!(matches!(refusal(&pictures::jpeg_header(10, 0)), MediaError::Malformed(_)));
    }

    #[test]
    fn a_size_at_the_limit_is_admitted() {
        let limits = ImageLimits { pixels: 600, side: 30, memory: 1 << 28 };
        assert_eq!(admit(Size { width: 30, height: 20 }, limits), Ok(()));
        assert!(admit(Size { width: 31, height: 2 }, limits).is_err());
        assert!(admit(Size { width: 30, height: 21 }, limits).is_err());
    }

    #[test]
    fn what_decoding_takes_is_known_before_a_pixel_is_decoded() {
        let drawing = pictures::draw(80, 60);
        let pixels = 80 * 60;
        let needs =
            |bytes: &[u8], wanted: Channels| match decode(bytes, ImageLimits { memory: 1, ..LIMITS }, wanted)
            {
                Err(MediaError::TooLarge { got: Amount::Exactly(bytes), limit: 1, .. }) => bytes,
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("decoded within a byte"),
            };
        let (jpeg, progressive) = (pictures::jpeg(&drawing), pictures::progressive_jpeg(&drawing));
        // Tables, and for each component three rows of units, here of 16 rows, beside the pixels.
        let beside = (1 << 16) + 80 * 48 * 2 + (1 << 12);
        assert!((pixels..=pixels + beside).contains(&needs(&jpeg, Channels::Gray)));
        assert!((3 * pixels..=3 * pixels + beside).contains(&needs(&jpeg, Channels::Rgb)));
        assert!(needs(&progressive, Channels::Gray) >= (1 + 2) * pixels, "a coefficient of 16 bits a sample");
        // Inflated rows are gathered in a vector that grows.
        let gathered = 3 * (80 * 60 * 3 + (20 << 10));
        assert!((pixels..=pixels + gathered).contains(&needs(&pictures::png(&drawing), Channels::Gray)));
        assert!(
            (3 * pixels..=3 * pixels + gathered).contains(&needs(&pictures::png(&drawing), Channels::Rgb))
        );
        let enough = ImageLimits { memory: needs(&progressive, Channels::Rgb), ..LIMITS };
        assert!(decode(&progressive, enough, Channels::Rgb).is_ok());
    }

    #[test]
    fn transparency_is_composited_over_black() {
        let mut samples = Vec::new();
        PixelLayout::Rgba.append(
            &[200, 100, 50, 0, 200, 100, 50, 128, 200, 100, 50, 255],
            Channels::Rgb,
            &mut samples,
        );
        PixelLayout::GrayAlpha.append(&[90, 0, 90, 255], Channels::Gray, &mut samples);
        assert_eq!(samples, [0, 0, 0, 100, 50, 25, 200, 100, 50, 0, 90]);
    }
}
