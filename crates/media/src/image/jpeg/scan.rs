//! The blocks of a scan in the order in which they are coded (ITU-T T.81, annex A.2).
//!
//! Invariant: a scan without its last block is refused, never filled up.

use super::{
    Fault,
    bits::Bits,
    frame::{Coding, Frame, Scan},
    huffman::Table,
    tables::Tables,
};
use crate::error::MediaError;

/// What decodes the blocks of one scan.
pub(super) trait BlockDecoder {
    /// Decodes the next block of a component, `at` its place in the scan, `column` and `row` the block's.
    fn block(&mut self, bits: &mut Bits, at: usize, column: usize, row: usize) -> Result<(), Fault>;

    /// Forgets what earlier blocks said of later ones.
    fn restart(&mut self);

    /// A row of units is done: of blocks, if the scan has one component.
    fn row_done(&mut self, row: usize);
}

/// Decodes every block of a scan; returns what is left of its data.
pub(super) fn walk<'a>(
    frame: &Frame,
    scan: &Scan,
    restart_interval: usize,
    data: &'a [u8],
    decoder: &mut impl BlockDecoder,
) -> Result<Bits<'a>, Fault> {
    let mut bits = Bits::new(data);
    let alone = match scan.coded.as_slice() {
        [coded] => Some(&frame.components[coded.component]),
        _ => None,
    };
    let factors: Vec<(usize, usize)> = match alone {
        Some(_) => vec![(1, 1)],
        None => scan.coded.iter().map(|coded| frame.components[coded.component].factors).collect(),
    };
    let (across, down) = alone.map_or(frame.units, |component| component.blocks);
    let (mut n_left, mut number) = (restart_interval, 0);
    for y in 0..down {
        for x in 0..across {
            if restart_interval > 0 {
                if n_left == 0 {
                    bits.restart(number)?;
                    decoder.restart();
                    n_left = restart_interval;
                    number = (number + 1) % 8;
                }
                n_left -= 1;
            }
            for (at, (h, v)) in factors.iter().enumerate() {
                for row in y * v..(y + 1) * v {
                    for column in x * h..(x + 1) * h {
                        decoder.block(&mut bits, at, column, row).map_err(|fault| bits.end_or(fault))?;
                    }
                }
            }
        }
        bits.check()?;
        decoder.row_done(y);
    }
    Ok(bits)
}

/// The Huffman tables of a scan, ready to decode with.
#[derive(Debug, Default)]
pub(super) struct Decoding {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
}

impl Decoding {
    /// Builds the tables that the scan uses, once each.
    pub(super) fn new(tables: &Tables, scan: &Scan, coding: Coding) -> Result<Self, MediaError> {
        let mut decoding = Self::default();
        let needs_dc = coding == Coding::Sequential || (scan.is_dc() && scan.bits.0 == 0);
        let needs_ac = coding == Coding::Sequential || !scan.is_dc();
        for coded in &scan.coded {
            if needs_dc && decoding.dc[coded.dc].is_none() {
                decoding.dc[coded.dc] = Some(Table::new(tables.dc(coded.dc)?)?);
            }
            if needs_ac && decoding.ac[coded.ac].is_none() {
                decoding.ac[coded.ac] = Some(Table::new(tables.ac(coded.ac)?)?);
            }
        }
        Ok(decoding)
    }

    /// The table for means, if the scan uses it.
    pub(super) fn dc(&self, at: usize) -> Option<&Table> {
        self.dc[at].as_ref()
    }

    /// The table for all other coefficients, if the scan uses it.
    pub(super) fn ac(&self, at: usize) -> Option<&Table> {
        self.ac[at].as_ref()
    }
}
