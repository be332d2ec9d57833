//! The loops in bf16: blocks of up to 16 rows by 16 units, their products in tiles.
//!
//! Invariant: pointers are made of slices whose lengths were checked on the way in, and stay within
//! them; a cell has a matrix in tiles only by a [`Form`](super::super::Form) that has them. Numbers
//! that fill up a row of factors stay zero, whatever the state beside them is.

#![expect(unsafe_code, reason = "tiles and vector instructions over pointers into checked slices")]

use std::{
    arch::{asm, x86_64::__m512},
    ops::Range,
};

use super::{
    super::{
        aligned::Aligned,
        amx::{Shapes, Tiles},
        bf16::Bf16,
        lanes::Lanes,
    },
    Cell, Kind, Turn,
    arithmetic::{Arithmetic, Gru, Lstm, Place},
    factors::{round, round_rows},
    packed::{TILE, TILE_INPUTS, TILE_UNITS, Tiled},
};

/// Most rows of a block.
const MOST_ROWS: usize = 16;

/// Rows cut into blocks of one size, the last of which may hold fewer.
#[derive(Clone, Copy)]
struct Blocks {
    n_rows: usize,
    n_blocks: usize,
    /// Rows of a block.
    m: usize,
}

impl Blocks {
    fn of(n_rows: usize) -> Self {
        let n_blocks = n_rows.div_ceil(MOST_ROWS).max(1);
        Self { n_rows, n_blocks, m: n_rows.div_ceil(n_blocks).max(1) }
    }

    /// Zeros for the factors of all blocks, and the tiles for them.
    fn factors(self, tiled: &Tiled) -> Aligned<Bf16> {
        Aligned::zeros(self.n_blocks * self.m * tiled.row())
    }

    /// Shapes the tiles: 0 for sums, 1 for rows of factors, 2 for weights.
    fn shape(self) -> Tiles {
        // There are 16 at most.
        let m = self.m as u8;
        // SAFETY: a matrix in tiles is a proof that they are usable, and this room makes no other
        // while these live.
        unsafe { Tiles::shape(&Shapes::of([m, m, 16, 1, 1, 1, 1, 1])) }
    }
}

/// The product of a block of factors with the weights of one gate of 16 units.
struct Product {
    /// `m` rows of `n_deep` times 32 numbers.
    factors: *const Bf16,
    /// As many tiles.
    weights: *const Bf16,
    n_deep: usize,
    /// Where the sums go: [m, 16].
    sums: *mut f32,
}

/// Makes the sums of a block of rows.
///
/// # Safety
/// Tiles are shaped by [`Blocks::shape`] for the rows at `factors`, and the places of `product` hold
/// what it says, with at least one tile of inputs.
#[inline(always)]
unsafe fn multiply(product: Product) {
    let Product { factors, weights, n_deep, sums } = product;
    // SAFETY: the caller's; the loop reads `n_deep` tiles of factors and of weights.
    unsafe {
        asm!(
            "tilezero tmm0",
            "2:",
            "tileloadd tmm1, [{factors} + {stride}]",
            "tileloadd tmm2, [{weights} + {row}]",
            "tdpbf16ps tmm0, tmm1, tmm2",
            "add {factors}, 64",
            "add {weights}, 1024",
            "dec {n_deep}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            factors = inout(reg) factors => _,
            weights = inout(reg) weights => _,
            n_deep = inout(reg) n_deep => _,
            sums = in(reg) sums,
            stride = in(reg) n_deep * TILE_INPUTS * size_of::<Bf16>(),
            row = in(reg) 64usize,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            options(nostack),
        );
    }
}

/// Sums of two blocks in turn: one is written while the other is read. They lie side by side, so that
/// those of few rows share no place of a page and no read waits for a write of the other.
struct Sums(Aligned);

impl Sums {
    fn new(kind: Kind, blocks: Blocks) -> Self {
        Self(Aligned::zeros(2 * kind.n_gates() * blocks.m * TILE_UNITS))
    }
}

/// Factors on their way through the tiles of a matrix.
#[derive(Clone, Copy)]
struct Pass<'a> {
    tiled: &'a Tiled,
    blocks: Blocks,
    /// Rows of [`Tiled::row`] numbers, as many as `blocks` has.
    factors: *const Bf16,
    order: Order,
}

/// Which units a pass begins with.
#[derive(Clone, Copy)]
enum Order {
    FirstUnits,
    LastUnits,
}

