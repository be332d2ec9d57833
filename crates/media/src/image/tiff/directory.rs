//! The first directory of a TIFF (TIFF 6.0, 2): fields by their tags.
//!
//! Invariant: values are read where they lie, one by one; nothing is copied and no count is believed.

use super::{FORMAT, cut_off, damaged};
use crate::error::MediaError;

/// Bytes of an entry: tag, kind, count, and the value or where it lies.
const ENTRY: usize = 12;

/// The fields of a page.
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    is_little: bool,
    entries: &'a [[u8; ENTRY]],
}

/// Values of one tag.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) tag: u16,
    kind: u16,
    values: &'a [u8],
    is_little: bool,
}

fn short(bytes: [u8; 2], is_little: bool) -> u16 {
    if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
}

fn long(bytes: [u8; 4], is_little: bool) -> u32 {
    if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
}

impl<'a> Directory<'a> {
    /// Finds the directory of the first page.
    pub(super) fn first(bytes: &'a [u8]) -> Result<Self, MediaError> {
        let is_little = bytes.first() == Some(&b'I');
        let at = *bytes.get(4..).and_then(|rest| rest.first_chunk()).ok_or_else(|| cut_off(FORMAT))?;
        let rest = bytes.get(long(at, is_little) as usize..).ok_or_else(|| cut_off(FORMAT))?;
        let (n_entries, rest) = rest.split_first_chunk().ok_or_else(|| cut_off(FORMAT))?;
        let n_bytes = usize::from(short(*n_entries, is_little)) * ENTRY;
        let entries = rest.get(..n_bytes).ok_or_else(|| cut_off(FORMAT))?.as_chunks().0;
        Ok(Self { bytes, is_little, entries })
    }

    /// Returns whether the least of a number's bytes comes first.
    pub(super) fn is_little(&self) -> bool {
        self.is_little
    }

    /// Returns whether the file is a camera's raw image, whose first page is a thumbnail at best.
    pub(super) fn is_raw(&self) -> bool {
        const DNG_VERSION: u16 = 50706;
        const CANON: &[u8] = b"CR\x02";
        self.find(DNG_VERSION).is_some() || self.bytes.get(8..11) == Some(CANON)
    }

    fn find(&self, wanted: u16) -> Option<&'a [u8; ENTRY]> {
        self.entries.iter().find(|[a, b, ..]| short([*a, *b], self.is_little) == wanted)
    }

    /// The values of a tag, if it is there.
    pub(super) fn field(&self, tag: u16) -> Result<Option<Field<'a>>, MediaError> {
        let Some(entry) = self.find(tag) else { return Ok(None) };
        let [_, _, k0, k1, c0, c1, c2, c3, value @ ..] = entry;
        let (kind, count) = (short([*k0, *k1], self.is_little), long([*c0, *c1, *c2, *c3], self.is_little));
        let width = match kind {
            1 | 7 => 1,
            3 => 2,
            4 => 4,
            _ => return Err(damaged(FORMAT, format!("its tag {tag} has values of kind {kind}"))),
        };
        let n_bytes = width * count as usize;
        let values = if n_bytes <= value.len() {
            &value[..n_bytes]
        } else {
            let rest = self.bytes.get(long(*value, self.is_little) as usize..);
            rest.and_then(|rest| rest.get(..n_bytes)).ok_or_else(|| cut_off(FORMAT))?
        };
        Ok(Some(Field { tag, kind, values, is_little: self.is_little }))
    }

    /// The first value of a tag, or `otherwise`; a tag that has neither is required.
    pub(super) fn number(&self, tag: u16, otherwise: Option<u32>) -> Result<u32, MediaError> {
        match (self.field(tag)?, otherwise) {
            (Some(field), _) => field.at(0),
            (None, Some(otherwise)) => Ok(otherwise),
            (None, None) => Err(damaged(FORMAT, format!("its tag {tag} is missing"))),
        }
    }

    /// The one value that a tag has for all samples, or `otherwise`.
    pub(super) fn same(&self, tag: u16, otherwise: u32) -> Result<u32, MediaError> {
        let Some(field) = self.field(tag)? else { return Ok(otherwise) };
        let first = field.at(0)?;
        for at in 1..field.len().min(16) {
            if field.at(at)? != first {
                return Err(super::unsupported("whose samples differ in depth or format"));
            }
        }
        Ok(first)
    }

    /// The palette of `bits`, of which the upper eight of sixteen bits are kept: all reds, all greens, all blues.
    pub(super) fn palette(&self, bits: u32) -> Result<Vec<[u8; 3]>, MediaError> {
        let field = self.field(320)?.ok_or_else(|| damaged(FORMAT, "it has no palette"))?;
        let n = 1 << bits;
        let colour = |index: usize| {
            let level = |plane: usize| Ok((field.at(plane * n + index)? >> 8) as u8);
            Ok([level(0)?, level(1)?, level(2)?])
        };
        (0..n).map(colour).collect()
    }
}

impl<'a> Field<'a> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.values.len() / [1, 2, 4][usize::from(self.kind == 3) + 2 * usize::from(self.kind == 4)]
    }

    /// The value at `index`.
    pub(super) fn at(&self, index: usize) -> Result<u32, MediaError> {
        let value = match self.kind {
            3 => self.values.as_chunks().0.get(index).map(|pair| short(*pair, self.is_little).into()),
            4 => self.values.as_chunks().0.get(index).map(|four| long(*four, self.is_little)),
            _ => self.values.get(index).map(|byte| u32::from(*byte)),
        };
        value.ok_or_else(|| damaged(FORMAT, format!("its tag {} has too few values", self.tag)))
    }

    /// The values as bytes.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.values
    }
}
