//! How much there is to prepare of an image, by a glimpse of its header.
//!
//! Invariant: reads a bounded number of bytes and decodes no pixel, whatever the image claims, and charges none more
//! than the dearest picture that the limits allow: what is larger is refused by its header.

use std::time::Duration;

use base64::Engine;

use super::{
    EncodedImage, Input, Item, Workload,
    base64::{BASE64, data_url_prefix},
};
use crate::image::{Coding, ImageLimits, Priced, Source, price};

/// Kinds beside those of the codings, which are numbered from 0 on.
const PIXELS: u8 = 32;
const UNKNOWN: u8 = 33;
const FOREIGN: u8 = 34;

/// CPU time of every image, however small, and for a pixel of a picture that is decoded already.
const BESIDE: Duration = Duration::from_micros(20);
const PIXEL_NANOSECONDS: u64 = 3;

/// Bytes at the begin of base64 that are looked at for line breaks, and that are decoded in a row where there are any.
const FIRST_LINE: usize = 128;
const UNWRAPPED: usize = 2048;

/// How much there is to prepare of an image, by at most about `most_bytes` of it.
pub(super) fn workload(input: &Input, limits: ImageLimits, most_bytes: usize) -> Workload {
    let priced = match &input.item {
        Item::Image(EncodedImage::Plain(bytes)) => price(&&bytes[..], most_bytes),
        Item::Image(EncodedImage::Base64(text)) => of_base64(text, most_bytes),
        Item::Pixels(picture) => {
            let units = u64::from(picture.width()) * u64::from(picture.height());
            return Workload {
                kind: PIXELS,
                units,
                guess: BESIDE + Duration::from_nanos(units * PIXEL_NANOSECONDS),
            };
        }
        // Refused when it is prepared.
        Item::Text(_) | Item::Pair(..) | Item::Tensors(_) => Priced::Foreign,
    };
    let dearest = |coding: Coding| coding.guess(limits.pixels);
    let foreign = Workload { kind: FOREIGN, units: input.n_bytes() as u64, guess: BESIDE };
    match priced {
        Priced::Foreign => foreign,
        Priced::Unknown => {
            let guess = Coding::ALL.into_iter().map(dearest).max().unwrap_or_default();
            Workload { kind: UNKNOWN, units: limits.pixels, guess }
        }
        Priced::Picture(outline) => {
            let pixels = u64::from(outline.width) * u64::from(outline.height);
            if pixels > limits.pixels || outline.width.max(outline.height) > limits.side {
                return foreign;
            }
            Workload { kind: outline.coding as u8, units: outline.units(), guess: BESIDE + outline.guess() }
        }
    }
}

/// Prices an image in base64. What is none is refused when it is prepared.
fn of_base64(text: &[u8], most_bytes: usize) -> Priced {
    let Some(text) = data_url_prefix(text).ok().and_then(|skipped| text.get(skipped..)) else {
        return Priced::Foreign;
    };
    if text.iter().take(FIRST_LINE).any(u8::is_ascii_whitespace) {
        // Lines of any length: positions in it are known from the begin on only.
        let begin: Vec<u8> = text
            .iter()
            .take(UNWRAPPED.min(most_bytes))
            .copied()
            .filter(|c| !c.is_ascii_whitespace())
            .collect();
        return price(&Base64 { text: &begin }, most_bytes);
    }
    price(&Base64 { text }, most_bytes)
}

/// The bytes that base64 in one line stands for: 3 for 4 characters.
struct Base64<'t> {
    text: &'t [u8],
}

/// Characters that are decoded at once.
const WINDOW: usize = 512;

