//! Unpacks the strips and tiles of a TIFF.
//!
//! Invariant: a buffer is filled to its end or there is an error; nothing is made beyond it.

use std::{borrow::Cow, convert::Infallible};

use fax::decoder::{DecodeStatus, Group4Decoder};
use flate2::{Decompress, FlushDecompress};
use weezl::{BitOrder, LzwStatus};

use super::{FORMAT, cut_off, damaged, unsupported};
use crate::error::MediaError;

/// How strips and tiles are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Group4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

impl Packing {
    /// The packing of a value of tag 259.
    pub(super) fn of(value: u32) -> Result<Self, MediaError> {
        match value {
            1 => Ok(Self::Plain),
            4 => Ok(Self::Group4),
            5 => Ok(Self::Lzw),
            7 => Ok(Self::Jpeg),
            8 | 32946 => Ok(Self::Deflate),
            32773 => Ok(Self::PackBits),
            2 | 3 => Err(unsupported("packed by CCITT group 3")),
            6 => Err(unsupported("packed by the JPEG of TIFF 5")),
            other => Err(unsupported(format!("of compression {other}"))),
        }
    }
}

/// A strip or tile in the file.
pub(super) struct Packed<'a> {
    pub(super) data: Cow<'a, [u8]>,
    pub(super) packing: Packing,
    /// Pixels of a row.
    pub(super) width: u32,
}

/// Decoders that are used again for the next strip.
#[derive(Default)]
pub(super) struct Unpacker {
    lzw: Option<weezl::decode::Decoder>,
    inflate: Option<Decompress>,
}

impl Unpacker {
    /// Fills `raw`.
    pub(super) fn unpack(&mut self, packed: Packed<'_>, raw: &mut [u8]) -> Result<(), MediaError> {
        let data = packed.data.as_ref();
        match packed.packing {
            Packing::Plain => {
                raw.copy_from_slice(data.get(..raw.len()).ok_or_else(|| cut_off(FORMAT))?);
                Ok(())
            }
            Packing::Group4 => group4(data, packed.width, raw),
            Packing::Lzw => self.lzw(data, raw),
            Packing::Deflate => self.inflate(data, raw),
            Packing::PackBits => pack_bits(data, raw),
            Packing::Jpeg => Err(MediaError::Internal("a JPEG is no packing of rows".to_owned())),
        }
    }

    fn lzw(&mut self, mut data: &[u8], raw: &mut [u8]) -> Result<(), MediaError> {
        let decoder =
            self.lzw.get_or_insert_with(|| weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8));
        decoder.reset();
        let mut at = 0;
        while at < raw.len() {
            let result = decoder.decode_bytes(data, &mut raw[at..]);
            data = &data[result.consumed_in..];
            at += result.consumed_out;
            match result.status {
                Ok(LzwStatus::Ok) => {}
                Ok(_) if at == raw.len() => {}
                Ok(_) => return Err(cut_off(FORMAT)),
                Err(error) => return Err(damaged(FORMAT, error)),
            }
        }
        Ok(())
    }

    fn inflate(&mut self, data: &[u8], raw: &mut [u8]) -> Result<(), MediaError> {
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(true));
        inflate.reset(true);
        inflate.decompress(data, raw, FlushDecompress::Finish).map_err(|error| damaged(FORMAT, error))?;
        if inflate.total_out() == raw.len() as u64 { Ok(()) } else { Err(cut_off(FORMAT)) }
    }
}

/// Runs of bytes: a literal one of up to 128, or one byte up to 128 times (TIFF 6.0, 9).
fn pack_bits(mut data: &[u8], mut raw: &mut [u8]) -> Result<(), MediaError> {
    while !raw.is_empty() {
        let (head, rest) = data.split_first().ok_or_else(|| cut_off(FORMAT))?;
        let n = match *head {
            128 => {
                data = rest;
                continue;
            }
            head @ ..128 => usize::from(head) + 1,
            head => 257 - usize::from(head),
        };
        let n_stored = if *head < 128 { n } else { 1 };
        let (run, rest) = rest.split_at_checked(n_stored).ok_or_else(|| cut_off(FORMAT))?;
        data = rest;
        let n = n.min(raw.len());
        let (filled, open) = raw.split_at_mut(n);
        match run {
            [byte] => filled.fill(*byte),
            run => filled.copy_from_slice(&run[..n]),
        }
        raw = open;
    }
    Ok(())
}

/// Rows of two levels (ITU-T T.6), black as 1. After an end mark all rows are white.
fn group4(data: &[u8], width: u32, raw: &mut [u8]) -> Result<(), MediaError> {
    let pixels = u16::try_from(width).map_err(|_| unsupported("of more than 65535 pixels a row"))?;
    let bytes = data.iter().copied().map(Ok::<u8, Infallible>);
    let Ok(mut decoder) = Group4Decoder::new(bytes, pixels);
    raw.fill(0);
    for row in raw.chunks_exact_mut(width.div_ceil(8) as usize) {
        match decoder.advance() {
            Ok(DecodeStatus::Incomplete) => {}
            Ok(DecodeStatus::End) => return Ok(()),
            Err(_) => return Err(damaged(FORMAT, "a row is cut off, or of no code of CCITT group 4")),
        }
        for black in decoder.transition().chunks(2) {
            let end = black.get(1).copied().unwrap_or(pixels).min(pixels);
            (black[0]..end).for_each(|x| row[usize::from(x / 8)] |= 0x80 >> (x % 8));
        }
    }
    Ok(())
}
