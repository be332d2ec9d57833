//! Numbers of a few bytes that size memory: attributes, and constants that operators take as sizes.
//!
//! Invariant: whatever a run of the loader would make of them has been multiplied out here, without
//! overflow. Sizes that are computed of others are seen by the loader only.

use std::collections::HashMap;

use tract_onnx::pb::{self, tensor_proto::DataType};

use super::{label, refused};
use crate::EngineError;

/// Longest list of numbers that can be sizes: two for each axis.
const LONGEST: usize = 64;

/// The largest side, step or distance of a window, and the largest number of groups or blocks.
const WIDEST: i64 = 1 << 16;

/// How many times larger a picture may be made along one axis.
const MOST_TIMES: f32 = 1024.0;

/// The small constants of whole numbers in a graph, by name.
#[derive(Debug, Default)]
pub(super) struct Constants<'a> {
    longs: HashMap<&'a str, Vec<i64>>,
    floats: HashMap<&'a str, Vec<f32>>,
    /// The extents of the weights.
    dims: HashMap<&'a str, &'a [i64]>,
}

impl<'a> Constants<'a> {
    /// Reads the constants of a graph, those of inner graphs not included.
    pub(super) fn of(graph: &'a pb::GraphProto) -> Self {
        let mut found = Self::default();
        for tensor in &graph.initializer {
            found.add(&tensor.name, tensor);
            found.dims.insert(&tensor.name, &tensor.dims);
        }
        for node in graph.node.iter().filter(|node| node.op_type == "Constant") {
            let Some(name) = node.output.first() else { continue };
            for attribute in &node.attribute {
                match attribute.name.as_str() {
                    "value_int" => _ = found.longs.insert(name, vec![attribute.i]),
                    "value_float" => _ = found.floats.insert(name, vec![attribute.f]),
                    "value_ints" if attribute.ints.len() <= LONGEST => {
                        found.longs.insert(name, attribute.ints.clone());
                    }
                    _ => attribute.t.iter().for_each(|tensor| found.add(name, tensor)),
                }
            }
        }
        found
    }

    fn add(&mut self, name: &'a str, tensor: &pb::TensorProto) {
        let raw = &tensor.raw_data;
        match DataType::try_from(tensor.data_type) {
            Ok(DataType::Int64) if raw.len().max(8 * tensor.int64_data.len()) <= 8 * LONGEST => {
                let raw = raw.as_chunks().0.iter().copied().map(i64::from_le_bytes);
                self.longs.insert(name, raw.chain(tensor.int64_data.iter().copied()).collect());
            }
            Ok(DataType::Int32) if raw.len().max(4 * tensor.int32_data.len()) <= 4 * LONGEST => {
                let raw = raw.as_chunks().0.iter().copied().map(i32::from_le_bytes);
                let all = raw.chain(tensor.int32_data.iter().copied());
                self.longs.insert(name, all.map(i64::from).collect());
            }
            Ok(DataType::Float) if raw.len().max(4 * tensor.float_data.len()) <= 4 * LONGEST => {
                let raw = raw.as_chunks().0.iter().copied().map(f32::from_le_bytes);
                self.floats.insert(name, raw.chain(tensor.float_data.iter().copied()).collect());
            }
            _ => {}
        }
    }

    /// The elements of a constant of whole numbers; `None` where it is none, or a long one.
    pub(super) fn get(&self, name: &str) -> Option<&[i64]> {
        self.longs.get(name).map(Vec::as_slice)
    }

    /// Whether an input is a weight of the graph, or a small constant.
    fn is_constant(&self, node: &pb::NodeProto, at: usize) -> bool {
        let name = node.input.get(at).map_or("", String::as_str);
        self.dims.contains_key(name) || self.longs.contains_key(name) || self.floats.contains_key(name)
    }

    fn input(&self, node: &pb::NodeProto, at: usize) -> Option<&[i64]> {
        self.get(node.input.get(at)?)
    }