/// The sums of rows of a block with 16 units, for [`pass`]'s caller to take.
struct Made {
    unit: usize,
    /// Rows of the batch, all of which it has.
    rows: Range<usize>,
    /// The sums of the first of them: those of a gate are a block's rows of 16 apart from the next.
    sums: *const f32,
}

/// Multiplies block by block with unit by unit, gate by gate. Between two products it hands out sums of
/// the block and unit before: vectors and tiles then have work at the same time, as no more of it lies
/// between two products than the processor looks ahead.
///
/// # Safety
/// Tiles shaped for the blocks, whose factors are as many as they say, and a matrix of `G` gates.
#[inline(always)]
unsafe fn pass<const G: usize>(pass: Pass<'_>, sums: &mut Sums, mut take: impl FnMut(Made)) {
    let Pass { tiled, blocks, factors, order } = pass;
    let n_units = tiled.data.len() / (tiled.n_deep * G * TILE);
    let per_gate = blocks.m * TILE_UNITS;
    let (mut sums, mut other) = sums.0.split_at_mut(G * per_gate);
    assert!(other.len() == sums.len(), "sums of two blocks");
    let mut hand_out = |[block, unit]: [usize; 2], rows: Range<usize>, sums: &[f32]| {
        let at = |row: usize| (block * blocks.m + row).min(blocks.n_rows);
        let made =
            Made { unit, rows: at(rows.start)..at(rows.end), sums: sums[rows.start * TILE_UNITS..].as_ptr() };
        if !made.rows.is_empty() {
            take(made);
        }
    };
    let mut before = None;
    for turn in 0..n_units {
        let unit = match order {
            Order::FirstUnits => turn,
            Order::LastUnits => n_units - 1 - turn,
        };
        for block in 0..blocks.n_blocks {
            for gate in 0..G {
                // SAFETY: the caller's; block, unit and gate are below those that there are.
                unsafe {
                    multiply(Product {
                        factors: factors.add(block * blocks.m * tiled.row()),
                        weights: tiled.data.as_ptr().add((unit * G + gate) * tiled.n_deep * TILE),
                        n_deep: tiled.n_deep,
                        sums: sums[gate * per_gate..].as_mut_ptr(),
                    });
                }
                if let Some(before) = before {
                    hand_out(before, gate * blocks.m / G..(gate + 1) * blocks.m / G, other);
                }
            }
            before = Some([block, unit]);
            std::mem::swap(&mut sums, &mut other);
        }
    }
    if let Some(before) = before {
        hand_out(before, 0..blocks.m, other);
    }
}

/// What a run of a cell keeps between its steps.
pub(super) struct Run<'a> {
    tiled: &'a Tiled,
    blocks: Blocks,
    /// The states rounded, [blocks * m, row], before the step and after it.
    now: Aligned<Bf16>,
    next: Aligned<Bf16>,
    sums: Sums,
    _tiles: Tiles,
}

impl<'a> Run<'a> {
    /// Begins with the states `start`, [rows, padded].
    pub(super) fn new(cell: &'a Cell, tiled: &'a Tiled, start: &Aligned) -> Self {
        let blocks = Blocks::of(start.len() / cell.n_padded);
        let (mut now, next) = (blocks.factors(tiled), blocks.factors(tiled));
        // SAFETY: a matrix in tiles is a proof of the instructions.
        unsafe { round_rows(start, cell.n_padded, cell.n_hidden, &mut now, tiled.row()) };
        Self { tiled, blocks, now, next, sums: Sums::new(cell.kind, blocks), _tiles: blocks.shape() }
    }

    /// Runs one step of all rows.
    pub(super) fn step(&mut self, cell: &Cell, turn: Turn<'_>) {
        assert!(turn.at[0].len() == self.blocks.n_rows && turn.next.len() == turn.now.len());
        // SAFETY: a matrix in tiles is a proof of the instructions, and the tiles are shaped.
        unsafe {
            match cell.kind {
                Kind::Gru => step::<Gru, 3>(self, cell, turn),
                Kind::Lstm => step::<Lstm, 4>(self, cell, turn),
            }
        }
        std::mem::swap(&mut self.now, &mut self.next);
    }
}

