//! Pictures drawn and encoded by code, for tests: sound ones, rotated ones and hostile ones.

use std::io::Cursor;

use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage, imageops};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// A picture with detail everywhere and no symmetry.
pub fn draw(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 7 + y * 13) as u8, (x * y % 251) as u8, (x * 3 + 255 - y * 5 % 255) as u8])
    })
}

/// A picture without detail or symmetry, which lossy encoders keep within a few levels.
pub fn smooth(width: u32, height: u32) -> RgbImage {
    let ramp = |at: u32, of: u32, from: u32, to: u32| (from + (to - from) * at / of.max(1)) as u8;
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([ramp(x, width, 40, 220), ramp(y, height, 30, 200), ramp(x + 2 * y, width + 2 * height, 60, 180)])
    })
}

/// A grey picture without detail or symmetry.
pub fn smooth_gray(width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| Luma([(20 + x * 3 + y * 4) as u8]))
}

/// How a camera that was held as `orientation` (EXIF, 1 to 8) stores an upright picture.
pub fn stored_as(upright: &RgbImage, orientation: u16) -> RgbImage {
    match orientation {
        2 => imageops::flip_horizontal(upright),
        3 => imageops::rotate180(upright),
        4 => imageops::flip_vertical(upright),
        5 => imageops::flip_horizontal(&imageops::rotate90(upright)),
        6 => imageops::rotate270(upright),
        7 => imageops::flip_horizontal(&imageops::rotate270(upright)),
        8 => imageops::rotate90(upright),
        _ => upright.clone(),
    }
}

// --- JPEG

fn encoded_jpeg(
    width: u32,
    height: u32,
    data: &[u8],
    color: ColorType,
    set: impl FnOnce(&mut Encoder<&mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 95);
    set(&mut encoder);
    encoder.encode(data, width as u16, height as u16, color).unwrap();
    bytes
}

/// A baseline JPEG with halved chroma, as cameras write it.
pub fn jpeg(picture: &RgbImage) -> Vec<u8> {
    encoded_jpeg(picture.width(), picture.height(), picture, ColorType::Rgb, |encoder| {
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
    })
}

/// A progressive JPEG of several scans.
pub fn progressive_jpeg(picture: &RgbImage) -> Vec<u8> {
    encoded_jpeg(picture.width(), picture.height(), picture, ColorType::Rgb, |encoder| {
        encoder.set_progressive(true);
    })
}

/// A JPEG of one component.
pub fn gray_jpeg(picture: &GrayImage) -> Vec<u8> {
    encoded_jpeg(picture.width(), picture.height(), picture, ColorType::Luma, |_| {})
}

/// A JPEG of four inks, inverted as Adobe writes them.
pub fn cmyk_jpeg(picture: &RgbImage) -> Vec<u8> {
    let inks: Vec<u8> = picture.pixels().flat_map(|Rgb([r, g, b])| [255 - r, 255 - g, 255 - b, 0]).collect();
    encoded_jpeg(picture.width(), picture.height(), &inks, ColorType::Cmyk, |_| {})
}

/// An EXIF block that says nothing but an orientation, little end first.
pub fn exif(orientation: u16) -> Vec<u8> {
    let [low, high] = orientation.to_le_bytes();
    [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[low, high, 0, 0, 0, 0, 0, 0]].concat()
}

/// Inserts a segment right after the start marker.
pub fn insert_jpeg_segment(jpeg: &[u8], code: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, code], &length, content, &jpeg[2..]].concat()
}

/// A JPEG of samples as they are stored, with the orientation in its EXIF.
pub fn oriented_jpeg(stored: &RgbImage, orientation: u16) -> Vec<u8> {
    let content = [b"Exif\0\0".as_slice(), &exif(orientation)].concat();
    insert_jpeg_segment(&jpeg(stored), 0xe1, &content)
}

