//! What the integration tests share: the real binary as a child process, and a client that can
//! also misbehave.

#![allow(unreachable_pub, reason = "an integration test is a crate without users")]

pub mod client;
pub mod process;

use std::path::PathBuf;

/// The folder of the shipped models.
pub fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models")
}
