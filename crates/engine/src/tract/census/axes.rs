//! Axes that operators name, held against the number of axes that there are.
//!
//! Invariant: an axis beyond -rank..rank is refused where the rank follows from the file, and one beyond
//! what any tensor has is refused in any case: tract counts to it, or makes room for it.

use std::collections::HashMap;

use tract_onnx::pb;

use super::{MOST_AXES, declared_rank, label, refused, sizes::Constants};
use crate::EngineError;

/// Operators whose answer has as many axes as their first input.
const ALIKE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DFT",
    "DepthToSpace",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "GatherElements",
    "Gelu",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MaxPool",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "Pad",
    "QuantizeLinear",
    "RMSNormalization",
    "Reciprocal",
    "Relu",
    "Resize",
    "Round",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "SimplifiedLayerNormalization",
    "Sin",
    "Sinh",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Tile",
    "TopK",
    "Trilu",
    "Upsample",
];

/// Operators whose answer has as many axes as the input that has most.
const BROADCAST: &[&str] = &[
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Operators that work along one axis of their first input, and the axis where they name none.
const ALONG: &[(&str, i64)] = &[
    ("ArgMax", 0),
    ("ArgMin", 0),
    ("Concat", 0),
    ("DFT", 1),
    ("Gather", 0),
    ("GatherElements", 0),
    ("Hardmax", -1),
    ("LayerNormalization", -1),
    ("LogSoftmax", -1),
    ("LpNormalization", -1),
    ("RMSNormalization", -1),
    ("Scatter", 0),
    ("ScatterElements", 0),
    ("SimplifiedLayerNormalization", -1),
    ("Softmax", -1),
    ("Split", 0),
    ("TopK", -1),
];

/// How many axes the values of a graph have, as far as that follows from the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranks(HashMap<String, usize>);

impl Ranks {
    /// Follows ranks through a graph, from those of the graph around it.
    pub(super) fn of(graph: &pb::GraphProto, outer: &Self) -> Self {
        let mut ranks = outer.clone();
        for node in graph.node.iter().flat_map(|node| &node.output) {
            // What is made anew inside is no longer what it was outside.
            ranks.0.remove(node);
        }
        for input in &graph.input {
            match declared_rank(input) {
                Some(rank) => ranks.0.insert(input.name.clone(), rank),
                None => ranks.0.remove(&input.name),
            };
        }
        let weights = graph.initializer.iter().map(|weight| (weight.name.clone(), weight.dims.len()));
        ranks.0.extend(weights);
        let constants = Constants::of(graph);
        for node in &graph.node {
            if let Some(rank) = ranks.made(node, &constants) {
                ranks.0.extend(node.output.iter().map(|output| (output.clone(), rank)));
            }
        }
        ranks
    }

    fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    fn input(&self, node: &pb::NodeProto, at: usize) -> Option<usize> {
        self.get(node.input.get(at)?)
    }

    /// How many axes the first answer of a node has, and those of the others where it is so for all.
    fn made(&self, node: &pb::NodeProto, constants: &Constants<'_>) -> Option<usize> {
        let op = node.op_type.as_str();
        let n_axes = |at: usize| match list(node, "axes") {
            Some(axes) => Some(axes.len()),
            None => Some(constants.get(node.input.get(at)?)?.len()),
        };
        if ALIKE.contains(&op) {
            // A pair of answers, as of a mean and a variance, is of other shapes.
            let is_whole = node.output.len() == 1 || matches!(op, "Split" | "TopK" | "Dropout" | "MaxPool");
            return self.input(node, 0).filter(|_| is_whole);
        }
        if BROADCAST.contains(&op) {
            let ranks: Option<Vec<usize>> = node.input.iter().map(|input| self.get(input)).collect();
            return ranks?.into_iter().max();
        }
        match op {
            "Transpose" => list(node, "perm").map(<[i64]>::len).or_else(|| self.input(node, 0)),
            "MatMul" | "MatMulInteger" => {
                let (one, other) = (self.input(node, 0)?, self.input(node, 1)?);
                (one >= 2 && other >= 2).then_some(one.max(other))
            }
            "Gemm" | "Flatten" | "NonZero" => Some(2),
            "Shape" | "Range" => Some(1),
            "Size" => Some(0),
            "Gather" => (self.input(node, 0)? + self.input(node, 1)?).checked_sub(1),
            "Unsqueeze" => Some(self.input(node, 0)? + n_axes(1)?),
            "Squeeze" => self.input(node, 0)?.checked_sub(n_axes(1)?),
            "ArgMax" | "ArgMin" => self.input(node, 0)?.checked_sub(usize::from(!keeps(node))),
            "Constant" => Some(node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?.dims.len()),
            "Reshape" => Some(constants.get(node.input.get(1)?)?.len()),
            "ConstantOfShape" => Some(constants.get(node.input.first()?)?.len()),
            "Expand" => Some(self.input(node, 0)?.max(constants.get(node.input.get(1)?)?.len())),
            _ if op.starts_with("Reduce") && keeps(node) => self.input(node, 0),
            _ if op.starts_with("Reduce") => self.input(node, 0)?.checked_sub(n_axes(1)?),
            _ => None,
        }
    }
}

/// Refuses axes that the tensors of a node do not have.
pub(super) fn check(
    node: &pb::NodeProto,
    ranks: &Ranks,
    constants: &Constants<'_>,
) -> Result<(), EngineError> {
    let op = node.op_type.as_str();
    for attribute in &node.attribute {
        let numbers = match attribute.name.as_str() {
            "axis" | "axes" | "batch_axis" | "time_axis" | "batch_dims" | "scan_input_axes"
            | "scan_output_axes" => [attribute.i].into_iter().chain(attribute.ints.iter().copied()),
            _ => continue,
        };
        let most = MOST_AXES as i64;
        if let Some(found) = numbers.into_iter().find(|axis| !(-most..=most).contains(axis)) {
            let name = &attribute.name;
            return Err(refused(format!(
                "`{}` has {name} {found}; {} to {most} are allowed for any tensor",
                label(node),
                -most
            )));
        }
    }
    if op == "Transpose" {
        permutation(node, ranks)?;
    }
    let Some(rank) = ranks.input(node, 0) else { return Ok(()) };
    let signed = rank as i64;
    let within = |axis: i64, least: i64, most: i64| {
        if (least..=most).contains(&axis) {
            return Ok(());
        }
        let allowed = if least <= most {
            format!("{least} to {most} are allowed")
        } else {
            "no axis is allowed".to_owned()
        };
        Err(refused(format!("`{}` has axis {axis}; for a tensor of {rank} axes {allowed}", label(node))))
    };
    if let Some((_, default)) = ALONG.iter().find(|(name, _)| *name == op) {
        // From operator set 20 on, a transform has its axis as an input.
        let input = if op == "DFT" { node.input.get(2).and_then(|name| constants.get(name)) } else { None };
        let given = input.and_then(|axis| axis.first().copied());
        let last_but_one = if op == "DFT" && node.input.len() > 2 { -2 } else { *default };
        return within(int(node, "axis").or(given).unwrap_or(last_but_one), -signed, signed - 1);
    }
    let axes = list(node, "axes").or_else(|| {
        let takes = op.starts_with("Reduce") || matches!(op, "Squeeze" | "Unsqueeze");
        constants.get(node.input.get(1).filter(|_| takes)?)
    });
    match op {
        "Flatten" => within(int(node, "axis").unwrap_or(1), -signed, signed),
        "OneHot" => within(int(node, "axis").unwrap_or(-1), -signed - 1, signed),
        "Compress" => int(node, "axis").map_or(Ok(()), |axis| within(axis, -signed, signed - 1)),
        "CumSum" => {
            let axis = node.input.get(1).and_then(|name| constants.get(name)?.first());
            axis.map_or(Ok(()), |axis| within(*axis, -signed, signed - 1))
        }
        "Unsqueeze" => {
            let axes = axes.unwrap_or(&[]);
            let most = signed + axes.len() as i64;
            axes.iter().try_for_each(|axis| within(*axis, -most, most - 1))
        }
        _ if op.starts_with("Reduce") || matches!(op, "Squeeze" | "MeanVarianceNormalization") => {
            axes.unwrap_or(&[]).iter().try_for_each(|axis| within(*axis, -signed, signed - 1))
        }
        _ => Ok(()),
    }
}

/// Refuses axes that are no permutation: tract would look for one for ever.
fn permutation(node: &pb::NodeProto, ranks: &Ranks) -> Result<(), EngineError> {
    let Some(perm) = list(node, "perm") else { return Ok(()) };
    let mut axes = perm.to_vec();
    axes.sort_unstable();
    if !axes.iter().copied().eq(0..axes.len() as i64) {
        return Err(refused(format!(
            "`{}` transposes by {:?}, which is no permutation",
            label(node),
            &perm[..perm.len().min(MOST_AXES)]
        )));
    }
    match ranks.input(node, 0).filter(|rank| *rank != perm.len()) {
        Some(rank) => {
            Err(refused(format!("`{}` transposes {} axes of a tensor of {rank}", label(node), perm.len())))
        }
        None => Ok(()),
    }
}

/// Whether a reduction leaves an extent of 1 where an axis was; so where it does not say.
fn keeps(node: &pb::NodeProto) -> bool {
    int(node, "keepdims").unwrap_or(1) != 0
}

fn int(node: &pb::NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

fn list<'a>(node: &'a pb::NodeProto, name: &str) -> Option<&'a [i64]> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| &*attribute.ints)
}
