use std::cell::Cell;

use proptest::prelude::*;

use lepton_testkit::pictures;

use super::*;

/// A file that counts how much of it is read.
struct Counting<'b> {
    bytes: &'b [u8],
    read: Cell<usize>,
    reads: Cell<usize>,
}

impl Source for Counting<'_> {
    fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn read(&self, at: usize, into: &mut [u8]) -> usize {
        self.read.set(self.read.get() + into.len());
        self.reads.set(self.reads.get() + 1);
        self.bytes.read(at, into)
    }
}

const ENOUGH: usize = 2048;

fn outline(bytes: &[u8]) -> Outline {
    match price(&bytes, ENOUGH) {
        Priced::Picture(outline) => outline,
        other => panic!("{other:?} of {} bytes", bytes.len()),
    }
}

fn of(coding: Coding, width: u32, height: u32) -> Outline {
    Outline { coding, width, height, passes: 1 }
}

#[test]
fn the_header_of_each_format_is_read() {
    let drawing = pictures::draw(61, 47);
    assert_eq!(outline(&pictures::jpeg(&drawing)), of(Coding::SequentialJpeg, 61, 47));
    assert_eq!(outline(&pictures::png(&drawing)), of(Coding::Png, 61, 47));
    assert_eq!(outline(&pictures::webp(&drawing)), of(Coding::LosslessWebp, 61, 47));
    assert_eq!(outline(&pictures::lossy_webp()), of(Coding::LossyWebp, 2, 2));
    let extended = pictures::extended_webp(&pictures::webp(&drawing), Some(6));
    assert_eq!(outline(&extended), of(Coding::LosslessWebp, 61, 47));
    let animated = pictures::animated_webp(&[drawing.clone(), drawing]);
    assert_eq!(outline(&animated), of(Coding::LosslessWebp, 61, 47));
    let screen = b"GIF89a\x07\0\x05\0\x80\0\0rgbRGB\x21\xf9\x04\0\0\0\0\0\x2c\0\0\0\0\x09\0\x03\0\0";
    assert_eq!(outline(screen), of(Coding::Gif, 9, 5), "a frame may be larger than its screen");
    let mut bitmap = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bitmap.extend([&40i32.to_le_bytes()[..], &(-30i32).to_le_bytes(), &[0; 32]].concat());
    assert_eq!(outline(&bitmap), of(Coding::Bmp, 40, 30));
    let old = b"BM\0\0\0\0\0\0\0\0\x1a\0\0\0\x0c\0\0\0\x05\0\x04\0\x01\0\x18\0";
    assert_eq!(outline(old), of(Coding::Bmp, 5, 4));
    let entry = |tag: u8, value: u8| [0, tag, 0, 3, 0, 0, 0, 1, 0, value, 0, 0];
    let wide =
        [&[1u8, 0, 0, 3, 0, 0, 0, 1, 0, 70, 0, 0][..], &[1, 1, 0, 4, 0, 0, 0, 1, 0, 0, 0, 50]].concat();
    let tiff = [&b"MM\0*\0\0\0\x0a\0\0\0\x03"[..], &entry(254, 0), &wide].concat();
    assert_eq!(outline(&tiff), of(Coding::Tiff, 70, 50));
}

#[test]
fn scans_of_a_progressive_jpeg_are_counted() {
    let bytes = pictures::progressive_jpeg(&pictures::draw(40, 30));
    let scans = bytes.windows(2).filter(|pair| *pair == [0xff, 0xda]).count() as u32;
    assert!(scans > 1);
    match price(&bytes.as_slice(), 1 << 20) {
        Priced::Picture(outline) => {
            assert_eq!((outline.coding, outline.passes), (Coding::ProgressiveJpeg, scans));
            assert_eq!(outline.units(), 40 * 30 * u64::from(scans));
        }
        other => panic!("{other:?}"),
    }
    let Priced::Picture(some) = price(&bytes.as_slice(), 1024) else { panic!("its frame is at the begin") };
    assert!((2..=MOST_PASSES).contains(&some.passes), "what was not seen is taken for more of the same");
}

#[test]
fn notes_before_the_frame_are_passed_over() {
    let mut bytes = pictures::jpeg(&pictures::draw(20, 10));
    for _ in 0..20 {
        bytes = pictures::insert_jpeg_segment(&bytes, 0xe2, &[0xff; 60_000]);
    }
    assert!(bytes.len() > 1 << 20);
    assert_eq!(outline(&bytes), of(Coding::SequentialJpeg, 20, 10));
}

#[test]
fn what_is_no_picture_has_no_price() {
    for bytes in [&b"hello"[..], b"", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE"] {
        assert_eq!(price(&bytes, ENOUGH), Priced::Foreign);
    }
    for bytes in [
        &b"\xff\xd8\xff"[..],
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"GIF8",
        b"BM",
        b"II*\0\xff\xff\xff\xff",
    ] {
        assert_eq!(price(&bytes, ENOUGH), Priced::Unknown, "{bytes:?}");
    }
    let mut later = pictures::jpeg(&pictures::draw(16, 16));
    let frame = later.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    later[frame + 5..frame + 7].copy_from_slice(&[0, 0]);
    assert_eq!(price(&later.as_slice(), ENOUGH), Priced::Unknown, "a height that a later marker defines");
}

#[test]
fn guesses_grow_with_the_picture() {
    for coding in Coding::ALL {
        let (small, large) = (of(coding, 100, 100), of(coding, 5000, 5000));
        assert!(small.guess() < large.guess());
        assert!((Duration::from_millis(20)..Duration::from_secs(1)).contains(&large.guess()), "{coding:?}");
    }
}

fn begins() -> impl Strategy<Value = Vec<u8>> {
    let drawing = pictures::draw(33, 17);
    let whole = vec![
        pictures::jpeg(&drawing),
        pictures::progressive_jpeg(&drawing),
        pictures::png(&drawing),
        pictures::webp(&drawing),
        pictures::animated_webp(&[drawing.clone(), drawing]),
        b"GIF89a\x07\0\x05\0\x80\0\0rgbRGB\x21\xf9\x04\0\0\0\0\0\x2c\0\0\0\0\x09\0\x03\0\0".to_vec(),
        b"BM".to_vec(),
        b"II*\0\x08\0\0\0\xff\xff".to_vec(),
        b"MM\0*\0\0\0\x08\xff\xff".to_vec(),
    ];
    prop::sample::select(whole)
}

proptest! {
    #[test]
    fn no_file_is_read_beyond_the_bound(
        mut bytes in begins(), flips in prop::collection::vec((0usize..400, any::<u8>()), 0..6),
        tail in prop::collection::vec(prop::sample::select(vec![0xffu8, 0, 0xd0, 0xda, 0x21, 1, 0x41]), 0..2000), most in 64usize..4096,
    ) {
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.extend(tail);
        let file = Counting { bytes: &bytes, read: Cell::new(0), reads: Cell::new(0) };
        if let Priced::Picture(outline) = price(&file, most) {
            prop_assert!(outline.passes >= 1 && outline.passes <= MOST_PASSES && outline.units() > 0);
        }
        prop_assert!(file.read.get() <= most, "{} of {most} bytes", file.read.get());
        prop_assert!(file.reads.get() <= most / LEAST_READ + 1, "{} reads", file.reads.get());
    }
}
