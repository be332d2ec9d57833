//! Feature maps with their channels last, in a border of zeros.
//!
//! Invariant: pixel (y, x) of a map begins at [`Layout::at`]; the border holds zeros, so that a
//! convolution reads its padding from there and never asks where a picture ends.

use super::{Precision, aligned::Plain, bf16::Bf16};
#[cfg(target_arch = "x86_64")]
use super::{
    aligned::{same, same_mut},
    moves,
};

/// What a map is made of.
pub trait Number: Plain {
    const PRECISION: Precision;

    /// Rounds to the nearest.
    fn of(x: f32) -> Self;

    /// Widens it, exactly.
    fn wide(self) -> f32;
}

impl Number for f32 {
    const PRECISION: Precision = Precision::F32;

    fn of(x: f32) -> Self {
        x
    }

    fn wide(self) -> f32 {
        self
    }
}

impl Number for Bf16 {
    const PRECISION: Precision = Precision::Bf16;

    fn of(x: f32) -> Self {
        Self::of(x)
    }

    fn wide(self) -> f32 {
        self.wide()
    }
}

/// How the maps of a picture lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    pub n_channels: usize,
    pub height: usize,
    pub width: usize,
    /// Pixels of zeros above and below, to the left and to the right.
    pub border: [usize; 2],
    /// Numbers from one pixel to the next, at least one for each channel.
    pub pixel: usize,
}

impl Layout {
    /// Numbers from one row of pixels to the next.
    pub fn row(&self) -> usize {
        (self.width + 2 * self.border[1]) * self.pixel
    }

    /// Numbers of one picture.
    pub fn picture(&self) -> usize {
        (self.height + 2 * self.border[0]) * self.row()
    }

    /// Numbers of one picture, `None` where they are more than a `usize` holds.
    pub fn checked_picture(&self) -> Option<usize> {
        let side = |axis: usize, extent: usize| self.border[axis].checked_mul(2)?.checked_add(extent);
        side(0, self.height)?.checked_mul(side(1, self.width)?)?.checked_mul(self.pixel)
    }

    /// Where pixel (y, x) begins.
    pub fn at(&self, y: usize, x: usize) -> usize {
        (y + self.border[0]) * self.row() + (x + self.border[1]) * self.pixel
    }

    /// Lays pictures [n, channels, height, width] out so; `maps` is zero before.
    ///
    /// # Panics
    /// Where the lengths are not those of one `n`.
    pub fn lay_out<N: Number>(&self, pictures: &[f32], maps: &mut [N]) {
        let n_numbers = self.n_channels * self.height * self.width;
        assert!(pictures.len() * self.picture() == maps.len() * n_numbers, "whole pictures");
        let whole = pictures.chunks_exact(n_numbers.max(1));
        for (picture, maps) in whole.zip(maps.chunks_exact_mut(self.picture())) {
            #[cfg(target_arch = "x86_64")]
            if moves::are_usable() {
                match N::PRECISION {
                    Precision::F32 => moves::lay_out::<f32>(self, picture, same_mut(maps)),
                    Precision::Bf16 => moves::lay_out::<Bf16>(self, picture, same_mut(maps)),
                }
                continue;
            }
            for (at, from) in self.places().zip(picture) {
                maps[at] = N::of(*from);
            }
        }
    }

    /// Undoes [`Layout::lay_out`].
    ///
    /// # Panics
    /// Where the lengths are not those of one `n`.
    pub fn gather<N: Number>(&self, maps: &[N], pictures: &mut [f32]) {
        let n_numbers = self.n_channels * self.height * self.width;
        assert!(pictures.len() * self.picture() == maps.len() * n_numbers, "whole pictures");
        let whole = pictures.chunks_exact_mut(n_numbers.max(1));
        for (picture, maps) in whole.zip(maps.chunks_exact(self.picture())) {
            #[cfg(target_arch = "x86_64")]
            if moves::are_usable() {
                match N::PRECISION {
                    Precision::F32 => moves::gather::<f32>(self, same(maps), picture),
                    Precision::Bf16 => moves::gather::<Bf16>(self, same(maps), picture),
                }
                continue;
            }
            for (at, to) in self.places().zip(picture) {
                *to = maps[at].wide();
            }
        }
    }

    /// Where the numbers of a picture [channels, height, width] are in its maps.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let layout = *self;
        let rows =
            (0..layout.n_channels).flat_map(move |channel| (0..layout.height).map(move |y| (channel, y)));
        rows.flat_map(move |(channel, y)| (0..layout.width).map(move |x| layout.at(y, x) + channel))
    }

    /// Sums each channel over its pixels: `maps` of n pictures to `sums` [n, channels].
    ///
    /// # Panics
    /// Where the lengths are not those of one `n`.
    pub fn sum<N: Number>(&self, maps: &[N], sums: &mut [f32]) {
        assert!(sums.len() * self.picture() == maps.len() * self.n_channels, "whole pictures");
        sums.fill(0.0);
        for (sums, maps) in sums.chunks_exact_mut(self.n_channels).zip(maps.chunks_exact(self.picture())) {
            for y in 0..self.height {
                let row = &maps[self.at(y, 0)..][..self.width * self.pixel];
                for pixel in row.chunks_exact(self.pixel) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x.wide());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::aligned::Aligned, *};

    /// Lays pictures out and gathers them again.
    fn check<N: Number + PartialEq + std::fmt::Debug>(layout: Layout, n_pictures: usize) {
        let numbers = |i: usize| N::of((i % 251) as f32 / 16.0 - 7.0 + (i % 7) as f32 / 1024.0);
        let n = layout.n_channels * layout.height * layout.width;
        let pictures: Vec<f32> = (0..n_pictures * n).map(|i| numbers(i).wide()).collect();
        // Buffers end at a protected page.
        let mut maps = Aligned::<N>::zeros(n_pictures * layout.picture());
        layout.lay_out(&Aligned::of(&pictures), &mut maps);
        let mut expected = vec![N::of(0.0); maps.len()];
        for (picture, maps) in expected.chunks_exact_mut(layout.picture()).enumerate() {
            layout.places().enumerate().for_each(|(i, at)| maps[at] = numbers(picture * n + i));
        }
        assert_eq!(maps[..], expected);
        let mut again = Aligned::zeros(pictures.len());
        layout.gather(&maps, &mut again);
        assert_eq!(again[..], pictures);
    }

    proptest! {
        #[test]
        fn pictures_come_back_as_they_were_laid_out(
            n_channels in 1usize..30, height in 1usize..6, width in 1usize..30,
            above in 0usize..3, beside in 0usize..3, spare in 0usize..9, n_pictures in 1usize..3,
        ) {
            let border = [above, beside];
            let layout = Layout { n_channels, height, width, border, pixel: n_channels + spare };
            check::<f32>(layout, n_pictures);
            check::<Bf16>(layout, n_pictures);
        }
    }

    #[test]
    fn numbers_are_rounded_as_one_is() {
        let layout = Layout { n_channels: 1, height: 1, width: 65_536 / 8, border: [0, 0], pixel: 1 };
        let bits = (0..layout.width as u32).map(|i| (i << 19) | ((i % 5) << 14) | (i % 3));
        let pictures: Vec<f32> = bits.map(f32::from_bits).collect();
        let mut maps = vec![Bf16::default(); pictures.len()];
        layout.lay_out(&pictures, &mut maps);
        let expected: Vec<Bf16> = pictures.iter().map(|x| Bf16::of(*x)).collect();
        assert_eq!(maps, expected);
    }
}
