//! A photograph drawn by code.

use bytes::Bytes;
use jpeg_encoder::{ColorType, Encoder, EncodingError};

/// A square JPEG with about the detail of a photograph, drawn by code.
pub(crate) fn portrait(side: u16) -> Result<Bytes, EncodingError> {
    let zoom = 250.0 / f32::from(side);
    let picture = image::RgbImage::from_fn(side.into(), side.into(), |x, y| {
        let (dx, dy) = (x as f32 * zoom - 125.0, y as f32 * zoom - 120.0);
        let face = (1.0 - (dx * dx / 6400.0 + dy * dy / 10000.0)).clamp(0.0, 1.0);
        let grain = ((x * 37 + y * 91 + x * y * 3) % 23) as f32;
        let tone = |base: f32, gain: f32| (base + gain * face + grain + dy * 0.2).clamp(0.0, 255.0) as u8;
        image::Rgb([tone(60.0, 140.0), tone(70.0, 90.0), tone(80.0, 60.0)])
    });
    let mut jpeg = Vec::new();
    let encoder = Encoder::new(&mut jpeg, 90);
    encoder.encode(&picture, side, side, ColorType::Rgb)?;
    Ok(Bytes::from(jpeg))
}
