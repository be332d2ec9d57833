//! What a lossless WebP bitstream makes its decoder hold, found from its headers (RFC 9649, chapter 3).
//!
//! Invariant: no pixel of the picture is decoded. The small pictures within the headers are, since only they say
//! how many prefix codes follow: 58 bytes of file make 20 kB of tables, whatever the size of the picture.

mod bits;
mod constant;
#[cfg(test)]
mod tests;

pub(super) use self::constant::Constant;
use self::{
    bits::{Bits, Code, Shape},
    constant::Step,
};
use super::{
    Size,
    survey::{cut_off, damaged},
};
use crate::error::MediaError;

const FORMAT: &str = "WebP image";

/// Symbols of the five prefix codes of a group, without those of a colour cache: green with lengths, red, blue,
/// alpha, distances.
const ALPHABETS: [usize; 5] = [256 + 24, 256, 256, 256, 40];

/// Bytes of a group of five prefix codes beside their tables.
const GROUP_BYTES: u64 = 5 * 56;

/// What walking itself and a decoder's passing tables take at most, in bytes: five full tables of codes of 15 bits.
const WALK_BYTES: u64 = 400 << 10;

/// What the headers of a bitstream say.
#[derive(Debug)]
pub(super) struct Walk {
    /// Bytes that its decoder holds beside the pixels, four bytes each.
    pub(super) tables: u64,
    /// Set where every pixel is coded the same, so that rows can be computed without decoding.
    pub(super) constant: Option<Constant>,
}

/// Walks the bitstream of a `VP8L` chunk, which says its own size.
pub(super) fn walk(chunk: &[u8]) -> Result<Walk, MediaError> {
    let mut bits = Bits::new(chunk);
    let signature = bits.read(8)?;
    let size = Size { width: bits.read(14)? + 1, height: bits.read(14)? + 1 };
    let _has_alpha = bits.read(1)?;
    if (signature, bits.read(3)?) != (0x2f, 0) {
        return Err(damaged(FORMAT, "its lossless stream is of an unknown kind"));
    }
    walk_stream(&mut bits, size)
}

/// Walks the bitstream of a compressed `ALPH` chunk, which has no size of its own.
pub(super) fn walk_alpha(stream: &[u8], size: Size) -> Result<Walk, MediaError> {
    walk_stream(&mut Bits::new(stream), size)
}

fn walk_stream(bits: &mut Bits<'_>, size: Size) -> Result<Walk, MediaError> {
    let mut walker = Walker { bits, tables: WALK_BYTES, width: size.width, height: size.height };
    let steps = walker.transforms()?;
    let residual = walker.picture()?;
    let constant = steps
        .zip(residual)
        .filter(|_| walker.width == size.width)
        .map(|(steps, residual)| Constant { steps, residual, size });
    Ok(Walk { tables: walker.tables, constant })
}

struct Walker<'a, 'b> {
    bits: &'a mut Bits<'b>,
    tables: u64,
    /// Of the coded picture, in which an index transform packs up to eight pixels into one.
    width: u32,
    height: u32,
}

/// A red, green, blue and alpha sample.
type Pixel = [u8; 4];

/// The one pixel that a picture repeats, if it does.
fn uniform(pixels: &[Pixel]) -> Option<Pixel> {
    let first = *pixels.first()?;
    pixels.iter().all(|pixel| *pixel == first).then_some(first)
}

impl Walker<'_, '_> {
    /// Reads the transforms (4). Returns their steps in the order of the file, where each is the same for all pixels.
    fn transforms(&mut self) -> Result<Option<Vec<Step>>, MediaError> {
        let mut steps = Some(Vec::new());
        let mut seen = [false; 4];
        while self.bits.read(1)? == 1 {
            let kind = self.bits.read(2)? as usize;
            if std::mem::replace(&mut seen[kind], true) {
                return Err(damaged(FORMAT, "it has a transform twice"));
            }
            let step = match kind {
                0 | 1 => {
                    let blocks = self.blocks()?;
                    let pixels = self.sub_image(blocks)?;
                    uniform(&pixels).and_then(|pixel| match kind {
                        0 => Step::predict(pixel[1]),
                        _ => Some(Step::Colour {
                            red_to_blue: pixel[0],
                            green_to_blue: pixel[1],
                            green_to_red: pixel[2],
                        }),
                    })
                }
                2 => Some(Step::AddGreen),
                _ => self.index()?,
            };
            steps = steps.zip(step).map(|(mut steps, step)| {
                steps.push(step);
                steps
            });
        }
        Ok(steps)
    }

