//! Streams written bit by bit: of one colour, and of many prefix codes.

use std::io::Cursor;

use image::{ImageDecoder, codecs::webp::WebPDecoder};
use lepton_allocator as allocator;
use proptest::prelude::*;

use super::{
    super::{Channels, ImageLimits, Picture},
    *,
};
use crate::error::Amount;

const LIMITS: ImageLimits = ImageLimits { pixels: 25_000_000, side: 16384, memory: 256 << 20 };

/// Bits as they are written, the lowest of a byte first.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    n_bits: usize,
}

impl Writer {
    fn put(&mut self, value: u32, n_bits: u32) {
        for bit in 0..n_bits {
            if self.n_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (self.n_bits % 8);
            self.n_bits += 1;
        }
    }

    fn head(size: [u32; 2], has_alpha: bool) -> Self {
        let mut writer = Self::default();
        writer.put(0x2f, 8);
        writer.put(size[0] - 1, 14);
        writer.put(size[1] - 1, 14);
        writer.put(has_alpha.into(), 1);
        writer.put(0, 3);
        writer
    }

    /// Codes of one symbol each: the same pixel everywhere, in no bits.
    fn codes_of(&mut self, [red, green, blue, alpha]: Pixel) {
        for symbol in [green, red, blue, alpha, 0] {
            self.put(0b101, 3);
            self.put(symbol.into(), 8);
        }
    }

    fn sub_image_of(&mut self, pixel: Pixel) {
        self.put(0, 1);
        self.codes_of(pixel);
    }

    /// A code of eleven symbols of 1 to 10 bits, whose table has 1024 entries.
    fn long_code(&mut self) {
        let length_code = [4, 4, 3, 3, 3, 3, 3, 3, 4, 4];
        self.put(0, 1);
        self.put(10, 4);
        for at in [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10] {
            let length = if (1..=10).contains(&at) { length_code[at - 1] } else { 0 };
            self.put(length, 3);
        }
        self.put(1, 1);
        self.put(1, 3);
        self.put(9, 4);
        for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
            let before = |n| length_code[..length - 1].iter().filter(|other| **other == n).count() as u32;
            match length_code[length - 1] {
                3 => self.put(before(3).reverse_bits() >> 29, 3),
                _ => self.put((12 + before(4)).reverse_bits() >> 28, 4),
            }
        }
    }

    fn file(self) -> Vec<u8> {
        let mut stream = self.bytes;
        stream.resize(stream.len().next_multiple_of(2) + 64, 0);
        let mut file = b"RIFF\0\0\0\0WEBPVP8L".to_vec();
        file[4..8].copy_from_slice(&(stream.len() as u32 + 12).to_le_bytes());
        file.extend((stream.len() as u32).to_le_bytes());
        file.extend(stream);
        file
    }
}

/// A file of one pixel and `n_groups` groups of long codes.
fn groups(n_groups: u32) -> Vec<u8> {
    let mut writer = Writer::head([1, 1], false);
    writer.put(0b100, 3);
    writer.put(0, 3);
    let [_, _, high, low] = (n_groups - 1).to_be_bytes();
    writer.sub_image_of([high, low, 0, 255]);
    for _ in 0..5 * n_groups {
        writer.long_code();
    }
    writer.file()
}

/// Reads a file by the decoder alone.
fn plainly(file: &[u8]) -> Vec<u8> {
    let decoder = WebPDecoder::new(Cursor::new(file)).unwrap();
    let mut pixels = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut pixels).unwrap();
    pixels
}

#[test]
fn prefix_codes_are_foreseen_and_refused_before_a_table_is_made() {
    let file = groups(800);
    let picture = Picture::decode(&file, LIMITS, Channels::Rgb).unwrap();
    assert_eq!((picture.width(), picture.height()), (1, 1));
    let ((), taken) = allocator::counted(u64::MAX, || drop(plainly(&file)));
    let foreseen = walk(&file[20..]).unwrap().tables;
    assert!((taken..taken + WALK_BYTES + (1 << 18)).contains(&foreseen), "{foreseen} for {taken}");
    // 17,000 groups take 340 MiB, from less than a megabyte.
    let file = groups(17_000);
    let (refused, peak) = allocator::counted(u64::MAX, || Picture::decode(&file, LIMITS, Channels::Rgb));
    let Err(MediaError::TooLarge { got: Amount::Exactly(got), .. }) = refused else { panic!("{refused:?}") };
    assert!(got > 300 << 20, "{got}");
    assert!(peak < 1 << 20, "{peak} bytes to look at it");
}

/// Transforms that are the same for all pixels, as the file has them.
fn transform() -> impl Strategy<Value = (u32, u32, Pixel)> {
    (0u32..4, 0u32..8, any::<Pixel>()).prop_map(|(kind, bits, pixel)| {
        let [red, green, blue, alpha] = pixel;
        (kind, bits, if kind == 0 { [red, green % 14, blue, alpha] } else { pixel })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_picture_of_one_code_is_to_the_bit_what_the_decoder_makes(
        size in [1u32..40, 1u32..30],
        has_alpha in any::<bool>(),
        residual in prop_oneof![any::<Pixel>(), Just([0; 4]), (0u8..3, 0u8..3).prop_map(|(a, b)| [a, b, 0, 0])],
        mut transforms in prop::collection::vec(transform(), 0..4),
        n_colours in 17u32..=256,
    ) {
        let mut seen = [false; 4];
        transforms.retain(|(kind, _, _)| !std::mem::replace(&mut seen[*kind as usize], true));
        let mut writer = Writer::head(size, has_alpha);
        for (kind, bits, pixel) in &transforms {
            writer.put(1, 1);
            writer.put(*kind, 2);
            match kind {
                0 | 1 => writer.put(*bits, 3),
                2 => continue,
                _ => writer.put(n_colours - 1, 8),
            }
            writer.sub_image_of(*pixel);
        }
        writer.put(0b000, 3);
        writer.codes_of(residual);
        let file = writer.file();
        prop_assert!(walk(&file[20..]).unwrap().constant.is_some(), "no short way");
        let expected = plainly(&file);
        let layout = if has_alpha { super::super::layout::PixelLayout::Rgba } else { super::super::layout::PixelLayout::Rgb };
        for wanted in [Channels::Rgb, Channels::Gray] {
            let picture = Picture::decode(&file, LIMITS, wanted).unwrap();
            let mut samples = Vec::new();
            layout.append(&expected, wanted, &mut samples);
            prop_assert_eq!(&picture.samples, &samples, "{:?}", transforms);
        }
    }
}