/// A JPEG that ends after its frame header.
pub fn jpeg_header(width: u16, height: u16) -> Vec<u8> {
    let ([w0, w1], [h0, h1]) = (width.to_be_bytes(), height.to_be_bytes());
    let frame = [8, h0, h1, w0, w1, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
    [[0xff, 0xd8, 0xff, 0xc0, 0, 17].as_slice(), &frame].concat()
}

// --- PNG

/// A PNG of colours.
pub fn png(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The colour types of PNG.
#[derive(Debug, Clone, Copy)]
pub enum PngKind {
    Gray,
    Rgb,
    Rgba,
    /// Black, red, green at half alpha, blue.
    Palette,
}

/// A PNG of samples of any depth, packed as PNG packs them.
pub fn raw_png(width: u32, height: u32, kind: PngKind, depth: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(match kind {
        PngKind::Gray => png::ColorType::Grayscale,
        PngKind::Rgb => png::ColorType::Rgb,
        PngKind::Rgba => png::ColorType::Rgba,
        PngKind::Palette => png::ColorType::Indexed,
    });
    if matches!(kind, PngKind::Palette) {
        encoder.set_palette(vec![0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]);
        encoder.set_trns(vec![255, 255, 128, 255]);
    }
    encoder.set_depth(png::BitDepth::from_u8(depth).unwrap());
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// An animation of two frames, the first of which is its default picture.
pub fn animated_png(first: &RgbImage, second: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, first.width(), first.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(first).unwrap();
    writer.write_image_data(second).unwrap();
    writer.finish().unwrap();
    bytes
}

fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let checksum = checksum(name.iter().chain(data));
    [&(data.len() as u32).to_be_bytes(), name.as_slice(), data, &checksum.to_be_bytes()].concat()
}

/// CRC-32 as PNG has it (W3C PNG, annex D).
fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|byte| (0..8).fold(byte, |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 }))
        .collect();
    !bytes.fold(!0u32, |sum, byte| table[usize::from(sum as u8 ^ byte)] ^ (sum >> 8))
}

fn png_of(width: u32, height: u32, interlaced: bool, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 0, 0, 0, u8::from(interlaced)]);
    [b"\x89PNG\r\n\x1a\n".to_vec(), png_chunk(b"IHDR", &header), chunks.concat(), png_chunk(b"IEND", b"")]
        .concat()
}

/// A grey PNG that is a header and an empty picture.
pub fn png_header(width: u32, height: u32) -> Vec<u8> {
    png_of(width, height, false, &[png_chunk(b"IDAT", &zeros(1))])
}

/// An interlaced grey PNG of one pixel.
pub fn interlaced_png_of_one_pixel(level: u8) -> Vec<u8> {
    // A stored deflate block: no filter, then the level.
    let adler = adler(&[0, level]).to_be_bytes();
    let data = [[0x78, 0x01, 1, 2, 0, 0xfd, 0xff, 0, level].as_slice(), &adler].concat();
    png_of(1, 1, true, &[png_chunk(b"IDAT", &data)])
}

fn adler(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (a + b) % 65521)
    });
    b << 16 | a
}

/// Inserts a chunk right after the header.
pub fn insert_png_chunk(png: &[u8], name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    [&png[..33], &png_chunk(name, data), &png[33..]].concat()
}

/// A PNG of samples as they are stored, with the orientation in its EXIF.
pub fn oriented_png(stored: &RgbImage, orientation: u16) -> Vec<u8> {
    insert_png_chunk(&png(stored), b"eXIf", &exif(orientation))
}

/// A PNG with a compressed note (`zTXt` or `iCCP`) that inflates to a gigabyte.
pub fn inflating_png(picture: &RgbImage, name: &[u8; 4]) -> Vec<u8> {
    let note = [b"Comment\0\0".as_slice(), &zeros(1 << 30)].concat();
    insert_png_chunk(&png(picture), name, &note)
}

/// A PNG of one pixel whose image data inflates to a gigabyte.
pub fn data_bomb_png() -> Vec<u8> {
    png_of(1, 1, false, &[png_chunk(b"IDAT", &zeros(1 << 30))])
}

