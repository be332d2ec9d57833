//! Bits and prefix codes of a lossless WebP stream (RFC 9649, 3 and 6.2).
//!
//! Invariant: nothing is read beyond the end of the stream; a code is complete or refused.

use crate::error::MediaError;

use super::{FORMAT, cut_off, damaged};

/// The longest code, in bits.
const MAX_LENGTH: usize = 15;

/// A decoder's tables are indexed by as many bits; longer codes go through nodes of 16 bytes, two a code.
const TABLE_BITS: u32 = 10;
const NODE_BYTES: u64 = 16;

/// The order in which the lengths of the code of lengths are written.
const LENGTH_ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// What is known of a prefix code without its table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    /// The symbol of a code that has only one, which takes no bits.
    pub(super) single: Option<u16>,
    /// Bytes of its table in the decoder.
    pub(super) bytes: u64,
}

/// A prefix code that can be read: for all values of the next `width` bits, the symbol in the upper twelve bits of
/// a slot and its length in the lower four.
#[derive(Debug, Default)]
pub(super) struct Code {
    pub(super) shape: Shape,
    width: u32,
    table: Vec<u16>,
}

/// How a prefix code is written.
enum Written {
    /// Two symbols, the code 0 for the first; the decoder puts no order to them.
    Pair([u16; 2]),
    /// The length of each symbol's code, 0 for one that has none.
    Lengths(Vec<u8>),
}

/// Bits of a stream, the lowest of a byte first.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// How many bits have been read.
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, and zeros beyond the end; at least 32.
    fn ahead(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let next = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0; 8];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        });
        u64::from_le_bytes(next) >> (self.at % 8)
    }

    fn skip(&mut self, n: u32) -> Result<(), MediaError> {
        self.at += n as usize;
        if self.at > self.bytes.len() * 8 { Err(cut_off(FORMAT)) } else { Ok(()) }
    }

    /// Reads a number of at most 32 bits.
    pub(super) fn read(&mut self, n: u32) -> Result<u32, MediaError> {
        let value = (self.ahead() & ((1 << n) - 1)) as u32;
        self.skip(n).map(|()| value)
    }

    /// Reads a symbol.
    pub(super) fn symbol(&mut self, code: &Code) -> Result<u16, MediaError> {
        let slot = code.table[(self.ahead() & ((1 << code.width) - 1)) as usize];
        self.skip(u32::from(slot) & 15).map(|()| slot >> 4)
    }

    /// Reads what follows a prefix of a length or a distance (5.2.2).
    pub(super) fn extended(&mut self, prefix: usize) -> Result<usize, MediaError> {
        if prefix < 4 {
            return Ok(prefix + 1);
        }
        let n_bits = (prefix as u32 - 2) >> 1;
        let offset = (2 + (prefix & 1)) << n_bits;
        Ok(offset + self.read(n_bits)? as usize + 1)
    }

    /// Reads a code of `n_symbols`, without making its table.
    pub(super) fn shape(&mut self, n_symbols: usize) -> Result<Shape, MediaError> {
        self.written(n_symbols)?.shape()
    }

    /// Reads a code of `n_symbols`.
    pub(super) fn code(&mut self, n_symbols: usize) -> Result<Code, MediaError> {
        self.written(n_symbols)?.code()
    }

    /// Reads how a code is written (6.2.1).
    fn written(&mut self, n_symbols: usize) -> Result<Written, MediaError> {
        let mut of = vec![0u8; n_symbols];
        let beyond = || damaged(FORMAT, "a prefix code has symbols beyond its alphabet");
        if self.read(1)? == 1 {
            // One symbol, of one bit or eight, and perhaps a second one of eight.
            let has_two = self.read(1)? == 1;
            let n_bits = 1 + 7 * self.read(1)?;
            let first = self.read(n_bits)? as usize;
            let second = if has_two { self.read(8)? as usize } else { first };
            if first.max(second) >= n_symbols {
                return Err(beyond());
            }
            if has_two {
                return Ok(Written::Pair([first as u16, second as u16]));
            }
            of[first] = 1;
            return Ok(Written::Lengths(of));
        }
        let mut code_lengths = vec![0u8; LENGTH_ORDER.len()];
        let n_code_lengths = 4 + self.read(4)? as usize;
        for at in LENGTH_ORDER.iter().take(n_code_lengths) {
            code_lengths[*at] = self.read(3)? as u8;
        }
        let code = Written::Lengths(code_lengths).code()?;
        let mut n_coded = usize::MAX;
        if self.read(1)? == 1 {
            let n_bits = 2 + 2 * self.read(3)?;
            n_coded = 2 + self.read(n_bits)? as usize;
            if n_coded > n_symbols {
                return Err(beyond());
            }
        }
        let (mut at, mut before) = (0, 8);
        while at < n_symbols && n_coded > 0 {
            n_coded -= 1;
            let symbol = self.symbol(&code)? as u8;
            let (length, n_times) = match symbol {
                ..16 => (symbol, 1),
                16 => (before, 3 + self.read(2)?),
                17 => (0, 3 + self.read(3)?),
                _ => (0, 11 + self.read(7)?),
            };
            of.get_mut(at..at + n_times as usize).ok_or_else(beyond)?.fill(length);
            at += n_times as usize;
            if length != 0 {
                before = length;
            }
        }
        Ok(Written::Lengths(of))
    }
}

