//! What decoding a file is going to cost, told by its header before anything is decoded.
//!
//! Invariant: reads a bounded number of bytes, whatever the file claims, and allocates nothing: fit for a thread that
//! serves others. An outline is an estimate for planning and never a check: the decoders hold files to the limits.

mod jpeg;
#[cfg(test)]
mod tests;

use std::time::Duration;

/// Bytes of a file, read at any position.
pub trait Source {
    /// Bytes of the whole file, as far as that is known.
    fn n_bytes(&self) -> usize;

    /// Copies the bytes from `at` on into `into`; returns how many there were.
    fn read(&self, at: usize, into: &mut [u8]) -> usize;
}

impl Source for &[u8] {
    fn n_bytes(&self) -> usize {
        self.len()
    }

    fn read(&self, at: usize, into: &mut [u8]) -> usize {
        let found = self.get(at..).unwrap_or_default();
        let n = found.len().min(into.len());
        into[..n].copy_from_slice(&found[..n]);
        n
    }
}

/// How a picture is coded, as far as that decides what decoding a pixel costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    SequentialJpeg,
    ProgressiveJpeg,
    Png,
    LossyWebp,
    LosslessWebp,
    Gif,
    Bmp,
    Tiff,
}

/// What the header of a file says of the work that decoding it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    pub coding: Coding,
    pub width: u32,
    pub height: u32,
    /// Times that a decoder goes through all pixels: the scans of a progressive JPEG; 1 for most files.
    pub passes: u32,
}

/// What the first bytes of a file tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priced {
    /// A picture of a known format.
    Picture(Outline),
    /// A known format, whose size was not found within the bytes that may be read.
    Unknown,
    /// No format that is priced: most likely refused by its first bytes.
    Foreign,
}

/// Most passes that are counted: the decoder of JPEGs reads no more scans.
pub(super) const MOST_PASSES: u32 = super::jpeg::MAX_SCANS as u32;

impl Outline {
    /// Pixels times passes: what the cost of decoding grows with, among pictures of one coding.
    pub fn units(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * u64::from(self.passes.max(1))
    }

    /// CPU time that decoding is likely to take, for a start: within a small factor on today's processors.
    pub fn guess(&self) -> Duration {
        self.coding.guess(self.units())
    }
}

impl Coding {
    /// Every coding, in the order of its declaration.
    pub const ALL: [Self; 8] = [
        Self::SequentialJpeg,
        Self::ProgressiveJpeg,
        Self::Png,
        Self::LossyWebp,
        Self::LosslessWebp,
        Self::Gif,
        Self::Bmp,
        Self::Tiff,
    ];

    /// CPU time for that many pixels times passes.
    pub fn guess(self, units: u64) -> Duration {
        let picoseconds: u64 = match self {
            Self::SequentialJpeg => 8_000,
            Self::ProgressiveJpeg => 4_000,
            Self::Png => 8_000,
            Self::LossyWebp => 15_000,
            Self::LosslessWebp => 18_000,
            Self::Gif => 6_000,
            Self::Bmp => 2_000,
            Self::Tiff => 6_000,
        };
        Duration::from_nanos(units.saturating_mul(picoseconds) / 1000)
    }
}

/// A file of which at most this number of bytes is read.
struct Reader<'s, S> {
    source: &'s S,
    left: usize,
}

/// The least that a read counts as, however few bytes it copies: what a jump costs.
const LEAST_READ: usize = 16;

impl<S: Source> Reader<'_, S> {
    /// The `N` bytes at `at`; nothing beyond the end of the file or of what may be read.
    fn get<const N: usize>(&mut self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.fill(at, &mut bytes) == N).then_some(bytes)
    }

    /// Reads into `into`; returns how many bytes there were.
    fn fill(&mut self, at: usize, into: &mut [u8]) -> usize {
        let cost = into.len().max(LEAST_READ);
        if cost > self.left {
            self.left = 0;
            return 0;
        }
        self.left -= cost;
        self.source.read(at, into)
    }
}

/// Prices a file by at most `most_bytes` of it.
pub fn price(source: &impl Source, most_bytes: usize) -> Priced {
    let mut reader = Reader { source, left: most_bytes.max(64) };
    let mut begin = [0; 32];
    let n = reader.fill(0, &mut begin);
    let outline = match &begin[..n] {
        [0xff, 0xd8, 0xff, ..] => jpeg::outline(&mut reader),
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => png(&begin[..n]),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp(&mut reader),
        [b'G', b'I', b'F', b'8', ..] => gif(&mut reader, &begin[..n]),
        [b'B', b'M', ..] => bmp(&begin[..n]),
        [b'I', b'I', b'*', 0, ..] => tiff(&mut reader, u16::from_le_bytes, u32::from_le_bytes),
        [b'M', b'M', 0, b'*', ..] => tiff(&mut reader, u16::from_be_bytes, u32::from_be_bytes),
        _ => return Priced::Foreign,
    };
    match outline {
        Some(outline) if outline.width > 0 && outline.height > 0 => Priced::Picture(outline),
        _ => Priced::Unknown,
    }
}

fn once(coding: Coding, width: u32, height: u32) -> Outline {
    Outline { coding, width, height, passes: 1 }
}

/// The header chunk comes first (W3C PNG, 5.6).
fn png(begin: &[u8]) -> Option<Outline> {
    let [w0, w1, w2, w3, h0, h1, h2, h3] = *begin.get(16..24)?.first_chunk()?;
    Some(once(Coding::Png, u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3])))
}