/// A zlib stream of at least `n` zeros: matches of 258 bytes, 13 bits each (RFC 1951, 3.2.6). Its
/// sum is left out.
fn zeros(n: usize) -> Vec<u8> {
    let mut bytes = vec![0x78, 0x01];
    let (mut bits, mut n_bits) = (0u64, 0);
    let mut put = |value: u64, length: u32| {
        bits |= value << n_bits;
        n_bits += length;
        while n_bits >= 8 {
            bytes.push(bits as u8);
            bits >>= 8;
            n_bits -= 8;
        }
    };
    put(0b011, 3); // the last block, of fixed codes
    put(0b0000_1100, 8); // a zero
    for _ in 0..n / 258 + 1 {
        put(0b1010_0011, 8); // a match of 258 bytes,
        put(0, 5); // one byte back
    }
    put(0, 15); // end of block, then filled to a byte
    bytes
}

// --- WebP

/// A lossless WebP of colours.
pub fn webp(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::WebP)
}

/// A lossy WebP: 2 x 2 pixels of red.
pub fn lossy_webp() -> Vec<u8> {
    let data = [
        0xd0, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x02, 0x00, 0x02, 0x00, 0x02, 0x00, 0x34, 0x25, 0xa0, 0x02, 0x74,
        0xba, 0x01, 0xf8, 0x00, 0x03, 0xb0, 0x00, 0xfe, 0xf0, 0xc4, 0x0b, 0xff, 0x20, 0xb9, 0x61, 0x75, 0xc8,
        0xd7, 0xff, 0x20, 0x3f, 0xe4, 0x07, 0xfc, 0x80, 0xff, 0xf8, 0xf2, 0x00, 0x00, 0x00,
    ];
    webp_of(&[webp_chunk(b"VP8 ", &data)])
}

/// A lossless WebP that ends after its header's size.
pub fn webp_header(width: u32, height: u32) -> Vec<u8> {
    let size = (width - 1) | (height - 1) << 14;
    webp_of(&[webp_chunk(b"VP8L", &[[0x2f].as_slice(), &size.to_le_bytes()].concat())])
}

/// A still picture in the extended container, with the orientation in its EXIF if there is one.
pub fn extended_webp(still: &[u8], orientation: Option<u16>) -> Vec<u8> {
    let size = u32::from_le_bytes(still[21..25].try_into().unwrap());
    let flags = if orientation.is_some() { 0x08 } else { 0 };
    let mut chunks =
        vec![webp_chunk(b"VP8X", &canvas(flags, (size & 0x3fff) + 1, (size >> 14 & 0x3fff) + 1))];
    chunks.push(still[12..].to_vec());
    if let Some(orientation) = orientation {
        chunks.push(webp_chunk(b"EXIF", &exif(orientation)));
    }
    webp_of(&chunks)
}

/// A still picture in the extended container, with these chunks of EXIF.
pub fn webp_with_exif(still: &[u8], contents: &[Vec<u8>]) -> Vec<u8> {
    let extended = extended_webp(still, None);
    let mut chunks = vec![extended[12..].to_vec()];
    chunks[0][8] |= 0x08;
    chunks.extend(contents.iter().map(|content| webp_chunk(b"EXIF", content)));
    webp_of(&chunks)
}

/// An animation of frames of one size.
pub fn animated_webp(frames: &[RgbImage]) -> Vec<u8> {
    let (width, height) = frames[0].dimensions();
    let mut chunks =
        vec![webp_chunk(b"VP8X", &canvas(0x02, width, height)), webp_chunk(b"ANIM", &[0, 0, 0, 0, 0, 0])];
    for frame in frames {
        let place =
            [&[0; 6], &(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3], &[40, 0, 0, 2]];
        chunks.push(webp_chunk(b"ANMF", &[place.concat().as_slice(), &webp(frame)[12..]].concat()));
    }
    webp_of(&chunks)
}

fn canvas(flags: u8, width: u32, height: u32) -> Vec<u8> {
    [&[flags, 0, 0, 0], &(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat()
}

fn webp_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let padding: &[u8] = if data.len() % 2 == 1 { &[0] } else { &[] };
    [name.as_slice(), &(data.len() as u32).to_le_bytes(), data, padding].concat()
}

fn webp_of(chunks: &[Vec<u8>]) -> Vec<u8> {
    let chunks = chunks.concat();
    [b"RIFF", (chunks.len() as u32 + 4).to_le_bytes().as_slice(), b"WEBP", &chunks].concat()
}
