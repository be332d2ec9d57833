//! TIFF: the first page, in strips or tiles, of scanners, phones and cameras.
//!
//! Invariant: no list that the file counts is copied; a strip or a tile is unpacked into a buffer whose size
//! follows from the page, and is whole or an error.
//!
//! The container is read here, since the library that reads it knows no palettes and decodes JPEGs without limits;
//! what is packed within is unpacked by libraries.

mod directory;
mod unpack;

use self::{
    directory::{Directory, Field},
    unpack::{Packed, Packing, Unpacker},
};
use super::{
    Channels, ImageLimits, Picture, Size, jpeg,
    layout::PixelLayout,
    metered::within,
    orientation::Orientation,
    survey::{admit, cut_off, damaged},
};
use crate::error::MediaError;

const FORMAT: &str = "TIFF image";
const ALLOWED: &str = "TIFFs are read in grey, RGB or with a palette, of 1 to 16 bits, plain or packed by LZW, \
    deflate, PackBits, CCITT group 4 or JPEG";

/// What unpacking keeps beside its buffers, in bytes: tables and windows.
const TABLES: u64 = 256 << 10;

/// What decoding a JPEG takes at most for each pixel of a strip or tile, in bytes, and for each byte of the file.
const JPEG_BYTES: u64 = 16;

pub(super) fn decode(bytes: &[u8], limits: ImageLimits, wanted: Channels) -> Result<Picture, MediaError> {
    let page = Page::read(&Directory::first(bytes)?)?;
    admit(page.size, limits)?;
    let layout = page.layout();
    let channels = layout.kept(wanted);
    let buffer = page.chunk_bytes()?;
    let jpeg = match page.packing {
        Packing::Jpeg => JPEG_BYTES * (page.chunk.pixels() + bytes.len() as u64),
        _ => 0,
    };
    // A stream whose bits lie the other way round is copied.
    let turned = if page.is_turned { bytes.len() as u64 } else { 0 };
    let foreseen = page.size.pixels() * layout.bytes(channels) as u64 + buffer + jpeg + turned + TABLES;
    within(foreseen, limits, || {
        let mut pixels = vec![0; page.size.pixels() as usize * layout.count()];
        let mut unpacker = Unpacker::default();
        let mut raw = vec![0; buffer as usize];
        for chunk in page.chunks() {
            let data = page.data(bytes, chunk.index)?;
            if page.packing == Packing::Jpeg {
                let picture = jpeg::decode(&page.jpeg(data), limits, page.jpeg_channels())?;
                page.place_picture(&picture, chunk, &mut pixels)?;
            } else {
                let raw = &mut raw[..page.row_bytes() * chunk.size.height as usize];
                let width = page.chunk.width;
                unpacker.unpack(Packed { data, packing: page.packing, width }, raw)?;
                page.place(raw, chunk, &mut pixels);
            }
        }
        let samples = layout.convert(pixels, channels);
        Ok(Picture {
            samples,
            channels,
            stored: page.size,
            orientation: Orientation::from_exif(bytes).unwrap_or_default(),
        })
    })
}

fn unsupported(what: impl std::fmt::Display) -> MediaError {
    MediaError::Unsupported { got: format!("a TIFF {what}"), allowed: ALLOWED }
}

/// How a number of sixteen bits is read and written.
type Read = fn([u8; 2]) -> u16;
type Write = fn(u16) -> [u8; 2];

/// What the samples of a pixel mean.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Colours {
    Gray { is_inverted: bool },
    Rgb,
    Palette(Vec<[u8; 3]>),
}

/// The first page, as its directory describes it.
struct Page<'a> {
    size: Size,
    colours: Colours,
    /// Bits of a sample: 1, 2, 4, 8 or 16.
    bits: u32,
    /// Samples that are stored of each pixel.
    n_samples: u32,
    /// Whether the sample after the colours is alpha by which they are not multiplied yet.
    has_alpha: bool,
    is_planar: bool,
    is_differenced: bool,
    /// Whether the lowest bit of a byte comes first.
    is_turned: bool,
    is_little: bool,
    packing: Packing,
    /// A strip or a tile.
    chunk: Size,
    offsets: Field<'a>,
    lengths: Option<Field<'a>>,
    /// What all JPEG streams have in common, between their start and end markers.
    jpeg_tables: &'a [u8],
    is_ycbcr: bool,
}

