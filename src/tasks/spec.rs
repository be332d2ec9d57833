//! A task's section of `model.toml`, and how a task is built of it.
//!
//! Invariant: a section has the keys that its own task reads and no others, and an error points at its line.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};

use super::{Descriptor, Task, descriptor_of, names};
use crate::{
    config::LimitsConfig,
    engine::{Ending, Signature},
    image::ImageLimits,
    manifest::BatchSpec,
};

/// What a model folder says of its task: plain data until [`TaskSpec::build`] holds it to the network.
pub trait TaskSpec: fmt::Debug + Send + Sync {
    /// The kind of task.
    fn descriptor(&self) -> &'static Descriptor;

    /// The files besides the network that the task reads, relative to the model's folder.
    fn files(&self) -> Vec<&Path>;

    /// Rejects batches that the task cannot make.
    ///
    /// # Errors
    /// A text that names the key, its value and what is allowed.
    fn check_batch(&self, _batch: &BatchSpec) -> Result<(), String> {
        Ok(())
    }

    /// Reads the task's files and holds the section to the network.
    ///
    /// # Errors
    /// [`SpecError`] that names both numbers where the section does not fit the network.
    fn build(&self, context: &BuildContext<'_>) -> Result<Arc<dyn Task>, SpecError>;
}

/// What a task is built with besides its section.
#[derive(Debug, Clone, Copy)]
pub struct BuildContext<'a> {
    /// The model's folder.
    pub dir: &'a Path,
    /// What the network takes and gives.
    pub signature: &'a Signature,
    /// What the numbers of each output are, in signature order; [`Ending::Open`] beyond the last.
    pub endings: &'a [Ending],
    pub options: TaskOptions,
}

impl BuildContext<'_> {
    /// What the numbers of an output are.
    pub fn ending(&self, output: usize) -> Ending {
        self.endings.get(output).copied().unwrap_or(Ending::Open)
    }
}

/// The limits that a task holds its inputs to.
#[derive(Debug, Clone, Copy)]
pub struct TaskOptions {
    /// How large a picture may be.
    pub image: ImageLimits,
}

impl From<&LimitsConfig> for TaskOptions {
    fn from(limits: &LimitsConfig) -> Self {
        let LimitsConfig { image_pixels: pixels, image_side: side, image_memory, .. } = *limits;
        Self { image: ImageLimits { pixels, side, memory: image_memory.0 } }
    }
}

/// Why a section does not fit its files or its network.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("cannot read {file}: {reason}")]
    File { file: String, reason: String },
    #[error("{0}")]
    Misfit(String),
}

/// The task that a `model.toml` names: the one table below `[task]`. Its content is read by the task itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskName(pub &'static Descriptor);

impl<'de> Deserialize<'de> for TaskName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OneTask)
    }
}

struct OneTask;

impl<'de> Visitor<'de> for OneTask {
    type Value = TaskName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one table of {}", names())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TaskName, A::Error> {
        let none =
            || A::Error::custom(format!("there is no task; expected a table below it, one of {}", names()));
        let found = map.next_key_seed(Known)?.ok_or_else(none)?;
        map.next_value::<IgnoredAny>()?;
        match map.next_key_seed(Known)? {
            None => Ok(TaskName(found)),
            Some(second) => Err(A::Error::custom(format!(
                "there are two tasks, `{}` and `{}`; expected one",
                found.name, second.name
            ))),
        }
    }
}

/// The name of a task that is registered.
struct Known;

impl<'de> DeserializeSeed<'de> for Known {
    type Value = &'static Descriptor;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(deserializer)?;
        descriptor_of(&name)
            .ok_or_else(|| D::Error::custom(format!("unknown task `{name}`, expected one of {}", names())))
    }
}

/// Reads the section of the task `name` from the text of a `model.toml`.
///
/// # Errors
/// With the line, the key and what is expected there.
pub(super) fn section<S: DeserializeOwned>(text: &str, name: &str) -> Result<S, toml::de::Error> {
    /// All of the file but the section is read elsewhere.
    #[derive(Deserialize)]
    #[serde(bound = "S: DeserializeOwned")]
    struct Document<S> {
        task: BTreeMap<String, S>,
    }
    let mut document: Document<S> = toml::from_str(text)?;
    document.task.remove(name).ok_or_else(|| toml::de::Error::custom(format!("there is no [task.{name}]")))
}
