//! What callers bring: a photograph drawn by code, and a sentence.

use bytes::Bytes;

use super::client::{Failure, post};

pub(crate) const SENTENCE: &str = "The plot is thin and the ending is silly, but the actors have so much fun \
                            together that I never once looked at my watch.";

/// One endpoint with one input.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) model: &'static str,
    path: &'static str,
    content_type: &'static str,
    body: Bytes,
}

impl Work {
    /// A JPEG for the face model.
    pub(crate) fn picture() -> Result<Self, Failure> {
        Ok(Self {
            name: "vision, JPEG 250x250",
            model: "face",
            path: "/v1/vision/classify",
            content_type: "image/jpeg",
            body: portrait(250)?,
        })
    }

    /// The sentence for the sentiment model.
    pub(crate) fn sentence() -> Self {
        Self {
            name: "text, 24 words",
            model: "sentiment",
            path: "/v1/text/sentiment",
            content_type: "application/json",
            body: Bytes::from(serde_json::json!({ "text": SENTENCE }).to_string()),
        }
    }

    /// The request, with further header lines, each with its end of line.
    pub(crate) fn request(&self, terms: &str) -> Bytes {
        post(self.path, self.content_type, terms, &self.body)
    }
}

/// A square JPEG with about the detail of a photograph, drawn by code.
pub(crate) fn portrait(side: u16) -> Result<Bytes, Failure> {
    let zoom = 250.0 / f32::from(side);
    let picture = image::RgbImage::from_fn(side.into(), side.into(), |x, y| {
        let (dx, dy) = (x as f32 * zoom - 125.0, y as f32 * zoom - 120.0);
        let face = (1.0 - (dx * dx / 6400.0 + dy * dy / 10000.0)).clamp(0.0, 1.0);
        let grain = ((x * 37 + y * 91 + x * y * 3) % 23) as f32;
        let tone = |base: f32, gain: f32| (base + gain * face + grain + dy * 0.2).clamp(0.0, 255.0) as u8;
        image::Rgb([tone(60.0, 140.0), tone(70.0, 90.0), tone(80.0, 60.0)])
    });
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.encode(&picture, side, side, jpeg_encoder::ColorType::Rgb)?;
    Ok(Bytes::from(jpeg))
}