/// A part of the page that is unpacked at once.
#[derive(Clone, Copy)]
struct Chunk {
    index: usize,
    left: u32,
    top: u32,
    /// Without the rows and columns of a tile that lie beyond the page; strips have no such rows, tiles are
    /// unpacked with them.
    shown: Size,
    size: Size,
    plane: usize,
}

impl<'a> Page<'a> {
    fn read(directory: &Directory<'a>) -> Result<Self, MediaError> {
        let number = |tag, otherwise| directory.number(tag, otherwise);
        let required = |tag| directory.number(tag, None);
        if directory.is_raw() {
            return Err(MediaError::Unsupported {
                got: "a raw camera image".to_owned(),
                allowed: "develop it first, or send the JPEG that the camera makes",
            });
        }
        let size = Size { width: required(256)?, height: required(257)? };
        let n_samples = number(277, Some(1))?;
        let bits = directory.same(258, 1)?;
        let format = directory.same(339, 1)?;
        let photometric = required(262)?;
        let packing = Packing::of(number(259, Some(1))?)?;
        let is_jpeg = packing == Packing::Jpeg;
        let colours = match (photometric, bits) {
            (0 | 1, _) => Colours::Gray { is_inverted: photometric == 0 },
            (2, _) => Colours::Rgb,
            (3, ..=8) => Colours::Palette(directory.palette(bits)?),
            (6, 8) if is_jpeg => Colours::Rgb,
            (5, _) => return Err(unsupported("of four inks")),
            _ => return Err(unsupported(format!("of photometric interpretation {photometric}"))),
        };
        let depths: &[u32] = match (&colours, &packing) {
            (_, Packing::Jpeg) => &[8],
            (_, Packing::Group4) => &[1],
            (Colours::Rgb, _) => &[8, 16],
            (Colours::Palette(_), _) => &[1, 2, 4, 8],
            (Colours::Gray { .. }, _) => &[1, 2, 4, 8, 16],
        };
        if !depths.contains(&bits) || !matches!(format, 1 | 4) {
            return Err(unsupported(format!("of {bits} bits a sample in format {format}")));
        }
        let n_colours = if colours == Colours::Rgb { 3 } else { 1 };
        if n_samples < n_colours || n_samples > 16 {
            return Err(damaged(FORMAT, format!("it has {n_samples} samples a pixel")));
        }
        let extra = directory.field(338)?.map(|field| field.at(0)).transpose()?;
        let is_tiled = directory.field(324)?.is_some();
        let chunk = if is_tiled {
            Size { width: required(322)?, height: required(323)? }
        } else {
            Size { width: size.width, height: number(278, Some(u32::MAX))?.min(size.height) }
        };
        if chunk.pixels() == 0 || is_tiled && (chunk.width % 16 != 0 || chunk.height % 16 != 0) {
            return Err(damaged(
                FORMAT,
                "its strips or tiles have no size, or tiles one that is no multiple of 16",
            ));
        }
        let (offsets, lengths) = if is_tiled { (324, 325) } else { (273, 279) };
        let predictor = number(317, Some(1))?;
        let is_packed = matches!(packing, Packing::Lzw | Packing::Deflate);
        if predictor > 2 && is_packed || predictor == 2 && is_packed && bits < 8 {
            return Err(unsupported(format!("with predictor {predictor} of {bits} bits")));
        }
        let is_planar = number(284, Some(1))? == 2 && n_samples > 1;
        if is_jpeg && (is_planar || n_samples != n_colours) || packing == Packing::Group4 && n_samples != 1 {
            return Err(unsupported("of a rare coding"));
        }
        Ok(Self {
            size,
            bits,
            n_samples,
            has_alpha: n_samples > n_colours && extra == Some(2),
            is_planar,
            is_differenced: predictor == 2 && is_packed,
            is_turned: number(266, Some(1))? == 2,
            is_little: directory.is_little(),
            packing,
            chunk,
            offsets: directory.field(offsets)?.ok_or_else(|| damaged(FORMAT, "it holds no picture"))?,
            lengths: directory.field(lengths)?,
            jpeg_tables: directory.field(347)?.map_or([].as_slice(), |field| field.bytes()),
            is_ycbcr: photometric == 6,
            colours,
        })
    }

