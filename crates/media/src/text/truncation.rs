//! Which end of a long text a model reads.

use serde::{Deserialize, Serialize};

/// Where a text is cut that has more tokens than its model reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TruncationSide {
    /// At its end: the model reads the beginning.
    #[default]
    Right,
    /// At its beginning: the model reads the end.
    Left,
}
