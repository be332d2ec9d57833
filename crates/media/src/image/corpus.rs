//! Files of every form that is served, and what is claimed of all of them: they are read as Pillow reads them, are
//! whole or refused, and take no more memory than was foreseen.

use std::{fs, path::Path};

use fastrand::Rng;
use flate2::Crc;
use lepton_allocator as allocator;
use lepton_testkit::pictures;

use super::{Channels, ImageLimits, Picture, metered::SLACK, orientation::Orientation, survey::afforded};
use crate::error::{Amount, MediaError};

const LIMITS: ImageLimits = ImageLimits { pixels: 25_000_000, side: 8192, memory: 256 << 20 };

/// How many mutated files are tried. A longer run is
/// `LEPTON_MUTATED_PICTURES=50000 cargo test -p lepton-media image::corpus`.
const N_MUTATED: usize = 4000;
const N_MUTATED_VARIABLE: &str = "LEPTON_MUTATED_PICTURES";

/// A file that was written by Pillow or tifffile (`golden/pictures.py`), and what Pillow reads in it.
struct Golden {
    name: String,
    bytes: Vec<u8>,
    width: u32,
    height: u32,
    tolerance: u8,
    /// Levels in hexadecimal, or their CRC-32, or `-` where they are not compared.
    expected: String,
}

fn golden() -> Vec<Golden> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pictures");
    let lines = fs::read_to_string(dir.join("expected.txt")).unwrap();
    let golden = |line: &str| {
        let [name, width, height, tolerance, expected] = *line.split(' ').collect::<Vec<_>>() else {
            panic!("{line}")
        };
        Golden {
            name: name.to_owned(),
            bytes: fs::read(dir.join(name)).unwrap(),
            width: width.parse().unwrap(),
            height: height.parse().unwrap(),
            tolerance: tolerance.parse().unwrap(),
            expected: expected.to_owned(),
        }
    };
    lines.lines().map(golden).collect()
}

/// Sound files of every form.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let (drawing, gray) = (pictures::draw(61, 47), pictures::smooth_gray(33, 21));
    let drawn = [
        ("baseline.jpg", pictures::jpeg(&drawing)),
        ("progressive.jpg", pictures::progressive_jpeg(&drawing)),
        ("gray.jpg", pictures::gray_jpeg(&gray)),
        ("cmyk.jpg", pictures::cmyk_jpeg(&pictures::smooth(32, 24))),
        ("noted.jpg", pictures::oriented_jpeg(&drawing, 6)),
        ("plain.png", pictures::png(&drawing)),
        ("noted.png", pictures::oriented_png(&drawing, 6)),
        ("interlaced.png", pictures::interlaced_png_of_one_pixel(77)),
        ("animated.png", pictures::animated_png(&drawing, &drawing)),
        ("16.png", pictures::raw_png(9, 40, pictures::PngKind::Rgba, 16, &[7; 9 * 40 * 8])),
        ("lossless.webp", pictures::webp(&drawing)),
        ("small.webp", pictures::lossy_webp()),
        ("noted.webp", pictures::extended_webp(&pictures::webp(&drawing), Some(6))),
        ("frames.webp", pictures::animated_webp(&[drawing.clone(), drawing.clone()])),
    ];
    let golden = golden().into_iter().map(|golden| (golden.name, golden.bytes));
    drawn.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).chain(golden).collect()
}

/// Red, green and blue of each pixel as it is stored.
fn colours(picture: &Picture) -> Vec<u8> {
    match picture.channels {
        Channels::Rgb => picture.samples.clone(),
        Channels::Gray => picture.samples.iter().flat_map(|level| [*level; 3]).collect(),
    }
}

