//! Pictures to numbers and texts to ids: what stands between a request's bytes and a network's input.
//!
//! Invariant: limits are checked before the work. Nothing here knows a model, a queue or HTTP; what a caller sent
//! wrongly is a [`MediaError`], whose text may be shown to that caller.

mod error;
pub mod image;
pub mod text;

pub use error::{Amount, MediaError};
