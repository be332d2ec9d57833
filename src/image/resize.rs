//! Fills a network's row from a region of a picture.
//!
//! Resizing is antialiased convolution, to within one level what Pillow's
//! `crop(box).resize(size, BILINEAR or BICUBIC)` makes. Invariant: the row depends on the upright picture alone, not on how its
//! samples were stored.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{CroppedImage, Image, ImageRef},
};

use super::{
    Channels, Picture, Rect, Size,
    geometry::{Placement, place},
    samples::{Padding, Samples},
};
use crate::{
    error::Error,
    manifest::{Filter, Fit, ImageInputSpec},
};

/// How a region of a picture becomes a row: made once from the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    size: Size,
    fit: Fit,
    filter: Filter,
    samples: Samples,
}

impl Preprocessing {
    /// Takes a spec whose `mean` and `std` hold one value, or one per channel.
    pub fn new(spec: &ImageInputSpec) -> Self {
        let size = Size { width: spec.width, height: spec.height };
        let samples = Samples::new(spec.color, spec.scale, &spec.mean, &spec.std);
        Self { size, fit: spec.fit, filter: spec.filter, samples }
    }

    /// What [`Picture::decode`] should keep.
    pub fn channels(&self) -> Channels {
        self.samples.channels()
    }

    /// The row's shape: channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels().count(), self.size.height as usize, self.size.width as usize]
    }

    /// Fills one row, channel by channel, with `region` of the upright picture. Padding is black.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a region that is empty or not within the picture.
    pub fn row(&self, picture: &Picture, region: Rect) -> Result<Vec<f32>, Error> {
        let (resized, target) = self.resized(picture, region)?;
        Ok(self.samples.row(&resized, [target.x, target.y], self.size, Padding::Black))
    }

    /// Cuts `region` out of a picture, no larger than a row shows it: the cut's own row is the region's.
    ///
    /// # Errors
    /// As [`Preprocessing::row`].
    pub fn cut(&self, picture: &Picture, region: Rect) -> Result<Picture, Error> {
        self.resized(picture, region).map(|(resized, _)| resized)
    }

    /// What a row shows of `region`, in its size, and where.
    fn resized(&self, picture: &Picture, region: Rect) -> Result<(Picture, Rect), Error> {
        let (width, height) = (picture.width(), picture.height());
        let within = |from: u32, length: u32, of: u32| {
            length > 0 && from.checked_add(length).is_some_and(|end| end <= of)
        };
        if !within(region.x, region.width, width) || !within(region.y, region.height, height) {
            let Rect { x, y, width: w, height: h } = region;
            return Err(Error::invalid(format!(
                "a region of {w} x {h} pixels at {x}, {y} is not within the picture of {width} x {height}"
            )));
        }
        let Placement { source, target } = place(region, self.size, self.fit);
        let size = Size { width: target.width, height: target.height };
        Ok((resize(picture, source, size, self.filter)?, target))
    }

    /// Fills one row, channel by channel, with the levels that `draw` gives for channel, x and y.
    pub fn drawn(&self, draw: impl Fn(usize, u32, u32) -> u8) -> Vec<f32> {
        self.samples.drawn(self.size, draw)
    }
}

/// Resizes a part of an upright picture. The part is cut out as a view of its own, since the resizer's
/// own cropping counts wrongly where an outermost weight is exactly zero (6.1.0).
pub(super) fn resize(picture: &Picture, part: Rect, target: Size, filter: Filter) -> Result<Picture, Error> {
    let Picture { samples, channels, stored, orientation } = picture;
    let (part, target) = (orientation.to_stored(part, *stored), orientation.turn(target));
    let pixel = match channels {
        Channels::Gray => PixelType::U8,
        Channels::Rgb => PixelType::U8x3,
    };
    let fault =
        |reason: &dyn std::fmt::Display| Error::Internal(format!("cannot resize a picture: {reason}"));
    let whole = ImageRef::new(stored.width, stored.height, samples, pixel).map_err(|e| fault(&e))?;
    let source = CroppedImage::new(&whole, part.x, part.y, part.width, part.height).map_err(|e| fault(&e))?;
    let mut resized = Image::new(target.width, target.height, pixel);
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(&source, &mut resized, &options).map_err(|e| fault(&e))?;
    Ok(Picture {
        samples: resized.into_vec(),
        channels: *channels,
        stored: target,
        orientation: *orientation,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{ImageLimits, golden::GOLDEN, luma, pictures},
        *,
    };
    use crate::manifest::Color;

    const LIMITS: ImageLimits = ImageLimits { pixels: 1_000_000, side: 8192, memory: 1 << 28 };

    /// Rows of plain levels: `(sample * 1 - 0) / 1`.
    fn plain(width: u32, height: u32, color: Color) -> ImageInputSpec {
        ImageInputSpec {
            name: "image".to_owned(),
            width,
            height,
            color,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
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
                assert!((got - f32::from(*expected)).abs() <= 1.0, "{golden:?}: level {at} is {got}");
            }
        }
    }

    #[test]
    fn channels_come_in_the_order_that_the_network_takes() {
        let picture =
            decoded(&pictures::raw_png(1, 1, pictures::PngKind::Rgb, 8, &[10, 20, 30]), Channels::Rgb);
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
        let picture =
            decoded(&pictures::raw_png(1, 1, pictures::PngKind::Rgb, 8, &[255, 0, 51]), Channels::Rgb);
        let row = Preprocessing::new(&spec).row(&picture, picture.whole()).unwrap();
        for (got, expected) in row.iter().zip([1.0, -0.5, 0.4]) {
            assert!((got - expected).abs() < 1e-6, "{row:?}");
        }
    }

    #[test]
    fn padding_is_black_before_it_is_normalised() {
        let spec = ImageInputSpec { fit: Fit::Contain, mean: vec![5.0], ..plain(4, 4, Color::Gray) };
        let picture =
            decoded(&pictures::raw_png(2, 1, pictures::PngKind::Gray, 8, &[90, 90]), Channels::Gray);
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
        ] {
            let stored = pictures::stored_as(&upright, orientation);
            let picture = decoded(&pictures::oriented_png(&stored, orientation), Channels::Rgb);
            let preprocessing = Preprocessing::new(&ImageInputSpec { fit, ..plain(16, 24, color) });
            let cut = preprocessing.cut(&picture, region).unwrap();
            assert!(cut.width() <= 16 && cut.height() <= 24);
            let (whole, of_cut) =
                (preprocessing.row(&picture, region).unwrap(), preprocessing.row(&cut, cut.whole()).unwrap());
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
    }
}
