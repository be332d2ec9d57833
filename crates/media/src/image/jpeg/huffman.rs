//! Huffman codes of symbols (ITU-T T.81, annexes C and K.3).
//!
//! Invariant: a table's codes are prefix codes of at most 16 bits.

use super::{FORMAT, tables::Spec};
use crate::{error::MediaError, image::survey::damaged};

/// Codes of up to this length are looked up.
pub(super) const LOOKUP_BITS: u32 = 10;
const LOOKUP_LENGTH: usize = 1 << LOOKUP_BITS;

/// A table to decode with.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The length of the code that the next bits begin with, times 256, and its symbol.
    lookup: [u16; LOOKUP_LENGTH],
    /// Where the next bits hold a code and the whole number that it announces: the number times 256, the
    /// run of zeros before it times 16, and the bits of both.
    numbers: [i16; LOOKUP_LENGTH],
    /// For each length, the first 16 bits that are beyond its codes.
    limits: [u32; 17],
    /// For each length, what is added to a code to find its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Table {
    /// Assigns the codes (T.81, C.2).
    pub(super) fn new(spec: &Spec) -> Result<Self, MediaError> {
        let mut table = Self {
            lookup: [0; LOOKUP_LENGTH],
            numbers: [0; LOOKUP_LENGTH],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: spec.symbols,
        };
        let (mut code, mut symbol) = (0u32, 0usize);
        for length in 1..=16usize {
            let n_codes = usize::from(spec.counts[length - 1]);
            table.offsets[length] = symbol as i32 - code as i32;
            for _ in 0..n_codes {
                if code >= 1 << length {
                    return Err(damaged(FORMAT, "a Huffman table has more codes than fit"));
                }
                if length <= LOOKUP_BITS as usize {
                    let free = LOOKUP_BITS as usize - length;
                    let entry = (length as u16) << 8 | u16::from(spec.symbols[symbol]);
                    table.lookup[(code as usize) << free..][..1 << free].fill(entry);
                }
                code += 1;
                symbol += 1;
            }
            table.limits[length] = code << (16 - length);
            code <<= 1;
        }
        for ahead in 0..LOOKUP_LENGTH {
            table.numbers[ahead] = table.number_at(ahead);
        }
        Ok(table)
    }

    /// What `numbers` holds for these bits: 0 where they hold no whole number.
    fn number_at(&self, ahead: usize) -> i16 {
        let (length, symbol) = self.short(ahead);
        let (run, size) = (symbol >> 4, u32::from(symbol & 15));
        if length == 0 || size == 0 || length + size > LOOKUP_BITS {
            return 0;
        }
        let bits = (ahead >> (LOOKUP_BITS - length - size)) as i32 & ((1 << size) - 1);
        let number = if bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits };
        match i8::try_from(number) {
            Ok(number) => i16::from(number) << 8 | i16::from(run) << 4 | (length + size) as i16,
            Err(_) => 0,
        }
    }

    /// The length of a code and its symbol; the length is 0 where the code is longer than was looked up.
    #[inline(always)]
    pub(super) fn short(&self, ahead: usize) -> (u32, u8) {
        let entry = self.lookup[ahead & (LOOKUP_LENGTH - 1)];
        (u32::from(entry >> 8), entry as u8)
    }

    /// The code and the number that follow as a whole: number, run and bits, or 0 bits.
    #[inline(always)]
    pub(super) fn number(&self, ahead: usize) -> (i16, usize, u32) {
        let entry = self.numbers[ahead & (LOOKUP_LENGTH - 1)];
        (entry >> 8, (entry >> 4 & 15) as usize, (entry & 15) as u32)
    }

    /// The length and the symbol of a code that is longer than was looked up, from the next 16 bits.
    #[cold]
    pub(super) fn long(&self, ahead: u32) -> Option<(u32, u8)> {
        let length = (LOOKUP_BITS as usize + 1..=16).find(|length| ahead < self.limits[*length])?;
        let code = (ahead >> (16 - length)) as i32;
        let symbol = usize::try_from(code + self.offsets[length]).ok()?;
        Some((length as u32, *self.symbols.get(symbol)?))
    }
}

/// The tables that a picture has without saying so, as webcams leave them out (T.81, K.3.3).
pub(super) const STANDARD_DC: [Spec; 2] = [
    Spec::new([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &DC_SYMBOLS),
    Spec::new([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &DC_SYMBOLS),
];

/// As [`STANDARD_DC`], for all other coefficients.
pub(super) const STANDARD_AC: [Spec; 2] = [
    Spec::new([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d], &LUMA_AC_SYMBOLS),
    Spec::new([0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77], &CHROMA_AC_SYMBOLS),
];

const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

const LUMA_AC_SYMBOLS: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22,
    0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33,
    0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34,
    0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55,
    0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76,
    0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5,
    0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4,
    0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1,
    0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

const CHROMA_AC_SYMBOLS: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13,
    0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62,
    0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29,
    0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54,
    0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75,
    0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94,
    0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3,
    0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2,
    0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea,
    0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use super::{super::bits::Bits, *};

    /// The codes of a table in their order: length, code and symbol.
    fn codes(spec: &Spec) -> Vec<(u32, u32, u8)> {
        let (mut code, mut symbols) = (0, spec.symbols.iter());
        let mut codes = Vec::new();
        for (length, count) in (1..).zip(spec.counts) {
            for symbol in symbols.by_ref().take(count.into()) {
                codes.push((length, code, *symbol));
                code += 1;
            }
            code <<= 1;
        }
        codes
    }

    #[test]
    fn every_code_is_decoded_to_its_symbol() {
        for spec in STANDARD_DC.iter().chain(&STANDARD_AC) {
            let table = Table::new(spec).unwrap();
            for (length, code, symbol) in codes(spec) {
                let bytes = ((code << (16 - length)) as u16).to_be_bytes();
                let stuffed =
                    bytes.map(|byte| if byte == 0xff { vec![byte, 0] } else { vec![byte] }).concat();
                let mut bits = Bits::new(&stuffed);
                bits.refill();
                assert_eq!(bits.symbol(&table), Ok(symbol), "{code:0width$b}", width = length as usize);
            }
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let table = Table::new(&STANDARD_AC[0]).unwrap();
        let mut bits = Bits::new(&[0xff, 0, 0xff, 0]);
        bits.refill();
        assert!(bits.symbol(&table).is_err());
    }

    #[test]
    fn more_codes_than_fit_are_refused() {
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Table::new(&Spec::new(counts, &[1, 2, 3])).is_err());
        counts[0] = 2;
        assert!(Table::new(&Spec::new(counts, &[1, 2])).is_ok());
    }
}
