//! Feature maps with their channels last, in a border of zeros.
//!
//! Invariant: pixel (y, x) of a map begins at [`Layout::at`]; the border holds zeros, so that a
//! convolution reads its padding from there and never asks where a picture ends.

use super::{Precision, aligned::Plain, bf16::Bf16};

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
    /// Pixels of zeros on each side.
    pub border: usize,
    /// Numbers from one pixel to the next, at least one for each channel.
    pub pixel: usize,
}

impl Layout {
    /// Numbers from one row of pixels to the next.
    pub fn row(&self) -> usize {
        (self.width + 2 * self.border) * self.pixel
    }

    /// Numbers of one picture.
    pub fn picture(&self) -> usize {
        (self.height + 2 * self.border) * self.row()
    }

    /// Where pixel (y, x) begins.
    pub fn at(&self, y: usize, x: usize) -> usize {
        (y + self.border) * self.row() + (x + self.border) * self.pixel
    }

    /// Lays pictures [n, channels, height, width] out so; `maps` is zero before.
    ///
    /// # Panics
    /// Where the lengths are not those of one `n`.
    pub fn lay_out<N: Number>(&self, pictures: &[f32], maps: &mut [N]) {
        let plane = self.height * self.width;
        assert!(pictures.len() * self.picture() == maps.len() * plane * self.n_channels, "whole pictures");
        let whole = pictures.chunks_exact((plane * self.n_channels).max(1));
        for (picture, maps) in whole.zip(maps.chunks_exact_mut(self.picture())) {
            for (channel, plane) in picture.chunks_exact(plane).enumerate() {
                for (y, row) in plane.chunks_exact(self.width).enumerate() {
                    let pixels = &mut maps[self.at(y, 0) + channel..];
                    row.iter()
                        .zip(pixels.iter_mut().step_by(self.pixel))
                        .for_each(|(from, to)| *to = N::of(*from));
                }
            }
        }
    }

    /// Undoes [`Layout::lay_out`].
    ///
    /// # Panics
    /// Where the lengths are not those of one `n`.
    pub fn gather<N: Number>(&self, maps: &[N], pictures: &mut [f32]) {
        let plane = self.height * self.width;
        assert!(pictures.len() * self.picture() == maps.len() * plane * self.n_channels, "whole pictures");
        let whole = pictures.chunks_exact_mut((plane * self.n_channels).max(1));
        for (picture, maps) in whole.zip(maps.chunks_exact(self.picture())) {
            for (channel, plane) in picture.chunks_exact_mut(plane).enumerate() {
                for (y, row) in plane.chunks_exact_mut(self.width).enumerate() {
                    let pixels = &maps[self.at(y, 0) + channel..];
                    row.iter_mut()
                        .zip(pixels.iter().step_by(self.pixel))
                        .for_each(|(to, from)| *to = from.wide());
                }
            }
        }
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