    /// Reads a table of colours; few of them are packed into one coded pixel (4.4).
    fn index(&mut self) -> Result<Option<Step>, MediaError> {
        let n_colours = self.bits.read(8)? + 1;
        let mut table = self.sub_image(Size { width: n_colours, height: 1 })?;
        for at in 1..table.len() {
            let before = table[at - 1];
            table[at]
                .iter_mut()
                .zip(before)
                .for_each(|(sample, before)| *sample = sample.wrapping_add(before));
        }
        let packed_bits = match n_colours {
            ..=2 => 3,
            3..=4 => 2,
            5..=16 => 1,
            _ => 0,
        };
        self.width = self.width.div_ceil(1 << packed_bits);
        Ok((packed_bits == 0).then_some(Step::Look(table)))
    }

    /// Reads how large blocks are; gives how many there are across and down.
    fn blocks(&mut self) -> Result<Size, MediaError> {
        let side = 1 << (self.bits.read(3)? + 2);
        Ok(Size { width: self.width.div_ceil(side), height: self.height.div_ceil(side) })
    }

    fn cache_bits(&mut self) -> Result<Option<u32>, MediaError> {
        if self.bits.read(1)? == 0 {
            return Ok(None);
        }
        match self.bits.read(4)? {
            bits @ 1..=11 => {
                self.tables += 4 << bits;
                Ok(Some(bits))
            }
            _ => Err(damaged(FORMAT, "its colour cache is too large")),
        }
    }

    /// Reads the header of the picture itself. Gives the pixel that each of its codes stands for, if there is one
    /// group of codes of a single symbol.
    fn picture(&mut self) -> Result<Option<Pixel>, MediaError> {
        let cache_bits = self.cache_bits()?;
        let mut n_groups = 1u64;
        if self.bits.read(1)? == 1 {
            let blocks = self.blocks()?;
            let image = self.sub_image(blocks)?;
            self.tables += 2 * blocks.pixels();
            let last =
                image.iter().map(|[red, green, _, _]| u64::from(u16::from_be_bytes([*red, *green]))).max();
            n_groups = last.unwrap_or_default() + 1;
        }
        // A vector that grows: the next power of two and, for the moment of its last growth, half of that.
        self.tables += n_groups.next_power_of_two().max(4) * GROUP_BYTES * 3 / 2;
        let mut constant = None;
        for _ in 0..n_groups {
            constant = single(&self.group(cache_bits)?);
        }
        Ok(constant.filter(|_| n_groups == 1))
    }

    /// Reads the five codes of a group.
    fn group(&mut self, cache_bits: Option<u32>) -> Result<[Shape; 5], MediaError> {
        let mut shapes = [Shape::default(); 5];
        for (code, (shape, mut n_symbols)) in shapes.iter_mut().zip(ALPHABETS).enumerate() {
            n_symbols += cache_bits.filter(|_| code == 0).map_or(0, |bits| 1 << bits);
            *shape = self.bits.shape(n_symbols)?;
            self.tables += shape.bytes;
        }
        Ok(shapes)
    }