#[test]
fn every_form_is_read_as_pillow_reads_it() {
    for Golden { name, bytes, width, height, tolerance, expected } in golden() {
        let picture =
            Picture::decode(&bytes, LIMITS, Channels::Rgb).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((picture.stored.width, picture.stored.height), (width, height), "{name}");
        assert_eq!(picture.orientation, Orientation::default(), "{name}");
        let levels = colours(&picture);
        if tolerance == 0 {
            let mut crc = Crc::new();
            crc.update(&levels);
            assert_eq!(
                format!("{:08x}", crc.sum()),
                expected,
                "{name}: {:?}",
                &levels[..levels.len().min(60)]
            );
        } else if expected != "-" {
            let expected = expected.as_bytes().as_chunks::<2>().0;
            assert_eq!(expected.len(), levels.len(), "{name}");
            for (at, (level, hex)) in levels.iter().zip(expected).enumerate() {
                let expected = u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
                assert!(level.abs_diff(expected) <= tolerance, "{name} at {at}: {level} for {expected}");
            }
        }
        // What is asked for in grey is the luma of the same colours.
        let gray = Picture::decode(&bytes, LIMITS, Channels::Gray).unwrap();
        assert_eq!((gray.channels, gray.samples.len()), (Channels::Gray, levels.len() / 3), "{name}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_whole() {
    for (name, bytes) in corpus() {
        let whole = Picture::decode(&bytes, LIMITS, Channels::Rgb).unwrap();
        for length in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
            match Picture::decode(&bytes[..length], LIMITS, Channels::Rgb) {
                // Notes behind a picture are no part of it.
                Ok(picture) => {
                    assert!(picture.samples == whole.samples, "{name}: half of it from {length} bytes")
                }
                Err(MediaError::Malformed(_) | MediaError::Invalid(_) | MediaError::Unsupported { .. }) => {}
                Err(other) => panic!("{name}, {length} bytes: {other}"),
            }
        }
    }
}

/// Decodes a file and holds what that took to what was foreseen. Returns whether it was read, or what was wrong.
fn decode_within(bytes: &[u8], wanted: Channels) -> Result<bool, String> {
    afforded::forget();
    let (decoded, peak) = allocator::counted(u64::MAX, || Picture::decode(bytes, LIMITS, wanted));
    let foreseen = afforded::most();
    if let Err(error @ MediaError::Internal(_)) = &decoded {
        return Err(error.to_string());
    }
    // A file that is refused has been looked at, and perhaps copied.
    let foreseen = if foreseen > LIMITS.memory { 0 } else { foreseen };
    let allowed = foreseen.max(bytes.len() as u64) + SLACK;
    if peak > allowed {
        return Err(format!("{peak} bytes where {foreseen} were foreseen ({:?})", decoded.err()));
    }
    Ok(decoded.is_ok())
}

#[test]
fn no_file_of_any_form_takes_more_than_was_foreseen() {
    let large = pictures::draw(1501, 1103);
    let files = [
        ("large.jpg", pictures::jpeg(&large)),
        ("large-progressive.jpg", pictures::progressive_jpeg(&large)),
        ("large.png", pictures::png(&large)),
        ("large.webp", pictures::webp(&large)),
    ];
    let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in corpus().into_iter().chain(files) {
        for wanted in [Channels::Rgb, Channels::Gray] {
            assert_eq!(decode_within(&bytes, wanted), Ok(true), "{name} as {wanted:?}");
        }
    }
}

/// Corrects the checksums of a PNG's chunks, without which a mutation reaches no decoder.
fn correct_sums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let end = at.saturating_add(8).saturating_add(length);
        let Some(content) = png.get(at + 4..end) else { return };
        let mut crc = Crc::new();
        crc.update(content);
        let Some(sum) = png.get_mut(end..end + 4) else { return };
        sum.copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
}

