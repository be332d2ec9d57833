//! Loads a network with the backend that reads its format.
//!
//! Invariant: a backend is named in [`LOADERS`] and nowhere else outside its own file.

use std::{path::Path, sync::Arc};

use crate::{Engine, EngineError, Precision, tract};

/// Every backend. The first that reads a file loads it.
pub static LOADERS: &[&dyn EngineLoader] = &[&tract::TractLoader];

/// A backend: reads networks of one format.
pub trait EngineLoader: Send + Sync {
    /// The backend's name, for logs.
    fn name(&self) -> &'static str;

    /// Returns whether the backend reads files of that format.
    fn reads(&self, artifact: &Artifact<'_>) -> bool;

    /// Returns whether the backend computes products in that precision on this processor.
    fn supports(&self, precision: Precision) -> bool;

    /// Loads a network.
    ///
    /// # Errors
    /// [`EngineError::Load`] where the file is broken, demands too much or cannot be planned;
    /// [`EngineError::Unsupported`] where it is sound but not served. A loader never panics.
    fn load(&self, artifact: &Artifact<'_>, options: LoadOptions) -> Result<Arc<dyn Engine>, EngineError>;
}

/// The file of a network.
#[derive(Debug, Clone, Copy)]
pub struct Artifact<'a> {
    /// Its name, whose extension tells the format.
    pub file: &'a Path,
    pub bytes: &'a [u8],
    /// The folder that it stands in, from below which it may read further files; without one, such files are refused.
    pub folder: Option<&'a Path>,
}

/// How a network is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// The precision of products; sums are kept in f32. A backend that does not support it takes f32.
    pub precision: Precision,
    pub batching: Batching,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, batching: Batching::Required }
    }
}

/// Whether the outermost axis of a network's inputs and outputs is taken for the rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// It is: whoever asks for this knows that rows are independent. A network where it cannot be is refused.
    Required,
    /// It is where the file says so: it is 1 everywhere, or free and called a batch by one name everywhere. Any other
    /// network is served on tensors as they are, since a free axis may as well be one of time.
    Declared,
}

/// Finds the backend for a file.
///
/// # Errors
/// [`EngineError::Unsupported`] where no backend reads its format.
pub fn loader(artifact: &Artifact<'_>) -> Result<&'static dyn EngineLoader, EngineError> {
    LOADERS.iter().copied().find(|loader| loader.reads(artifact)).ok_or_else(|| {
        let names: Vec<&str> = LOADERS.iter().map(|loader| loader.name()).collect();
        let found = format!("{}; none of {} reads it", artifact.file.display(), names.join(", "));
        EngineError::Unsupported { what: "file format", found }
    })
}

/// Loads a network with the backend that reads it.
///
/// # Errors
/// As [`loader`] and [`EngineLoader::load`].
pub fn load(artifact: &Artifact<'_>, options: LoadOptions) -> Result<Arc<dyn Engine>, EngineError> {
    loader(artifact)?.load(artifact, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_no_backend_reads_is_refused_by_name() {
        let artifact = Artifact { file: Path::new("1/model.pickle"), bytes: b"", folder: None };
        let error = load(&artifact, LoadOptions::default()).map(drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the network's file format is not served: 1/model.pickle; none of tract reads it"
        );
    }
}
