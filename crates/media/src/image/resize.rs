//! Fills a network's row from a region of a picture.
//!
//! Resizing is antialiased convolution, to within one level what Pillow's `crop(box).resize(size, filter)`
//! makes. Invariant: the row depends on the upright picture alone, not on how its samples were stored; and
//! no more is computed than the row shows, however large the size is that it is cut from.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{CroppedImage, Image, ImageRef},
};

use super::{
    Channels, Filter, Fit, ImageInputSpec, Layout, Normalisation, Picture, Rect, Resampling, Size,
    geometry::{Placement, place},
    pillow::{First, Span, View, resample},
    samples::{Padding, Samples},
};
use crate::error::MediaError;

/// How a region of a picture becomes a row: made once from the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    size: Size,
    fit: Fit,
    filter: Filter,
    resampling: Resampling,
    layout: Layout,
    samples: Samples,
}

impl Preprocessing {
    /// Takes a spec whose `mean` and `std` hold one value, or one per channel.
    pub fn new(spec: &ImageInputSpec) -> Self {
        let size = Size { width: spec.width, height: spec.height };
        let samples = Samples::new(Normalisation {
            color: spec.color,
            scale: spec.scale,
            mean: &spec.mean,
            std: &spec.std,
        });
        Self {
            size,
            fit: spec.fit,
            filter: spec.filter,
            resampling: spec.resampling,
            layout: spec.layout,
            samples,
        }
    }

    /// What [`Picture::decode`] should keep.
    pub fn channels(&self) -> Channels {
        self.samples.channels()
    }

    /// Channels, height and width.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels().count(), self.size.height as usize, self.size.width as usize]
    }

    /// The row's shape: the same three in the network's layout.
    pub fn row_shape(&self) -> [usize; 3] {
        let [channels, height, width] = self.shape();
        match self.layout {
            Layout::Nchw => [channels, height, width],
            Layout::Nhwc => [height, width, channels],
        }
    }

    /// Fills one row with `region` of the upright picture. Padding is black.
    ///
    /// # Errors
    /// [`MediaError::Invalid`] for a region that is empty or not within the picture.
    pub fn row(&self, picture: &Picture, region: Rect) -> Result<Vec<f32>, MediaError> {
        let (resized, target) = self.resized(picture, region)?;
        let row = self.samples.row(&resized, [target.x, target.y], self.size, Padding::Black);
        Ok(self.laid_out(row))
    }

    /// Cuts `region` out of a picture, no larger than a row shows it: [`Preprocessing::row_of_cut`] of the cut is
    /// the region's row.
    ///
    /// # Errors
    /// As [`Preprocessing::row`].
    pub fn cut(&self, picture: &Picture, region: Rect) -> Result<Picture, MediaError> {
        self.resized(picture, region).map(|(resized, _)| resized)
    }

    /// Fills one row with what [`Preprocessing::cut`] gave.
    ///
    /// # Errors
    /// [`MediaError::Internal`] for a picture that is larger than a row.
    pub fn row_of_cut(&self, cut: &Picture) -> Result<Vec<f32>, MediaError> {
        let (width, height) = (cut.width(), cut.height());
        if width > self.size.width || height > self.size.height {
            return Err(MediaError::Internal(format!("{cut:?} was not cut for a row of {:?}", self.size)));
        }
        let halved = |rest: u32| match self.fit {
            Fit::Contain => rest / 2,
            _ => rest.div_ceil(2),
        };
        let at = [halved(self.size.width - width), halved(self.size.height - height)];
        Ok(self.laid_out(self.samples.row(cut, at, self.size, Padding::Black)))
    }

    /// Puts a row that stands channel by channel in the network's layout.
    fn laid_out(&self, row: Vec<f32>) -> Vec<f32> {
        let [channels, height, width] = self.shape();
        match self.layout {
            Layout::Nhwc if channels > 1 => {
                let plane = height * width;
                (0..plane)
                    .flat_map(|at| (0..channels).map(move |c| c * plane + at))
                    .map(|at| row[at])
                    .collect()
            }
            _ => row,
        }
    }

    /// What a row shows of `region`, in its size, and where.
    fn resized(&self, picture: &Picture, region: Rect) -> Result<(Picture, Rect), MediaError> {
        let (width, height) = (picture.width(), picture.height());
        let within = |from: u32, length: u32, of: u32| {
            length > 0 && from.checked_add(length).is_some_and(|end| end <= of)
        };
        if !within(region.x, region.width, width) || !within(region.y, region.height, height) {
            let Rect { x, y, width: w, height: h } = region;
            return Err(MediaError::invalid(format!(
                "a region of {w} x {h} pixels at {x}, {y} is not within the picture of {width} x {height}"
            )));
        }
        let Placement { source, scaled, shown, target } = place(region, self.size, self.fit);
        let scaling = Scaling { part: source, to: scaled, shown, resampling: self.resampling };
        Ok((scaling.of(picture, self.filter)?, target))
    }

    /// Fills one row, channel by channel, with the levels that `draw` gives for channel, x and y.
    pub fn drawn(&self, draw: impl Fn(usize, u32, u32) -> u8) -> Vec<f32> {
        self.laid_out(self.samples.drawn(self.size, draw))
    }
}

