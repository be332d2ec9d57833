//! Several models and one answer: a detector, and readers of what it finds.
//!
//! A pipeline is a folder beside those of the models that holds a `pipeline.toml`:
//!
//! ```toml
//! detector = "face-detector"   # a model that answers with detections
//! regions = "faces"            # what they stand under in answers
//!
//! [[readers]]
//! model = "face"               # a model that reads pictures
//! margin = 0.0                 # how much wider than the box the region is, on each side
//! ```
//!
//! Invariant: before the body of a request is read, every stage owes it its time, the last one first; so what is admitted
//! is expected to be answered in time by all of them. Nobody above this module knows how stages hang together.

mod region;
mod run;
mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::{
    run::{Failure, Request, Reserved, Scene},
    spec::{FILE, PipelineError, PipelineSpec, ReaderSpec, scan},
};
use crate::{
    error::Error,
    manifest::ModelName,
    pool::{Model, ModelPool},
    tasks::{Descriptor, Modality, OutputKind},
};

/// A pipeline that is served.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    pub name: ModelName,
    pub spec: PipelineSpec,
}

/// Every pipeline of a server.
#[derive(Debug, Clone, Default)]
pub struct Pipelines(Vec<Pipeline>);

impl Pipelines {
    /// Keeps `found` after holding each to the `models` that there are: none of that name, or its task, which a broken
    /// folder does not tell.
    ///
    /// # Errors
    /// [`PipelineError`] for a pipeline that names a model which is not there, or which cannot do its part.
    pub fn new(
        found: Vec<Pipeline>,
        models: impl Fn(&ModelName) -> Option<Option<&'static Descriptor>>,
    ) -> Result<Self, PipelineError> {
        for Pipeline { name, spec } in &found {
            spec.check(&models).map_err(|reason| PipelineError { name: name.to_string(), reason })?;
        }
        Ok(Self(found))
    }

    /// Finds a pipeline by its name.
    pub fn find(&self, name: &str) -> Option<&Pipeline> {
        self.0.iter().find(|pipeline| pipeline.name.as_str() == name)
    }

    /// Every pipeline, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = &Pipeline> {
        self.0.iter()
    }
}

/// The models of a pipeline, found in a pool.
#[derive(Clone)]
pub struct Stages {
    /// What the regions stand under in answers.
    pub regions: String,
    pub detector: Arc<Model>,
    /// At least one.
    pub readers: Vec<ReaderStage>,
}

/// A model that reads regions.
#[derive(Clone)]
pub struct ReaderStage {
    pub model: Arc<Model>,
    /// How much wider than the detection's box the region is on each of its four sides, as a share of the box.
    pub margin: f32,
    /// What its answers stand under; `None` where their fields are the region's own.
    pub key: Option<String>,
}

impl Stages {
    /// Finds the models of a pipeline.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] where one has gone.
    pub fn of(spec: &PipelineSpec, pool: &ModelPool) -> Result<Self, Error> {
        let reader = |reader: &ReaderSpec| {
            Ok::<_, Error>(ReaderStage {
                model: pool.model(reader.model.as_str(), None)?,
                margin: reader.margin,
                key: reader.key.clone(),
            })
        };
        Ok(Self {
            regions: spec.regions.clone(),
            detector: pool.model(spec.detector.as_str(), None)?,
            readers: spec.readers.iter().map(reader).collect::<Result<_, _>>()?,
        })
    }

    /// One reader behind a detector, as a caller may ask for without a pipeline of that kind.
    pub fn pair(detector: &Arc<Model>, reader: &Arc<Model>) -> Self {
        let reader = ReaderStage { model: Arc::clone(reader), margin: 0.0, key: None };
        Self { regions: "regions".to_owned(), detector: Arc::clone(detector), readers: vec![reader] }
    }

    /// The same stages behind another detector.
    #[must_use]
    pub fn behind(self, detector: &Arc<Model>) -> Self {
        Self { detector: Arc::clone(detector), ..self }
    }

    /// Every model, the first stage first.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> + Clone {
        std::iter::once(&self.detector).chain(self.readers.iter().map(|reader| &reader.model))
    }

    /// Rejects models that cannot do their part.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the model and what it does instead.
    pub fn check(&self) -> Result<(), Error> {
        let told =
            |(name, reason): (&ModelName, &str)| Error::invalid(format!("the model `{name}` {reason}"));
        if self.detector.descriptor().is_some_and(|task| !finds(task)) {
            return Err(told((self.detector.name(), "finds no regions; ask a detector, or none")));
        }
        match self.readers.iter().find(|reader| reader.model.descriptor().is_some_and(|task| !reads(task))) {
            Some(reader) => {
                Err(told((reader.model.name(), "reads no regions of pictures; ask it with detector=none")))
            }
            None => Ok(()),
        }
    }
}

/// Returns whether a task finds regions in pictures.
fn finds(task: &Descriptor) -> bool {
    task.modality == Modality::Image && task.output == OutputKind::Detections
}

/// Returns whether a task reads regions of pictures.
fn reads(task: &Descriptor) -> bool {
    task.modality == Modality::Image && task.output != OutputKind::Detections
}
