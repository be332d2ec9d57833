//! The decoder held to libjpeg-turbo's values over every kind of file, and to refusals that name what is wrong.

use flate2::Crc;
use lepton_testkit::{
    jpegs::{self, Coding as Kind, Recipe},
    pictures,
};

use super::{super::layout::PixelLayout, *};

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
    PixelLayout::Rgb.append(&colours.samples, Channels::Gray, &mut lumas);
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
        PixelLayout::Rgb.append(drawing.as_raw(), wanted, &mut expected);
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
fn metadata_change_nothing() {
    let plain = pictures::jpeg(&pictures::draw(40, 30));
    let mut noted = plain.clone();
    for code in [0xe1, 0xe2, 0xed, 0xfe] {
        noted = pictures::insert_jpeg_segment(&noted, code, b"http://ns.adobe.com/xmp/extension/\0");
    }
    assert!(decode(&noted, LIMITS, Channels::Rgb).unwrap() == decode(&plain, LIMITS, Channels::Rgb).unwrap());
}

#[test]
fn damaged_data_is_refused_rather_than_filled_with_grey() {
    let whole = pictures::jpeg(&pictures::draw(64, 64));
    let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14;
    let mut bytes = whole.clone();
    // No code of a JPEG is all ones, and 0xff is stuffed with 0.
    bytes[scan..scan + 40].copy_from_slice(&[0xff, 0].repeat(20));
    let error = decode(&bytes, LIMITS, Channels::Rgb).err().unwrap();
    assert!(matches!(error, MediaError::Malformed(_)), "{error}");
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
        assert!(matches!(decode(&bytes, LIMITS, Channels::Rgb), Err(MediaError::Unsupported { .. })));
    }
}

fn levels(bytes: &[u8]) -> Result<Vec<u8>, MediaError> {
    decode(bytes, LIMITS, Channels::Rgb).map(|picture| picture.samples)
}

/// The checksum of zlib, as Python writes it.
fn crc32(bytes: &[u8]) -> String {
    let mut crc = Crc::new();
    crc.update(bytes);
    format!("{:08x}", crc.sum())
}

/// The red, green and blue planes of a picture; a grey one has the same three times.
fn planes(picture: &Picture) -> Vec<u8> {
    let n = picture.channels.count();
    (0..3).flat_map(|plane| picture.samples.iter().skip(plane.min(n - 1)).step_by(n).copied()).collect()
}

