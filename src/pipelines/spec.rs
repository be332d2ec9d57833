//! `pipeline.toml`, typed, and the folders that hold one.

use std::{fs, io::Read, path::Path};

use serde::Deserialize;

use super::{Pipeline, finds, reads};
use crate::{manifest::ModelName, tasks::Descriptor};

/// The file that makes a folder a pipeline.
pub const FILE: &str = "pipeline.toml";

/// Largest `pipeline.toml`, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Margins that a reader may have: a region has some of its box in it, and is not mostly surroundings.
const MARGINS: std::ops::RangeInclusive<f32> = -0.4..=2.0;

/// Names that would stand twice in an answer.
const TAKEN: [&str; 6] = ["box", "confidence", "landmarks", "label", "score", "scores"];

/// What a `pipeline.toml` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// What the pipeline is for, in one line.
    #[serde(default)]
    pub description: String,
    /// The model that finds the regions.
    pub detector: ModelName,
    /// What the regions stand under in answers.
    #[serde(default = "regions")]
    pub regions: String,
    /// The models that read each region; at least one.
    pub readers: Vec<ReaderSpec>,
}

/// A model that reads each region.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderSpec {
    pub model: ModelName,
    /// How much wider than the detection's box the region is on each of its four sides, as a share of the box; below 0
    /// it is narrower.
    #[serde(default)]
    pub margin: f32,
    /// What its answers stand under in a region; left out, their fields are the region's own, which one reader may do.
    #[serde(default, rename = "as")]
    pub key: Option<String>,
}

fn regions() -> String {
    "regions".to_owned()
}

/// Why a pipeline cannot be served. For the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline `{name}`: {reason}")]
pub struct PipelineError {
    pub(super) name: String,
    pub(super) reason: String,
}

impl PipelineSpec {
    /// Reads the text of a `pipeline.toml`.
    ///
    /// # Errors
    /// With the line, the key and what is expected there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spec: Self =
            toml::from_str(text).map_err(|error| format!("{FILE}: {}", error.to_string().trim_end()))?;
        spec.hold().map_err(|reason| format!("{FILE}: {reason}"))?;
        Ok(spec)
    }

    fn hold(&self) -> Result<(), String> {
        if self.readers.is_empty() {
            return Err("there are no [[readers]]; expected at least one".to_owned());
        }
        if self.regions.is_empty() || ["width", "height"].contains(&self.regions.as_str()) {
            return Err(format!(
                "regions is {:?}; expected a name of its own, such as \"faces\"",
                self.regions
            ));
        }
        for (idx, ReaderSpec { model, margin, key }) in self.readers.iter().enumerate() {
            if !MARGINS.contains(margin) {
                let (least, most) = (MARGINS.start(), MARGINS.end());
                return Err(format!("margin of `{model}` is {margin}; {least} to {most} are allowed"));
            }
            let before = &self.readers[..idx];
            match key {
                Some(key) if key.is_empty() || TAKEN.contains(&key.as_str()) => {
                    return Err(format!(
                        "as of `{model}` is {key:?}; expected a name other than {}",
                        TAKEN.join(", ")
                    ));
                }
                key if before.iter().any(|other| other.key == *key) => {
                    return Err(match key {
                        Some(key) => format!("two readers answer as {key:?}; expected a name for each"),
                        None => "two readers have no `as`; expected a name for each but one".to_owned(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every model that has a part, the detector first.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        std::iter::once(&self.detector).chain(self.readers.iter().map(|reader| &reader.model))
    }

    /// Holds the pipeline to the models that there are. One whose task nobody knows is refused when it is asked.
    pub(super) fn check(
        &self,
        models: &impl Fn(&ModelName) -> Option<Option<&'static Descriptor>>,
    ) -> Result<(), String> {
        let of = |name: &ModelName| models(name).ok_or_else(|| format!("there is no model `{name}`"));
        if let Some(task) = of(&self.detector)?
            && !finds(task)
        {
            let (name, task) = (&self.detector, task.name);
            return Err(format!("its detector `{name}` is for {task}, which finds no regions"));
        }
        for ReaderSpec { model, .. } in &self.readers {
            if let Some(task) = of(model)?
                && !reads(task)
            {
                return Err(format!(
                    "its reader `{model}` is for {}, which reads no regions of pictures",
                    task.name
                ));
            }
        }
        Ok(())
    }
}

/// Finds every pipeline below the folder of models, in the order of their names.
///
/// # Errors
/// [`PipelineError`] for a file that cannot be read or is wrong.
pub fn scan(dir: &Path) -> Result<Vec<Pipeline>, PipelineError> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && dir.join(name).join(FILE).is_file())
        .collect();
    names.sort();
    names.into_iter().map(|name| find(dir, &name).map_err(|reason| PipelineError { name, reason })).collect()
}

fn find(dir: &Path, folder: &str) -> Result<Pipeline, String> {
    let name: ModelName = folder.parse().map_err(|error: crate::manifest::NameError| error.to_string())?;
    let unreadable = |error: std::io::Error| format!("cannot read {FILE}: {error}");
    let mut text = String::new();
    let file = fs::File::open(dir.join(folder).join(FILE)).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("{FILE} is larger than the {MAX_BYTES} bytes allowed"));
    }
    Ok(Pipeline { name, spec: PipelineSpec::parse(&text)? })
}
