//! The coded data of a scan as bits, symbols and numbers (ITU-T T.81, annex F.2.2).
//!
//! Invariant: beyond the data only zeros are read, and how many bits of those were used is known.

use super::{
    Fault,
    huffman::{LOOKUP_BITS, Table},
    markers::{RST0, RST7},
};

/// Bits that are at hand after [`Bits::refill`]: a code of 16 and a number of 15 fit in.
const FEWEST_BITS: u32 = 32;

/// Reads coded data up to the first marker, or to their end.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in `window` yet.
    at: usize,
    /// The next bits, from the highest on.
    window: u64,
    /// How many bits of `window` are valid.
    n_bits: u32,
    /// How many bits of zeros stand for data that are not there.
    n_padded: u32,
    /// What the data end with, once that is met.
    end: Option<Fault>,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, window: 0, n_bits: 0, n_padded: 0, end: None }
    }

    /// Makes sure of [`FEWEST_BITS`].
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.n_bits < FEWEST_BITS {
            self.refill_now();
        }
    }

    #[inline(always)]
    fn refill_now(&mut self) {
        if let Some(chunk) = self.data.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let word = u64::from_be_bytes(*chunk);
            if !holds_ff(word) {
                // Bits of the window below the valid ones are those of the byte at `at`, or zeros.
                self.window |= word >> self.n_bits;
                let n_bytes = (63 - self.n_bits) / 8;
                self.at += n_bytes as usize;
                self.n_bits += n_bytes * 8;
                return;
            }
        }
        self.refill_by_bytes();
    }

    #[cold]
    #[inline(never)]
    fn refill_by_bytes(&mut self) {
        while self.n_bits <= 56 {
            let byte = self.next_byte().unwrap_or_else(|| {
                self.n_padded += 8;
                0
            });
            self.window |= u64::from(byte) << (56 - self.n_bits);
            self.n_bits += 8;
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        if self.end.is_some() {
            return None;
        }
        let Some(byte) = self.data.get(self.at) else {
            self.end = Some(Fault::CutOff);
            return None;
        };
        if *byte != 0xff {
            self.at += 1;
            return Some(*byte);
        }
        let next = self.after_fill();
        match self.data.get(next) {
            Some(0) => {
                self.at = next + 1;
                Some(0xff)
            }
            found => {
                self.end = Some(if found.is_some() { Fault::ShortScan } else { Fault::CutOff });
                None
            }
        }
    }

    /// Where the fill bytes from `at` on end.
    fn after_fill(&self) -> usize {
        let rest = self.data.get(self.at..).unwrap_or_default();
        self.at + rest.iter().take_while(|byte| **byte == 0xff).count()
    }

    /// The next `n` bits, of 1 to 32 that are at hand.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u32) -> u32 {
        let bits = (self.window >> (64 - n)) as u32;
        self.skip(n);
        bits
    }

    /// A single bit, at hand or not.
    #[inline(always)]
    pub(super) fn bit(&mut self) -> bool {
        self.refill();
        self.take(1) == 1
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, n: u32) {
        self.window <<= n;
        self.n_bits -= n;
    }

    /// The next bits as an index into a table's lookup.
    #[inline(always)]
    pub(super) fn ahead(&self) -> usize {
        (self.window >> (64 - LOOKUP_BITS)) as usize
    }

    /// The symbol of the next code; its bits are at hand.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Fault> {
        let (n_bits, symbol) = match table.short(self.ahead()) {
            (0, _) => table.long((self.window >> 48) as u32).ok_or(Fault::Code)?,
            short => short,
        };
        self.skip(n_bits);
        Ok(symbol)
    }

    /// A number of `size` bits, of 0 to 15 that are at hand (T.81, F.2.2.1, EXTEND).
    #[inline(always)]
    pub(super) fn number(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let bits = self.take(size) as i32;
        if bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
    }

    /// Fails if more was read than there are data.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.end {
            Some(fault) if self.n_padded > self.n_bits => Err(fault),
            _ => Ok(()),
        }
    }

    /// What is wrong where a block is: the end of the data, if it is so near that the fault follows from it.
    pub(super) fn end_or(&self, fault: Fault) -> Fault {
        self.end.unwrap_or(fault)
    }

    /// Passes over the restart marker of this number, from 0 to 7, and what is left before it.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), Fault> {
        self.check()?;
        loop {
            let rest = self.data.get(self.at..).unwrap_or_default();
            self.at += memchr::memchr(0xff, rest).ok_or(Fault::CutOff)?;
            self.at = self.after_fill();
            let code = *self.data.get(self.at).ok_or(Fault::CutOff)?;
            self.at += 1;
            match code {
                0 => {}
                RST0..=RST7 if code - RST0 == number => break,
                _ => return Err(Fault::Restart),
            }
        }
        *self = Self { data: self.data, at: self.at, window: 0, n_bits: 0, n_padded: 0, end: None };
        Ok(())
    }

    /// Fails if nothing follows the data that were read: the file is cut off before its end marker.
    pub(super) fn check_end(&self) -> Result<(), Fault> {
        self.check()?;
        let n_unread = self.n_bits.saturating_sub(self.n_padded) / 8;
        let follows = n_unread > 0 || self.after_fill() < self.data.len();
        if follows { Ok(()) } else { Err(Fault::CutOff) }
    }
}

/// Returns whether one of the eight bytes is 0xff (Warren, Hacker's Delight, 6-1).
#[inline(always)]
fn holds_ff(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let inverse = !word;
    inverse.wrapping_sub(ONES) & word & (ONES << 7) != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_signed_by_their_first_bit() {
        let mut bits = Bits::new(&[0b0100_1100, 0b0111_0000]);
        bits.refill();
        let sizes = [1, 1, 2, 2, 3, 3, 0];
        assert_eq!(sizes.map(|size| bits.number(size)), [-1, 1, -3, 3, -7, 7, 0]);
    }

    #[test]
    fn what_follows_the_data_tells_whether_the_file_is_whole() {
        let after_one_byte = |data: &[u8]| {
            let mut bits = Bits::new(data);
            bits.refill();
            bits.skip(8);
            bits.check_end()
        };
        for whole in [&b"a\xff\xd9"[..], b"a\0\0a trailer", b"a\xff\xff\xd9", b"a\xff\xfe\0\x02"] {
            assert_eq!(after_one_byte(whole), Ok(()), "{whole:?}");
        }
        for cut in [&b"a"[..], b"a\xff", b"a\xff\xff", b""] {
            assert_eq!(after_one_byte(cut), Err(Fault::CutOff), "{cut:?}");
        }
        assert_eq!(after_one_byte(b"\xff\xd9"), Err(Fault::ShortScan));
    }

    proptest! {
        #[test]
        fn bits_are_those_of_the_bytes_without_their_stuffing(
            bytes in prop::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 1..60),
            sizes in prop::collection::vec(1u32..=16, 1..60),
        ) {
            let stuffed: Vec<u8> =
                bytes.iter().flat_map(|byte| [*byte, 0].into_iter().take(1 + usize::from(*byte == 0xff))).collect();
            let mut bits = Bits::new(&stuffed);
            let mut expected = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1)));
            for size in sizes {
                let wanted: Vec<u32> = expected.by_ref().take(size as usize).collect();
                bits.refill();
                let found = bits.take(size);
                if wanted.len() < size as usize {
                    prop_assert_eq!(bits.check(), Err(Fault::CutOff));
                    return Ok(());
                }
                prop_assert_eq!(found, wanted.iter().fold(0, |sum, bit| sum << 1 | bit));
                prop_assert_eq!(bits.check(), Ok(()));
            }
        }
    }
}