#[test]
fn every_kind_of_file_is_what_libjpeg_makes_of_it() {
    for line in include_str!("../../../golden/jpegs.txt").lines().filter(|line| !line.starts_with('#')) {
        let [seed, file, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let recipe = Recipe::random(seed.parse().unwrap());
        let bytes = recipe.encode();
        assert_eq!(
            crc32(&bytes),
            file,
            "recipes have changed: make jpegs.txt again with tests/differential/jpeg.py --golden"
        );
        match decode(&bytes, LIMITS, Channels::Rgb) {
            Ok(picture) => {
                assert_eq!(crc32(&planes(&picture)), expected, "{recipe:?}");
                let gray = decode(&bytes, LIMITS, Channels::Gray).unwrap();
                assert_eq!(gray.samples.len() as u64, picture.stored.pixels(), "{recipe:?}");
            }
            Err(MediaError::Unsupported { .. }) => assert_eq!(expected, "refused", "{recipe:?}"),
            Err(error) => panic!("{error}: {recipe:?}"),
        }
    }
}

/// Files of every coding with one scan and with several.
fn recipes() -> Vec<Recipe> {
    let kinds = [(Kind::Baseline, 1), (Kind::Baseline, 3), (Kind::Progressive, 0)];
    let found = kinds.map(|(coding, n_scans)| {
        let fits = |recipe: &Recipe| {
            recipe.coding == coding
                && recipe.components.len() == 3
                && (n_scans == 0 || recipe.scans.len() == n_scans)
                && recipe.width.min(recipe.height) > 30
                && decode(&recipe.encode(), LIMITS, Channels::Rgb).is_ok()
        };
        (0..5000).map(Recipe::random).find(fits).unwrap()
    });
    found.into()
}

#[test]
fn a_file_cut_off_anywhere_is_refused_as_that() {
    for recipe in recipes() {
        let whole = recipe.encode();
        for length in (3..whole.len()).filter(|length| length % 37 == 0 || length + 30 > whole.len()) {
            let error = levels(&whole[..length]).unwrap_err();
            assert!(
                error.to_string().contains("cut off"),
                "{length} of {}: {error}, {recipe:?}",
                whole.len()
            );
        }
    }
}

#[test]
fn a_trailer_may_stand_in_place_of_the_end_marker() {
    for recipe in recipes() {
        let whole = recipe.encode();
        let expected = levels(&whole).unwrap();
        let scans = &whole[..whole.len() - 2];
        let trailers: [&[u8]; 3] = [
            b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_DataSEFHk\0\0\0SEFT",
            b"\xff\xfe\0\x04ab",
            b"\0\xff\xe1\xff\xff",
        ];
        for trailer in trailers {
            assert!(levels(&[scans, trailer].concat()).unwrap() == expected, "{recipe:?}");
        }
        assert!(levels(&[&whole, trailers[0]].concat()).unwrap() == expected);
    }
}

#[test]
fn what_says_nothing_of_the_picture_changes_nothing() {
    for recipe in recipes() {
        let whole = recipe.encode();
        let expected = levels(&whole).unwrap();
        let (width, height) = (recipe.width as u16, recipe.height as u16);
        let [h0, h1] = height.to_be_bytes();
        let additions: [&[u8]; 7] = [
            b"\xff\xfe\0\x06\xff\xc0\xff\xd9", // a comment that looks like markers
            b"\xff\xed\0\x04ab",               // APP13
            b"\xff\xff\xff\xfe\0\x02",         // fill bytes
            b"\0\0\0",                         // padding
            b"\xff\xd3\0\0",                   // a restart marker out of place
            &[0xff, 0xdc, 0, 4, h0, h1],       // DNL with the height of the frame
            b"\xff\xf0\0\x02",                 // an extension
        ];
        let marks = scan_markers(&whole);
        for addition in additions {
            for at in marks.iter().copied().chain([whole.len() - 2]) {
                let file = [&whole[..at], addition, &whole[at..]].concat();
                let found = levels(&file);
                assert!(found.as_ref() == Ok(&expected), "{addition:?} at {at}: {:?}, {width}", found.err());
            }
        }
    }
}

/// Where scans begin.
fn scan_markers(file: &[u8]) -> Vec<usize> {
    Segments::new(file)
        .filter(|segment| segment.code == SOS)
        .map(|segment| segment.end - segment.content.len() - 4)
        .collect()
}

#[test]
fn frames_of_webcams_have_the_standard_tables() {
    let whole = pictures::jpeg(&pictures::draw(61, 47));
    let tables = Segments::new(&whole).filter(|segment| segment.code == DHT);
    let mut without = whole.clone();
    for segment in tables.collect::<Vec<_>>().into_iter().rev() {
        without.drain(segment.end - segment.content.len() - 4..segment.end);
    }
    assert!(without.len() < whole.len() - 400);
    assert!(levels(&without).unwrap() == levels(&whole).unwrap());
}

#[test]
fn colours_are_told_by_jfif_first_then_by_adobe_then_by_names() {
    let ycc = |segments: &[(u8, Vec<u8>)], names: &[u8]| {
        let mut recipe = Recipe::plain(24, 16, &[(1, 1); 3]);
        recipe.segments = segments.to_vec();
        recipe.components.iter_mut().zip(names).for_each(|(component, name)| component.id = *name);
        let picture = decode(&recipe.encode(), LIMITS, Channels::Rgb).unwrap();
        let as_rgb = recipe.encode();
        let header = Header::read(&as_rgb, LIMITS).unwrap();
        assert_eq!(picture.channels, Channels::Rgb);
        header.space == color::Space::YCbCr
    };
    let (jfif, adobe) = (jpegs::jfif, jpegs::adobe);
    assert!(ycc(&[jfif(), adobe(0)], &[1, 2, 3]));
    assert!(ycc(&[adobe(0), jfif()], &[1, 2, 3]));
    assert!(ycc(&[jfif()], b"RGB"));
    assert!(!ycc(&[], b"RGB"));
    assert!(!ycc(&[adobe(0)], &[1, 2, 3]));
    assert!(ycc(&[adobe(1)], b"RGB"));
    assert!(ycc(&[adobe(2)], &[1, 2, 3]));
    assert!(ycc(&[adobe(7)], &[1, 2, 3]));
    assert!(ycc(&[], &[0, 1, 2]));
}

#[test]
fn more_than_twenty_scans_are_refused_by_their_number() {
    let mut recipe = Recipe::plain(16, 16, &[(1, 1); 3]);
    recipe.coding = Kind::Progressive;
    let scan = |band, bits| jpegs::Scan { components: vec![0], band, bits };
    recipe.scans = vec![jpegs::Scan { components: vec![0, 1, 2], band: (0, 0), bits: (0, 0) }];
    recipe.scans.extend((0..19).map(|at| scan((1 + 3 * at, 3 + 3 * at), (0, 0))));
    assert!(levels(&recipe.encode()).is_ok());
    recipe.scans.push(scan((60, 63), (0, 0)));
    let error = levels(&recipe.encode()).unwrap_err();
    assert_eq!(error.to_string(), "scans of a JPEG image: 21 is more than the 20 allowed");
}

#[test]
fn what_libjpeg_refuses_is_refused_by_name() {
    let refused = |factors: &[(usize, usize)]| levels(&Recipe::plain(24, 16, factors).encode()).unwrap_err();
    let error = refused(&[(3, 1), (2, 1), (1, 1)]);
    assert!(
        matches!(error, MediaError::Unsupported { .. }) && error.to_string().contains("3:2:1 across"),
        "{error}"
    );
    let error = refused(&[(1, 1); 2]);
    assert!(
        matches!(error, MediaError::Unsupported { .. }) && error.to_string().contains("2 components"),
        "{error}"
    );
    let error = refused(&[(4, 2), (2, 1), (2, 1)]);
    assert!(error.to_string().contains("10 blocks"), "{error}");
}

#[test]
fn damaged_files_are_answered_or_refused_but_never_more() {
    for recipe in recipes() {
        let whole = recipe.encode();
        for at in (2..whole.len()).step_by(1 + whole.len() / 150) {
            for bits in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= bits;
                for wanted in [Channels::Rgb, Channels::Gray] {
                    let answer = decode(&bytes, LIMITS, wanted);
                    assert!(!matches!(answer, Err(MediaError::Internal(_))), "byte {at}: {:?}", answer.err());
                }
            }
        }
    }
}

