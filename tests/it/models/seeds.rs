//! Networks that mutants start from: small ones, of many operators, and whole.

use super::one;
use lepton_testkit::onnx::{Axis, Cell, Element, Graph, Node, SMALL, convolutional, noise, recurrent};

/// How many there are.
pub(super) const N_SEEDS: usize = 46;

/// A network of that number: two of the served kinds, and one for each of many operators.
pub(super) fn seed(number: usize) -> Vec<u8> {
    let image = |op: &str| Node::new(op, &["image"], &["logits"]);
    let with = |op: &str, more: &[&str]| Node::new(op, &[&["image"], more].concat(), &["logits"]);
    let same = |graph: Graph| graph;
    let longs = |values: &'static [i64]| move |graph: Graph| graph.longs("n", &[values.len() as i64], values);
    let scalar = |value: i64| move |graph: Graph| graph.longs("n", &[], &[value]);
    let weights = |dims: &'static [i64]| {
        let n = dims.iter().product::<i64>() as usize;
        move |graph: Graph| graph.floats("w", dims, &noise(1, n))
    };
    let steps = |graph: Graph| {
        let graph = graph.longs("steps", &[3], &[8, -1, 8]);
        let graph = graph.node(Node::new("Reshape", &["image", "steps"], &["x"]));
        graph.floats("w", &[1, 32, 8], &noise(1, 256)).floats("r", &[1, 32, 8], &noise(2, 256))
    };
    match number {
        0..6 => convolutional(if number.is_multiple_of(2) { Axis::Of(1) } else { Axis::Named("batch") }, 8),
        6 | 7 => recurrent(Cell::Gru, SMALL),
        8 | 9 => recurrent(Cell::Lstm, SMALL),
        10 => one(
            with("Conv", &["w"]).ints("kernel_shape", &[3, 3]).ints("pads", &[1; 4]),
            weights(&[8, 1, 3, 3]),
        ),
        11 => one(with("ConvTranspose", &["w"]).ints("strides", &[2, 2]), weights(&[1, 8, 3, 3])),
        12 => one(image("MaxPool").ints("kernel_shape", &[3, 3]).ints("strides", &[2, 2]), same),
        13 => one(image("AveragePool").ints("kernel_shape", &[3, 3]).ints("pads", &[1; 4]), same),
        14 => one(image("Softmax").int("axis", -1), same),
        15 => one(image("ArgMax").int("axis", 1), same),
        16 => one(image("Flatten").int("axis", 1), same),
        17 => one(image("Transpose").ints("perm", &[0, 2, 3, 1]), same),
        18 => one(with("Reshape", &["n"]), longs(&[0, -1])),
        19 => one(with("Expand", &["n"]), longs(&[1, 3, 8, 8])),
        20 => one(with("Tile", &["n"]), longs(&[1, 2, 1, 1])),
        21 => one(with("Pad", &["n"]), longs(&[0, 0, 1, 1, 0, 0, 1, 1])),
        22 => one(with("Gather", &["n"]).int("axis", 2), longs(&[0, 3, 7])),
        23 => one(with("GatherElements", &["n"]).int("axis", 3), longs(&[0, 3, 7])),
        24 => one(with("Unsqueeze", &["n"]), longs(&[1])),
        25 => one(with("Squeeze", &["n"]), longs(&[1])),
        26 => one(with("ReduceSum", &["n"]).int("keepdims", 0), longs(&[2, 3])),
        27 => one(image("ReduceMean").ints("axes", &[2, 3]), same),
        28 => one(with("LayerNormalization", &["w"]).int("axis", -1), weights(&[8])),
        29 => one(with("TopK", &["n"]).int("axis", -1), longs(&[3])),
        30 => one(with("CumSum", &["n"]), scalar(2)),
        31 => one(image("LRN").int("size", 3), same),
        32 => one(image("DepthToSpace").int("blocksize", 1), same),
        33 => one(image("SpaceToDepth").int("blocksize", 2), same),
        34 => one(with("Einsum", &["image"]).text("equation", "abcd,abcd->ab"), same),
        35 => one(with("Slice", &["n", "m"]), |graph| {
            graph.longs("n", &[4], &[0; 4]).longs("m", &[4], &[1, 1, 4, 4])
        }),
        36 => one(with("Resize", &["", "w"]).text("mode", "nearest"), weights(&[4])),
        37 => one(Node::new("Split", &["image"], &["logits", "b"]).int("axis", 2), same),
        38 => one(with("ScatterND", &["n", "w"]), |graph| {
            graph.longs("n", &[1, 4], &[0, 0, 1, 1]).floats("w", &[1], &[1.0])
        }),
        39 => one(Node::new("Add", &["image", "f"], &["logits"]), |graph| {
            graph.longs("n", &[2], &[8, 8]).node(Node::new("ConstantOfShape", &["n"], &["f"]))
        }),
        40 => one(Node::new("LSTM", &["x", "w", "r"], &["logits"]).int("hidden_size", 8), steps),
        41 => one(Node::new("DFT", &["image"], &["logits"]).int("axis", 2), same),
        42 => one(with("OneHot", &["n", "w"]).int("axis", -1), |graph| {
            graph.longs("n", &[], &[8]).floats("w", &[2], &[0.0, 1.0])
        }),
        43 => one(image("LpNormalization").int("axis", 1).int("p", 2), same),
        44 => one(Node::new("Add", &["image", "c"], &["logits"]), |graph| {
            let graph = graph.longs("a", &[], &[0]).longs("b", &[], &[8]).longs("n", &[], &[1]);
            let graph = graph.node(Node::new("Range", &["a", "b", "n"], &["r"]));
            graph.node(Node::new("Cast", &["r"], &["c"]).int("to", Element::Float as i64))
        }),
        _ => one(with("GroupNormalization", &["w", "w"]).int("num_groups", 1), weights(&[1])),
    }
}
