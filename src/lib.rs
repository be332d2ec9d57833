//! Lepton: an inference server for CPUs.

pub mod error;
pub mod manifest;
pub mod metrics;
pub mod tensor;