    fn layout(&self) -> PixelLayout {
        match (&self.colours, self.has_alpha) {
            (Colours::Gray { .. }, false) => PixelLayout::Gray,
            (Colours::Gray { .. }, true) => PixelLayout::GrayAlpha,
            (_, false) => PixelLayout::Rgb,
            (_, true) => PixelLayout::Rgba,
        }
    }

    /// Samples of a pixel that lie side by side.
    fn n_together(&self) -> u32 {
        if self.is_planar { 1 } else { self.n_samples }
    }

    /// Bytes of an unpacked row of a strip or tile.
    fn row_bytes(&self) -> usize {
        (self.chunk.width as usize * self.n_together() as usize * self.bits as usize).div_ceil(8)
    }

    /// Bytes of an unpacked strip or tile; JPEGs are not unpacked into one.
    fn chunk_bytes(&self) -> Result<u64, MediaError> {
        if self.packing == Packing::Jpeg {
            return Ok(0);
        }
        (self.row_bytes() as u64)
            .checked_mul(self.chunk.height.into())
            .ok_or_else(|| damaged(FORMAT, "its tiles are larger than any memory"))
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let Size { width, height } = self.chunk;
        let (across, down) = (self.size.width.div_ceil(width), self.size.height.div_ceil(height));
        let n_planes = if self.is_planar { self.n_samples } else { 1 };
        let is_tiled = width != self.size.width || self.lengths.is_some_and(|lengths| lengths.tag == 325);
        let place = move |index: u32| {
            let (left, top) = (index % across * width, index / across % down * height);
            let shown =
                Size { width: width.min(self.size.width - left), height: height.min(self.size.height - top) };
            let size = if is_tiled { self.chunk } else { shown };
            Chunk { index: index as usize, left, top, shown, size, plane: (index / (across * down)) as usize }
        };
        (0..across * down * n_planes).map(place)
    }

