//! GIF: the first frame of an animation, on its canvas.
//!
//! Invariant: blocks are walked as they are stored, so it costs nothing what comments and profiles hold, and
//! a frame is whole or an error.

use weezl::{BitOrder, LzwStatus, decode::Decoder};

use super::{
    Channels, ImageLimits, Picture, Size,
    layout::PixelLayout,
    metered::within,
    orientation::Orientation,
    survey::{admit, cut_off, damaged},
};
use crate::error::MediaError;

const FORMAT: &str = "GIF image";

/// What the decoder of the compressed indices takes, in bytes.
const TABLES: u64 = 128 << 10;

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, MediaError> {
    let Survey { size, frame } = survey(bytes)?;
    admit(size, limits)?;
    let n_kept = size.pixels() * wanted.count() as u64;
    within(n_kept + frame.size.pixels() + TABLES, limits, || {
        let indices = frame.indices()?;
        let mut samples = vec![0; n_kept as usize];
        frame.draw(&indices, &mut Canvas { samples: &mut samples, width: size.width, channels: wanted });
        Ok(Picture { samples, channels: wanted, stored: size, orientation: Orientation::default() })
    })
}

struct Survey<'a> {
    /// Of the canvas.
    size: Size,
    frame: Frame<'a>,
}

/// A frame as it is stored.
struct Frame<'a> {
    left: u32,
    top: u32,
    size: Size,
    is_interlaced: bool,
    /// Red, green and blue of each index; without any, an index is a level of grey.
    palette: Option<&'a [[u8; 3]]>,
    transparent: Option<u8>,
    code_size: u8,
    /// Sub-blocks of compressed indices.
    data: &'a [u8],
}

struct Canvas<'a> {
    samples: &'a mut [u8],
    width: u32,
    channels: Channels,
}

/// Bytes that are taken from the front.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], MediaError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(|| cut_off(FORMAT))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| cut_off(FORMAT))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Takes the table of colours that `flags` name, if they do.
    fn palette(&mut self, flags: u8) -> Result<Option<&'a [[u8; 3]]>, MediaError> {
        if flags & 0x80 == 0 {
            return Ok(None);
        }
        Ok(Some(self.take(3 << ((flags & 7) + 1))?.as_chunks().0))
    }

    /// Takes a sub-block; an empty one ends a row of them.
    fn sub_block(&mut self) -> Result<&'a [u8], MediaError> {
        let [length] = self.array()?;
        self.take(length.into())
    }
}

fn numbers<const N: usize>(bytes: [[u8; 2]; N]) -> [u32; N] {
    bytes.map(|pair| u16::from_le_bytes(pair).into())
}

/// Walks the blocks to the end of the first frame (GIF89a, 17 to 27), decompressing nothing.
fn survey(bytes: &[u8]) -> Result<Survey<'_>, MediaError> {
    let mut rest = Rest(bytes);
    let [_, _, _, _, _, _, w0, w1, h0, h1, flags, _, _] = rest.array()?;
    let [width, height] = numbers([[w0, w1], [h0, h1]]);
    let global = rest.palette(flags)?;
    let mut transparent = None;
    loop {
        match rest.array()? {
            [0x21] => {
                let [label] = rest.array()?;
                loop {
                    match rest.sub_block()? {
                        [] => break,
                        [flags, _, _, index, ..] if label == 0xf9 => {
                            transparent = (flags & 1 == 1).then_some(*index);
                        }
                        _ => {}
                    }
                }
            }
            [0x2c] => {
                let [l0, l1, t0, t1, fw0, fw1, fh0, fh1, flags] = rest.array()?;
                let [left, top, fw, fh] = numbers([[l0, l1], [t0, t1], [fw0, fw1], [fh0, fh1]]);
                let palette = rest.palette(flags)?.or(global);
                let [code_size] = rest.array()?;
                let data = rest.0;
                while !rest.sub_block()?.is_empty() {}
                let frame = Frame {
                    left,
                    top,
                    size: Size { width: fw, height: fh },
                    is_interlaced: flags & 0x40 != 0,
                    palette,
                    transparent,
                    code_size,
                    data: &data[..data.len() - rest.0.len()],
                };
                // A frame that reaches beyond the canvas makes it larger, as Pillow has it.
                let size = Size { width: width.max(left + fw), height: height.max(top + fh) };
                return Ok(Survey { size, frame });
            }
            [0x3b] => return Err(damaged(FORMAT, "it ends without a picture")),
            [other] => {
                return Err(damaged(FORMAT, format!("it has a block of the unknown kind {other:#04x}")));
            }
        }
    }
}

impl Frame<'_> {
    /// Decompresses the indices of all pixels, in the order in which they are stored.
    fn indices(&self) -> Result<Vec<u8>, MediaError> {
        if !(1..=8).contains(&self.code_size) {
            return Err(damaged(
                FORMAT,
                format!("its codes begin at {} bits; 2 to 8 are allowed", self.code_size),
            ));
        }
        let mut indices = vec![0; self.size.pixels() as usize];
        let mut decoder = Decoder::new(BitOrder::Lsb, self.code_size);
        let (mut rest, mut block, mut at) = (Rest(self.data), [].as_slice(), 0);
        while at < indices.len() {
            if block.is_empty() {
                block = rest.sub_block()?;
                if block.is_empty() {
                    return Err(cut_off(FORMAT));
                }
            }
            let result = decoder.decode_bytes(block, &mut indices[at..]);
            block = &block[result.consumed_in..];
            at += result.consumed_out;
            match result.status {
                Ok(LzwStatus::Ok) => {}
                Ok(LzwStatus::NoProgress) if block.is_empty() => {}
                Ok(_) if at == indices.len() => {}
                Ok(_) => return Err(damaged(FORMAT, "it has fewer pixels than its header says")),
                Err(error) => return Err(damaged(FORMAT, error)),
            }
        }
        Ok(indices)
    }

    /// Draws the frame on a black canvas; what is transparent stays black.
    fn draw(&self, indices: &[u8], canvas: &mut Canvas<'_>) {
        let mut colours: [[u8; 3]; 256] = std::array::from_fn(|level| [level as u8; 3]);
        if let Some(palette) = self.palette {
            colours = [[0; 3]; 256];
            colours[..palette.len()].copy_from_slice(palette);
        }
        if let Some(transparent) = self.transparent {
            colours[usize::from(transparent)] = [0; 3];
        }
        let mut row = Vec::new();
        let stored = indices.chunks_exact((self.size.width as usize).max(1));
        for (indices, y) in stored.zip(self.rows()) {
            row.clear();
            for index in indices {
                PixelLayout::Rgb.append(&colours[usize::from(*index)], canvas.channels, &mut row);
            }
            let begin = (self.top + y) as usize * canvas.width as usize + self.left as usize;
            let begin = begin * canvas.channels.count();
            canvas.samples[begin..begin + row.len()].copy_from_slice(&row);
        }
    }

    /// The rows in the order in which they are stored; interlaced ones come in four passes.
    fn rows(&self) -> impl Iterator<Item = u32> {
        let passes = if self.is_interlaced { [(0, 8), (4, 8), (2, 4), (1, 2)].as_slice() } else { &[(0, 1)] };
        let height = self.size.height;
        passes.iter().flat_map(move |(first, step)| (*first..height).step_by(*step))
    }
}
