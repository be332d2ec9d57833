//! Tensors, and what runs networks on them.
//!
//! An [`EngineLoader`] reads a file into an [`Engine`], which holds the weights and is shared by all threads; each thread
//! opens a [`Session`] of its own, which runs [`Tensors`]. tract with the kernels of `lepton-kernels` is the one backend
//! today. A second one is a file that implements the three, and a line in [`LOADERS`].
//!
//! Invariant: no data of one run reach another, so that one caller's input never reaches another caller's answer.

mod loader;
mod precision;
mod signature;
pub mod tensor;
pub mod tract;

/// The arithmetic that the backend calls by hand.
pub use lepton_kernels as kernels;
pub use lepton_kernels::Precision;
use thiserror::Error;

pub use self::{
    loader::{Artifact, Batching, EngineLoader, LOADERS, LoadOptions, load, loader},
    precision::{
        Criteria, Evidence, PrecisionComparison, PrecisionDecision, PrecisionPolicy, choose_precision,
    },
    signature::{Dim, Port, Signature},
};
use crate::tensor::{Tensor, TensorError, Tensors};

/// A loaded network. Shared by all worker threads.
pub trait Engine: Send + Sync {
    /// Returns what the network takes and gives.
    fn signature(&self) -> &Signature;

    /// Returns what the numbers of the output at that position are, as far as the network's last operator tells.
    fn ending(&self, _output: usize) -> Ending {
        Ending::Open
    }

    /// Returns which kernels do which share of the work, the largest share first, once a plan was made.
    fn kernels(&self) -> &[KernelUse] {
        &[]
    }

    /// Opens a session for the calling thread.
    ///
    /// # Errors
    /// [`EngineError::Run`] where the backend has no room for another one.
    fn open(&self) -> Result<Box<dyn Session>, EngineError>;
}

/// One thread's way to run a network.
pub trait Session {
    /// Runs one tensor per input, in the order of the signature, and returns one per output.
    ///
    /// Where the signature has axes of rows, each tensor has the rows as its outermost axis, as many in all of them, and
    /// each row is answered as it would be alone. Elsewhere the tensors are run as they are.
    ///
    /// # Errors
    /// [`EngineError::Batch`] where the tensors do not fit the signature; [`EngineError::Run`] where the network
    /// fails on them.
    fn run(&mut self, inputs: Tensors) -> Result<Tensors, EngineError>;

    /// Returns whether rows may be stacked into one run: [`Signature::is_batched`] of the network.
    fn stacks_rows(&self) -> bool {
        true
    }
}

/// Runs rows, each one tensor per input without an axis for the batch, and returns the outputs of each row.
///
/// They are stacked into one run; those of a network that has no axis of rows are run one by one, as they are.
///
/// # Errors
/// [`EngineError::Batch`] where rows differ in shape, or the answer has another number of rows; as [`Session::run`].
pub fn run_rows(session: &mut dyn Session, rows: &[&Tensors]) -> Result<Vec<Tensors>, EngineError> {
    if !session.stacks_rows() {
        return rows.iter().map(|row| session.run((*row).clone())).collect();
    }
    let misfit = |error: TensorError| EngineError::Batch(error.to_string());
    let n_inputs = rows.first().map_or(0, |row| row.len());
    let stack = |input: usize| Tensor::stack(rows.iter().map(|row| &row[input]));
    let batch: Tensors = (0..n_inputs).map(stack).collect::<Result<_, _>>().map_err(misfit)?;
    let outputs = session.run(batch)?;
    let mut by_row: Vec<Tensors> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in &outputs {
        let parts = output.split(rows.len()).map_err(misfit)?;
        by_row.iter_mut().zip(parts).for_each(|(row, part)| row.push(part));
    }
    Ok(by_row)
}

/// What the numbers of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Any numbers: the network's last operator bounds them no way.
    Open,
    /// Probabilities: a softmax or a sigmoid comes last.
    Probabilities,
}

/// A part of a network's work, and what runs it.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelUse {
    /// The kind of operator, as in `Conv`.
    pub operator: String,
    /// A variant of the kernels, as in `avx512-f32`, or the backend's own name.
    pub kernel: String,
    /// The precision of its products.
    pub precision: Precision,
    /// Share of the network's products, 0 to 1.
    pub share: f64,
    /// Why no kernel runs it; `None` where one does.
    pub reason: Option<&'static str>,
}

/// Why a network could not be loaded or run. For the log: callers see `internal`.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("cannot load the network: {0}")]
    Load(String),
    #[error("the network's {what} is not served: {found}")]
    Unsupported { what: &'static str, found: String },
    #[error("the batch does not fit the network: {0}")]
    Batch(String),
    #[error("the network failed: {0}")]
    Run(String),
}
