//! How a lossy WebP bitstream is laid out, from its frame header (RFC 6386, 9).
//!
//! Invariant: a decoder that runs behind [`survey`] copies partitions that are there; their sizes alone would
//! have it take 16 MiB for a few bytes.

use super::{
    Size,
    survey::{cut_off, damaged},
};
use crate::error::MediaError;

const FORMAT: &str = "WebP image";

/// What a decoder keeps of each macroblock until it filters the edges, in bytes.
const MACROBLOCK_BYTES: u64 = 32;

/// Bytes of the frame tag, the start code and the size.
const HEAD: usize = 10;

/// Holds the partitions that the header names to the bytes of the chunk. Returns what decoding takes, in bytes,
/// beside the picture that it makes.
pub(super) fn survey(chunk: &[u8], size: Size) -> Result<u64, MediaError> {
    let [tag0, tag1, tag2, ..] = *chunk else { return Err(cut_off(FORMAT)) };
    if tag0 & 1 != 0 {
        return Err(damaged(FORMAT, "it begins with a frame that builds on another one"));
    }
    let first_length = (u32::from_le_bytes([tag0, tag1, tag2, 0]) >> 5) as usize;
    let (first, rest) = chunk
        .get(HEAD..)
        .and_then(|rest| rest.split_at_checked(first_length))
        .ok_or_else(|| cut_off(FORMAT))?;
    let n_partitions = 1usize << Bools::new(first).partition_bits();
    // The last partition takes the rest.
    let lengths = rest.get(..3 * (n_partitions - 1)).ok_or_else(|| cut_off(FORMAT))?;
    let named = lengths.as_chunks().0.iter().map(|[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]) as usize);
    if named.sum::<usize>() > rest.len() - lengths.len() {
        return Err(cut_off(FORMAT));
    }
    let (across, down) = (u64::from(size.width.div_ceil(16)), u64::from(size.height.div_ceil(16)));
    // Luma, and chroma at a quarter of it twice; macroblocks in a vector that grows; borders; and the last
    // partition is read into a vector that grows before it is copied.
    let planes = across * down * 16 * 16 * 3 / 2;
    let macroblocks = (across * down).next_power_of_two() * MACROBLOCK_BYTES * 3 / 2;
    let borders = across * (MACROBLOCK_BYTES + 16 + 8 + 8);
    Ok(planes + macroblocks + borders + 4 * chunk.len() as u64)
}

/// The arithmetic decoder (RFC 6386, 7), for bits of even chance.
struct Bools<'a> {
    bytes: std::slice::Iter<'a, u8>,
    value: u32,
    range: u32,
    n_shifted: u32,
}

impl<'a> Bools<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut bools = Self { bytes: bytes.iter(), value: 0, range: 255, n_shifted: 0 };
        bools.value = bools.byte() << 8 | bools.byte();
        bools
    }

    fn byte(&mut self) -> u32 {
        self.bytes.next().copied().unwrap_or(0).into()
    }

    fn flag(&mut self) -> bool {
        let split = 1 + (self.range - 1) / 2;
        let is_set = self.value >= split << 8;
        if is_set {
            self.range -= split;
            self.value -= split << 8;
        } else {
            self.range = split;
        }
        while self.range < 128 {
            self.value <<= 1;
            self.range <<= 1;
            self.n_shifted += 1;
            if self.n_shifted == 8 {
                self.n_shifted = 0;
                self.value |= self.byte();
            }
        }
        is_set
    }

    fn skip(&mut self, n: u32) {
        (0..n).for_each(|_| {
            self.flag();
        });
    }

    /// Skips `n` values that are there if a flag is set.
    fn skip_optional(&mut self, n: u32, bits: u32) {
        for _ in 0..n {
            if self.flag() {
                self.skip(bits);
            }
        }
    }

    /// Reads the header of a key frame as far as the number of its partitions (9.2 to 9.5), as a power of two.
    fn partition_bits(&mut self) -> u32 {
        self.skip(2); // colour space, clamping
        if self.flag() {
            let (has_map, has_values) = (self.flag(), self.flag());
            if has_values {
                self.skip(1); // absolute or not
                self.skip_optional(4, 7 + 1); // quantizers and their signs
                self.skip_optional(4, 6 + 1); // levels of the filter and their signs
            }
            if has_map {
                self.skip_optional(3, 8); // probabilities
            }
        }
        self.skip(1 + 6 + 3); // kind, level and sharpness of the filter
        if self.flag() && self.flag() {
            self.skip_optional(4 + 4, 6 + 1); // changes of the level by frame and mode
        }
        u32::from(self.flag()) << 1 | u32::from(self.flag())
    }
}
