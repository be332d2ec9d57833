//! Rows of pictures made by code, and what Pillow makes of them.

use lepton_testkit::pictures;
use proptest::prelude::*;

use super::{
    super::{Color, ImageLimits, golden::GOLDEN, luma},
    *,
};

const LIMITS: ImageLimits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };

/// Rows of plain levels: `(sample * 1 - 0) / 1`.
fn plain(width: u32, height: u32, color: Color) -> ImageInputSpec {
    ImageInputSpec {
        name: "image".to_owned(),
        width,
        height,
        color,
        layout: Layout::Nchw,
        fit: Fit::Stretch,
        filter: Filter::Bilinear,
        resampling: Resampling::Fast,
        scale: 1.0,
        mean: vec![0.0],
        std: vec![1.0],
    }
}

/// The picture on which the golden numbers were computed.
fn formula(width: u32, height: u32) -> Picture {
    let sample = |x: u32, y: u32| ((x * 7 + y * 13 + x * y % 31 * 5) % 256) as u8;
    let samples = (0..height).flat_map(|y| (0..width).map(move |x| sample(x, y))).collect();
    let stored = Size { width, height };
    Picture { samples, channels: Channels::Gray, stored, orientation: Default::default() }
}

fn decoded(bytes: &[u8], channels: Channels) -> Picture {
    Picture::decode(bytes, LIMITS, channels).unwrap()
}

#[test]
fn resizing_agrees_with_pillow_within_one_level() {
    for golden in GOLDEN {
        let picture = formula(golden.from.0, golden.from.1);
        let spec = ImageInputSpec {
            filter: golden.filter,
            fit: golden.fit,
            ..plain(golden.to.0, golden.to.1, Color::Gray)
        };
        let row = Preprocessing::new(&spec).row(&picture, picture.whole()).unwrap();
        assert_eq!(row.len(), golden.levels.len());
        for (at, (got, expected)) in row.iter().zip(golden.levels).enumerate() {
            // The lobes of this one are steep.
            let most = if golden.filter == Filter::Lanczos { 2.0 } else { 1.0 };
            assert!((got - f32::from(*expected)).abs() <= most, "{golden:?}: level {at} is {got}");
        }
    }
}

#[test]
fn exact_resampling_is_pillow_s_to_the_bit() {
    for golden in GOLDEN.iter().filter(|golden| golden.fit != Fit::Cover) {
        let picture = formula(golden.from.0, golden.from.1);
        let spec = ImageInputSpec {
            filter: golden.filter,
            fit: golden.fit,
            resampling: Resampling::Exact,
            ..plain(golden.to.0, golden.to.1, Color::Gray)
        };
        let row = Preprocessing::new(&spec).row(&picture, picture.whole()).unwrap();
        let levels: Vec<f32> = golden.levels.iter().map(|level| f32::from(*level)).collect();
        assert_eq!(row, levels, "{golden:?}");
    }
}

#[test]
fn exact_resampling_knows_how_a_picture_was_stored() {
    let upright = pictures::smooth(64, 40);
    let spec = ImageInputSpec {
        fit: Fit::ShortestSide(20),
        filter: Filter::Bicubic,
        resampling: Resampling::Exact,
        ..plain(16, 18, Color::Rgb)
    };
    let preprocessing = Preprocessing::new(&spec);
    let region = Rect { x: 6, y: 2, width: 50, height: 30 };
    let expected = preprocessing.row(&decoded(&pictures::png(&upright), Channels::Rgb), region).unwrap();
    for orientation in 2..=8 {
        let stored = pictures::stored_as(&upright, orientation);
        let picture = decoded(&pictures::oriented_png(&stored, orientation), Channels::Rgb);
        let row = preprocessing.row(&picture, region).unwrap();
        assert_eq!(row, expected, "orientation {orientation}");
    }
}

