//! Planes of samples to rows of pixels.
//!
//! Invariant: a row is made when the rows that it depends on are decoded, and before they are overwritten.

use super::{
    color::{Converter, Space},
    frame::Frame,
    upsample::{Plane, Upsampler},
};
use crate::image::Channels;

/// How much of the planes is held at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// The last three rows of units, where components come side by side: a row of pixels depends on the
    /// rows of samples above and below its own.
    Strips,
    /// All of it, where components come one after the other.
    Everything,
}

impl Held {
    fn unit_rows(self, frame: &Frame) -> usize {
        match self {
            Self::Strips => frame.units.1.min(3),
            Self::Everything => frame.units.1,
        }
    }
}

/// The planes of a picture that is being decoded, and the rows that are done.
#[derive(Debug)]
pub(super) struct Assembly {
    planes: Vec<Plane>,
    upsamplers: Vec<Upsampler>,
    converter: Converter,
    held: Held,
    height: usize,
    /// Rows of pixels in a row of units, and how many rows of units there are.
    unit_height: usize,
    n_unit_rows: usize,
    /// Rows of units whose pixels are done.
    n_done: usize,
    samples: Vec<u8>,
}

impl Assembly {
    pub(super) fn new(frame: &Frame, space: Space, kept: Channels, held: Held) -> Self {
        let components = || frame.components.iter().take(space.n_needed(kept));
        let n_rows = held.unit_rows(frame);
        Self {
            planes: components()
                .map(|component| Plane::new(component, n_rows * component.factors.1 * 8))
                .collect(),
            upsamplers: components().map(|component| Upsampler::new(component, frame)).collect(),
            converter: Converter::new(space, kept, frame.size.width as usize),
            held,
            height: frame.size.height as usize,
            unit_height: frame.factors.1 * 8,
            n_unit_rows: frame.units.1,
            n_done: 0,
            samples: Vec::with_capacity(frame.size.pixels() as usize * kept.count()),
        }
    }

    /// The bytes that an assembly takes.
    pub(super) fn n_bytes(frame: &Frame, space: Space, kept: Channels, held: Held) -> u64 {
        let planes = frame.components.iter().take(space.n_needed(kept)).map(|component| {
            let rows = held.unit_rows(frame) * component.factors.1 * 8;
            (component.padded_blocks.0 * 8 * rows) as u64
        });
        // For each component a row and sums of two bytes, and a row of colours.
        let rows = u64::from(frame.size.width) * (3 * 4 + 3) + 4 * 64;
        planes.sum::<u64>() + rows + frame.size.pixels() * kept.count() as u64
    }

    /// How many components are needed, from the first on.
    pub(super) fn n_planes(&self) -> usize {
        self.planes.len()
    }

    /// Where the samples of a block go, and how far their rows are apart.
    #[inline]
    pub(super) fn block(&mut self, component: usize, column: usize, row: usize) -> (&mut [u8], usize) {
        self.planes[component].block(column, row)
    }

    /// A row of units is decoded. Where components come one after the other, nothing follows from it.
    pub(super) fn row_done(&mut self, row: usize) {
        if self.held == Held::Strips {
            // The rows of the last units depend on units that are not there yet.
            let n_ready = if row + 1 == self.n_unit_rows { row + 1 } else { row };
            self.make_rows(n_ready);
        }
    }

    /// Everything is decoded; returns the pixels.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.make_rows(self.n_unit_rows);
        self.samples
    }

    fn make_rows(&mut self, n_ready: usize) {
        let rows = self.n_done * self.unit_height..(n_ready * self.unit_height).min(self.height);
        for y in rows {
            let mut rows: [&[u8]; 4] = [&[]; 4];
            for ((row, plane), upsampler) in rows.iter_mut().zip(&self.planes).zip(&mut self.upsamplers) {
                *row = upsampler.row(plane, y);
            }
            self.converter.append(&rows, &mut self.samples);
        }
        self.n_done = self.n_done.max(n_ready);
    }
}