impl Source for Base64<'_> {
    fn n_bytes(&self) -> usize {
        self.text.len() / 4 * 3
    }

    fn read(&self, at: usize, into: &mut [u8]) -> usize {
        let mut n = 0;
        while n < into.len() {
            let (from, skipped) = ((at + n) / 3 * 4, (at + n) % 3);
            let wanted = (skipped + into.len() - n).div_ceil(3) * 4;
            let Some(rest) = self.text.get(from..).filter(|rest| !rest.is_empty()) else { break };
            let mut characters = [0; WINDOW];
            let length = rest.len().min(wanted).min(WINDOW);
            for (character, of) in characters.iter_mut().zip(&rest[..length]) {
                // The alphabet for file names and URLs (RFC 4648, section 5).
                *character = match of {
                    b'-' => b'+',
                    b'_' => b'/',
                    other => *other,
                };
            }
            let mut bytes = [0; WINDOW];
            let Ok(decoded) = BASE64.decode_slice(&characters[..length], &mut bytes) else { break };
            let found = bytes.get(skipped..decoded).unwrap_or_default();
            let copied = found.len().min(into.len() - n);
            into[n..n + copied].copy_from_slice(&found[..copied]);
            n += copied;
            if copied == 0 {
                break;
            }
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
    use bytes::Bytes;
    use lepton_testkit::pictures;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ImageLimits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };
    const ENOUGH: usize = 4096;

    fn of(input: Input) -> Workload {
        workload(&input, LIMITS, ENOUGH)
    }

    fn wrapped(text: &str) -> String {
        text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line) + "\r\n").collect()
    }

    #[test]
    fn an_image_is_charged_alike_in_every_form_that_it_comes_in() {
        let drawing = pictures::draw(640, 480);
        let noted = pictures::insert_jpeg_segment(&pictures::jpeg(&drawing), 0xe1, &[7; 50_000]);
        for file in [pictures::jpeg(&drawing), noted, pictures::png(&drawing), pictures::webp(&drawing)] {
            let plain = of(Input::image(file.clone()));
            assert_eq!(plain.units, 640 * 480);
            let standard = BASE64_STANDARD.encode(&file);
            let url = format!("data:image/png;base64,{standard}");
            let forms =
                [standard.clone(), BASE64_STANDARD_NO_PAD.encode(&file), BASE64_URL_SAFE.encode(&file), url];
            for text in forms {
                assert_eq!(of(Input::image_base64(text)), plain);
            }
        }
        let small = pictures::png(&drawing);
        let lines = wrapped(&BASE64_STANDARD.encode(&small));
        assert_eq!(of(Input::image_base64(lines)), of(Input::image(small)));
    }

    #[test]
    fn pixels_are_charged_and_not_bytes() {
        let large = of(Input::image(pictures::webp_header(1000, 1000)));
        let small = of(Input::image(pictures::webp(&pictures::draw(100, 100))));
        assert!(large.units == 1_000_000 && small.units == 10_000, "{large:?} {small:?}");
        assert!(large.guess > 10 * small.guess && large.kind == small.kind);
        let jpeg = of(Input::image(pictures::jpeg(&pictures::draw(100, 100))));
        assert_ne!(jpeg.kind, small.kind);
    }

    #[test]
    fn what_the_limits_refuse_costs_nothing_and_what_is_unknown_as_much_as_the_dearest() {
        let beyond = of(Input::image(pictures::png_header(30_000, 30_000)));
        let foreign = of(Input::image(Bytes::from_static(b"no picture")));
        assert!(beyond.guess <= BESIDE && foreign.guess <= BESIDE);
        let unknown = of(Input::image(Bytes::from_static(b"\xff\xd8\xff\xe0\0")));
        assert_eq!(unknown.guess, Coding::LosslessWebp.guess(LIMITS.pixels));
        assert!(of(Input::image_base64(Bytes::from_static(b"data:,nothing"))).guess <= BESIDE);
    }

    proptest! {
        #[test]
        fn base64_reads_as_what_it_stands_for(bytes in prop::collection::vec(any::<u8>(), 0..900), at in 0usize..1000, n in 0usize..700) {
            let text = BASE64_STANDARD.encode(&bytes);
            let (mut plain, mut coded) = (vec![0; n], vec![0; n]);
            let (file, encoded) = (bytes.as_slice(), Base64 { text: text.as_bytes() });
            prop_assert_eq!(file.read(at, &mut plain), encoded.read(at, &mut coded));
            prop_assert_eq!(plain, coded);
        }
    }
}
