//! Lepton: an inference server for CPUs.

pub mod config;
pub mod cores;
pub mod engine;
pub mod error;
pub mod http;
pub mod image;
pub mod manifest;
pub mod metrics;
pub mod pool;
pub mod repository;
pub mod server;
pub mod task;
pub mod tensor;
pub mod text;