#[test]
fn channels_come_in_the_order_that_the_network_takes() {
    let picture = decoded(&pictures::raw_png(1, 1, pictures::PngKind::Rgb, 8, &[10, 20, 30]), Channels::Rgb);
    let row = |color| Preprocessing::new(&plain(1, 1, color)).row(&picture, picture.whole()).unwrap();
    assert_eq!(row(Color::Rgb), [10.0, 20.0, 30.0]);
    assert_eq!(row(Color::Bgr), [30.0, 20.0, 10.0]);
    assert_eq!(row(Color::Gray), [f32::from(luma(10, 20, 30))]);
}

#[test]
fn a_grey_picture_fills_every_channel() {
    let picture = decoded(&pictures::raw_png(1, 1, pictures::PngKind::Gray, 8, &[90]), Channels::Rgb);
    let row = Preprocessing::new(&plain(1, 1, Color::Rgb)).row(&picture, picture.whole()).unwrap();
    assert_eq!(row, [90.0, 90.0, 90.0]);
}

#[test]
fn levels_are_normalised_by_channel() {
    let spec = ImageInputSpec {
        scale: 1.0 / 255.0,
        mean: vec![0.5, 0.25, 0.0],
        std: vec![0.5],
        ..plain(1, 1, Color::Rgb)
    };
    let picture = decoded(&pictures::raw_png(1, 1, pictures::PngKind::Rgb, 8, &[255, 0, 51]), Channels::Rgb);
    let row = Preprocessing::new(&spec).row(&picture, picture.whole()).unwrap();
    for (got, expected) in row.iter().zip([1.0, -0.5, 0.4]) {
        assert!((got - expected).abs() < 1e-6, "{row:?}");
    }
}

#[test]
fn padding_is_black_before_it_is_normalised() {
    let spec = ImageInputSpec { fit: Fit::Contain, mean: vec![5.0], ..plain(4, 4, Color::Gray) };
    let picture = decoded(&pictures::raw_png(2, 1, pictures::PngKind::Gray, 8, &[90, 90]), Channels::Gray);
    let row = Preprocessing::new(&spec).row(&picture, picture.whole()).unwrap();
    let (black, gray) = ([-5.0; 4], [85.0; 4]);
    assert_eq!(row, [black, gray, gray, black].concat());
}

#[test]
fn pictures_of_every_orientation_stand_upright_in_every_format() {
    let upright = pictures::smooth(64, 40);
    let spec = ImageInputSpec { fit: Fit::Cover, ..plain(16, 24, Color::Rgb) };
    let preprocessing = Preprocessing::new(&spec);
    let region = Rect { x: 6, y: 2, width: 50, height: 30 };
    let plain = decoded(&pictures::png(&upright), Channels::Rgb);
    let expected = preprocessing.row(&plain, region).unwrap();
    for orientation in 1..=8 {
        let stored = pictures::stored_as(&upright, orientation);
        let files = [
            (pictures::oriented_jpeg(&stored, orientation), 8.0),
            (pictures::oriented_png(&stored, orientation), 1.0),
            (pictures::extended_webp(&pictures::webp(&stored), Some(orientation)), 1.0),
        ];
        for (bytes, tolerance) in files {
            let picture = decoded(&bytes, Channels::Rgb);
            assert_eq!((picture.width(), picture.height()), (64, 40), "orientation {orientation}");
            let row = preprocessing.row(&picture, region).unwrap();
            let worst = row.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= tolerance, "orientation {orientation}: {worst} levels");
        }
    }
}

#[test]
fn the_row_of_a_cut_is_the_row_of_its_region() {
    let upright = pictures::smooth(64, 40);
    let region = Rect { x: 6, y: 2, width: 50, height: 30 };
    for (orientation, fit, color) in [
        (1, Fit::Cover, Color::Rgb),
        (6, Fit::Contain, Color::Gray),
        (7, Fit::Stretch, Color::Bgr),
        (8, Fit::Cover, Color::Gray),
        (1, Fit::ShortestSide(30), Color::Rgb),
        (5, Fit::ShortestSide(9), Color::Rgb),
        (4, Fit::StretchTo { width: 40, height: 23 }, Color::Bgr),
        (2, Fit::Unscaled, Color::Rgb),
    ] {
        let stored = pictures::stored_as(&upright, orientation);
        let picture = decoded(&pictures::oriented_png(&stored, orientation), Channels::Rgb);
        let preprocessing = Preprocessing::new(&ImageInputSpec { fit, ..plain(16, 24, color) });
        let cut = preprocessing.cut(&picture, region).unwrap();
        assert!(cut.width() <= 16 && cut.height() <= 24);
        let (whole, of_cut) =
            (preprocessing.row(&picture, region).unwrap(), preprocessing.row_of_cut(&cut).unwrap());
        assert_eq!(whole, of_cut, "orientation {orientation}, {fit:?}");
    }
}

