//! Which version of which model.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ModelName, Version};

/// One version of one model. Versions of a name are served side by side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelId {
    pub name: ModelName,
    pub version: Version,
}

impl fmt::Display for ModelId {
    /// Writes `name/version`, as the folder of its network is called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}
