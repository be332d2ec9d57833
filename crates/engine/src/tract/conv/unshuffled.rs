//! Space to depth: squares of pixels that became channels, convolved as the pictures that they were.
//!
//! Invariant: it is recognised by where every number goes, whatever operators move it there.

use std::sync::Arc;

use tract_onnx::{
    prelude::{OutletId, Tensor, TypedModel},
    tract_core::internal::AxisOp,
};

use super::Found;
use lepton_kernels::{chain::Extent, conv::Shape};

/// Most numbers of a picture whose way is followed: each takes memory while a plan is made.
const MOST_NUMBERS: usize = 1 << 24;

/// Pictures before their squares of pixels became channels.
struct Unshuffled {
    pictures: OutletId,
    extent: Extent,
    /// Height and width of a square.
    square: [usize; 2],
    /// For each channel that came of a square: which channel it was before, and at which pixel.
    origins: Vec<(usize, [usize; 2])>,
}

/// The same convolution, over the pictures before their squares became channels, where they did.
pub(super) fn before(model: &TypedModel, found: Found) -> Found {
    let Some(unshuffled) = Unshuffled::of(model, found.pictures, found.extent) else { return found };
    let Some((shape, weights)) = unshuffled.convolution(found.shape, &found.weights) else { return found };
    let Unshuffled { pictures, extent, .. } = unshuffled;
    Found { shape, pictures, extent, weights, bias: found.bias }
}

impl Unshuffled {
    fn of(model: &TypedModel, outlet: OutletId, deep: Extent) -> Option<Self> {
        let mut pictures = outlet;
        let mut changes = Vec::new();
        while let Some(change) = model.node(pictures.node).op_as::<AxisOp>() {
            changes.push(change);
            pictures = model.node(pictures.node).inputs[0];
        }
        let keeps_rows = |change: &&AxisOp| match change {
            AxisOp::Add(at) | AxisOp::Rm(at) | AxisOp::Reshape(at, ..) => *at > 0,
            AxisOp::Move(from, to) => *from > 0 && *to > 0,
        };
        if changes.is_empty() || !changes.iter().all(keeps_rows) {
            return None;
        }
        let extents = super::row_extents(model, pictures)?;
        let &[n_channels, height, width] = extents.as_slice() else { return None };
        let extent = Extent { n_channels, height, width };
        if !(1..=MOST_NUMBERS).contains(&extent.n_numbers()) {
            return None;
        }
        // The numbers of a picture, each its own place, go the way that the network's go.
        let places: Vec<i32> = (0..extent.n_numbers() as i32).collect();
        let mut moved = Tensor::from_shape(&[1, n_channels, height, width], &places).ok()?;
        changes.iter().rev().try_for_each(|change| change.change_tensor(&mut moved, false)).ok()?;
        if moved.shape() != [1, deep.n_channels, deep.height, deep.width] {
            return None;
        }
        let square = [height / deep.height, width / deep.width];
        if [deep.height * square[0], deep.width * square[1]] != [height, width] {
            return None;
        }
        let moved = moved.try_as_plain_ram().ok()?;
        let planes = moved.as_slice::<i32>().ok()?.chunks_exact(deep.height * deep.width);
        let origin = |plane: &[i32]| {
            let first = plane[0] as usize;
            let (channel, y, x) = (first / (height * width), first / width % height, first % width);
            let place = |at: usize| {
                let (down, right) = (at / deep.width * square[0], at % deep.width * square[1]);
                ((channel * height + y + down) * width + x + right) as i32
            };
            let is_grid = y < square[0]
                && x < square[1]
                && plane.iter().enumerate().all(|(at, found)| *found == place(at));
            is_grid.then_some((channel, [y, x]))
        };
        let origins = planes.map(origin).collect::<Option<_>>()?;
        Some(Self { pictures, extent, square, origins })
    }

    /// A convolution of channels that were squares, as one of the pictures.
    fn convolution(&self, deep: Shape, weights: &Tensor) -> Option<(Shape, Arc<Tensor>)> {
        let [down, right] = self.square;
        let wide = |[rows, columns]: [usize; 2]| [rows * down, columns * right];
        let Shape { n_outputs, kernel: [height, width], .. } = deep;
        let shape = Shape {
            n_inputs: self.extent.n_channels,
            n_outputs,
            kernel: wide(deep.kernel),
            strides: wide(deep.strides),
            padding: deep.padding.map(wide),
        };
        let weights = weights.try_as_plain_ram().ok()?;
        let weights = weights.as_slice::<f32>().ok()?;
        let mut spread = vec![0.0; weights.len()];
        for output in 0..n_outputs {
            for (from, (channel, [y, x])) in self.origins.iter().enumerate() {
                for tap in 0..height * width {
                    let row = (output * shape.n_inputs + channel) * shape.kernel[0] + tap / width * down + y;
                    let at = row * shape.kernel[1] + tap % width * right + x;
                    let from = (output * deep.n_inputs + from) * height * width + tap;
                    *spread.get_mut(at)? = *weights.get(from)?;
                }
            }
        }
        let sides = [n_outputs, shape.n_inputs, shape.kernel[0], shape.kernel[1]];
        Some((shape, Arc::new(Tensor::from_shape(&sides, &spread).ok()?)))
    }
}
