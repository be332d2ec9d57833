//! Coefficients that several scans code, each some of them or some of their bits (ITU-T T.81, annex G.1.2).
//!
//! Invariant: a scan changes the coefficients of its components and its band alone.

use lepton_kernels::pixels::{Block, transform};

use super::{
    FORMAT, Fault,
    assembly::Assembly,
    bits::Bits,
    frame::{Component, Frame, Scan},
    huffman::Table,
    scan::{BlockDecoder, Decoding},
    tables::{Quantisation, place},
};
use crate::{error::MediaError, image::survey::damaged};

/// The coefficients of a component, block by block, each in rows.
#[derive(Debug)]
pub(super) struct Coefficients {
    blocks: Vec<Block>,
    across: usize,
}

impl Coefficients {
    pub(super) fn new(component: &Component) -> Self {
        let (across, down) = component.padded_blocks;
        Self { blocks: vec![[0; 64]; across * down], across }
    }

    fn block(&mut self, column: usize, row: usize) -> &mut Block {
        &mut self.blocks[row * self.across + column]
    }
}

/// Decodes the blocks of a scan.
pub(super) struct Progressive<'a> {
    parts: Vec<Part<'a>>,
    band: (usize, usize),
    /// Bits that earlier scans left out, 0 if there were none, and those that are left out still.
    before: u32,
    left: u32,
    /// Blocks to come that have no further coefficients in this band.
    run: u32,
    coefficients: &'a mut [Coefficients],
}

/// A component of the scan.
struct Part<'a> {
    component: usize,
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
    /// The mean of the block before.
    mean: i32,
}

impl<'a> Progressive<'a> {
    pub(super) fn new(scan: &Scan, decoding: &'a Decoding, coefficients: &'a mut [Coefficients]) -> Self {
        let parts = scan.coded.iter().map(|coded| Part {
            component: coded.component,
            dc: decoding.dc(coded.dc),
            ac: decoding.ac(coded.ac),
            mean: 0,
        });
        let (before, left) = scan.bits;
        Self { parts: parts.collect(), band: scan.band, before, left, run: 0, coefficients }
    }
}

impl BlockDecoder for Progressive<'_> {
    #[inline]
    fn block(&mut self, bits: &mut Bits, at: usize, column: usize, row: usize) -> Result<(), Fault> {
        let part = &mut self.parts[at];
        let mut unheld = [0; 64];
        let block = match self.coefficients.get_mut(part.component) {
            Some(coefficients) => coefficients.block(column, row),
            None => &mut unheld,
        };
        match (self.band.0, self.before) {
            (0, 0) => {
                bits.refill();
                let size = bits.symbol(part.dc.ok_or(Fault::Code)?)?;
                part.mean = part.mean.wrapping_add(bits.number(size.into()));
                block[0] = part.mean.wrapping_shl(self.left) as i16;
            }
            (0, _) => block[0] |= i16::from(bits.bit()) << self.left,
            (_, 0) if self.run > 0 => self.run -= 1,
            (_, 0) => self.run = first(bits, part.ac.ok_or(Fault::Code)?, self.band, self.left, block)?,
            _ => {
                let refinement = Refinement { band: self.band, left: self.left };
                self.run = refinement.block(bits, part.ac.ok_or(Fault::Code)?, self.run, block)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.parts.iter_mut().for_each(|part| part.mean = 0);
        self.run = 0;
    }

    fn row_done(&mut self, _row: usize) {}
}

/// The first scan of a band. Returns how many blocks to come have nothing in it.
fn first(
    bits: &mut Bits,
    table: &Table,
    band: (usize, usize),
    left: u32,
    block: &mut Block,
) -> Result<u32, Fault> {
    let mut at = band.0;
    while at <= band.1 {
        bits.refill();
        let symbol = bits.symbol(table)?;
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size > 0 {
            at += run as usize;
            if at > 63 {
                return Err(Fault::Coefficient);
            }
            block[place(at)] = bits.number(size).wrapping_shl(left) as i16;
            at += 1;
        } else if run == 15 {
            at += 16;
        } else {
            return Ok(run_of_ends(bits, run) - 1);
        }
    }
    Ok(0)
}

/// The blocks that end with this one's band.
fn run_of_ends(bits: &mut Bits, n_bits: u32) -> u32 {
    (1 << n_bits) + if n_bits > 0 { bits.take(n_bits) } else { 0 }
}

/// A scan that adds a bit to each coefficient of a band.
struct Refinement {
    band: (usize, usize),
    left: u32,
}

impl Refinement {
    fn block(&self, bits: &mut Bits, table: &Table, mut run: u32, block: &mut Block) -> Result<u32, Fault> {
        let mut at = self.band.0;
        while run == 0 && at <= self.band.1 {
            bits.refill();
            let symbol = bits.symbol(table)?;
            let (zeros, size) = (u32::from(symbol >> 4), symbol & 15);
            let new = match size {
                0 if zeros < 15 => {
                    run = run_of_ends(bits, zeros);
                    break;
                }
                0 => 0,
                1 => {
                    if bits.take(1) == 1 {
                        1 << self.left
                    } else {
                        -1 << self.left
                    }
                }
                _ => return Err(Fault::Code),
            };
            at = self.refine(bits, at, zeros, block);
            if new != 0 {
                if at > self.band.1 {
                    return Err(Fault::Coefficient);
                }
                block[place(at)] = new;
            }
            at += 1;
        }
        if run > 0 {
            self.refine(bits, at, u32::MAX, block);
            run -= 1;
        }
        Ok(run)
    }

    /// Reads a bit for every coefficient that is not 0 from `at` on, up to the one that follows so many
    /// zeros; returns its place.
    fn refine(&self, bits: &mut Bits, mut at: usize, mut zeros: u32, block: &mut Block) -> usize {
        let bit = 1i16 << self.left;
        while at <= self.band.1 {
            let coefficient = &mut block[place(at)];
            if *coefficient == 0 {
                if zeros == 0 {
                    break;
                }
                zeros -= 1;
            } else if bits.bit() && *coefficient & bit == 0 {
                *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
            }
            at += 1;
        }
        at
    }
}

/// Transforms all coefficients that the assembly needs.
pub(super) fn finish(
    coefficients: &[Coefficients],
    frame: &Frame,
    quantisation: &[Option<Quantisation>; 4],
    assembly: &mut Assembly,
) -> Result<(), MediaError> {
    for unit in 0..frame.units.1 {
        for at in 0..assembly.n_planes() {
            let component = &frame.components[at];
            let missing = || damaged(FORMAT, "a quantisation table is missing");
            let factors = quantisation[at].as_ref().ok_or_else(missing)?;
            for row in unit * component.factors.1..(unit + 1) * component.factors.1 {
                let blocks = &coefficients[at].blocks[row * coefficients[at].across..];
                for (column, block) in blocks.iter().enumerate().take(component.blocks.0) {
                    let mut product: Block = [0; 64];
                    let mut last = 0;
                    for (place_at, factor) in factors.iter().enumerate() {
                        let coefficient = block[place(place_at)];
                        if coefficient != 0 {
                            product[place(place_at)] = coefficient.wrapping_mul(*factor);
                            last = place_at;
                        }
                    }
                    let (samples, stride) = assembly.block(at, column, row);
                    transform(&product, last, samples, stride);
                }
            }
        }
        assembly.row_done(unit);
    }
    Ok(())
}
