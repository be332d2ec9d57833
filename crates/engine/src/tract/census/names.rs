//! Names of a graph: each value is made once.
//!
//! Invariant: two makers of one name are refused. ONNX forbids them, and a parser that does not look
//! serves one of the two without a word.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use super::{refused, short};
use crate::EngineError;

/// Bytes of a name. Exporters write paths of modules, a few hundred bytes at most.
const LONGEST: usize = 4096;

/// What makes a value.
#[derive(Clone, Copy, PartialEq)]
enum Maker {
    Input,
    Weight,
    Node,
}

impl Maker {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "an input",
            Self::Weight => "a weight",
            Self::Node => "an operator",
        }
    }
}

/// Refuses a graph in which two things make one name, or a name is too long.
pub(super) fn check(graph: &pb::GraphProto) -> Result<(), EngineError> {
    let mut makers: HashMap<&str, Maker> = HashMap::new();
    let inputs = graph.input.iter().map(|input| (input.name.as_str(), Maker::Input));
    let weights = graph.initializer.iter().map(|weight| (weight.name.as_str(), Maker::Weight));
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    let sparse = sparse.map(|values| (values.name.as_str(), Maker::Weight));
    let outputs = graph.node.iter().flat_map(|node| &node.output);
    // An output that is left out has no name.
    let outputs = outputs.filter(|output| !output.is_empty()).map(|output| (output.as_str(), Maker::Node));
    for (name, maker) in inputs.chain(weights).chain(sparse).chain(outputs) {
        length(name)?;
        match makers.insert(name, maker) {
            None => {}
            // The value of an input where nobody gives one: allowed, once.
            Some(Maker::Input) if maker == Maker::Weight => {}
            Some(other) => {
                let (one, other) = (other.name(), maker.name());
                return Err(refused(format!(
                    "`{}` is made twice, by {one} and by {other}; each name may be made once",
                    short(name)
                )));
            }
        }
    }
    for node in &graph.node {
        node.input
            .iter()
            .chain([&node.name, &node.op_type, &node.domain])
            .try_for_each(|name| length(name))?;
        let mut seen: HashSet<&str> = HashSet::new();
        for attribute in &node.attribute {
            length(&attribute.name)?;
            if !seen.insert(&attribute.name) {
                return Err(refused(format!(
                    "`{}` has the attribute {} twice",
                    super::label(node),
                    short(&attribute.name)
                )));
            }
        }
    }
    let mut seen = HashSet::new();
    match graph.output.iter().find(|output| !seen.insert(output.name.as_str())) {
        Some(output) => Err(refused(format!("the output `{}` is declared twice", short(&output.name)))),
        None => Ok(()),
    }
}

/// Refuses a name that is longer than allowed.
pub(super) fn length(name: &str) -> Result<(), EngineError> {
    if name.len() <= LONGEST {
        return Ok(());
    }
    Err(refused(format!("the name `{}` has {} bytes, {LONGEST} are allowed", short(name), name.len())))
}