/// How many symbols have each length.
fn histogram(lengths: &[u8]) -> [usize; MAX_LENGTH + 1] {
    let mut n_of = [0; MAX_LENGTH + 1];
    lengths.iter().for_each(|length| n_of[usize::from(*length)] += 1);
    n_of[0] = 0;
    n_of
}

fn longest(n_of: &[usize; MAX_LENGTH + 1]) -> u32 {
    n_of.iter().rposition(|n| *n != 0).unwrap_or(0) as u32
}

impl Written {
    fn shape(&self) -> Result<Shape, MediaError> {
        let lengths = match self {
            Self::Pair(_) => return Ok(Shape { single: None, bytes: 8 + 3 * NODE_BYTES }),
            Self::Lengths(lengths) => lengths,
        };
        let n_of = histogram(lengths);
        if n_of.iter().sum::<usize>() <= 1 {
            return match lengths.iter().position(|length| *length != 0) {
                Some(symbol) => Ok(Shape { single: Some(symbol as u16), bytes: 0 }),
                None => Err(damaged(FORMAT, "a prefix code has no symbols")),
            };
        }
        // Kraft's sum, in units of the longest code.
        let sum: usize = n_of.iter().enumerate().map(|(length, n)| n << (MAX_LENGTH - length)).sum();
        if sum != 1 << MAX_LENGTH {
            return Err(damaged(FORMAT, "a prefix code is incomplete"));
        }
        let n_long: usize = n_of[TABLE_BITS as usize + 1..].iter().sum();
        let bytes = (4u64 << longest(&n_of).min(TABLE_BITS)) + 2 * NODE_BYTES * n_long as u64;
        Ok(Shape { single: None, bytes })
    }

    fn code(self) -> Result<Code, MediaError> {
        let shape = self.shape()?;
        let slot = |symbol: u16, length: u8| symbol << 4 | u16::from(length);
        let lengths = match (self, shape.single) {
            (Self::Pair(symbols), _) => {
                return Ok(Code { shape, width: 1, table: symbols.map(|symbol| slot(symbol, 1)).to_vec() });
            }
            (_, Some(symbol)) => return Ok(Code { shape, width: 0, table: vec![slot(symbol, 0)] }),
            (Self::Lengths(lengths), None) => lengths,
        };
        let n_of = histogram(&lengths);
        let width = longest(&n_of);
        let mut next = [0u32; MAX_LENGTH + 2];
        for length in 1..=MAX_LENGTH {
            next[length + 1] = (next[length] + n_of[length] as u32) << 1;
        }
        let mut table = vec![0; 1 << width];
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length != 0) {
            let code = &mut next[usize::from(*length)];
            let first = (code.reverse_bits() >> (32 - u32::from(*length))) as usize;
            *code += 1;
            table[first..].iter_mut().step_by(1 << length).for_each(|at| *at = slot(symbol as u16, *length));
        }
        Ok(Code { shape, width, table })
    }
}