/// The largest of the sizes that canvas and frames claim, up to the first picture (RFC 9649, 2.3).
fn webp(reader: &mut Reader<'_, impl Source>) -> Option<Outline> {
    let (mut at, mut largest) = (12, (0u32, 0u32));
    // Lossless costs more, and is meant where nothing tells.
    let mut coding = Coding::LosslessWebp;
    while let Some(chunk) = reader.get::<20>(at).or_else(|| short_chunk(reader, at)) {
        let length = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
        let (name, data) = (&chunk[..4], &chunk[8..]);
        let size = match name {
            b"VP8X" => {
                let side = |at: usize| u32::from_le_bytes([data[at], data[at + 1], data[at + 2], 0]) + 1;
                Some((side(4), side(7)))
            }
            b"VP8 " | b"VP8L" => Some(bitstream(name, data)),
            // A frame of an animation: its bitstream lies after a header of 16 bytes.
            b"ANMF" => {
                at += 8 + 16;
                continue;
            }
            _ => None,
        };
        if let Some((width, height)) = size {
            largest = (largest.0.max(width), largest.1.max(height));
        }
        if matches!(name, b"VP8 " | b"VP8L") {
            coding = if name == b"VP8 " { Coding::LossyWebp } else { Coding::LosslessWebp };
            break;
        }
        at = at.checked_add(8 + length)?.checked_add(length % 2)?;
    }
    Some(once(coding, largest.0, largest.1))
}

/// A chunk near the end of the file, filled up with zeros.
fn short_chunk(reader: &mut Reader<'_, impl Source>, at: usize) -> Option<[u8; 20]> {
    let mut chunk = [0; 20];
    (reader.fill(at, &mut chunk) >= 13).then_some(chunk)
}

/// The size that a bitstream claims: 14 bits each.
fn bitstream(name: &[u8], data: &[u8]) -> (u32, u32) {
    if name == b"VP8L" {
        let bits = u32::from_le_bytes([data[1], data[2], data[3], data[4]]);
        return ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1);
    }
    let side = |at: usize| u32::from(u16::from_le_bytes([data[at], data[at + 1]]) & 0x3fff);
    (side(6), side(8))
}

/// The larger of the screen and the first frame, where that comes soon (GIF89a, 18 and 20).
fn gif(reader: &mut Reader<'_, impl Source>, begin: &[u8]) -> Option<Outline> {
    let [w0, w1, h0, h1, packed] = *begin.get(6..11)?.first_chunk()?;
    let screen = (u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into());
    let colours = if packed & 0x80 != 0 { 3 << ((packed & 7) + 1) } else { 0 };
    let mut at = 13 + colours;
    let mut largest: (u32, u32) = screen;
    while let Some([kind, _, length]) = reader.get::<3>(at) {
        match kind {
            0x2c => {
                if let Some([w0, w1, h0, h1]) = reader.get::<4>(at + 5) {
                    largest.0 = largest.0.max(u16::from_le_bytes([w0, w1]).into());
                    largest.1 = largest.1.max(u16::from_le_bytes([h0, h1]).into());
                }
                break;
            }
            // An extension: blocks that each say how long they are, up to an empty one.
            0x21 => {
                at += 2;
                let mut block = Some(length);
                while let Some(length) = block.filter(|length| *length > 0) {
                    at += 1 + usize::from(length);
                    block = reader.get::<1>(at).map(|[length]| length);
                }
                at += 1;
            }
            _ => break,
        }
    }
    Some(once(Coding::Gif, largest.0, largest.1))
}

/// The header after the file header tells its own length, which tells its kind.
fn bmp(begin: &[u8]) -> Option<Outline> {
    let [l0, l1, l2, l3, sizes @ ..] = *begin.get(14..26)?.first_chunk::<12>()?;
    let (width, height) = match u32::from_le_bytes([l0, l1, l2, l3]) {
        12 => {
            let [w0, w1, h0, h1, ..] = sizes;
            (u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into())
        }
        _ => {
            let [w0, w1, w2, w3, h0, h1, h2, h3] = sizes;
            // Rows from the top down have a negative height.
            (
                i32::from_le_bytes([w0, w1, w2, w3]).unsigned_abs(),
                i32::from_le_bytes([h0, h1, h2, h3]).unsigned_abs(),
            )
        }
    };
    Some(once(Coding::Bmp, width, height))
}

/// Tags of the first directory (TIFF 6.0, section 2): width, height.
const TIFF_WIDTH: u16 = 256;
const TIFF_HEIGHT: u16 = 257;

fn tiff(
    reader: &mut Reader<'_, impl Source>,
    short: fn([u8; 2]) -> u16,
    long: fn([u8; 4]) -> u32,
) -> Option<Outline> {
    let directory = long(reader.get::<4>(4)?) as usize;
    let entries = usize::from(short(reader.get::<2>(directory)?));
    let (mut width, mut height) = (None, None);
    for idx in 0..entries {
        let entry = reader.get::<12>(directory.checked_add(2 + 12 * idx)?)?;
        let [t0, t1, k0, k1, _, _, _, _, v0, v1, v2, v3] = entry;
        let value = if short([k0, k1]) == 3 { short([v0, v1]).into() } else { long([v0, v1, v2, v3]) };
        match short([t0, t1]) {
            TIFF_WIDTH => width = Some(value),
            TIFF_HEIGHT => height = Some(value),
            // Entries are in the order of their tags.
            tag if tag > TIFF_HEIGHT => break,
            _ => {}
        }
    }
    Some(once(Coding::Tiff, width?, height?))
}
