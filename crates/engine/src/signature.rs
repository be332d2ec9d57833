//! What a network takes and gives.

use std::fmt;

use crate::tensor::DType;

/// The inputs and outputs of a network, in the order in which a session takes and gives them.
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

    /// Returns whether every input and output has an axis of rows: only then can rows be stacked into one run.
    pub fn is_batched(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(|port| port.batch_axis.is_some())
    }
}

/// One input or output of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub dtype: DType,
    /// Every axis, the outermost first.
    pub shape: Vec<Dim>,
    /// The position of the axis along which independent rows lie: the outermost, or `None` where the network is run
    /// on its tensors as they are.
    pub batch_axis: Option<usize>,
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

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Free(name) => f.write_str(name),
        }
    }
}
