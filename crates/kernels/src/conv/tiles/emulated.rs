//! An interpreter of the programs of tiles, by the rules of the processor's manual, so that packing,
//! addresses and shapes are proven where no tiles are.
//!
//! Invariant: what the processor refuses ends the test: shapes that do not fit, and unknown instructions.

#![expect(unsafe_code, reason = "it reads and writes where the program says")]

use std::{collections::HashMap, slice};

use super::{
    super::{
        super::{amx::Shapes, bf16::Bf16},
        Conv, Run, Weights,
    },
    Work,
    program::{Machine, PROGRAMS, Product},
};

/// Runs a convolution that is packed for tiles; AVX-512 with bf16 is needed for what is around them.
pub(in super::super) fn run(conv: &Conv, run: Run<'_, Bf16>) {
    let n_pictures = conv.pictures(&run);
    let Weights::Tiles(tiled) = &conv.weights else { panic!("it is packed for tiles") };
    let work = Work::new(conv, tiled, &run);
    let mut emulated = Emulated { shapes: work.shapes(), tiles: [[[0; 64]; 16]; 8] };
    // SAFETY: the caller's processor has the vectors; `work` was made of `run`.
    unsafe { work.run_on(&mut emulated, n_pictures, run) };
}

/// The tiles of a thread.
struct Emulated {
    shapes: Shapes,
    tiles: [[[u8; 64]; 16]; 8],
}

impl Machine for Emulated {
    unsafe fn multiply<const N: usize>(&mut self, product: &Product) {
        let text = PROGRAMS[N - 1].replace(['{', '}'], "");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let mut registers = HashMap::from([
            ("left", product.pixels[0] as usize),
            ("right", product.pixels[1] as usize),
            ("stride", product.stride),
            ("steps", product.steps as usize),
            ("n_steps", product.n_steps),
            ("weights", product.weights as usize),
            ("sums", product.sums as usize),
            ("row", 64),
        ]);
        let mut at = 0;
        while at < lines.len() {
            let (name, operands) = lines[at].split_once(' ').unwrap_or((lines[at], ""));
            let operands: Vec<&str> = operands.split(", ").collect();
            at += 1;
            match (name, operands.as_slice()) {
                ("2:", _) => {}
                ("mov", [to, from]) => {
                    let from = Address::of(from, &registers).start as *const usize;
                    // SAFETY: the caller's.
                    registers.insert(to, unsafe { *from });
                }
                ("lea", [to, from]) => {
                    let start = Address::of(from, &registers).start;
                    registers.insert(to, start);
                }
                ("add", [to, from]) => {
                    let sum = registers[to] + value(from, &registers);
                    registers.insert(to, sum);
                }
                ("dec", [to]) => *registers.get_mut(to).unwrap() -= 1,
                ("jnz", ["2b"]) => {
                    assert!(lines[at - 2].starts_with("dec "), "the flag is that of the line before");
                    if registers["n_steps"] != 0 {
                        at = lines.iter().position(|line| *line == "2:").unwrap();
                    }
                }
                ("tilezero", [tile]) => self.tiles[number(tile)] = [[0; 64]; 16],
                // SAFETY: the caller's.
                ("tileloadd", [tile, from]) => unsafe {
                    self.load(number(tile), Address::of(from, &registers))
                },
                // SAFETY: the caller's.
                ("tilestored", [to, tile]) => unsafe {
                    self.store(number(tile), Address::of(to, &registers))
                },
                ("tdpbf16ps", [sums, pixels, weights]) => {
                    self.multiply_add([sums, pixels, weights].map(|tile| number(tile)));
                }
                _ => panic!("unknown: {}", lines[at - 1]),
            }
        }
    }
}

impl Emulated {
    /// Loads the rows of a tile; what it has beside them is zero.
    unsafe fn load(&mut self, tile: usize, from: Address) {
        let [n_rows, n_bytes] = self.shapes.tile(tile);
        self.tiles[tile] = [[0; 64]; 16];
        for (row, to) in self.tiles[tile].iter_mut().enumerate().take(n_rows) {
            // SAFETY: the caller's.
            let from = unsafe { slice::from_raw_parts(from.row(row) as *const u8, n_bytes) };
            to[..n_bytes].copy_from_slice(from);
        }
    }

    /// Stores the rows of a tile.
    unsafe fn store(&self, tile: usize, to: Address) {
        let [n_rows, n_bytes] = self.shapes.tile(tile);
        for (row, from) in self.tiles[tile].iter().enumerate().take(n_rows) {
            // SAFETY: the caller's.
            unsafe { (to.row(row) as *mut u8).copy_from_nonoverlapping(from.as_ptr(), n_bytes) };
        }
    }

    /// Adds to each number of `sums` the products of a row of `pixels` and a column of pairs of `weights`.
    fn multiply_add(&mut self, [sums, pixels, weights]: [usize; 3]) {
        let [m, n_bytes] = self.shapes.tile(sums);
        let [_, depth] = self.shapes.tile(pixels);
        assert_eq!(self.shapes.tile(pixels)[0], m, "rows of the first factor");
        assert_eq!(self.shapes.tile(weights), [depth / 4, n_bytes], "the shape of the second factor");
        assert!(sums != pixels && sums != weights && pixels != weights, "three tiles");
        for row in 0..m {
            for column in 0..n_bytes / 4 {
                let place = 4 * column..4 * column + 4;
                let mut halves = [0.0f32; 2];
                for pair in 0..depth / 4 {
                    for (half, sum) in halves.iter_mut().enumerate() {
                        let pixel = wide(&self.tiles[pixels][row][4 * pair + 2 * half..]);
                        let weight = wide(&self.tiles[weights][pair][4 * column + 2 * half..]);
                        *sum = pixel.mul_add(weight, *sum);
                    }
                }
                let sum = f32::from_le_bytes(self.tiles[sums][row][place.clone()].try_into().unwrap());
                let sum = sum + (halves[0] + halves[1]);
                self.tiles[sums][row][place].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}

/// The first number in bf16.
fn wide(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([0, 0, bytes[0], bytes[1]])
}

fn number(tile: &str) -> usize {
    tile.strip_prefix("tmm").unwrap().parse().unwrap()
}

/// The value of a register or of a plain number.
fn value(operand: &str, registers: &HashMap<&str, usize>) -> usize {
    registers.get(operand).copied().unwrap_or_else(|| operand.parse().unwrap())
}

/// An address, and what the index adds for each row of a tile.
#[derive(Clone, Copy)]
struct Address {
    start: usize,
    stride: usize,
}

impl Address {
    fn of(operand: &str, registers: &HashMap<&str, usize>) -> Self {
        let inside = operand.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap();
        let mut address = Self { start: 0, stride: 0 };
        for term in inside.split(" + ") {
            match term.strip_suffix("*1") {
                Some(index) => address.stride = value(index, registers),
                None => address.start += value(term, registers),
            }
        }
        address
    }

    fn row(self, row: usize) -> usize {
        assert!(self.stride > 0, "tiles are read and written by an index");
        self.start + row * self.stride
    }
}