    /// The bytes of a strip or tile in the file.
    fn data(&self, bytes: &'a [u8], index: usize) -> Result<std::borrow::Cow<'a, [u8]>, MediaError> {
        let begin = self.offsets.at(index)? as usize;
        let rest = bytes.get(begin..).ok_or_else(|| cut_off(FORMAT))?;
        let data = match self.lengths {
            Some(lengths) => rest.get(..lengths.at(index)? as usize).ok_or_else(|| cut_off(FORMAT))?,
            None => rest,
        };
        Ok(if self.is_turned { data.iter().map(|byte| byte.reverse_bits()).collect() } else { data.into() })
    }

    /// Lays unpacked rows out in `pixels`, in eight bits a sample.
    fn place(&self, raw: &mut [u8], chunk: Chunk, pixels: &mut [u8]) {
        let layout = self.layout();
        let n_together = self.n_together() as usize;
        let n_kept = layout.count();
        for (y, row) in raw.chunks_exact_mut(self.row_bytes()).take(chunk.shown.height as usize).enumerate() {
            if self.is_differenced {
                self.undo_differences(row);
            }
            let begin = (chunk.top as usize + y) * self.size.width as usize + chunk.left as usize;
            let kept =
                pixels[begin * n_kept..][..chunk.shown.width as usize * n_kept].chunks_exact_mut(n_kept);
            for (x, kept) in kept.enumerate() {
                let sample = |at: usize| self.sample(row, x * n_together + at);
                match &self.colours {
                    Colours::Palette(palette) if chunk.plane == 0 => {
                        kept.copy_from_slice(&palette[usize::from(sample(0))]);
                    }
                    Colours::Palette(_) => {}
                    _ if !self.is_planar => (0..n_kept).for_each(|at| kept[at] = self.level(sample(at), at)),
                    _ if chunk.plane < n_kept => kept[chunk.plane] = self.level(sample(0), chunk.plane),
                    _ => {}
                }
            }
        }
    }

    /// A sample as it is stored; of 16 bits the upper ones.
    fn sample(&self, row: &[u8], at: usize) -> u8 {
        match self.bits {
            8 => row[at],
            16 => row[2 * at + usize::from(self.is_little)],
            bits => {
                let bit = at * bits as usize;
                row[bit / 8] >> (8 - bits as usize - bit % 8) & ((1 << bits) - 1)
            }
        }
    }

    /// The level from 0 to 255 that a sample stands for; `at` is its place in the pixel.
    fn level(&self, sample: u8, at: usize) -> u8 {
        let level = match self.bits {
            8 | 16 => sample,
            bits => (u32::from(sample) * 255 / ((1 << bits) - 1)) as u8,
        };
        if at == 0 && self.colours == (Colours::Gray { is_inverted: true }) { 255 - level } else { level }
    }

    /// Adds to each sample the one of the pixel before (TIFF 6.0, 14).
    fn undo_differences(&self, row: &mut [u8]) {
        let n = self.n_together() as usize;
        if self.bits == 8 {
            (n..row.len()).for_each(|at| row[at] = row[at].wrapping_add(row[at - n]));
            return;
        }
        let (read, write): (Read, Write) = if self.is_little {
            (u16::from_le_bytes, u16::to_le_bytes)
        } else {
            (u16::from_be_bytes, u16::to_be_bytes)
        };
        let samples = row.as_chunks_mut().0;
        (n..samples.len())
            .for_each(|at| samples[at] = write(read(samples[at]).wrapping_add(read(samples[at - n]))));
    }

    fn jpeg_channels(&self) -> Channels {
        if self.colours == Colours::Rgb { Channels::Rgb } else { Channels::Gray }
    }

    /// A JPEG file of a strip's stream, with the tables that all streams share, and a note of its colours (TIFF
    /// technical note 2).
    fn jpeg(&self, stream: std::borrow::Cow<'_, [u8]>) -> Vec<u8> {
        let inner = |bytes: &'_ [u8], end: &[u8]| {
            let bytes = bytes.strip_prefix(b"\xff\xd8").unwrap_or(bytes);
            bytes.strip_suffix(end).unwrap_or(bytes).to_vec()
        };
        let colours = [b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0".as_slice(), &[u8::from(self.is_ycbcr)]].concat();
        let note = if self.colours == Colours::Rgb { colours.as_slice() } else { &[] };
        [b"\xff\xd8", note, &inner(self.jpeg_tables, b"\xff\xd9"), &inner(&stream, b"")].concat()
    }

    /// Lays a decoded strip or tile out in `pixels`.
    fn place_picture(&self, picture: &Picture, chunk: Chunk, pixels: &mut [u8]) -> Result<(), MediaError> {
        let (width, n) = (picture.stored.width as usize, picture.channels.count());
        if picture.channels != self.jpeg_channels()
            || picture.stored.width != self.chunk.width
            || picture.stored.height < chunk.shown.height
        {
            return Err(damaged(FORMAT, "its headers contradict each other"));
        }
        let is_inverted = self.colours == Colours::Gray { is_inverted: true };
        for y in 0..chunk.shown.height as usize {
            let begin = ((chunk.top as usize + y) * self.size.width as usize + chunk.left as usize) * n;
            let kept = &mut pixels[begin..][..chunk.shown.width as usize * n];
            kept.copy_from_slice(&picture.samples[y * width * n..][..kept.len()]);
            if is_inverted {
                kept.iter_mut().for_each(|sample| *sample = 255 - *sample);
            }
        }
        Ok(())
    }
}
