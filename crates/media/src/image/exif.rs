//! The orientation that EXIF metadata state (EXIF 2.32, 4.6; TIFF 6.0, section 2).
//!
//! Invariant: every offset is checked before it is followed, and the work is linear in the block.

/// What precedes the TIFF header in a JPEG's APP1 segment, and by mistake in PNG and WebP chunks.
pub(super) const PREFIX: &[u8] = b"Exif\0\0";

const ORIENTATION: u16 = 0x0112;

/// The most segments that are joined into one block: EXIF beyond 64 KB is split over several.
const MOST_PARTS: usize = 64;

/// Returns the value of the orientation's tag in the first directory of a TIFF block, of any integral
/// type: writers use SHORT, as the standard says, and also LONG, SLONG, SSHORT, BYTE and RATIONAL. Of
/// several values the first counts.
pub(super) fn orientation(block: &[u8]) -> Option<u32> {
    let tiff = Tiff::new(block)?;
    let directory = tiff.long(4)? as usize;
    let n_entries = usize::from(tiff.short(directory)?);
    (0..n_entries)
        .map_while(|entry| {
            let at = directory.checked_add(2 + entry * 12)?;
            Some((tiff.short(at)?, at))
        })
        .filter(|(tag, _)| *tag == ORIENTATION)
        .find_map(|(_, at)| tiff.first_value(at))
}

/// The EXIF segments of a JPEG, in their order.
#[derive(Debug, Default)]
pub(super) struct Segments<'a> {
    parts: Vec<&'a [u8]>,
}

impl<'a> Segments<'a> {
    /// Adds the content of a segment, without its prefix.
    pub(super) fn push(&mut self, part: &'a [u8]) {
        if self.parts.len() < MOST_PARTS {
            self.parts.push(part);
        }
    }

    /// Returns the first result of `read` over the blocks. A block begins where a segment has a TIFF
    /// header; segments without one continue it, and are joined only where its beginning is not enough.
    pub(super) fn find_map<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let begins = |part: &&[u8]| Tiff::new(part).is_some();
        self.parts.iter().enumerate().filter(|(_, part)| begins(part)).find_map(|(at, part)| {
            let further = self.parts[at + 1..].iter().take_while(|part| !begins(part)).count();
            read(part).or_else(|| read(&self.parts[at..=at + further].concat()).filter(|_| further > 0))
        })
    }
}

/// A TIFF block: numbers of either byte order at offsets from its beginning.
#[derive(Debug, Clone, Copy)]
struct Tiff<'a> {
    block: &'a [u8],
    is_little_endian: bool,
}

impl<'a> Tiff<'a> {
    fn new(block: &'a [u8]) -> Option<Self> {
        match block.get(..4)? {
            b"II*\0" => Some(Self { block, is_little_endian: true }),
            b"MM\0*" => Some(Self { block, is_little_endian: false }),
            _ => None,
        }
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.block.get(at..)?.first_chunk().copied()
    }