/// Resizes a part of an upright picture.
pub(super) fn resize(
    picture: &Picture,
    part: Rect,
    target: Size,
    filter: Filter,
) -> Result<Picture, MediaError> {
    let shown = Rect { x: 0, y: 0, width: target.width, height: target.height };
    Scaling { part, to: target, shown, resampling: Resampling::Fast }.of(picture, filter)
}

/// What of an upright picture is scaled, to which size, and what of that is wanted.
struct Scaling {
    part: Rect,
    to: Size,
    shown: Rect,
    resampling: Resampling,
}

impl Scaling {
    fn of(&self, picture: &Picture, filter: Filter) -> Result<Picture, MediaError> {
        let Picture { samples, channels, stored, orientation } = picture;
        let (part, to) = (orientation.to_stored(self.part, *stored), orientation.turn(self.to));
        let shown = orientation.to_stored(self.shown, to);
        let pixel = match channels {
            Channels::Gray => PixelType::U8,
            Channels::Rgb => PixelType::U8x3,
        };
        let fault = |reason: &dyn std::fmt::Display| {
            MediaError::Internal(format!("cannot resize a picture: {reason}"))
        };
        let whole = ImageRef::new(stored.width, stored.height, samples, pixel).map_err(|e| fault(&e))?;
        // The part is a view of its own, so that no sample beside it is read.
        let source =
            CroppedImage::new(&whole, part.x, part.y, part.width, part.height).map_err(|e| fault(&e))?;
        let size = Size { width: shown.width, height: shown.height };
        if filter == Filter::Nearest {
            let columns = nearest(part.width, to.width, shown.x, shown.width);
            let rows = nearest(part.height, to.height, shown.y, shown.height);
            let (n, stride) = (channels.count(), stored.width as usize);
            let at = |x: u32, y: u32| ((part.y + y) as usize * stride + (part.x + x) as usize) * n;
            let pixels = rows.iter().flat_map(|y| columns.iter().map(move |x| (*x, *y)));
            let samples = pixels.flat_map(|(x, y)| samples[at(x, y)..][..n].iter().copied()).collect();
            return Ok(Picture { samples, channels: *channels, stored: size, orientation: *orientation });
        }
        // Whether a sample lies within a box is a matter of the last bit, which is Pillow's here.
        if self.resampling == Resampling::Exact || filter == Filter::Box {
            let n = channels.count();
            let (from, stride) =
                ((part.y as usize * stored.width as usize + part.x as usize) * n, stored.width as usize * n);
            let view = View { samples: &samples[from..], channels: n, stride };
            let spans = [
                Span { of: part.width, to: to.width, from: shown.x, n: shown.width },
                Span { of: part.height, to: to.height, from: shown.y, n: shown.height },
            ];
            let first = self.first(orientation.is_turned());
            let samples = resample(view, spans, filter, first);
            return Ok(Picture { samples, channels: *channels, stored: size, orientation: *orientation });
        }
        let across = Window::of(part.width, to.width, shown.x, shown.width);
        let down = Window::of(part.height, to.height, shown.y, shown.height);
        let mut resized = Image::new(across.n, down.n, pixel);
        let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(kernel(filter)));
        if (across.n, down.n) != (to.width, to.height) {
            options = options.crop(across.begin, down.begin, across.length, down.length);
        }
        Resizer::new().resize(&source, &mut resized, &options).map_err(|e| fault(&e))?;
        let samples = match (across.n, down.n) == (size.width, size.height) {
            true => resized.into_vec(),
            false => {
                let n = channels.count();
                let row = |y: u32| ((down.spare + y) * across.n + across.spare) as usize * n;
                let rows = (0..size.height).map(|y| &resized.buffer()[row(y)..][..size.width as usize * n]);
                rows.collect::<Vec<_>>().concat()
            }
        };
        Ok(Picture { samples, channels: *channels, stored: size, orientation: *orientation })
    }
}

