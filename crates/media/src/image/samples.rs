//! Levels to numbers: which sample of a pixel a network's channel takes, and what it becomes.
//!
//! Invariant: the numbers depend on the upright picture alone, not on how its samples lie.

use super::{Channels, Color, Normalisation, Picture, Size, luma};

/// What becomes of the samples of a picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Samples {
    color: Color,
    /// For each channel in the network's order, what each of the 256 levels becomes.
    levels: Vec<[f32; 256]>,
}

/// What a row holds beside the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// The level 0, normalised.
    Black,
    /// The number 0, which is the mean that is subtracted.
    Zero,
}

impl Samples {
    pub(super) fn new(Normalisation { color, scale, mean, std }: Normalisation<'_>) -> Self {
        let pick = |values: &[f32], channel: usize, otherwise: f32| {
            values.get(channel).or(values.first()).copied().unwrap_or(otherwise)
        };
        let levels = (0..channels(color).count())
            .map(|channel| {
                let (mean, std) = (pick(mean, channel, 0.0), pick(std, channel, 1.0));
                std::array::from_fn(|level| (level as f32 * scale - mean) / std)
            })
            .collect();
        Self { color, levels }
    }

    /// What a picture should hold.
    pub(super) fn channels(&self) -> Channels {
        channels(self.color)
    }

    /// Fills a row of `size`, channel by channel, with `picture`, which has to fit in, from this upper
    /// left corner on, and padding around it.
    pub(super) fn row(
        &self,
        picture: &Picture,
        [left, top]: [u32; 2],
        size: Size,
        padding: Padding,
    ) -> Vec<f32> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let walk = picture.orientation.walk(picture.stored);
        let plane = size.pixels() as usize;
        let empty = |levels: &[f32; 256]| match padding {
            Padding::Black => levels[0],
            Padding::Zero => 0.0,
        };
        let mut row: Vec<f32> =
            self.levels.iter().flat_map(|levels| std::iter::repeat_n(empty(levels), plane)).collect();
        for (channel, (levels, plane)) in self.levels.iter().zip(row.chunks_exact_mut(plane)).enumerate() {
            let sample = self.sampler(picture.channels, channel);
            let lines = plane.chunks_exact_mut(size.width as usize);
            for (y, line) in lines.skip(top as usize).take(height).enumerate() {
                let start = walk.origin + y as isize * walk.down;
                let line = &mut line[left as usize..][..width];
                for (x, value) in line.iter_mut().enumerate() {
                    let at = (start + x as isize * walk.right) as usize;
                    *value = levels[usize::from(sample(&picture.samples, at))];
                }
            }
        }
        row
    }

    /// Fills a row of `size`, channel by channel, with the levels that `draw` gives for channel, x and y.
    pub(super) fn drawn(&self, size: Size, draw: impl Fn(usize, u32, u32) -> u8) -> Vec<f32> {
        let draw = &draw;
        let plane = |(channel, levels): (usize, &'_ [f32; 256])| {
            let levels = *levels;
            let line = move |y| (0..size.width).map(move |x| levels[usize::from(draw(channel, x, y))]);
            (0..size.height).flat_map(line)
        };
        self.levels.iter().enumerate().flat_map(plane).collect()
    }

    /// How a pixel's sample for one of the network's channels is found among those that are held.
    fn sampler(&self, held: Channels, channel: usize) -> fn(&[u8], usize) -> u8 {
        match (held, self.color, channel) {
            (Channels::Gray, _, _) => |pixels, at| pixels[at],
            (Channels::Rgb, Color::Gray, _) => {
                |pixels, at| luma(pixels[at * 3], pixels[at * 3 + 1], pixels[at * 3 + 2])
            }
            (Channels::Rgb, Color::Rgb, 0) | (Channels::Rgb, Color::Bgr, 2) => |pixels, at| pixels[at * 3],
            (Channels::Rgb, Color::Rgb, 2) | (Channels::Rgb, Color::Bgr, 0) => {
                |pixels, at| pixels[at * 3 + 2]
            }
            (Channels::Rgb, _, _) => |pixels, at| pixels[at * 3 + 1],
        }
    }
}

fn channels(color: Color) -> Channels {
    match color {
        Color::Gray => Channels::Gray,
        Color::Rgb | Color::Bgr => Channels::Rgb,
    }
}