/// Changes a file as damage, a fuzzer or an attacker would; `other` is one of the corpus.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    let mut below = |n: usize| random.usize(..n.max(1));
    for _ in 0..1 + below(4) {
        // Headers are where sizes are.
        let reach = if below(2) == 0 { bytes.len().min(96) } else { bytes.len() };
        let at = below(reach);
        match below(8) {
            _ if bytes.is_empty() => return,
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
            2 => bytes[at] = below(256) as u8,
            3 => bytes[at..].iter_mut().take(1 + below(4)).for_each(|byte| *byte = 0xff),
            4 => bytes.truncate(at + 1),
            5 => {
                let part = bytes[at..].iter().take(1 + below(40)).copied().collect::<Vec<_>>();
                bytes.splice(at..at, part);
            }
            6 => {
                let end = (at + 1 + below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let from = below(other.len());
                let part = &other[from..(from + 1 + below(60)).min(other.len())];
                bytes.iter_mut().skip(at).zip(part).for_each(|(byte, other)| *byte = *other);
            }
        }
    }
    if bytes.starts_with(super::png::SIGNATURE) && below(5) > 0 {
        correct_sums(bytes);
    }
}

#[test]
fn no_mutation_panics_or_takes_more_than_was_foreseen() {
    let n_mutated = std::env::var(N_MUTATED_VARIABLE).map_or(N_MUTATED, |n| n.parse().unwrap());
    let corpus = corpus();
    let mut random = Rng::with_seed(21);
    let (mut n_read, mut excesses) = (0, Vec::new());
    for n in 0..n_mutated {
        let (name, bytes) = &corpus[n % corpus.len()];
        let (_, other) = &corpus[random.usize(..corpus.len())];
        let mut bytes = bytes.clone();
        mutate(&mut bytes, other, &mut random);
        let wanted = if random.bool() { Channels::Rgb } else { Channels::Gray };
        match std::panic::catch_unwind(|| decode_within(&bytes, wanted)) {
            Ok(Ok(is_read)) => n_read += usize::from(is_read),
            Ok(Err(wrong)) => excesses.push(format!("{n}, {name} as {wanted:?}: {wrong}")),
            Err(_) => excesses.push(format!("{n}, {name} as {wanted:?}: a panic")),
        }
    }
    assert_eq!(excesses, [""; 0], "of {n_mutated}");
    assert!(n_read > n_mutated / 20, "only {n_read} of {n_mutated} were read at all");
}

