//! Levels of a picture that is dark, pale or hazy, spread over the whole range.
//!
//! Invariant: a picture that uses most of the range stays as it is, to the bit.

use super::{Channels, Picture, luma};

/// Luminance between the first and the last percentile below which levels are spread. Of photographs in
/// ordinary light hardly any has less than 160; `training/detector_looks.py` measures what spreading gains.
const NARROW: usize = 128;

/// What a picture has at least that shows more than the noise of its camera.
const EMPTY: usize = 4;

impl Picture {
    /// Spreads the levels between the first and the 99th percentile of luminance over 0 to 255, in all channels
    /// alike, where they are close together.
    pub(super) fn spread_levels(&mut self) {
        let Some((darkest, brightest)) = self.range() else { return };
        let spread = brightest - darkest;
        if !(EMPTY..NARROW).contains(&spread) {
            return;
        }
        let spread_to = |level: usize| {
            let above = level.saturating_sub(darkest).min(spread);
            ((above * 255 + spread / 2) / spread) as u8
        };
        let table: [u8; 256] = std::array::from_fn(spread_to);
        self.samples.iter_mut().for_each(|sample| *sample = table[usize::from(*sample)]);
    }

    /// The first and the 99th percentile of luminance; nothing where there is no pixel.
    fn range(&self) -> Option<(usize, usize)> {
        let mut counts = [0usize; 256];
        match self.channels {
            Channels::Gray => self.samples.iter().for_each(|level| counts[usize::from(*level)] += 1),
            Channels::Rgb => self.samples.chunks_exact(3).for_each(|pixel| {
                counts[usize::from(luma(pixel[0], pixel[1], pixel[2]))] += 1;
            }),
        }
        let n_pixels: usize = counts.iter().sum();
        let least = n_pixels.div_ceil(100);
        let darkest = percentile(counts.iter().copied(), least)?;
        Some((darkest, 255 - percentile(counts.iter().rev().copied(), least)?))
    }
}

/// The first position up to which there are at least this many; `None` where there are none at all.
fn percentile(counts: impl Iterator<Item = usize>, least: usize) -> Option<usize> {
    let mut sums = counts.scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    sums.position(|sum| sum > 0 && sum >= least)
}

#[cfg(test)]
mod tests {
    use super::{super::Size, *};

    fn grey(levels: Vec<u8>) -> Picture {
        let stored = Size { width: levels.len() as u32, height: 1 };
        Picture { samples: levels, channels: Channels::Gray, stored, orientation: Default::default() }
    }

    fn spread(mut picture: Picture) -> Vec<u8> {
        picture.spread_levels();
        picture.samples
    }

    #[test]
    fn narrow_levels_fill_the_range_and_keep_their_order() {
        let dark: Vec<u8> = (0..200).map(|at| at / 10 + 5).collect();
        let bright = spread(grey(dark.clone()));
        assert_eq!((bright[0], bright[199]), (0, 255));
        assert!(
            bright.is_sorted()
                && bright
                    .windows(2)
                    .zip(dark.windows(2))
                    .all(|(new, old)| (new[0] == new[1]) == (old[0] == old[1]))
        );
    }

    #[test]
    fn one_pixel_in_a_hundred_does_not_set_the_range() {
        let mut dark: Vec<u8> = (0..=198).map(|at| 10 + at / 10).collect();
        dark.push(255);
        assert_eq!(spread(grey(dark))[198], 255);
    }

    #[test]
    fn a_picture_that_uses_the_range_or_shows_nothing_stays_as_it_is() {
        for picture in [
            (0..=255).collect::<Vec<u8>>(),
            (40..=180).collect(),
            vec![7; 500],
            (0..500).map(|at| 20 + (at % 4) as u8).collect(),
            vec![9],
        ] {
            assert_eq!(spread(grey(picture.clone())), picture);
        }
    }

    #[test]
    fn colours_keep_their_hue() {
        let pixels: Vec<u8> = (0..100).flat_map(|at| [at / 5, at / 10, 0]).collect();
        let stored = Size { width: 100, height: 1 };
        let picture =
            Picture { samples: pixels, channels: Channels::Rgb, stored, orientation: Default::default() };
        let spread = spread(picture);
        let [.., red, green, blue] = *spread.as_slice() else { panic!("no pixel") };
        assert!(red == 255 && green > 100 && blue == 0, "{red} {green} {blue}");
    }
}
