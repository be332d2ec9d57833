//! The weights of a convolution, laid out in the order in which the products read them.
//!
//! Invariant: inputs that a product takes beyond the end of a run have weights of zero, and so have
//! the outputs that fill up a register.

use super::{
    super::{aligned::Aligned, bf16::Bf16, maps::Number},
    Shape,
};

/// Numbers of a map that are read one after the other, and how many such runs a sum has. Taps and the
/// inputs of each are counted through all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) n: usize,
    pub(super) len: usize,
}

impl Runs {
    /// The runs over a map: where its pixels have no room to spare, the taps of a row are one run.
    pub(super) fn over(shape: &Shape, pixel: usize) -> Self {
        let [height, width] = shape.kernel;
        if pixel == shape.n_inputs {
            Self { n: height, len: width * shape.n_inputs }
        } else {
            Self { n: height * width, len: shape.n_inputs }
        }
    }

    /// The runs over a map with room to spare.
    pub(super) fn by_tap(shape: &Shape) -> Self {
        Self { n: shape.kernel[0] * shape.kernel[1], len: shape.n_inputs }
    }

    /// Where each begins, seen from the first, in a map whose rows and pixels are so far apart.
    pub(super) fn starts(self, shape: &Shape, row: usize, pixel: usize) -> impl Iterator<Item = usize> {
        let per_row = self.n / shape.kernel[0];
        (0..self.n).map(move |run| run / per_row * row + run % per_row * pixel)
    }
}

/// Weights as ONNX lays them out, [outputs, inputs, taps].
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) shape: &'a Shape,
    pub(super) weights: &'a [f32],
}

impl Source<'_> {
    /// The weight of the `k`th number of all runs; zero for an output that there is not.
    pub(super) fn weight(&self, output: usize, k: usize) -> f32 {
        let Shape { n_inputs, n_outputs, kernel, .. } = *self.shape;
        if output >= n_outputs {
            return 0.0;
        }
        let (tap, input) = (k / n_inputs, k % n_inputs);
        self.weights[(output * n_inputs + input) * kernel[0] * kernel[1] + tap]
    }
}

/// Registers of output channels that one block computes at most.
const GROUP: usize = 2;

/// Registers of output channels that are computed together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) first: usize,
    pub(super) n_registers: usize,
}

/// The groups of so many registers.
pub(super) fn groups(n_registers: usize) -> impl Iterator<Item = Group> {
    (0..n_registers)
        .step_by(GROUP)
        .map(move |first| Group { first, n_registers: GROUP.min(n_registers - first) })
}

/// Weights for the products of registers: for each group of registers of outputs, for each product of
/// each run, `depth` weights for each output.
pub(super) struct Panels<N: Number> {
    n_lanes: usize,
    depth: usize,
    /// For runs over dense maps, and for all others where those pair inputs in another way.
    dense: Packed<N>,
    by_tap: Option<Packed<N>>,
}

struct Packed<N: Number> {
    runs: Runs,
    data: Aligned<N>,
}

impl<N: Number> Panels<N> {
    /// Packs weights for registers of `n_lanes` sums, each of which takes `depth` inputs at a time.
    pub(super) fn pack(source: Source<'_>, n_lanes: usize, depth: usize) -> Self {
        let pack = |runs: Runs| {
            let n_products = runs.len.div_ceil(depth);
            let n_registers = source.shape.n_outputs.div_ceil(n_lanes);
            let mut data = Aligned::zeros(n_registers * runs.n * n_products * n_lanes * depth);
            let mut places = data.iter_mut();
            for Group { first, n_registers } in groups(n_registers) {
                for (run, product) in (0..runs.n).flat_map(|run| (0..n_products).map(move |it| (run, it))) {
                    for output in first * n_lanes..(first + n_registers) * n_lanes {
                        for (input, place) in (product * depth..).zip(places.by_ref().take(depth)) {
                            if input < runs.len {
                                *place = N::of(source.weight(output, run * runs.len + input));
                            }
                        }
                    }
                }
            }
            Packed { runs, data }
        };
        let shape = source.shape;
        let by_tap = (!shape.n_inputs.is_multiple_of(depth)).then(|| pack(Runs::by_tap(shape)));
        Self { n_lanes, depth, dense: pack(Runs::over(shape, shape.n_inputs)), by_tap }
    }

