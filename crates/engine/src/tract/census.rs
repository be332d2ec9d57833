//! What an ONNX file asks for, held to limits before anything is built from it.
//!
//! Invariant: the census reads and never builds. Whatever of a file sizes memory, time or the depth of a
//! recursion is bounded here as far as the file itself tells; what only a run of the loader tells is
//! bounded by the process that tries it first (`cli/rehearsal`).

mod axes;
mod names;
mod sizes;
mod tensors;
mod wire;

use tract_onnx::pb::{self, tensor_shape_proto::dimension, type_proto};

use self::axes::Ranks;
pub(super) use self::wire::count;
use super::{network::refused, recurrent};
use crate::EngineError;

/// How much a file may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Operators, those of inner graphs included.
    pub(super) nodes: usize,
    /// Messages and texts of the file: each takes tens to hundreds of bytes once it is decoded.
    pub(super) parts: usize,
    /// Numbers that the file writes one by one, in one byte or more, and that take eight each.
    pub(super) numbers: usize,
    /// Graphs inside one another.
    pub(super) graphs: usize,
    /// Bytes of weights, those in files beside the network included.
    pub(super) weight_bytes: usize,
    /// Elements of one tensor that the file does not hold: an input's row, a value between two operators.
    /// Also of all tensors together that are made of constants of a few bytes.
    pub(super) elements: usize,
}

/// Ten times what the largest networks that a CPU serves well have. Weights are bytes that lie on the
/// disk, and are no bomb; how much memory there is for them is the loader's to know.
pub(super) const LIMITS: Limits = Limits {
    nodes: 20_000,
    parts: 1_000_000,
    numbers: 1 << 28,
    graphs: 8,
    weight_bytes: 1 << 36,
    elements: 1 << 28,
};

/// Axes of a tensor. ONNX names no limit; no network that is served has half as many.
const MOST_AXES: usize = 32;

/// Bytes of the name of an axis, and brackets, signs and functions inside one another in it: it may be an
/// expression, and its parser recurses.
const LONGEST_DIM: usize = 256;
const DEEPEST_DIM: usize = 16;

/// What a file holds, as counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Bytes of weights that the file itself holds.
    pub(super) weight_bytes: usize,
    /// Elements of its largest weight.
    pub(super) largest: usize,
}

/// Counts what a graph asks for, or names the limit that is exceeded.
pub(super) fn take(graph: &pb::GraphProto, limits: Limits) -> Result<Counted, EngineError> {
    let mut census = Census { limits, n_nodes: 0, counted: Counted::default(), filled: 0 };
    census.graph(graph, 1, &Ranks::default())?;
    Ok(census.counted)
}

/// Counts what a graph asks for, its inner graphs included.
struct Census {
    limits: Limits,
    n_nodes: usize,
    counted: Counted,
    /// Elements of all tensors that are filled from constants of a few bytes.
    filled: usize,
}