#[test]
fn a_region_outside_the_picture_is_refused_with_the_numbers() {
    let picture = formula(30, 20);
    let preprocessing = Preprocessing::new(&plain(4, 4, Color::Gray));
    for (x, y, width, height) in
        [(0, 0, 31, 20), (0, 1, 30, 20), (30, 0, 1, 1), (0, 0, 0, 5), (u32::MAX, 0, 2, 2)]
    {
        let error = preprocessing.row(&picture, Rect { x, y, width, height }).unwrap_err();
        assert!(error.to_string().contains("30 x 20"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_region_of_any_picture_fills_a_row_with_its_own_levels(
        width in 1u32..90, height in 1u32..90, a in 0.0..1.0, b in 0.0..1.0, c in 0.0..1.0, d in 0.0..1.0,
        to_width in 1u32..40, to_height in 1u32..40,
    ) {
        let picture = Picture {
            samples: vec![100; (width * height) as usize],
            channels: Channels::Gray,
            stored: Size { width, height },
            orientation: Default::default(),
        };
        let part = |share: f64, of: u32| (share * f64::from(of)) as u32;
        let (x, y) = (part(a, width), part(b, height));
        let region = Rect { x, y, width: 1 + part(c, width - x - 1), height: 1 + part(d, height - y - 1) };
        for fit in [Fit::Cover, Fit::Stretch, Fit::Contain] {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let spec = ImageInputSpec { fit, filter, ..plain(to_width, to_height, Color::Gray) };
                let row = Preprocessing::new(&spec).row(&picture, region).unwrap();
                prop_assert_eq!(row.len(), (to_width * to_height) as usize);
                let padding = if fit == Fit::Contain { 0.0 } else { 100.0 };
                prop_assert!(row.iter().all(|level| *level == 100.0 || *level == padding));
            }
        }
    }

    #[test]
    fn a_window_of_a_scaled_picture_is_what_the_whole_of_it_shows_there(
        width in 1u32..60, height in 1u32..60, to_width in 1u32..90, to_height in 1u32..90,
        a in 0.0..1.0, b in 0.0..1.0, c in 0.0..1.0, d in 0.0..1.0,
    ) {
        let picture = formula(width, height);
        let part = |share: f64, of: u32| (share * f64::from(of)) as u32;
        let (x, y) = (part(a, to_width), part(b, to_height));
        let shown = Rect { x, y, width: 1 + part(c, to_width - x - 1), height: 1 + part(d, to_height - y - 1) };
        let to = Size { width: to_width, height: to_height };
        for filter in [Filter::Nearest, Filter::Box, Filter::Bilinear, Filter::Hamming, Filter::Bicubic, Filter::Lanczos] {
            for (resampling, most) in [(Resampling::Fast, 2), (Resampling::Exact, 0)] {
                let scaled = |shown| Scaling { part: picture.whole(), to, shown, resampling }.of(&picture, filter).unwrap();
                let (whole, window) = (scaled(Rect { x: 0, y: 0, width: to_width, height: to_height }), scaled(shown));
                prop_assert_eq!((window.width(), window.height()), (shown.width, shown.height));
                for row in 0..shown.height {
                    for column in 0..shown.width {
                        let here = window.samples[(row * shown.width + column) as usize];
                        let there = whole.samples[((y + row) * to_width + x + column) as usize];
                        prop_assert!(here.abs_diff(there) <= most, "{:?} {:?}: {} for {}", filter, resampling, here, there);
                    }
                }
            }
        }
    }
}
