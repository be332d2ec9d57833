//! What callers bring: a photograph drawn by code, and a sentence.

use bytes::Bytes;

use super::{
    client::{Failure, post},
    picture::portrait,
};

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
            path: "/v1/vision/classify?model=face",
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
