//! `model.toml`, typed.
//!
//! Invariant: unknown keys are errors, and an error points at its line.

use serde::Deserialize;

use crate::{
    manifest::{BatchSpec, PrecisionPolicy},
    tasks::{TaskName, TaskSpec},
};

/// One model folder's `model.toml`.
#[derive(Debug)]
pub struct Manifest {
    /// What the model is for, in one line.
    pub description: String,
    /// Under which terms the network may be used.
    pub licence: String,
    /// What the factors of its products may be rounded to.
    pub precision: PrecisionPolicy,
    /// What the network is for.
    pub task: Box<dyn TaskSpec>,
    /// How its rows may be batched.
    pub batch: BatchSpec,
}

/// The keys of the file; the section of the task is read by the task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    description: String,
    #[serde(default)]
    licence: String,
    #[serde(default)]
    precision: PrecisionPolicy,
    task: TaskName,
    #[serde(default)]
    batch: BatchSpec,
}

impl Manifest {
    /// Reads the text of a `model.toml`.
    ///
    /// # Errors
    /// With the line, the key and what is expected there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |error: toml::de::Error| error.to_string().trim_end().to_owned();
        let Keys { description, licence, precision, task: TaskName(kind), batch } =
            toml::from_str(text).map_err(plain)?;
        let task = (kind.read)(text).map_err(plain)?;
        if batch.max_rows == 0 {
            return Err("batch.max_rows is 0; allowed is 1 and more".to_owned());
        }
        task.check_batch(&batch)?;
        Ok(Self { description, licence, precision, task, batch })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::Balance;

    const SENTIMENT: &str = r#"
        description = "English sentiment"
        [task.text-classification]
        tokenizer = "tokenizer.json"
        max_tokens = 256
        ids = "ids"
        [batch]
        max_rows = 32
    "#;

    #[test]
    fn what_is_left_out_has_its_default() {
        let manifest = Manifest::parse(SENTIMENT).unwrap();
        assert_eq!(manifest.batch, BatchSpec { max_rows: 32, balance: Balance::Fast });
        assert_eq!((manifest.licence.as_str(), manifest.precision), ("", PrecisionPolicy::Auto));
        assert_eq!(manifest.task.descriptor().name, "text-classification");
        let spec = format!("{:?}", manifest.task);
        assert!(spec.contains("temperature: 1.0") && spec.contains("pad_id: 0, "), "{spec}");
        assert_eq!(manifest.task.files(), [Path::new("labels.txt"), Path::new("tokenizer.json")]);
    }

    #[test]
    fn a_typo_is_reported_at_its_own_line_with_what_is_allowed() {
        let error = Manifest::parse(&SENTIMENT.replace("max_tokens", "max_token")).unwrap_err();
        assert!(error.contains("line 5"), "{error}");
        assert!(error.contains("unknown field `max_token`, expected one of"), "{error}");
        assert!(error.contains("^^^^^^^^^"), "{error}");
    }

    #[test]
    fn an_unknown_task_is_refused_with_those_that_exist() {
        let error =
            Manifest::parse(&SENTIMENT.replace("text-classification", "text-generation")).unwrap_err();
        assert!(error.contains("`image-classification`"), "{error}");
    }
}
