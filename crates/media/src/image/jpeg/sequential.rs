//! Blocks that one scan codes as a whole (ITU-T T.81, annex F.2).
//!
//! Invariant: coefficients live as long as their block is transformed, and no longer.

use lepton_kernels::pixels::{Block, transform};

use super::{
    FORMAT, Fault,
    assembly::Assembly,
    bits::Bits,
    frame::Scan,
    huffman::Table,
    scan::{BlockDecoder, Decoding},
    tables::{Quantisation, place},
};
use crate::{error::MediaError, image::survey::damaged};

/// Decodes the blocks of a scan into the planes of an assembly.
pub(super) struct Sequential<'a> {
    parts: Vec<Part<'a>>,
    assembly: &'a mut Assembly,
}

/// A component of the scan.
struct Part<'a> {
    component: usize,
    dc: &'a Table,
    ac: &'a Table,
    quantisation: Quantisation,
    /// The mean of the block before.
    mean: i32,
    is_needed: bool,
}

impl<'a> Sequential<'a> {
    /// `quantisation` has the table of each component of the frame whose scan has begun.
    pub(super) fn new(
        scan: &Scan,
        decoding: &'a Decoding,
        quantisation: &[Option<Quantisation>; 4],
        assembly: &'a mut Assembly,
    ) -> Result<Self, MediaError> {
        let n_needed = assembly.n_planes();
        let parts = scan.coded.iter().map(|coded| {
            Some(Part {
                component: coded.component,
                dc: decoding.dc(coded.dc)?,
                ac: decoding.ac(coded.ac)?,
                quantisation: quantisation[coded.component]?,
                mean: 0,
                is_needed: coded.component < n_needed,
            })
        });
        let parts = parts.collect::<Option<_>>().ok_or_else(|| damaged(FORMAT, "a table is missing"))?;
        Ok(Self { parts, assembly })
    }
}

impl BlockDecoder for Sequential<'_> {
    #[inline]
    fn block(&mut self, bits: &mut Bits, at: usize, column: usize, row: usize) -> Result<(), Fault> {
        let part = &mut self.parts[at];
        if !part.is_needed {
            return pass_over(bits, part);
        }
        let mut block: Block = [0; 64];
        let last = decode(bits, part, &mut block)?;
        let (samples, stride) = self.assembly.block(part.component, column, row);
        transform(&block, last, samples, stride);
        Ok(())
    }

    fn restart(&mut self) {
        self.parts.iter_mut().for_each(|part| part.mean = 0);
    }

    fn row_done(&mut self, row: usize) {
        self.assembly.row_done(row);
    }
}

/// Decodes a block and multiplies its coefficients; returns the place of the last one that was coded.
#[inline(always)]
fn decode(bits: &mut Bits, part: &mut Part, block: &mut Block) -> Result<usize, Fault> {
    bits.refill();
    let size = bits.symbol(part.dc)?;
    part.mean = part.mean.wrapping_add(bits.number(size.into()));
    block[0] = (part.mean as i16).wrapping_mul(part.quantisation[0]);
    let (mut at, mut last) = (1, 0);
    while at < 64 {
        bits.refill();
        let (number, run, n_bits) = part.ac.number(bits.ahead());
        let number = if n_bits > 0 {
            bits.skip(n_bits);
            at += run;
            number
        } else {
            let symbol = bits.symbol(part.ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run < 15 {
                    break;
                }
                at += 16;
                continue;
            }
            at += run;
            bits.number(size) as i16
        };
        let factor = part.quantisation.get(at).ok_or(Fault::Coefficient)?;
        block[place(at)] = number.wrapping_mul(*factor);
        last = at;
        at += 1;
    }
    Ok(last)
}

/// Reads a block that is not needed.
#[inline(always)]
fn pass_over(bits: &mut Bits, part: &Part) -> Result<(), Fault> {
    bits.refill();
    let size = bits.symbol(part.dc)?;
    bits.number(size.into());
    let mut at = 1;
    while at < 64 {
        bits.refill();
        let (_, run, n_bits) = part.ac.number(bits.ahead());
        if n_bits > 0 {
            bits.skip(n_bits);
            at += run;
        } else {
            let symbol = bits.symbol(part.ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run < 15 {
                    break;
                }
                at += 16;
                continue;
            }
            at += run;
            bits.number(size);
        }
        if at > 63 {
            return Err(Fault::Coefficient);
        }
        at += 1;
    }
    Ok(())
}
