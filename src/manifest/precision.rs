//! What the factors of a network's products may be rounded to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The precision that an operator asks for. Sums are kept in f32 whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// As the network was made.
    F32,
    /// Factors in bf16, where the processor has tiles for it; f32 elsewhere.
    Bf16,
    /// Factors in bf16 where that is faster and a comparison at load finds the same answers.
    #[default]
    Auto,
}

impl Asked {
    /// The name that manifests write.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_written_by_its_name() {
        for asked in [Asked::F32, Asked::Bf16, Asked::Auto] {
            assert_eq!(serde_json::to_string(&asked).unwrap(), format!("\"{asked}\""));
        }
    }
}