    fn floats(&self, node: &pb::NodeProto, at: usize) -> Option<&[f32]> {
        self.floats.get(node.input.get(at)?.as_str()).map(Vec::as_slice)
    }
}

/// Refuses an attribute that no honest network has, as far as its name tells what it sizes.
pub(super) fn attribute(
    node: &pb::NodeProto,
    attribute: &pb::AttributeProto,
    elements: usize,
) -> Result<(), EngineError> {
    let name = attribute.name.as_str();
    let most = i64::try_from(elements).unwrap_or(i64::MAX);
    // What an attribute of this name may be, whatever the operator.
    let (least, largest) = match name {
        "kernel_shape" | "strides" | "dilations" | "group" | "blocksize" | "num_groups" | "num_heads"
        | "q_num_heads" | "kv_num_heads" | "num_outputs" | "num_scan_inputs" | "hidden_size" => (1, WIDEST),
        // Scatter and its kin take no pads; Pad may cut, and so has negative ones.
        "pads" | "output_padding" | "paddings" => (-WIDEST, WIDEST),
        "size" | "sample_size" | "k" | "depth" | "output_shape" | "output_sizes" | "repeats" | "K" | "N" => {
            (0, most)
        }
        // Zero and -1 stand for a size that is known elsewhere.
        "shape" => (-1, most),
        "equation" if attribute.s.len() > 256 => {
            let n = attribute.s.len();
            return Err(refused(format!("`{}` has an equation of {n} bytes, 256 are allowed", label(node))));
        }
        "height_scale" | "width_scale" | "scales" => {
            return times(node, [attribute.f].iter().chain(&attribute.floats));
        }
        _ => return Ok(()),
    };
    if attribute.ints.len() > LONGEST {
        let n = attribute.ints.len();
        return Err(refused(format!("`{}` has {n} numbers in {name}, {LONGEST} are allowed", label(node))));
    }
    let single = is_number(name).then_some(attribute.i);
    if let Some(found) = single.iter().chain(&attribute.ints).find(|n| !(least..=largest).contains(*n)) {
        let found = format!("`{}` has {name} {found}; {least} to {largest} are allowed", label(node));
        return Err(refused(found));
    }
    if matches!(name, "shape" | "output_shape" | "output_sizes" | "kernel_shape" | "repeats") {
        product(node, name, &attribute.ints, elements)?;
    }
    Ok(())
}

/// Whether an attribute of this name is one number, and not a list.
fn is_number(name: &str) -> bool {
    matches!(
        name,
        "group"
            | "blocksize"
            | "num_groups"
            | "num_heads"
            | "q_num_heads"
            | "kv_num_heads"
            | "num_outputs"
            | "num_scan_inputs"
            | "hidden_size"
            | "size"
            | "sample_size"
            | "k"
            | "depth"
            | "K"
            | "N"
    )
}