/// Runs one step.
///
/// # Safety
/// AVX-512 with bf16, and shaped tiles; `turn` is one of `cell` and of the rows of `run`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn step<A: Arithmetic<G>, const G: usize>(run: &mut Run<'_>, cell: &Cell, turn: Turn<'_>) {
    let (padded, row_len, per_gate) = (cell.n_padded, run.tiled.row(), run.blocks.m * TILE_UNITS);
    let (now, next, memory) = (turn.now.as_ptr(), turn.next.as_mut_ptr(), turn.memory.as_mut_ptr());
    let next_factors = run.next.as_mut_ptr();
    // Every other step goes the other way through the weights: those read last are still near.
    let order = if turn.read.is_multiple_of(2) { Order::FirstUnits } else { Order::LastUnits };
    // SAFETY: rows are those of the batch and units those of the cell, for which all buffers were made;
    // `at` has a place for each row, which leads to `G` times as many numbers as a state has lanes.
    let take = |Made { unit, rows, sums }: Made| unsafe {
        let lane = unit * TILE_UNITS;
        let mut sums = sums;
        for row in rows {
            let gates = turn.gates.add(*turn.at[0].get_unchecked(row));
            let soon = turn.gates.wrapping_add(*turn.at[1].get_unchecked(row));
            let (mut recurrent, mut input) = ([__m512::splat(0.0); G], [__m512::splat(0.0); G]);
            for gate in 0..G {
                recurrent[gate] = __m512::load(sums.add(gate * per_gate));
                input[gate] = __m512::load(gates.add(gate * padded + lane));
                // A table's row is read once and lies anywhere: memory is asked for it a step before.
                __m512::prefetch(soon.wrapping_add(gate * padded + lane));
            }
            let at = row * padded + lane;
            let place = Place {
                new_bias: cell.new_bias.as_ptr().add(lane),
                now: now.add(at),
                memory: memory.wrapping_add(at),
            };
            let state = A::state(recurrent, input, place);
            state.store(next.add(at));
            round(state, cell.n_hidden - lane, next_factors.add(row * row_len + lane));
            sums = sums.add(TILE_UNITS);
        }
    };
    let factors = run.now.as_ptr();
    // SAFETY: the caller's.
    unsafe { pass::<G>(Pass { tiled: run.tiled, blocks: run.blocks, factors, order }, &mut run.sums, take) };
}

/// Makes what each of `n` inputs adds to the gates.
pub(super) fn project(cell: &Cell, tiled: &Tiled, n: usize, inputs: &[f32], gates: &mut [f32]) {
    assert!(inputs.len() == n * cell.n_inputs && gates.len() == n * cell.n_projected());
    let blocks = Blocks::of(n);
    let mut factors = blocks.factors(tiled);
    let _tiles = blocks.shape();
    // SAFETY: a matrix in tiles is a proof of the instructions, and the tiles are shaped.
    unsafe {
        if cell.n_inputs > 0 {
            round_rows(inputs, cell.n_inputs, cell.n_inputs, &mut factors, tiled.row());
        }
        match cell.kind {
            Kind::Gru => projected::<3>(cell, tiled, blocks, &factors, gates),
            Kind::Lstm => projected::<4>(cell, tiled, blocks, &factors, gates),
        }
    }
}

/// Makes what rounded inputs add to the gates.
///
/// # Safety
/// AVX-512 with bf16, and tiles shaped for `blocks`, for which `factors` and `gates` were made.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn projected<const G: usize>(
    cell: &Cell,
    tiled: &Tiled,
    blocks: Blocks,
    factors: &[Bf16],
    gates: &mut [f32],
) {
    let (padded, per_gate) = (cell.n_padded, blocks.m * TILE_UNITS);
    let gates = gates.as_mut_ptr();
    // SAFETY: rows are those of the batch and units those of the cell, for which all buffers were made.
    let take = |Made { unit, rows, sums }: Made| unsafe {
        let mut sums = sums;
        for row in rows {
            for gate in 0..G {
                let lane = gate * padded + unit * TILE_UNITS;
                let bias = __m512::load(cell.gate_bias.as_ptr().add(lane));
                let sum = __m512::load(sums.add(gate * per_gate)).add(bias);
                sum.store(gates.add(row * G * padded + lane));
            }
            sums = sums.add(TILE_UNITS);
        }
    };
    let factors = factors.as_ptr();
    let order = Order::FirstUnits;
    // SAFETY: the caller's.
    unsafe { pass::<G>(Pass { tiled, blocks, factors, order }, &mut Sums::new(cell.kind, blocks), take) };
}
