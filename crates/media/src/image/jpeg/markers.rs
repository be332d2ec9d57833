//! The markers of a JPEG and their segments (ITU-T T.81, annex B).
//!
//! Invariant: a walk moves forward only, and looks at each byte once.

pub(super) const SOF0: u8 = 0xc0;
pub(super) const SOF2: u8 = 0xc2;
pub(super) const DHT: u8 = 0xc4;
pub(super) const SOF15: u8 = 0xcf;
pub(super) const DAC: u8 = 0xcc;
pub(super) const RST0: u8 = 0xd0;
pub(super) const RST7: u8 = 0xd7;
pub(super) const SOI: u8 = 0xd8;
pub(super) const EOI: u8 = 0xd9;
pub(super) const SOS: u8 = 0xda;
pub(super) const DQT: u8 = 0xdb;
pub(super) const DRI: u8 = 0xdd;
pub(super) const DHP: u8 = 0xde;
pub(super) const EXP: u8 = 0xdf;
pub(super) const APP0: u8 = 0xe0;
pub(super) const APP1: u8 = 0xe1;
pub(super) const APP14: u8 = 0xee;
const TEM: u8 = 0x01;

/// A marker with the segment that it begins; the segment of [`EOI`] is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) code: u8,
    pub(super) content: &'a [u8],
    /// Where the segment ends, which is where a scan's coded data begin.
    pub(super) end: usize,
}

/// Walks the segments of a file up to its end marker, or to where it is cut off. Bytes between segments
/// that are no markers, restart markers among them, are passed over as libjpeg does: after a start of
/// scan they are its coded data, elsewhere they are padding.
#[derive(Debug, Clone)]
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// Begins after the start marker of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 2 }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (at, code) = next_marker(self.bytes, self.at)?;
        let at = at + 2;
        if code == EOI {
            self.at = self.bytes.len();
            return Some(Segment { code, content: &[], end: at });
        }
        let length = usize::from(u16::from_be_bytes(*self.bytes.get(at..)?.first_chunk()?)).max(2);
        let content = self.bytes.get(at + 2..at + length)?;
        self.at = at + length;
        Some(Segment { code, content, end: self.at })
    }
}

/// Finds the next marker at or after `from` that begins a segment or ends the file: its position and its
/// code. In coded data 0xff is stuffed with 0, and restart markers are part of them.
fn next_marker(bytes: &[u8], from: usize) -> Option<(usize, u8)> {
    let mut at = from;
    loop {
        at += memchr::memchr(0xff, bytes.get(at..)?)?;
        match *bytes.get(at + 1)? {
            0xff => at += 1,
            0x00 | TEM | RST0..=SOI => at += 2,
            code => return Some((at, code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(bytes: &[u8]) -> Vec<(u8, &[u8])> {
        Segments::new(bytes).map(|segment| (segment.code, segment.content)).collect()
    }

    #[test]
    fn segments_are_walked_over_fill_bytes_restarts_and_padding() {
        let file =
            b"\xff\xd8\xff\xff\xff\xfe\0\x04ab\0\0\0\xff\xd0\xff\0\xff\xe1\0\x03c\xff\xd9\xff\xfe\0\x02";
        assert_eq!(codes(file), [(0xfe, &b"ab"[..]), (APP1, b"c"), (EOI, b"")]);
    }

    #[test]
    fn a_segment_beyond_the_file_ends_the_walk() {
        assert_eq!(codes(b"\xff\xd8\xff\xfe\0\x02\xff\xfe\0\x05ab"), [(0xfe, &b""[..])]);
        assert_eq!(codes(b"\xff\xd8\xff"), []);
        assert_eq!(codes(b"\xff\xd8"), []);
    }
}
