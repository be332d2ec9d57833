//! How much there is to do before a row can run.

use std::time::Duration;

/// How much there is to prepare of an input, in a form that can be compared with others of the same task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Inputs of one kind cost in proportion to their units, roughly. The task's own number.
    pub kind: u8,
    /// How much there is of it: bytes of text, pixels times passes over them.
    pub units: u64,
    /// CPU time that it is taken to cost until one like it was measured.
    pub guess: Duration,
}

impl Workload {
    /// An input that costs by its bytes, as texts do.
    pub fn of_bytes(n_bytes: usize) -> Self {
        let units = n_bytes.max(1) as u64;
        // Tokenizers take tens of nanoseconds for a byte, and some microseconds for a text.
        Self { kind: 0, units, guess: Duration::from_nanos(units.saturating_mul(50).saturating_add(10_000)) }
    }
}