/// Counts the elements that a node makes of constants alone, or of constants that size its answer; refuses
/// more than `elements`.
pub(super) fn filled(
    node: &pb::NodeProto,
    constants: &Constants<'_>,
    elements: usize,
) -> Result<usize, EngineError> {
    let sizes = |at: usize| constants.input(node, at);
    let of = |at: usize, what: &str| sizes(at).map_or(Ok(0), |sizes| product(node, what, sizes, elements));
    match node.op_type.as_str() {
        "ConstantOfShape" => of(0, "the shape"),
        // Of what comes in, it is one value of the plan as others are.
        "Expand" | "Tile" => of(1, "the shape").map(|n| if constants.is_constant(node, 0) { n } else { 0 }),
        // What it moves is there already.
        "Reshape" => of(1, "the shape").map(|_| 0),
        "Resize" => {
            times(node, [1, 2].iter().filter_map(|at| constants.floats(node, *at)).flatten())?;
            of(3, "the sizes").map(|_| 0)
        }
        "Upsample" => times(node, constants.floats(node, 1).unwrap_or(&[]).iter()).map(|()| 0),
        "Pad" => {
            let pads: Vec<i64> = sizes(1).unwrap_or(&[]).iter().map(|n| n.saturating_add(1)).collect();
            product(node, "the pads", &pads, elements).map(|_| 0)
        }
        "OneHot" => of(1, "the depth"),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => of(0, "the size"),
        "DFT" => of(1, "the length"),
        "STFT" => of(3, "the length of a frame"),
        "MelWeightMatrix" => of(0, "the bins").and_then(|n| of(1, "the length").map(|m| n.max(m))),
        "TopK" => of(1, "the number").map(|_| 0),
        "Range" => match (sizes(0), sizes(1), sizes(2)) {
            (Some([start]), Some([limit]), Some([step])) => {
                let span = (i128::from(*limit) - i128::from(*start)) / i128::from(*step).max(1);
                let span = if *step < 0 {
                    (i128::from(*start) - i128::from(*limit)) / -i128::from(*step)
                } else {
                    span
                };
                let n = i64::try_from(span.max(0)).unwrap_or(i64::MAX);
                if *step == 0 {
                    return Err(refused(format!("`{}` counts in steps of 0", label(node))));
                }
                product(node, "the range", &[n], elements)
            }
            _ => Ok(0),
        },
        _ => Ok(0),
    }
}

/// Multiplies sizes out; those that stand for one that is known elsewhere count as 1.
fn product(node: &pb::NodeProto, what: &str, sizes: &[i64], elements: usize) -> Result<usize, EngineError> {
    let n = sizes.iter().filter(|n| **n > 0).try_fold(1i64, |n, size| n.checked_mul(*size));
    match n.map(usize::try_from) {
        Some(Ok(n)) if n <= elements => Ok(n),
        _ => Err(refused(format!(
            "`{}` has {what} {:?}; {elements} elements are allowed",
            label(node),
            &sizes[..sizes.len().min(16)]
        ))),
    }
}

/// Refuses factors that make pictures of any size.
fn times<'a>(node: &pb::NodeProto, factors: impl Iterator<Item = &'a f32>) -> Result<(), EngineError> {
    let mut factors = factors;
    // Not a number is none of these.
    match factors.find(|factor| !(0.0..=MOST_TIMES).contains(*factor)) {
        Some(found) => {
            Err(refused(format!("`{}` has the factor {found}; 0 to {MOST_TIMES} are allowed", label(node))))
        }
        None => Ok(()),
    }
}

/// Refuses a convolution whose attributes contradict its weights.
pub(super) fn convolution(node: &pb::NodeProto, constants: &Constants<'_>) -> Result<(), EngineError> {
    let at = match node.op_type.as_str() {
        "Conv" | "ConvTranspose" | "ConvInteger" => 1,
        "QLinearConv" => 3,
        _ => return Ok(()),
    };
    let Some(name) = node.input.get(at) else { return Ok(()) };
    let Some(dims) = constants.dims.get(name.as_str()) else { return Ok(()) };
    let list = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let sides = dims.get(2..).unwrap_or(&[]);
    let n_axes = sides.len();
    for (name, expected) in [("strides", n_axes), ("dilations", n_axes), ("pads", 2 * n_axes)] {
        let found = list(name).map_or(&[][..], |attribute| &attribute.ints);
        if !found.is_empty() && found.len() != expected {
            let n = found.len();
            return Err(refused(format!(
                "`{}` has {n} numbers in {name}, {expected} are needed",
                label(node)
            )));
        }
    }
    if let Some(kernel) =
        list("kernel_shape").filter(|kernel| !kernel.ints.is_empty() && kernel.ints != sides)
    {
        return Err(refused(format!(
            "`{}` has kernel_shape {:?} and weights of {sides:?}",
            label(node),
            kernel.ints
        )));
    }
    let group = list("group").map_or(1, |attribute| attribute.i);
    let channels = dims.first().copied().unwrap_or(0);
    if group < 1 || channels % group != 0 {
        return Err(refused(format!("`{}` has {channels} channels in {group} groups", label(node))));
    }
    Ok(())
}
