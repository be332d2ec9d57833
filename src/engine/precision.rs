//! Which precision a network's products are made in, and on what evidence.

use std::fmt;

use super::kernels::Precision;
use crate::manifest::Asked;

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
