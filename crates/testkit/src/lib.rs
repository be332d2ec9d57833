//! What tests of every crate share: pictures, tokenizers and networks, written by code.
//!
//! Invariant: the same call gives the same bytes on every machine and run. Nothing here imports another crate of the
//! workspace, so that each of them can be tested with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what cannot be written is a mistake in a test")]

pub mod jpegs;
pub mod onnx;
pub mod pictures;
pub mod tokenizers;
