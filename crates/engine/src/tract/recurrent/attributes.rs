//! What ONNX's recurrent operators say of themselves, and what of it is served.
//!
//! Invariant: tract leaves most of these attributes unread and answers as if they were not there. What
//! would be answered wrongly is refused by name.

use tract_onnx::pb::{AttributeProto, NodeProto};

use crate::{EngineError, kernels::recurrent::Direction};

/// Which ways a recurrence reads its steps, in the order of its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Forward,
    Reverse,
    Both,
}

impl Reading {
    /// Reads it from an operator; nothing where ONNX knows no such direction.
    pub(super) fn of(node: &NodeProto) -> Option<Self> {
        match attribute(node, "direction").map_or(&b"forward"[..], |direction| &direction.s) {
            b"forward" => Some(Self::Forward),
            b"reverse" => Some(Self::Reverse),
            b"bidirectional" => Some(Self::Both),
            _ => None,
        }
    }

    pub(super) fn directions(self) -> &'static [Direction] {
        match self {
            Self::Forward => &[Direction::Forward],
            Self::Reverse => &[Direction::Backward],
            Self::Both => &[Direction::Forward, Direction::Backward],
        }
    }
}

/// Refuses a recurrence that says what is not served: other activations than ONNX's defaults, bounds of
/// what the gates read, an input gate coupled to the forget gate, or rows first in two directions.
pub(in crate::tract) fn check(node: &NodeProto) -> Result<(), EngineError> {
    let usual: &[&str] = match node.op_type.as_str() {
        "GRU" => &["sigmoid", "tanh"],
        "LSTM" => &["sigmoid", "tanh", "tanh"],
        "RNN" => &["tanh"],
        _ => return Ok(()),
    };
    let refused = |found: &str| {
        let name = if node.name.is_empty() { node.output.join(", ") } else { node.name.clone() };
        let found = format!("{found} of {} `{name}`", node.op_type);
        Err(EngineError::Unsupported { what: "operator's attribute", found })
    };
    let Some(reading) = Reading::of(node) else {
        let direction = attribute(node, "direction").map_or(&[][..], |direction| &direction.s);
        return refused(&format!("direction {}", String::from_utf8_lossy(direction)));
    };
    if let Some(activations) = attribute(node, "activations") {
        let names = activations.strings.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        let names: Vec<String> = names.collect();
        let is_usual = |(name, usual): (&String, &&str)| name.eq_ignore_ascii_case(usual);
        if !names.iter().zip(usual.iter().cycle()).all(is_usual) {
            return refused(&format!("activations {}", names.join(", ")));
        }
    }
    if attribute(node, "clip").is_some() {
        return refused("clip");
    }
    if attribute(node, "input_forget").is_some_and(|coupled| coupled.i != 0) {
        return refused("input_forget");
    }
    // tract would put the two directions behind each other along the wrong axis.
    if reading != Reading::Forward && attribute(node, "layout").is_some_and(|layout| layout.i != 0) {
        return refused("layout 1 and another direction than forward");
    }
    Ok(())
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}
