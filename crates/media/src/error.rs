//! Why a picture or a text cannot be read.
//!
//! One variant for each remedy that a caller has. Texts name what was wrong and what is allowed, and never a path,
//! a pointer or a backtrace.

use std::borrow::Cow;

use thiserror::Error;

/// Why a picture or a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MediaError {
    /// The bytes are not what they claim to be: a file that is cut off or damaged.
    #[error("{0}")]
    Malformed(Cow<'static, str>),

    /// Larger than allowed. `what` names the measured thing, for example `image pixels`.
    #[error("{what}: {got} is more than the {limit} allowed")]
    TooLarge { what: &'static str, got: Amount, limit: u64 },

    /// A format that is not read. `allowed` names those that are, and may name a remedy.
    #[error("{got} is not served; {allowed}")]
    Unsupported { got: String, allowed: &'static str },

    /// A sound file or text with the wrong content, such as no text at all.
    #[error("{0}")]
    Invalid(Cow<'static, str>),

    /// A fault of this program. The text is for the log; callers get no detail.
    #[error("{0}")]
    Internal(String),
}

impl MediaError {
    /// Makes a [`MediaError::Malformed`].
    pub fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(text.into())
    }

    /// Makes a [`MediaError::Invalid`].
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(text.into())
    }
}

/// How much was sent: known exactly, or only that the limit was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// The size that was declared or counted.
    Exactly(u64),
    /// Reading stopped once the limit was passed.
    More,
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(n) => write!(f, "{n}"),
            Self::More => f.write_str("what was sent"),
        }
    }
}