    /// The weights of a group for `runs`, in the order in which they are read.
    pub(super) fn of(&self, group: Group, runs: Runs) -> &[N] {
        let packed = self.by_tap.as_ref().filter(|packed| packed.runs == runs).unwrap_or(&self.dense);
        let per_register = packed.runs.n * packed.runs.len.div_ceil(self.depth) * self.n_lanes * self.depth;
        &packed.data[group.first * per_register..][..group.n_registers * per_register]
    }
}

/// Output channels of a tile, and most inputs.
pub(super) const TILE_OUTPUTS: usize = 16;
pub(super) const MOST_DEEP: usize = 32;

/// Numbers from one tile of weights to the next.
const TILE: usize = TILE_OUTPUTS * MOST_DEEP;

/// How tiles of pixels come to their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// From the map: so many at a time, an even number by which each run can be divided.
    InPlace { depth: usize },
    /// From a copy of all runs, one behind the other, with zeros at the end.
    Gathered,
}

impl Reading {
    /// In place, unless that takes half as many products again as it needs.
    pub(super) fn of(runs: Runs) -> Self {
        let deepest =
            (1..=MOST_DEEP / 2).rev().map(|pairs| 2 * pairs).find(|it| runs.len.is_multiple_of(*it));
        let fewest = (runs.n * runs.len).div_ceil(MOST_DEEP);
        match deepest {
            Some(depth) if 2 * runs.n * (runs.len / depth) <= 3 * fewest => Self::InPlace { depth },
            _ => Self::Gathered,
        }
    }

    /// Inputs of one product.
    pub(super) fn depth(self) -> usize {
        match self {
            Self::InPlace { depth } => depth,
            Self::Gathered => MOST_DEEP,
        }
    }
}

/// Weights for the products of tiles: for each group of tiles of outputs, for each product of all runs,
/// for each tile of the group, rows of a pair of inputs by 16 outputs.
pub(super) struct Tiled {
    /// For dense maps, and for all others where those take another number of inputs at a time.
    dense: Deep,
    by_tap: Option<Deep>,
}

/// The products of all runs, with so many inputs each.
struct Deep {
    depth: usize,
    n_products: usize,
    data: Aligned<Bf16>,
}

impl Tiled {
    pub(super) fn pack(source: Source<'_>) -> Self {
        let shape = source.shape;
        let pack = |depth: usize| {
            let n = shape.kernel[0] * shape.kernel[1] * shape.n_inputs;
            let (n_products, n_tiles) = (n.div_ceil(depth), shape.n_outputs.div_ceil(TILE_OUTPUTS));
            let mut data = Aligned::zeros(n_tiles * n_products * TILE);
            let mut tiles = data.chunks_exact_mut(TILE);
            for Group { first, n_registers } in groups(n_tiles) {
                for product in 0..n_products {
                    for (tile, place) in (first..first + n_registers).zip(tiles.by_ref()) {
                        for (at, place) in place.iter_mut().enumerate().take(depth * TILE_OUTPUTS) {
                            let (pair, output) = (at / 2 / TILE_OUTPUTS, at / 2 % TILE_OUTPUTS);
                            let input = product * depth + 2 * pair + at % 2;
                            if input < n {
                                *place = Bf16::of(source.weight(tile * TILE_OUTPUTS + output, input));
                            }
                        }
                    }
                }
            }
            Deep { depth, n_products, data }
        };
        let depth = |runs: Runs| Reading::of(runs).depth();
        let dense = depth(Runs::over(shape, shape.n_inputs));
        let by_tap = Some(depth(Runs::by_tap(shape))).filter(|depth| *depth != dense);
        Self { dense: pack(dense), by_tap: by_tap.map(pack) }
    }

    /// The weights of a group for products of so many inputs, in the order in which they are read.
    pub(super) fn of(&self, group: Group, depth: usize) -> &[Bf16] {
        let deep = self.by_tap.as_ref().filter(|deep| deep.depth == depth).unwrap_or(&self.dense);
        &deep.data[group.first * deep.n_products * TILE..][..group.n_registers * deep.n_products * TILE]
    }
}