impl Scaling {
    /// The pass that Pillow makes first, among samples that may be stored turned by a quarter: the one down where it
    /// takes away more than twice as many rows as the other one columns.
    fn first(&self, is_turned: bool) -> First {
        let down = i64::from(self.part.height) - i64::from(self.to.height);
        let across = i64::from(self.part.width) - i64::from(self.to.width);
        if (down > 2 * across.max(0)) == is_turned { First::Across } else { First::Down }
    }
}

/// The resizer's name of a filter that weighs samples.
fn kernel(filter: Filter) -> FilterType {
    match filter {
        Filter::Nearest | Filter::Box => FilterType::Box,
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Hamming => FilterType::Hamming,
        Filter::Bicubic => FilterType::CatmullRom,
        Filter::Lanczos => FilterType::Lanczos3,
    }
}

/// Which of `of` samples each of the pixels `from..from + n` takes of the `to` that they are scaled to. Places are added
/// up one by one, as Pillow does, for the sums decide ties.
fn nearest(of: u32, to: u32, from: u32, n: u32) -> Vec<u32> {
    let scale = f64::from(of) / f64::from(to);
    let places = std::iter::successors(Some(scale * 0.5), |place| Some(place + scale));
    places.skip(from as usize).take(n as usize).map(|place| (place as u32).min(of - 1)).collect()
}

/// The pixels of one axis that are computed of a scaled picture, and where they come from.
struct Window {
    /// How many pixels are computed.
    n: u32,
    /// How many of them stand before those that are wanted.
    spare: u32,
    /// Where they begin among the samples, and how many samples they cover.
    begin: f64,
    length: f64,
}

impl Window {
    /// The pixels `from..from + n` of the `to` that `of` samples are scaled to. The resizer (6.1.0) reads
    /// amiss where the outermost pixel of a window lies on a sample, for it passes over the weights of zero
    /// that its neighbour needs; such a window is a pixel wider.
    fn of(of: u32, to: u32, from: u32, n: u32) -> Self {
        let scale = f64::from(of) / f64::from(to);
        let lies_on_a_sample = |pixel: u32| {
            let centre = (f64::from(pixel) + 0.5) * scale - 0.5;
            scale < 1.0 && (centre - centre.round()).abs() < 1e-6
        };
        let end = from + n;
        let spare = u32::from(from > 0 && lies_on_a_sample(from));
        let behind = u32::from(end < to && lies_on_a_sample(end - 1));
        let begin = f64::from(from - spare) * scale;
        let length = (f64::from(end + behind) * scale).min(f64::from(of)) - begin;
        Self { n: n + spare + behind, spare, begin, length }
    }
}

#[cfg(test)]
mod tests;
