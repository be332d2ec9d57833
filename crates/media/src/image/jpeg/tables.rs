//! The tables that segments define for the scans behind them (ITU-T T.81, annex B.2.4).
//!
//! Invariant: a table that is handed out was defined, or is one that the standard gives.

use super::{
    FORMAT,
    frame::Coding,
    huffman::{STANDARD_AC, STANDARD_DC},
};
use crate::{error::MediaError, image::survey::damaged};

/// How often each length of code occurs, from 1 to 16, and the symbols in the order of their codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) counts: [u8; 16],
    pub(super) symbols: [u8; 256],
}

impl Spec {
    pub(super) const fn new(counts: [u8; 16], symbols: &[u8]) -> Self {
        let mut all = [0; 256];
        all.split_at_mut(symbols.len()).0.copy_from_slice(symbols);
        Self { counts, symbols: all }
    }
}

/// Factors of the coefficients, in coded order. They have 16 bits, and products wrap, as in libjpeg-turbo.
pub(super) type Quantisation = [i16; 64];

/// The tables as of one place in the file.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    quantisation: [Option<Quantisation>; 4],
    dc: [Option<Spec>; 4],
    ac: [Option<Spec>; 4],
    /// Units between two restart markers; 0 if there are none.
    pub(super) restart_interval: usize,
}

impl Tables {
    /// The tables before any segment: webcams leave out the standard ones of sequential pictures.
    pub(super) fn new(coding: Coding) -> Self {
        let standard = |[luma, chroma]: [Spec; 2]| match coding {
            Coding::Sequential => [Some(luma), Some(chroma), None, None],
            Coding::Progressive => [None; 4],
        };
        Self {
            quantisation: [None; 4],
            dc: standard(STANDARD_DC),
            ac: standard(STANDARD_AC),
            restart_interval: 0,
        }
    }

    /// Reads a segment of quantisation tables.
    pub(super) fn define_quantisation(&mut self, mut content: &[u8]) -> Result<(), MediaError> {
        let broken = || damaged(FORMAT, "a quantisation table is broken");
        while let Some((kind, rest)) = content.split_first() {
            let is_wide = kind >> 4 != 0;
            let table = self.quantisation.get_mut(usize::from(kind & 15)).ok_or_else(broken)?;
            let length = if is_wide { 128 } else { 64 };
            let (factors, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
            *table = Some(std::array::from_fn(|at| match is_wide {
                true => u16::from_be_bytes([factors[2 * at], factors[2 * at + 1]]).cast_signed(),
                false => factors[at].into(),
            }));
            content = rest;
        }
        Ok(())
    }

    /// Reads a segment of Huffman tables.
    pub(super) fn define_huffman(&mut self, mut content: &[u8]) -> Result<(), MediaError> {
        let broken = || damaged(FORMAT, "a Huffman table is broken");
        while let Some((kind, rest)) = content.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(broken)?;
            let n_symbols = counts.iter().map(|count| usize::from(*count)).sum::<usize>();
            let (symbols, rest) = rest.split_at_checked(n_symbols).ok_or_else(broken)?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(broken()),
            };
            let table = tables.get_mut(usize::from(kind & 15)).ok_or_else(broken)?;
            *table = Some(Spec::new(*counts, symbols.get(..n_symbols.min(256)).unwrap_or_default()));
            if n_symbols > 256 {
                return Err(broken());
            }
            content = rest;
        }
        Ok(())
    }

    /// Reads a segment that defines the restart interval.
    pub(super) fn define_restart_interval(&mut self, content: &[u8]) -> Result<(), MediaError> {
        let [high, low] =
            content.first_chunk().ok_or_else(|| damaged(FORMAT, "a restart interval is broken"))?;
        self.restart_interval = u16::from_be_bytes([*high, *low]).into();
        Ok(())
    }

    pub(super) fn quantisation(&self, at: usize) -> Result<Quantisation, MediaError> {
        let table = self.quantisation.get(at).copied().flatten();
        table.ok_or_else(|| damaged(FORMAT, "a quantisation table is missing"))
    }

    /// The table for means. Their symbols are sizes of numbers, of 15 bits at most.
    pub(super) fn dc(&self, at: usize) -> Result<&Spec, MediaError> {
        let spec = self.dc[at].as_ref().ok_or_else(|| damaged(FORMAT, "a Huffman table is missing"))?;
        let n_symbols = spec.counts.iter().map(|count| usize::from(*count)).sum::<usize>();
        if spec.symbols[..n_symbols].iter().any(|size| *size > 15) {
            return Err(damaged(FORMAT, "a Huffman table for means has numbers of more than 15 bits"));
        }
        Ok(spec)
    }

    /// The table for all other coefficients.
    pub(super) fn ac(&self, at: usize) -> Result<&Spec, MediaError> {
        self.ac[at].as_ref().ok_or_else(|| damaged(FORMAT, "a Huffman table is missing"))
    }
}

/// Where the coefficients of a block lie in the order in which they are coded (T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Returns where the coefficient at a place in coded order lies in its block.
#[inline(always)]
pub(super) fn place(at: usize) -> usize {
    usize::from(ZIGZAG[at & 63])
}
