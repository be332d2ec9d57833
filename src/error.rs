//! Why a request was not answered.
//!
//! One variant per thing that a caller can do about it. This file knows no HTTP; `http::problem`
//! turns each variant into a status. Texts name what was wrong and what is allowed, and never a
//! path, a pointer or a backtrace.

use std::{borrow::Cow, time::Duration};

pub use lepton_media::Amount;
use lepton_media::MediaError;
use thiserror::Error;

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Error {
    /// No model, or no version of it, goes by that name.
    #[error("no model is called `{name}`; the models are {known}")]
    ModelNotFound { name: String, known: String },

    /// The bytes are not what they claim to be: broken JSON, a broken image, a bad parameter.
    #[error("{0}")]
    Malformed(Cow<'static, str>),

    /// Larger than allowed. `what` names the measured thing, for example `image pixels`.
    #[error("{what}: {got} is more than the {limit} allowed")]
    TooLarge { what: &'static str, got: Amount, limit: u64 },

    /// A format that is not served.
    #[error("{got} is not served; {allowed}")]
    Unsupported { got: String, allowed: &'static str },

    /// The right form with the wrong content: no text, a wrong tensor shape or type.
    #[error("{0}")]
    Invalid(Cow<'static, str>),

    /// The caller's own quota is spent.
    #[error("this caller's quota is spent; it refills in {} ms", retry_after.as_millis())]
    Quota { retry_after: Duration },

    /// The queue is full, or the answer is predicted to come after the deadline.
    #[error("{reason}")]
    Overloaded {
        reason: Cow<'static, str>,
        /// When there is likely to be room, from now.
        retry_after: Duration,
        /// How long the answer would be likely to take, from now.
        forecast: Duration,
    },

    /// The deadline passed while the request waited.
    #[error("the deadline of {} ms passed while the request waited", deadline.as_millis())]
    DeadlineExceeded { deadline: Duration },

    /// Stopping, or still loading.
    #[error("{reason}")]
    Unavailable { reason: Cow<'static, str>, retry_after: Duration },

    /// A fault of ours. The text is for the log; callers get no detail.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Makes a [`Error::Malformed`].
    pub fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(text.into())
    }

    /// Makes an [`Error::Invalid`].
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(text.into())
    }
}

/// What a caller sent wrongly keeps its text and its remedy.
impl From<MediaError> for Error {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::Malformed(text) => Self::Malformed(text),
            MediaError::TooLarge { what, got, limit } => Self::TooLarge { what, got, limit },
            MediaError::Unsupported { got, allowed } => Self::Unsupported { got, allowed },
            MediaError::Invalid(text) => Self::Invalid(text),
            MediaError::Internal(text) => Self::Internal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_picture_or_a_text_keeps_its_words() {
        for error in [
            MediaError::malformed("the PNG is cut off"),
            MediaError::TooLarge { what: "image pixels", got: Amount::Exactly(9), limit: 4 },
            MediaError::Unsupported { got: "a HEIC image".to_owned(), allowed: "images are read as JPEG" },
            MediaError::invalid("there is no text"),
            MediaError::Internal("it broke".to_owned()),
        ] {
            let text = error.to_string();
            assert_eq!(Error::from(error).to_string(), text);
        }
    }
}
