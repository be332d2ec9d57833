//! What is known of a JPEG before a pixel of it is decoded.
//!
//! Invariant: every segment up to the last scan that matters has been read, so what is decoded later is
//! what was admitted here; decoding walks the same segments again.

use super::{
    FORMAT, MAX_SCANS,
    color::Space,
    frame::{Coding, Frame, Scan, unsupported},
    markers::{APP0, APP1, APP14, DAC, DHP, DHT, EOI, EXP, SOF0, SOF2, SOF15, SOI, SOS, Segment, Segments},
};
use crate::{
    error::{Amount, MediaError},
    image::{
        ImageLimits, exif,
        orientation::Orientation,
        survey::{admit, cut_off, damaged},
    },
};

/// How a file ends, as far as its segments tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an end marker, or with the only scan, behind which anything may follow.
    Marked,
    /// Without an end marker, though its scans make a whole picture: the last one must be followed by
    /// something, as the trailers of some cameras do, or the file is cut off.
    Open,
}

/// What the segments of a file say.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) frame: Frame,
    pub(super) space: Space,
    pub(super) orientation: Orientation,
    /// The scans to decode.
    pub(super) n_scans: usize,
    pub(super) ending: Ending,
}

impl Header {
    /// Walks the segments of `bytes`.
    pub(super) fn read(bytes: &[u8], limits: ImageLimits) -> Result<Self, MediaError> {
        let mut walk = Walk::default();
        let mut segments = Segments::new(bytes);
        let ending = loop {
            match segments.next() {
                Some(Segment { code: EOI, .. }) => break Ending::Marked,
                Some(segment) => walk.read(segment, limits)?,
                None => break Ending::Open,
            }
            if walk.is_over() {
                // The end of a sequential picture is looked at when its last scan has been decoded.
                break Ending::Open;
            }
        };
        let Some(frame) = walk.frame else {
            return Err(if ending == Ending::Open { cut_off(FORMAT) } else { no_picture() });
        };
        match (ending, walk.progress.is_whole(&frame)) {
            (Ending::Open, false) => return Err(cut_off(FORMAT)),
            (Ending::Marked, false) if !walk.progress.is_a_picture(&frame) => return Err(no_picture()),
            _ => {}
        }
        let orientation = walk.exif.find_map(Orientation::from_exif).unwrap_or_default();
        let space = walk.space.ok_or_else(no_picture)?;
        Ok(Self { frame, space, orientation, n_scans: walk.n_scans, ending })
    }
}

fn no_picture() -> MediaError {
    damaged(FORMAT, "it ends without a picture")
}

#[derive(Default)]
struct Walk<'a> {
    frame: Option<Frame>,
    space: Option<Space>,
    has_jfif: bool,
    adobe: Option<u8>,
    exif: exif::Segments<'a>,
    n_scans: usize,
    progress: Progress,
}

impl<'a> Walk<'a> {
    fn read(&mut self, segment: Segment<'a>, limits: ImageLimits) -> Result<(), MediaError> {
        let Segment { code, content, .. } = segment;
        match code {
            SOF0..=SOF2 => {
                admit(Frame::size(content)?, limits)?;
                if self.frame.replace(Frame::new(code, content)?).is_some() {
                    return Err(damaged(FORMAT, "it holds two frames"));
                }
            }
            DHT | DAC => {}
            SOF0..=SOF15 | DHP | EXP => return Err(unsupported("a JPEG of a rare coding".to_owned())),
            SOI => return Err(damaged(FORMAT, "it begins twice")),
            APP0 => self.has_jfif |= content.len() >= 14 && content.starts_with(b"JFIF\0"),
            APP1 => content.strip_prefix(exif::PREFIX).into_iter().for_each(|part| self.exif.push(part)),
            APP14 if content.starts_with(b"Adobe") => self.adobe = content.get(11).copied().or(self.adobe),
            SOS => {
                let Some(frame) = &self.frame else {
                    return Err(damaged(FORMAT, "a scan comes before its frame"));
                };
                let scan = Scan::new(content, frame)?;
                self.n_scans += 1;
                if self.n_scans > MAX_SCANS {
                    return Err(MediaError::TooLarge {
                        what: "scans of a JPEG image",
                        got: Amount::Exactly(self.n_scans as u64),
                        limit: MAX_SCANS as u64,
                    });
                }
                // What comes after the first scan says nothing about colours.
                self.space.get_or_insert_with(|| Space::new(frame, self.has_jfif, self.adobe));
                self.progress.add(&scan, frame)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns whether a sequential picture has had its last scan.
    fn is_over(&self) -> bool {
        self.frame
            .as_ref()
            .is_some_and(|frame| frame.coding == Coding::Sequential && self.progress.is_whole(frame))
    }
}

/// How much of each coefficient the scans so far have coded.
#[derive(Default)]
struct Progress {
    /// For each component and coefficient, the bits that are left out still; none of it is coded yet where
    /// there is no number.
    left: [Vec<Option<u32>>; 4],
}

impl Progress {
    fn add(&mut self, scan: &Scan, frame: &Frame) -> Result<(), MediaError> {
        for coded in &scan.coded {
            let left = &mut self.left[coded.component];
            left.resize(64, None);
            if frame.coding == Coding::Sequential && left[0].is_some() {
                return Err(damaged(FORMAT, "two scans code the same component"));
            }
            left[scan.band.0..=scan.band.1].fill(Some(scan.bits.1));
        }
        Ok(())
    }

    /// Returns whether every coefficient is coded to its last bit.
    fn is_whole(&self, frame: &Frame) -> bool {
        self.left[..frame.components.len()]
            .iter()
            .all(|left| !left.is_empty() && left.iter().all(|left| *left == Some(0)))
    }

    /// Returns whether every component has its means at least.
    fn is_a_picture(&self, frame: &Frame) -> bool {
        let is_sequential = frame.coding == Coding::Sequential;
        self.left[..frame.components.len()]
            .iter()
            .all(|left| left.first().is_some_and(Option::is_some) && !is_sequential)
    }
}