impl Census {
    fn graph(&mut self, graph: &pb::GraphProto, depth: usize, outer: &Ranks) -> Result<(), EngineError> {
        let limits = self.limits;
        self.n_nodes += graph.node.len();
        if self.n_nodes > limits.nodes {
            return Err(too_many_nodes(self.n_nodes, limits.nodes));
        }
        if depth > limits.graphs {
            return Err(too_deep(limits.graphs));
        }
        for value in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            declared(value)?;
        }
        for tensor in &graph.initializer {
            self.tensor(tensor)?;
        }
        for sparse in &graph.sparse_initializer {
            self.sparse(sparse)?;
        }
        names::check(graph)?;
        let ranks = Ranks::of(graph, outer);
        let constants = sizes::Constants::of(graph);
        for node in &graph.node {
            for attribute in &node.attribute {
                for tensor in attribute.t.iter().chain(&attribute.tensors) {
                    self.tensor(tensor)?;
                }
                for sparse in attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors) {
                    self.sparse(sparse)?;
                }
                for inner in attribute.g.iter().chain(&attribute.graphs) {
                    self.graph(inner, depth + 1, &ranks)?;
                }
                sizes::attribute(node, attribute, limits.elements)?;
            }
            axes::check(node, &ranks, &constants)?;
            let filled = sizes::filled(node, &constants, limits.elements)?;
            self.filled = self.filled.saturating_add(filled);
            if self.filled > limits.elements {
                return Err(refused(format!(
                    "its constants ask for tensors of more than {} elements together, up to `{}`",
                    limits.elements,
                    label(node)
                )));
            }
            sizes::convolution(node, &constants)?;
            recurrent::check(node)?;
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &pb::TensorProto) -> Result<(), EngineError> {
        let Counted { weight_bytes, largest } = &mut self.counted;
        *weight_bytes = weight_bytes.saturating_add(tensors::check(tensor)?);
        *largest = tensors::elements(&tensor.name, &tensor.dims)?.max(*largest);
        if *weight_bytes > self.limits.weight_bytes {
            return Err(too_many_bytes(self.limits.weight_bytes));
        }
        Ok(())
    }

    fn sparse(&mut self, sparse: &pb::SparseTensorProto) -> Result<(), EngineError> {
        sparse.values.iter().chain(&sparse.indices).try_for_each(|tensor| self.tensor(tensor))?;
        let n = tensors::elements("a sparse tensor", &sparse.dims)?;
        if n > self.limits.elements {
            let limit = self.limits.elements;
            return Err(refused(format!("a sparse tensor has {n} elements, {limit} are allowed")));
        }
        Ok(())
    }
}

pub(super) fn too_many_bytes(limit: usize) -> EngineError {
    refused(format!("its weights take more than the {limit} bytes allowed"))
}

fn too_many_nodes(n: usize, limit: usize) -> EngineError {
    refused(format!("it has {n} operators or more, {limit} are allowed"))
}

fn too_deep(limit: usize) -> EngineError {
    refused(format!("it has graphs inside one another to a depth of more than {limit}"))
}

/// What errors call a node, shortened.
fn label(node: &pb::NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    format!("{} ({})", short(name.map_or("", String::as_str)), short(&node.op_type))
}

/// The first characters of a name that a file chose.
fn short(name: &str) -> String {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

/// Refuses the declared type of a value whose axes no parser should meet.
fn declared(value: &pb::ValueInfoProto) -> Result<(), EngineError> {
    names::length(&value.name)?;
    let declared = value.r#type.as_ref().and_then(|declared| declared.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = declared else { return Ok(()) };
    let dims = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    if dims.len() > MOST_AXES {
        let n = dims.len();
        return Err(refused(format!("`{}` has {n} axes, {MOST_AXES} are allowed", short(&value.name))));
    }
    for dim in dims {
        if let Some(dimension::Value::DimParam(text)) = &dim.value {
            axis_name(&value.name, text)?;
        }
    }
    Ok(())
}

/// Holds the name of an axis, an expression perhaps, to a length and a depth.
fn axis_name(value: &str, text: &str) -> Result<(), EngineError> {
    if text.len() > LONGEST_DIM {
        return Err(refused(format!(
            "the name of an axis of `{}` has {} bytes, {LONGEST_DIM} are allowed",
            short(value),
            text.len()
        )));
    }
    let (mut depth, mut signs, mut deepest) = (0usize, 0usize, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            // Each sign before a number is a level of its own, as in `- - - x`.
            b'-' => signs += 1,
            byte if byte.is_ascii_whitespace() => {}
            _ => signs = 0,
        }
        deepest = deepest.max(depth + signs);
    }
    if deepest > DEEPEST_DIM {
        return Err(refused(format!(
            "the name of an axis of `{}` is {deepest} brackets deep, {DEEPEST_DIM} are allowed",
            short(value)
        )));
    }
    Ok(())
}

/// How many axes a value is declared to have.
fn declared_rank(value: &pb::ValueInfoProto) -> Option<usize> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor.shape.as_ref()?.dim.len()),
    }
}
