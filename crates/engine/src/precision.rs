//! Which precision a network's products are made in, and on what evidence.

use std::fmt;

use lepton_kernels::Precision;
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

/// The precision of a loaded network.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    pub asked: Asked,
    pub used: Precision,
    /// How far apart the answers in f32 and in bf16 were, where they were compared.
    pub compared: Option<Compared>,
    /// Why it is not bf16, where bf16 or the better of both was asked for.
    pub reason: Option<String>,
}

/// Answers to the same inputs in f32 and in bf16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    pub n_probes: usize,
    /// The largest difference between the scores of any label.
    pub largest_difference: f32,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (asked for {}", self.used, self.asked)?;
        if let Some(Compared { n_probes, largest_difference }) = self.compared {
            write!(f, "; scores differ by at most {largest_difference:.1e} over {n_probes} probes")?;
        }
        match &self.reason {
            Some(reason) => write!(f, "; {reason})"),
            None => f.write_str(")"),
        }
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
