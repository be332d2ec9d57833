//! Lepton: an inference server for CPUs.
//!
//! # Layout, in reading order
//!
//! - [`config`]: what may be set; [`cores`]: what this machine lends; [`cli`]: the commands.
//! - [`server`]: a listener, a router and a stop that loses nothing.
//! - [`http`]: the only room that knows HTTP.
//! - [`pool`]: the heart: admission, lanes, batches, worker threads.
//! - [`api`]: answers as callers read them, whatever carries them.
//! - [`pipelines`]: a detector and readers of what it finds, under one promise.
//! - [`tasks`]: what a network is for; pure functions of inputs and tensors.
//! - [`engine`]: what runs a network.
//! - [`image`], [`text`], [`tensor`]: bytes to pixels, text to ids, numbers in shapes.
//! - [`repository`] and [`manifest`]: model folders on disk.
//! - [`metrics`] and [`error`]: plain data that every room may use.
//!
//! Imports run downwards only; `tests/it/rules.rs` holds this.

mod api;
pub mod cli;
pub mod config;
pub mod cores;
pub mod error;
mod folder;
pub mod http;
pub mod hugging_face;
pub mod manifest;
pub mod metrics;
pub mod pipelines;
pub mod pool;
pub mod repository;
pub mod server;
pub mod tasks;

use lepton_allocator as allocator;
pub use lepton_engine::{self as engine, tensor};
pub use lepton_media::{image, text};