    fn short(&self, at: usize) -> Option<u16> {
        let pair = self.bytes(at)?;
        Some(if self.is_little_endian { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let four = self.bytes(at)?;
        Some(if self.is_little_endian { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    }

    /// Reads the first value of the entry at `at`: tag, type, count, then the values themselves where
    /// they fit into four bytes, or else their offset.
    fn first_value(&self, at: usize) -> Option<u32> {
        let kind = self.short(at + 2)?;
        let count = u64::from(self.long(at + 4)?);
        let size = match kind {
            1 | 6 | 7 => 1,  // BYTE, SBYTE, UNDEFINED
            3 | 8 => 2,      // SHORT, SSHORT
            4 | 9 | 13 => 4, // LONG, SLONG, IFD
            5 | 10 => 8,     // RATIONAL, SRATIONAL
            _ => return None,
        };
        let is_inline = count * size <= 4;
        let values = if is_inline { at + 8 } else { self.long(at + 8)? as usize };
        match (count, size) {
            (0, _) => None,
            (_, 1) => self.bytes(values).map(|[byte]| byte.into()),
            (_, 2) => self.short(values).map(u32::from),
            (_, 4) => self.long(values),
            _ => {
                let (numerator, denominator) = (self.long(values)?, self.long(values.checked_add(4)?)?);
                numerator.checked_div(denominator).filter(|whole| whole * denominator == numerator)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block whose first directory holds the entries: tag, type, count and the four bytes of the value.
    fn block(is_little_endian: bool, entries: &[(u16, u16, u32, [u8; 4])], rest: &[u8]) -> Vec<u8> {
        let short = |n: u16| if is_little_endian { n.to_le_bytes() } else { n.to_be_bytes() };
        let long = |n: u32| if is_little_endian { n.to_le_bytes() } else { n.to_be_bytes() };
        let mut block = if is_little_endian { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        block.extend(long(8));
        block.extend(short(entries.len() as u16));
        for (tag, kind, count, value) in entries {
            block.extend([short(*tag), short(*kind)].concat());
            block.extend(long(*count));
            block.extend(value);
        }
        block.extend([0; 4]);
        block.extend(rest);
        block
    }

    /// The bytes of `n` as a number of `size` bytes, filled with zeros behind.
    fn number(is_little_endian: bool, n: u32, size: usize) -> [u8; 4] {
        let mut bytes = [0; 4];
        let ordered = if is_little_endian {
            n.to_le_bytes()[..size].to_vec()
        } else {
            n.to_be_bytes()[4 - size..].to_vec()
        };
        bytes[..size].copy_from_slice(&ordered);
        bytes
    }

    #[test]
    fn every_integral_type_is_read_in_both_byte_orders() {
        for little in [true, false] {
            for (kind, size) in [(1, 1), (6, 1), (7, 1), (3, 2), (8, 2), (4, 4), (9, 4), (13, 4)] {
                for value in 0..=9 {
                    let entry = (ORIENTATION, kind, 1, number(little, value, size));
                    assert_eq!(orientation(&block(little, &[entry], &[])), Some(value), "type {kind}");
                }
            }
        }
    }

    #[test]
    fn of_several_values_the_first_counts_wherever_they_lie() {
        for little in [true, false] {
            let [a, b, ..] = number(little, 6, 2);
            let [c, d, ..] = number(little, 1, 2);
            assert_eq!(orientation(&block(little, &[(ORIENTATION, 3, 2, [a, b, c, d])], &[])), Some(6));
            // Two of four bytes each lie behind the directory, which ends at 26.
            let values = [number(little, 6, 4), number(little, 1, 4)].concat();
            let at = number(little, 26, 4);
            assert_eq!(orientation(&block(little, &[(ORIENTATION, 4, 2, at)], &values)), Some(6));
            // Six over one is a whole number, six over four is none.
            assert_eq!(orientation(&block(little, &[(ORIENTATION, 5, 1, at)], &values)), Some(6));
            let values = [number(little, 6, 4), number(little, 4, 4)].concat();
            assert_eq!(orientation(&block(little, &[(ORIENTATION, 5, 1, at)], &values)), None);
        }
    }

    #[test]
    fn an_entry_without_a_value_is_passed_over() {
        let entries = [
            (0x010f, 2, 4, *b"LEP\0"),
            (ORIENTATION, 2, 2, *b"6\0\0\0"),
            (ORIENTATION, 3, 0, [6, 0, 0, 0]),
            (ORIENTATION, 3, 1, [8, 0, 0, 0]),
        ];
        assert_eq!(orientation(&block(true, &entries, &[])), Some(8));
    }

    #[test]
    fn a_broken_block_states_nothing() {
        let whole = block(true, &[(ORIENTATION, 3, 1, [6, 0, 0, 0])], &[]);
        for length in 0..whole.len() - 6 {
            assert_eq!(orientation(&whole[..length]), None);
        }
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), None);
        let outside = block(false, &[(ORIENTATION, 4, 2, [0xff; 4]), (ORIENTATION, 5, 1, [0xff; 4])], &[]);
        assert_eq!(orientation(&outside), None);
    }

    #[test]
    fn the_first_block_that_states_something_counts() {
        let says = |value| block(true, &[(ORIENTATION, 3, 1, [value, 0, 0, 0])], &[]);
        let silent = block(true, &[(0x010f, 2, 4, *b"LEP\0")], &[]);
        let (six, eight) = (says(6), says(8));
        let found = |parts: &[&[u8]]| {
            let mut segments = Segments::default();
            parts.iter().for_each(|part| segments.push(part));
            segments.find_map(orientation)
        };
        assert_eq!(found(&[&six, &eight]), Some(6));
        assert_eq!(found(&[&silent, &eight]), Some(8));
        assert_eq!(found(&[&six, b"more of the block before"]), Some(6));
        assert_eq!(found(&[b"no block", &eight, &six]), Some(8));
        assert_eq!(found(&[&silent]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn a_block_is_read_across_its_segments() {
        let filler = [0; 40];
        let mut whole = block(true, &[], &filler);
        let directory = whole.len() as u32;
        whole[4..8].copy_from_slice(&directory.to_le_bytes());
        whole.extend(&block(true, &[(ORIENTATION, 3, 1, [6, 0, 0, 0])], &[])[8..]);
        for cut in 8..whole.len() {
            let mut segments = Segments::default();
            segments.push(&whole[..cut]);
            segments.push(&whole[cut..]);
            assert_eq!(segments.find_map(orientation), Some(6), "cut at {cut}");
        }
    }
}