#[test]
fn a_plan_knows_what_several_scans_hold() {
    let needs = |recipe: &Recipe, wanted| {
        let header = Header::read(&recipe.encode(), LIMITS).unwrap();
        Plan::new(&header, wanted).n_bytes(&header)
    };
    // 13 rows of 13 units, of 4, 1 and 1 blocks.
    let mut recipe = Recipe::plain(200, 200, &[(2, 2), (1, 1), (1, 1)]);
    let at_once = [Channels::Rgb, Channels::Gray].map(|wanted| needs(&recipe, wanted));
    // Planes are held whole where components come one after the other, and three rows of units elsewhere.
    recipe.scans = (0..3).map(|at| jpegs::Scan { components: vec![at], ..recipe.scans[0].clone() }).collect();
    assert_eq!(needs(&recipe, Channels::Rgb), at_once[0] + 10 * 13 * 6 * 64);
    assert_eq!(needs(&recipe, Channels::Gray), at_once[1] + 10 * 13 * 4 * 64);
    // Coefficients have two bytes, and grey needs those of one component.
    recipe.coding = Kind::Progressive;
    recipe.scans = vec![jpegs::Scan { components: vec![0, 1, 2], band: (0, 0), bits: (0, 0) }];
    assert_eq!(needs(&recipe, Channels::Rgb), at_once[0] + 13 * 13 * 6 * 128);
    assert_eq!(needs(&recipe, Channels::Gray), at_once[1] + 13 * 13 * 4 * 128);
}