    /// Decodes a picture within the headers.
    fn sub_image(&mut self, size: Size) -> Result<Vec<Pixel>, MediaError> {
        self.tables += 4 * size.pixels();
        let n_pixels = size.pixels() as usize;
        let cache_bits = self.cache_bits()?;
        let mut codes: [Code; 5] = Default::default();
        for (code, (slot, mut n_symbols)) in codes.iter_mut().zip(ALPHABETS).enumerate() {
            n_symbols += cache_bits.filter(|_| code == 0).map_or(0, |bits| 1 << bits);
            *slot = self.bits.code(n_symbols)?;
            self.tables += slot.shape.bytes;
        }
        let [green, red, blue, alpha, distance] = &codes;
        if let Some(pixel) = single(&codes.each_ref().map(|code| code.shape)) {
            return Ok(vec![pixel; n_pixels]);
        }
        let mut cache = vec![[0u8; 4]; cache_bits.map_or(0, |bits| 1 << bits)];
        let slot = |[red, green, blue, alpha]: Pixel| {
            let colour = u32::from_be_bytes([alpha, red, green, blue]);
            cache_bits.map(|bits| (0x1e35_a7bd_u32.wrapping_mul(colour) >> (32 - bits)) as usize)
        };
        let mut pixels: Vec<Pixel> = Vec::with_capacity(n_pixels);
        while pixels.len() < n_pixels {
            let symbol = usize::from(self.bits.symbol(green)?);
            let begin = pixels.len();
            match symbol {
                ..256 => {
                    let red = self.bits.symbol(red)? as u8;
                    let blue = self.bits.symbol(blue)? as u8;
                    pixels.push([red, symbol as u8, blue, self.bits.symbol(alpha)? as u8]);
                }
                256..280 => {
                    let length = self.bits.extended(symbol - 256)?;
                    let code = self.bits.symbol(distance)?;
                    let back = plane_distance(self.bits.extended(code.into())?, size.width);
                    if back > begin || length > n_pixels - begin {
                        return Err(damaged(FORMAT, "a copy reaches beyond its picture"));
                    }
                    (begin - back..begin - back + length).for_each(|at| pixels.push(pixels[at]));
                }
                _ => {
                    let cached =
                        cache.get(symbol - 280).ok_or_else(|| damaged(FORMAT, "it has no colour cache"))?;
                    pixels.push(*cached);
                }
            }
            for pixel in &pixels[begin..] {
                if let Some(slot) = slot(*pixel) {
                    cache[slot] = *pixel;
                }
            }
        }
        Ok(pixels)
    }
}

/// The pixel that a group of codes stands for, if each of its samples is coded by one symbol, in no bits.
fn single([green, red, blue, alpha, _]: &[Shape; 5]) -> Option<Pixel> {
    let sample = |shape: &Shape| shape.single.and_then(|symbol| u8::try_from(symbol).ok());
    Some([sample(red)?, sample(green)?, sample(blue)?, sample(alpha)?])
}

/// Pixels near by, in the order of RFC 9649, 5.2.2: how far up in the upper four bits, 8 less how far left in the
/// lower ones.
const NEAR: [u8; 120] = [
    0x18, 0x07, 0x17, 0x19, 0x28, 0x06, 0x27, 0x29, 0x16, 0x1a, 0x26, 0x2a, 0x38, 0x05, 0x37, 0x39, 0x15,
    0x1b, 0x36, 0x3a, 0x25, 0x2b, 0x48, 0x04, 0x47, 0x49, 0x14, 0x1c, 0x35, 0x3b, 0x46, 0x4a, 0x24, 0x2c,
    0x58, 0x45, 0x4b, 0x34, 0x3c, 0x03, 0x57, 0x59, 0x13, 0x1d, 0x56, 0x5a, 0x23, 0x2d, 0x44, 0x4c, 0x55,
    0x5b, 0x33, 0x3d, 0x68, 0x02, 0x67, 0x69, 0x12, 0x1e, 0x66, 0x6a, 0x22, 0x2e, 0x54, 0x5c, 0x43, 0x4d,
    0x65, 0x6b, 0x32, 0x3e, 0x78, 0x01, 0x77, 0x79, 0x53, 0x5d, 0x11, 0x1f, 0x64, 0x6c, 0x42, 0x4e, 0x76,
    0x7a, 0x21, 0x2f, 0x75, 0x7b, 0x31, 0x3f, 0x63, 0x6d, 0x52, 0x5e, 0x00, 0x74, 0x7c, 0x41, 0x4f, 0x10,
    0x20, 0x62, 0x6e, 0x30, 0x73, 0x7d, 0x51, 0x5f, 0x40, 0x72, 0x7e, 0x61, 0x6f, 0x50, 0x71, 0x7f, 0x60,
    0x70,
];

/// The distance in pixels that a code stands for; the first 120 codes are near by in the plane (5.2.2).
fn plane_distance(code: usize, width: u32) -> usize {
    match NEAR.get(code - 1) {
        None => code - NEAR.len(),
        Some(near) => {
            let (up, left) = (i64::from(near >> 4), 8 - i64::from(near & 15));
            usize::try_from(left + up * i64::from(width)).unwrap_or(0).max(1)
        }
    }
}
