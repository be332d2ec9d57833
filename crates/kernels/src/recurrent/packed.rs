//! The matrices of a cell, laid out in the order in which the products read them.

use super::{
    super::{Form, Vectors, aligned::Aligned, bf16::Bf16, maps::Number},
    Kind,
};

/// How many units stand side by side in a tile, and how many inputs below each other.
pub(super) const TILE_UNITS: usize = 16;
pub(super) const TILE_INPUTS: usize = 32;

/// How many numbers a tile has.
pub(super) const TILE: usize = TILE_UNITS * TILE_INPUTS;

/// A matrix [gates * hidden, inputs], packed for one form.
pub(super) enum Matrix {
    Singles(Panels<f32>),
    Pairs(Panels<Bf16>),
    Tiles(Tiled),
}

impl Matrix {
    /// Packs a matrix of whole gates of `n_hidden` units.
    pub(super) fn pack(form: Form, kind: Kind, matrix: &[f32], n_hidden: usize) -> Self {
        let source = Source { kind, matrix, n_hidden, n_inputs: matrix.len() / (kind.n_gates() * n_hidden) };
        match form.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Amx => Self::Tiles(Tiled::pack(&source)),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512Bf16 => Self::Pairs(Panels::pack(&source, form.n_lanes(), 2)),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 | Vectors::Avx2 => Self::Singles(Panels::pack(&source, form.n_lanes(), 1)),
        }
    }
}

/// A matrix as ONNX lays it out.
struct Source<'a> {
    kind: Kind,
    matrix: &'a [f32],
    n_hidden: usize,
    n_inputs: usize,
}

impl Source<'_> {
    /// Every weight with its gate, its unit and its input.
    fn weights(&self) -> impl Iterator<Item = ([usize; 3], f32)> {
        let rows = self.matrix.chunks_exact(self.n_inputs.max(1)).enumerate();
        rows.flat_map(|(row, weights)| {
            let (gate, unit) = (row / self.n_hidden, row % self.n_hidden);
            weights.iter().enumerate().map(move |(input, weight)| ([gate, unit, input], *weight))
        })
    }
}

/// Panels of one register of units each, for products that take `depth` inputs at a time:
/// [units / lanes, inputs / depth, gates, lanes, depth]. Zeros fill up units and inputs.
pub(super) struct Panels<N: Number> {
    pub(super) data: Aligned<N>,
    /// How many products a sum has.
    pub(super) n_products: usize,
    /// How far the panels are apart.
    pub(super) stride: usize,
}

impl<N: Number> Panels<N> {
    fn pack(source: &Source<'_>, n_lanes: usize, depth: usize) -> Self {
        // Where several panels are read at once, they must not begin at the same place of a page, or
        // their lines would drive each other out of the cache.
        let page = 4096 / size_of::<N>();
        let n_gates = source.kind.n_gates();
        let n_products = source.n_inputs.div_ceil(depth);
        let len = n_products * n_gates * n_lanes * depth;
        let stride = len + (page / 8 + page - len % page) % page;
        let mut data = Aligned::zeros(source.n_hidden.div_ceil(n_lanes) * stride);
        for ([gate, unit, input], weight) in source.weights() {
            let (panel, lane) = (unit / n_lanes, unit % n_lanes);
            let register = input / depth * n_gates + gate;
            data[panel * stride + (register * n_lanes + lane) * depth + input % depth] = N::of(weight);
        }
        Self { data, n_products, stride }
    }
}

/// Tiles of 32 inputs by 16 units: [units / 16, gates, inputs / 32, 16, 16, 2] in bf16, two inputs
/// side by side as the product of tiles reads them. Zeros fill up units and inputs.
pub(super) struct Tiled {
    pub(super) data: Aligned<Bf16>,
    /// How many tiles of inputs there are, at least one.
    pub(super) n_deep: usize,
}

impl Tiled {
    fn pack(source: &Source<'_>) -> Self {
        let n_gates = source.kind.n_gates();
        let n_deep = source.n_inputs.div_ceil(TILE_INPUTS).max(1);
        let mut data = Aligned::zeros(source.n_hidden.div_ceil(TILE_UNITS) * n_deep * n_gates * TILE);
        for ([gate, unit, input], weight) in source.weights() {
            let tile = (unit / TILE_UNITS * n_gates + gate) * n_deep + input / TILE_INPUTS;
            let (row, column) = (input % TILE_INPUTS / 2, unit % TILE_UNITS);
            data[tile * TILE + (row * TILE_UNITS + column) * 2 + input % 2] = Bf16::of(weight);
        }
        Self { data, n_deep }
    }

    /// How many numbers a row of inputs takes, with the zeros that fill it up.
    pub(super) fn row(&self) -> usize {
        self.n_deep * TILE_INPUTS
    }
}