#[test]
fn what_is_over_a_limit_is_refused_in_every_form() {
    for (name, bytes) in corpus() {
        let small = ImageLimits { memory: 1 << 8, ..LIMITS };
        let is_memory = |error: &MediaError| {
            matches!(error, MediaError::TooLarge { limit: 256, got: Amount::Exactly(_), .. })
        };
        if name != "small.webp" && name != "interlaced.png" {
            let error = Picture::decode(&bytes, small, Channels::Rgb).err().unwrap();
            assert!(is_memory(&error), "{name}: {error}");
        }
        let narrow = ImageLimits { side: 1, ..LIMITS };
        if name != "interlaced.png" {
            let error = Picture::decode(&bytes, narrow, Channels::Rgb).err().unwrap();
            assert!(matches!(error, MediaError::TooLarge { limit: 1, .. }), "{name}: {error}");
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}

/// Sets the value of a tag in the first directory of a TIFF that begins with `II`.
fn set_tag(tiff: &mut [u8], tag: u16, value: u32) {
    let long = |at: usize| u32::from_le_bytes(tiff[at..at + 4].try_into().unwrap()) as usize;
    let directory = long(4);
    let n_entries = long(directory) & 0xffff;
    let entry =
        (0..n_entries).map(|n| directory + 2 + 12 * n).find(|at| long(*at) & 0xffff == usize::from(tag));
    let entry = entry.unwrap_or_else(|| panic!("no tag {tag}"));
    // One LONG in place.
    tiff[entry + 2..entry + 8].copy_from_slice(&[4, 0, 1, 0, 0, 0]);
    tiff[entry + 8..entry + 12].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn headers_that_contradict_each_other_are_refused_before_anything_is_made() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, &str, Change); 19] = [
        ("noted.webp", "a canvas wider than its picture", |b| b[24] ^= 1),
        ("noted.webp", "a picture wider than its canvas", |b| {
            let at = find(b, b"VP8L") + 9;
            b[at] ^= 1;
        }),
        ("animated.webp", "a frame that says another size than its picture", |b| {
            let at = find(b, b"ANMF") + 14;
            b[at] ^= 1;
        }),
        ("animated.webp", "a frame beyond the canvas", |b| {
            let at = find(b, b"ANMF") + 8;
            b[at] = 9;
        }),
        ("large-lossy.webp", "a first partition beyond the file", |b| {
            let at = find(b, b"VP8 ") + 8;
            b[at + 2] = 0xff;
        }),
        ("plain.png", "two headers", |b| {
            let header = b[8..33].to_vec();
            b.splice(33..33, header);
        }),
        ("animated.png", "a first frame smaller than the picture", |b| {
            let at = find(b, b"fcTL") + 11;
            b[at] -= 1;
            correct_sums(b);
        }),
        ("apple.png", "a colour type that Apple does not write", |b| {
            let at = find(b, b"IHDR") + 13;
            b[at] = 0;
            correct_sums(b);
        }),
        ("plain.gif", "codes of 12 bits", |b| {
            let at = find(b, &[0x2c, 0, 0, 0, 0, 21, 0, 13, 0]);
            let palette = if b[at + 9] & 0x80 == 0 { 0 } else { 3 << ((b[at + 9] & 7) + 1) };
            b[at + 10 + palette] = 12;
        }),
        ("plain.gif", "a frame of more rows than are stored", |b| {
            let at = find(b, &[0x2c, 0, 0, 0, 0, 21, 0, 13, 0]);
            b[at + 7] = 200;
        }),
        ("24.bmp", "more rows than are stored", |b| b[22] = 200),
        ("24.bmp", "a depth of no kind", |b| b[28] = 23),
        ("rgb-raw.tif", "more rows than are stored", |b| set_tag(b, 257, 300)),
        ("rgb-lzw.tif", "more rows than are packed", |b| {
            set_tag(b, 257, 14);
            set_tag(b, 278, 14);
        }),
        ("strips.tif", "rows for more strips than there are", |b| set_tag(b, 257, 300)),
        ("strips.tif", "strips of no rows", |b| set_tag(b, 278, 0)),
        ("tiles.tif", "tiles that are no multiple of 16", |b| set_tag(b, 322, 17)),
        ("palette-raw.tif", "a palette of one colour", |b| set_tag(b, 320, 7)),
        ("jpeg.tif", "a JPEG of another width", |b| set_tag(b, 256, 22)),
    ];
    let corpus = corpus();
    for (name, what, change) in cases {
        let (_, bytes) = corpus.iter().find(|(found, _)| found == name).unwrap();
        let mut bytes = bytes.clone();
        change(&mut bytes);
        let (decoded, peak) =
            allocator::counted(u64::MAX, || Picture::decode(&bytes, LIMITS, Channels::Rgb).err());
        let refused = matches!(decoded, Some(MediaError::Malformed(_) | MediaError::Unsupported { .. }));
        assert!(refused, "{name} with {what}: {decoded:?}");
        assert!(peak < 1 << 20, "{name} with {what} took {peak} bytes");
    }
    // A tile of four gigabytes on a page of a few pixels.
    let (_, tiles) = corpus.iter().find(|(found, _)| found == "tiles.tif").unwrap();
    let mut tiles = tiles.clone();
    set_tag(&mut tiles, 322, 65520);
    set_tag(&mut tiles, 323, 65520);
    let (decoded, peak) = allocator::counted(u64::MAX, || Picture::decode(&tiles, LIMITS, Channels::Rgb));
    assert!(matches!(decoded, Err(MediaError::TooLarge { .. })), "{decoded:?}");
    assert!(peak < 1 << 16, "{peak}");
}
