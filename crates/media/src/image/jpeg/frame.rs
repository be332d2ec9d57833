//! Frames and scans: which components a picture has, how they are sampled, and which of them a scan codes
//! (ITU-T T.81, annexes A.1, A.2 and B.2).
//!
//! Invariant: each component's factors divide the largest ones, and a scan names components of its frame.

use super::{ALLOWED, FORMAT, markers::SOF2};
use crate::{
    error::MediaError,
    image::{Size, survey::damaged},
};

/// Most blocks that an interleaved scan has in a unit (T.81, B.2.3).
const MOST_BLOCKS: usize = 10;

/// In which order coefficients are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Block by block.
    Sequential,
    /// Over several scans, which refine each other.
    Progressive,
}

/// One of the planes that make a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks across and down in a unit of an interleaved scan.
    pub(super) factors: (usize, usize),
    /// The quantisation table.
    pub(super) table: usize,
    /// Samples across and down.
    pub(super) samples: (usize, usize),
    /// Blocks that hold these samples, across and down.
    pub(super) blocks: (usize, usize),
    /// Blocks of all units, across and down.
    pub(super) padded_blocks: (usize, usize),
}

/// What a frame header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) size: Size,
    pub(super) coding: Coding,
    pub(super) components: Vec<Component>,
    /// The largest factors.
    pub(super) factors: (usize, usize),
    /// Units across and down.
    pub(super) units: (usize, usize),
}

impl Frame {
    /// Reads the size in a frame header.
    pub(super) fn size(content: &[u8]) -> Result<Size, MediaError> {
        match *content {
            [precision, ..] if precision != 8 => {
                Err(unsupported(format!("a JPEG of {precision} bits a sample")))
            }
            [_, h0, h1, w0, w1, _, ..] => Ok(Size {
                width: u16::from_be_bytes([w0, w1]).into(),
                height: u16::from_be_bytes([h0, h1]).into(),
            }),
            _ => Err(damaged(FORMAT, "its frame header is too short")),
        }
    }

    /// Reads a frame header; `code` is its marker.
    pub(super) fn new(code: u8, content: &[u8]) -> Result<Self, MediaError> {
        let size = Self::size(content)?;
        let coding = if code == SOF2 { Coding::Progressive } else { Coding::Sequential };
        let [_, _, _, _, _, n_components, specs @ ..] = content else {
            return Err(damaged(FORMAT, "its frame header is too short"));
        };
        if !matches!(n_components, 1 | 3 | 4) {
            return Err(unsupported(format!("a JPEG of {n_components} components")));
        }
        let specs = specs.as_chunks::<3>().0;
        let Some(specs) = specs.get(..usize::from(*n_components)) else {
            return Err(damaged(FORMAT, "its frame header is too short"));
        };
        let factors = |[_, factors, _]: &[u8; 3]| match n_components {
            // A unit of one component is one block, whatever its factors are.
            1 => (1, 1),
            _ => (usize::from(factors >> 4), usize::from(factors & 15)),
        };
        if specs.iter().map(factors).any(|(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
            return Err(damaged(FORMAT, "a sampling factor is not 1 to 4"));
        }
        let largest = specs.iter().map(factors).fold((1, 1), |(h, v), (x, y)| (x.max(h), y.max(v)));
        let (width, height) = (size.width as usize, size.height as usize);
        let units = (width.div_ceil(8 * largest.0), height.div_ceil(8 * largest.1));
        let component = |spec: &[u8; 3]| {
            let (h, v) = factors(spec);
            if largest.0 % h != 0 || largest.1 % v != 0 {
                let of = |all: fn((usize, usize)) -> usize| {
                    specs.iter().map(factors).map(all).map(|n| n.to_string()).collect::<Vec<_>>().join(":")
                };
                return Err(unsupported(format!(
                    "a JPEG with sampling factors of {} across and {} down, of which one does not divide the largest",
                    of(|(h, _)| h),
                    of(|(_, v)| v),
                )));
            }
            Ok(Component {
                id: spec[0],
                factors: (h, v),
                table: usize::from(spec[2]),
                samples: ((width * h).div_ceil(largest.0), (height * v).div_ceil(largest.1)),
                blocks: ((width * h).div_ceil(8 * largest.0), (height * v).div_ceil(8 * largest.1)),
                padded_blocks: (units.0 * h, units.1 * v),
            })
        };
        let components = specs.iter().map(component).collect::<Result<_, _>>()?;
        Ok(Self { size, coding, components, factors: largest, units })
    }
}

/// A component of a scan, by its place in the frame, and its Huffman tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coded {
    pub(super) component: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// What a scan header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) coded: Vec<Coded>,
    /// The first and the last coefficient, in coded order.
    pub(super) band: (usize, usize),
    /// The bits that earlier scans left out of each coefficient, if there were some, and those that are
    /// left out still.
    pub(super) bits: (u32, u32),
}

