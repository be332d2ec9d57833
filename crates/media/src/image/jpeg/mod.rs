//! JPEG: baseline, extended and progressive; grey, colour and CMYK; any sampling factors that divide each
//! other, in one scan or in several.
//!
//! Invariant: every pixel is what libjpeg-turbo makes of the file, to the bit, or the file is refused. A
//! file whose scans end before their blocks do is never filled up with grey.
//!
//! - `markers` walks the segments; `header` says from them what the picture is and takes, and [`decode`]
//!   walks them again for the `tables` and scans. `frame` has the geometry of both.
//! - `bits` and `huffman` read coded data; `scan` goes over their blocks, which `sequential` or
//!   `progressive` decodes.
//! - `assembly` makes rows of pixels of the planes, by `upsample` and `color`; the arithmetic on samples is in
//!   `lepton_kernels::pixels`.

mod assembly;
mod bits;
mod color;
mod frame;
mod header;
mod huffman;
mod markers;
mod progressive;
mod scan;
mod sequential;
mod tables;
mod upsample;

use lepton_kernels::pixels::Block;

use assembly::{Assembly, Held};
use bits::Bits;
use frame::{Coding, Scan};
use header::{Ending, Header};
use markers::{DHT, DQT, DRI, SOS, Segments};
use progressive::{Coefficients, Progressive};
use scan::{Decoding, walk};
use sequential::Sequential;
use tables::Tables;

use super::{
    Channels, ImageLimits, Picture,
    survey::{afford, cut_off, damaged},
};
use crate::error::MediaError;

const FORMAT: &str = "JPEG image";
const ALLOWED: &str = "JPEGs are read as baseline or progressive, 8 bits a sample, of 1, 3 or 4 components";

/// Most scans of a picture. libjpeg writes 10 for colours and 18 for four inks, and encoders that search
/// for the smallest file about 16.
pub(super) const MAX_SCANS: usize = 20;

/// Bytes that tables take, whatever the picture is.
const TABLE_BYTES: u64 = 64 << 10;

/// Why coded data are not those of their scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The file ends within them.
    CutOff,
    /// A marker ends them too early.
    ShortScan,
    /// A restart marker is missing.
    Restart,
    /// A code is in no table.
    Code,
    /// A block has a coefficient beyond its band.
    Coefficient,
}

impl Fault {
    fn refusal(self) -> MediaError {
        let reason = match self {
            Self::CutOff => return cut_off(FORMAT),
            Self::ShortScan => "a scan ends before its blocks do",
            Self::Restart => "a restart marker is missing or not the next one",
            Self::Code => "coded data hold what is no code",
            Self::Coefficient => "a block has more coefficients than its scan codes",
        };
        damaged(FORMAT, reason)
    }
}

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, MediaError> {
    let header = Header::read(bytes, limits)?;
    let plan = Plan::new(&header, wanted);
    afford(plan.n_bytes(&header), limits)?;
    let samples = plan.decode(bytes, &header)?;
    let Header { frame, orientation, .. } = header;
    Ok(Picture { samples, channels: plan.kept, stored: frame.size, orientation })
}

/// What decoding a picture holds.
#[derive(Debug)]
struct Plan {
    kept: Channels,
    held: Held,
    /// Components whose coefficients are held until the last scan.
    n_coefficients: usize,
}

impl Plan {
    fn new(header: &Header, wanted: Channels) -> Self {
        let kept = header.space.kept(wanted);
        let (held, n_coefficients) = match (header.frame.coding, header.n_scans, header.ending) {
            (Coding::Sequential, 1, _) => (Held::Strips, 0),
            (Coding::Sequential, ..) => (Held::Everything, 0),
            (Coding::Progressive, _, Ending::Marked) => (Held::Strips, header.space.n_needed(kept)),
            // The last scan tells whether the file is whole, so each is decoded.
            (Coding::Progressive, _, Ending::Open) => (Held::Strips, header.frame.components.len()),
        };
        Self { kept, held, n_coefficients }
    }

    /// The bytes that decoding takes at most.
    fn n_bytes(&self, header: &Header) -> u64 {
        let coefficients = header.frame.components.iter().take(self.n_coefficients).map(|component| {
            let (across, down) = component.padded_blocks;
            (across * down * size_of::<Block>()) as u64
        });
        let assembly = Assembly::n_bytes(&header.frame, header.space, self.kept, self.held);
        assembly + coefficients.sum::<u64>() + TABLE_BYTES
    }

    fn decode(&self, bytes: &[u8], header: &Header) -> Result<Vec<u8>, MediaError> {
        let frame = &header.frame;
        let mut tables = Tables::new(frame.coding);
        // A component keeps the table that is defined where its first scan begins.
        let mut quantisation = [None; 4];
        let mut assembly = Assembly::new(frame, header.space, self.kept, self.held);
        let mut coefficients: Vec<Coefficients> =
            frame.components.iter().take(self.n_coefficients).map(Coefficients::new).collect();
        let mut end: Option<Bits> = None;
        let mut n_scans = 0;
        for segment in Segments::new(bytes) {
            match segment.code {
                DQT => tables.define_quantisation(segment.content)?,
                DHT => tables.define_huffman(segment.content)?,
                DRI => tables.define_restart_interval(segment.content)?,
                SOS => {
                    let scan = Scan::new(segment.content, frame)?;
                    for coded in &scan.coded {
                        let table = tables.quantisation(frame.components[coded.component].table);
                        let known = &mut quantisation[coded.component];
                        *known = Some(known.map_or(table, Ok)?);
                    }
                    let data = bytes.get(segment.end..).unwrap_or_default();
                    let interval = tables.restart_interval;
                    if frame.coding == Coding::Sequential {
                        let decoding = Decoding::new(&tables, &scan, frame.coding)?;
                        let mut decoder = Sequential::new(&scan, &decoding, &quantisation, &mut assembly)?;
                        end = Some(walk(frame, &scan, interval, data, &mut decoder).map_err(Fault::refusal)?);
                    } else if scan.coded.iter().any(|coded| coded.component < self.n_coefficients) {
                        let decoding = Decoding::new(&tables, &scan, frame.coding)?;
                        let mut decoder = Progressive::new(&scan, &decoding, &mut coefficients);
                        end = Some(walk(frame, &scan, interval, data, &mut decoder).map_err(Fault::refusal)?);
                    }
                    n_scans += 1;
                    if n_scans == header.n_scans {
                        break;
                    }
                }
                _ => {}
            }
        }
        if let (Ending::Open, Some(end)) = (header.ending, end) {
            end.check_end().map_err(Fault::refusal)?;
        }
        if frame.coding == Coding::Progressive {
            progressive::finish(&coefficients, frame, &quantisation, &mut assembly)?;
        }
        Ok(assembly.finish())
    }
}

#[cfg(test)]
mod tests;
