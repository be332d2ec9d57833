//! Components with fewer samples than the picture has pixels, brought to its width and height, to the bit
//! as libjpeg does (`jdsample.c`, "fancy upsampling").
//!
//! Invariant: an upsampled row depends on samples of the picture alone, not on those that fill its last
//! blocks.

use lepton_kernels::pixels::{blend, double, double_between};

use super::frame::{Component, Frame};

/// Rows of a component's samples: all of them, or the last ones that were decoded.
#[derive(Debug)]
pub(super) struct Plane {
    samples: Vec<u8>,
    stride: usize,
    n_rows: usize,
    width: usize,
    height: usize,
}

impl Plane {
    /// Room for `n_rows` rows, a multiple of eight.
    pub(super) fn new(component: &Component, n_rows: usize) -> Self {
        let stride = component.padded_blocks.0 * 8;
        let (width, height) = component.samples;
        Self { samples: vec![0; stride * n_rows], stride, n_rows, width, height }
    }

    /// Where the block of this column and row begins, and how far its rows are apart.
    pub(super) fn block(&mut self, column: usize, row: usize) -> (&mut [u8], usize) {
        let at = row * 8 % self.n_rows * self.stride + column * 8;
        (&mut self.samples[at..], self.stride)
    }

    /// A row of samples; beyond the last one it is the last one.
    fn row(&self, y: usize) -> &[u8] {
        let y = y.min(self.height - 1);
        &self.samples[y % self.n_rows * self.stride..][..self.width]
    }
}

/// How a component is brought to the picture's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// It has a sample for each pixel.
    Full,
    /// Half as wide: three parts of a sample and one of its neighbour.
    HalfWidth,
    /// Half as high: three parts of a sample and one of that above or below.
    HalfHeight,
    /// Both.
    Half,
    /// Each sample is repeated so often across and down.
    Repeat(usize, usize),
}

/// Makes rows of the picture's width from those of a component.
#[derive(Debug)]
pub(super) struct Upsampler {
    method: Method,
    row: Vec<u8>,
    /// Sums of two rows.
    sums: Vec<u16>,
}

impl Upsampler {
    pub(super) fn new(component: &Component, frame: &Frame) -> Self {
        let (across, down) = (frame.factors.0 / component.factors.0, frame.factors.1 / component.factors.1);
        // Neighbours are looked at only where there are three samples or more.
        let is_wide = component.samples.0 > 2;
        let method = match (across, down) {
            (1, 1) => Method::Full,
            (2, 1) if is_wide => Method::HalfWidth,
            (1, 2) => Method::HalfHeight,
            (2, 2) if is_wide => Method::Half,
            _ => Method::Repeat(across, down),
        };
        let width = component.samples.0 * across;
        let row = if method == Method::Full { Vec::new() } else { vec![0; width] };
        let sums = if method == Method::Half { vec![0; component.samples.0] } else { Vec::new() };
        Self { method, row, sums }
    }

    /// The samples of row `y` of the picture, at least as many as it is wide.
    pub(super) fn row<'a>(&'a mut self, plane: &'a Plane, y: usize) -> &'a [u8] {
        // The row that this one lies in, and the other row that is near.
        let (near, far) = (y / 2, if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { y / 2 + 1 });
        match self.method {
            Method::Full => return plane.row(y),
            Method::HalfWidth => double(plane.row(y), &mut self.row),
            Method::HalfHeight => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                blend(plane.row(near), plane.row(far), bias, &mut self.row);
            }
            Method::Half => double_between(plane.row(near), plane.row(far), &mut self.sums, &mut self.row),
            Method::Repeat(across, down) => {
                for (out, sample) in self.row.chunks_exact_mut(across).zip(plane.row(y / down)) {
                    out.fill(*sample);
                }
            }
        }
        &self.row
    }
}
