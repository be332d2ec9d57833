//! What runs a network: [`Engine`] holds the weights, [`Session`] runs batches on one thread.
//!
//! Invariant: a session carries nothing from one run to the next, so that one caller's input never
//! reaches another caller's answer.

mod precision;
pub mod tensor;
pub mod tract;

/// The arithmetic that this engine room calls by hand.
pub use lepton_kernels as kernels;
use thiserror::Error;

pub use self::precision::{Asked, Chosen, Compared};
use crate::tensor::{DType, Tensor, TensorError, Tensors};

/// A loaded network. Shared by all worker threads.
pub trait Engine: Send + Sync {
    /// What the network takes and gives.
    fn signature(&self) -> &Signature;

    /// What the numbers of the output at that position are, as far as the network's last operator tells.
    fn ending(&self, _output: usize) -> Ending {
        Ending::Open
    }

    /// Which kernels do which share of the work, the largest share first, once a plan was made.
    fn kernels(&self) -> &[KernelUse] {
        &[]
    }

    /// Opens a session for the calling thread.
    fn open(&self) -> Result<Box<dyn Session>, EngineError>;
}

/// One thread's way to run a network.
pub trait Session {
    /// Runs a batch: one tensor per input, in signature order, each with the rows as leading axis.
    /// Answers one tensor per output in signature order, again with the rows as leading axis.
    fn run(&mut self, batch: Tensors) -> Result<Tensors, EngineError>;
}

/// Stacks rows (one tensor per input each, without the batch axis), runs them, and splits the outputs by
/// row again.
///
/// # Errors
/// [`EngineError::Batch`] where rows differ in shape, or the answer has another number of rows; what the
/// session says.
pub fn run_rows(session: &mut dyn Session, rows: &[&Tensors]) -> Result<Vec<Tensors>, EngineError> {
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
    /// A form of the kernels, as in `avx512-f32`, or the engine's own name.
    pub kernel: String,
    /// Share of the network's products, 0 to 1.
    pub share: f64,
    /// Why no kernel runs it; nothing where one does.
    pub reason: Option<&'static str>,
}

/// What a network takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

impl Signature {
    /// Finds an input by name, with its position.
    pub fn input(&self, name: &str) -> Option<(usize, &Port)> {
        self.inputs.iter().enumerate().find(|(_, port)| port.name == name)
    }
}

/// One input or output of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub dtype: DType,
    /// Every axis, the rows of the batch first.
    pub shape: Vec<Dim>,
}

impl Port {
    /// Names type and shape, as in `f32 [batch, 1, 48, 48]`.
    pub fn describe(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        format!("{} [{}]", self.dtype, dims.join(", "))
    }
}

/// The extent of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Always this many.
    Fixed(usize),
    /// As many as the caller brings; the name is the network's own.
    Free(String),
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Free(name) => f.write_str(name),
        }
    }
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
