//! What a caller brings, and what is known of it before any work.

use std::sync::Arc;

use bytes::Bytes;

use super::{Crop, base64};
use crate::{error::Error, image::Picture};

/// What a caller brings: owned bytes, nothing decoded yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An encoded image, of a format that [`crate::image`] decodes.
    Image(Bytes),
    /// An encoded image in base64 (RFC 4648), or a `data:` URL of one (RFC 2397).
    ImageBase64(Bytes),
    /// An encoded image, and how a detector is to look at it.
    Scene(Encoded, Look),
    /// A face that a detector cut out for this model.
    Cut(Picture),
    Text(String),
}

impl Input {
    /// The same image for a detector; what is no encoded image stays what it is.
    #[must_use]
    pub fn looked_at(self, look: Look) -> Self {
        match self {
            Self::Image(bytes) => Self::Scene(Encoded::Plain(bytes), look),
            Self::ImageBase64(text) => Self::Scene(Encoded::Base64(text), look),
            Self::Scene(image, _) => Self::Scene(image, look),
            other @ (Self::Cut(_) | Self::Text(_)) => other,
        }
    }

    /// The bytes that this input holds.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::Image(bytes) | Self::ImageBase64(bytes) => bytes.len(),
            Self::Scene(Encoded::Plain(bytes) | Encoded::Base64(bytes), _) => bytes.len(),
            Self::Cut(picture) => picture.n_bytes(),
            Self::Text(text) => text.len(),
        }
    }

    /// The bytes of memory that it keeps alive where it owns them: a text may have room for more than it is long.
    pub fn n_held(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            other => other.n_bytes(),
        }
    }

    /// The bytes of an encoded image as they came, which may be a slice of a body.
    pub fn encoded(&self) -> Option<&Bytes> {
        match self {
            Self::Image(bytes) | Self::ImageBase64(bytes) => Some(bytes),
            Self::Scene(Encoded::Plain(bytes) | Encoded::Base64(bytes), _) => Some(bytes),
            Self::Cut(_) | Self::Text(_) => None,
        }
    }

    /// What is known of it without looking into it.
    pub fn weight(&self) -> Weight {
        let side = match self {
            Self::Scene(_, look) => look.side,
            Self::Image(_) | Self::ImageBase64(_) | Self::Cut(_) | Self::Text(_) => None,
        };
        Weight { bytes: self.n_bytes(), side }
    }
}

/// An encoded image, of a format that [`crate::image`] decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    Plain(Bytes),
    /// In base64, or a `data:` URL of one.
    Base64(Bytes),
}

impl Encoded {
    /// The image's own bytes.
    pub(super) fn bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Base64(text) => base64::decode(&text),
        }
    }
}

/// How a detector is to look at a picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// The long side that it is scaled to, one of the task's own; its first where nobody chose.
    pub side: Option<u32>,
    /// What is to be cut out of it for another model.
    pub cut: Option<Cut>,
}

/// What is to be cut out of a picture: the surest faces, at most so many.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    pub crop: Arc<Crop>,
    pub most: usize,
}

/// What is known of an input without looking into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes that it holds; 0 where that is unknown.
    pub bytes: usize,
    /// The long side that was asked for.
    pub side: Option<u32>,
}

impl Weight {
    /// An input of so many bytes, and nothing else known.
    pub fn of(bytes: usize) -> Self {
        Self { bytes, side: None }
    }
}