impl Scan {
    /// Reads a scan header.
    pub(super) fn new(content: &[u8], frame: &Frame) -> Result<Self, MediaError> {
        let short = || damaged(FORMAT, "a scan header is too short");
        let (n_coded, rest) = content.split_first().ok_or_else(short)?;
        let n_coded = usize::from(*n_coded);
        let (specs, rest) = rest.split_at_checked(2 * n_coded).ok_or_else(short)?;
        let [first, last, bits, ..] = *rest else { return Err(short()) };
        let mut scan = Self {
            coded: Vec::with_capacity(frame.components.len()),
            band: (first.into(), last.into()),
            bits: (u32::from(bits >> 4), u32::from(bits & 15)),
        };
        if n_coded == 0 || n_coded > frame.components.len() {
            return Err(damaged(FORMAT, "a scan does not have as many components as its frame"));
        }
        for [id, tables] in specs.as_chunks::<2>().0 {
            // Components of the same name are taken in their order.
            let component = (0..frame.components.len())
                .find(|at| {
                    frame.components[*at].id == *id && scan.coded.iter().all(|coded| coded.component != *at)
                })
                .ok_or_else(|| damaged(FORMAT, "a scan codes a component that its frame does not have"))?;
            let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            if dc > 3 || ac > 3 {
                return Err(damaged(FORMAT, "a scan names a Huffman table beyond the fourth"));
            }
            scan.coded.push(Coded { component, dc, ac });
        }
        scan.check(frame)?;
        Ok(scan)
    }

    fn check(&mut self, frame: &Frame) -> Result<(), MediaError> {
        let factors = self.coded.iter().map(|coded| frame.components[coded.component].factors);
        if self.coded.len() > 1 && factors.map(|(h, v)| h * v).sum::<usize>() > MOST_BLOCKS {
            return Err(damaged(FORMAT, "a scan interleaves more than 10 blocks"));
        }
        let (first, last) = self.band;
        let is_sound = match frame.coding {
            // Encoders disagree on what the last coefficient of a sequential scan is called.
            Coding::Sequential => {
                self.band = (0, 63);
                first == 0 && self.bits == (0, 0)
            }
            Coding::Progressive => {
                let (before, left) = self.bits;
                let band = if first == 0 { last == 0 } else { last >= first && self.coded.len() == 1 };
                band && last < 64 && left <= 13 && (before == 0 || before == left + 1)
            }
        };
        if is_sound { Ok(()) } else { Err(damaged(FORMAT, "a scan's parameters contradict its frame")) }
    }

    /// Returns whether the scan codes means alone.
    pub(super) fn is_dc(&self) -> bool {
        self.band.0 == 0
    }
}

/// The refusal of a sound file that is not served.
pub(super) fn unsupported(got: String) -> MediaError {
    MediaError::Unsupported { got, allowed: ALLOWED }
}
