//! Networks that are broken on purpose: each seed is one, the same on every run.
//!
//! They start from small networks of many operators, and are changed where a parser, a planner or an
//! operator would have to trust them: attributes, names, extents, data, depth.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_shape_proto::dimension, type_proto,
};

use super::seeds::{N_SEEDS, seed};

/// Numbers that no honest network has where they are put, and a few that it has.
const EXTREME: [i64; 16] = [
    i64::MIN,
    i64::MIN + 1,
    i64::MAX,
    i64::MAX - 1,
    1 << 62,
    -(1 << 40),
    1 << 40,
    1 << 31,
    -(1 << 31),
    65_535,
    1024,
    -1,
    0,
    1,
    2,
    3,
];

const FLOATS: [f32; 6] = [f32::NAN, f32::INFINITY, -1.0, 0.0, 1e30, 1e-30];

/// Attributes that any operator might read.
const NAMES: [&str; 20] = [
    "axis",
    "axes",
    "kernel_shape",
    "pads",
    "strides",
    "dilations",
    "group",
    "perm",
    "keepdims",
    "to",
    "size",
    "hidden_size",
    "blocksize",
    "output_shape",
    "shape",
    "num_outputs",
    "split",
    "direction",
    "mode",
    "k",
];

/// Numbers by chance that repeat (Knuth, MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// The bytes of the mutant of that number.
pub(super) fn mutant(number: u64) -> Vec<u8> {
    let mut dice = Dice(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d);
    (0..8).for_each(|_| _ = dice.below(2));
    let seed = seed(dice.below(N_SEEDS));
    if dice.below(12) == 0 {
        return broken(seed, &mut dice);
    }
    let mut model = ModelProto::decode(&*seed).unwrap();
    for _ in 0..=dice.below(3) {
        let graph = model.graph.as_mut().unwrap();
        change(graph, &mut dice);
    }
    model.encode_to_vec()
}

/// A file whose bytes are cut or changed.
fn broken(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    if dice.below(2) == 0 {
        bytes.truncate(dice.below(bytes.len()));
    }
    for _ in 0..dice.below(8) {
        let at = dice.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = dice.below(256) as u8;
        }
    }
    bytes
}

/// Changes one thing of a graph.
fn change(graph: &mut GraphProto, dice: &mut Dice) {
    match dice.below(20) {
        0..5 => attribute(graph, dice),
        5 => added(graph, dice),
        6..8 => numbers(graph, dice),
        8 => extents(graph, dice),
        9 => data(graph, dice),
        10 => names(graph, dice),
        11 => declared(graph, dice),
        12 => operator(graph, dice),
        13 => nested(graph, dice),
        14 => elsewhere(graph, dice),
        15 => repeated(graph, dice),
        16 => chained(graph, dice),
        17 => outputs(graph, dice),
        18 => typed(graph, dice),
        _ => edges(graph, dice),
    }
}

fn node<'a>(graph: &'a mut GraphProto, dice: &mut Dice) -> Option<&'a mut NodeProto> {
    let at = dice.below(graph.node.len());
    graph.node.get_mut(at)
}

fn tensor<'a>(graph: &'a mut GraphProto, dice: &mut Dice) -> Option<&'a mut TensorProto> {
    let at = dice.below(graph.initializer.len());
    graph.initializer.get_mut(at)
}

/// Changes an attribute that is there.
fn attribute(graph: &mut GraphProto, dice: &mut Dice) {
    let there: Vec<(usize, usize)> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(at, node)| (0..node.attribute.len()).map(move |attribute| (at, attribute)))
        .collect();
    if there.is_empty() {
        return added(graph, dice);
    }
    let (at, of) = dice.pick(&there);
    let attribute = &mut graph.node[at].attribute[of];
    let to = dice.pick(&EXTREME);
    match dice.below(6) {
        0 => attribute.ints.push(to),
        1 => _ = attribute.ints.pop(),
        2 => attribute.r#type = AttributeType::Ints as i32,
        3 => (attribute.f, attribute.floats) = (dice.pick(&FLOATS), vec![dice.pick(&FLOATS); 4]),
        _ if !attribute.ints.is_empty() => {
            let at = dice.below(attribute.ints.len());
            attribute.ints[at] = to;
        }
        _ if !attribute.s.is_empty() => {
            attribute.s = dice.pick(&[vec![0xff; 3], vec![b'a'; 5000], vec![], b"...->".to_vec()]);
        }
        _ => attribute.i = to,
    }
}

/// Adds an attribute that somebody might read.
fn added(graph: &mut GraphProto, dice: &mut Dice) {
    let name = dice.pick(&NAMES).to_owned();
    let ints: Vec<i64> = (0..dice.below(5)).map(|_| dice.pick(&EXTREME)).collect();
    let r#type = if ints.is_empty() { AttributeType::Int } else { AttributeType::Ints } as i32;
    let i = dice.pick(&EXTREME);
    let Some(node) = node(graph, dice) else { return };
    node.attribute.retain(|attribute| attribute.name != name);
    node.attribute.push(AttributeProto { name, r#type, i, ints, ..AttributeProto::default() });
}

/// Changes numbers of a small constant, which are sizes most often.
fn numbers(graph: &mut GraphProto, dice: &mut Dice) {
    let small: Vec<usize> =
        (0..graph.initializer.len()).filter(|at| graph.initializer[*at].raw_data.len() <= 64).collect();
    if small.is_empty() {
        return attribute(graph, dice);
    }
    let tensor = &mut graph.initializer[dice.pick(&small)];
    let to = dice.pick(&EXTREME).to_le_bytes();
    let width = if tensor.data_type == 7 { 8 } else { 4 };
    let n = tensor.raw_data.len() / width;
    if n > 0 {
        let at = dice.below(n) * width;
        tensor.raw_data[at..at + width].copy_from_slice(&to[..width]);
    }
}

fn extents(graph: &mut GraphProto, dice: &mut Dice) {
    let to = dice.pick(&EXTREME);
    let what = dice.below(4);
    let Some(tensor) = tensor(graph, dice) else { return };
    match what {
        0 => tensor.dims.push(to),
        1 => tensor.dims.reverse(),
        2 => tensor.dims = vec![1; 40],
        _ => tensor.dims.iter_mut().take(1).for_each(|dim| *dim = to),
    }
}

fn data(graph: &mut GraphProto, dice: &mut Dice) {
    let what = dice.below(4);
    let len = dice.below(100);
    let Some(tensor) = tensor(graph, dice) else { return };
    match what {
        0 => tensor.raw_data.truncate(len),
        1 => tensor.raw_data.extend(vec![0; len + 1]),
        2 => tensor.raw_data.clear(),
        _ => tensor.int64_data = vec![1; len],
    }
}

fn names(graph: &mut GraphProto, dice: &mut Dice) {
    let known: Vec<String> = graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .cloned()
        .chain(graph.initializer.iter().map(|tensor| tensor.name.clone()))
        .chain(["image".to_owned(), String::new(), "n".repeat(100_000)])
        .collect();
    let (name, what) = (dice.pick(&known), dice.below(4));
    match what {
        0 => {
            if let Some(tensor) = tensor(graph, dice) {
                tensor.name = name;
            }
        }
        1 => graph.output[0].name = name,
        _ => {
            if let Some(output) = node(graph, dice).and_then(|node| node.output.first_mut()) {
                *output = name;
            }
        }
    }
}

/// Changes the declared extents of an input.
fn declared(graph: &mut GraphProto, dice: &mut Dice) {
    let what = dice.below(5);
    let to = dice.pick(&EXTREME);
    let depth = dice.pick(&[3, 17, 100, 6000]);
    let value = if dice.below(4) == 0 { graph.output.first_mut() } else { graph.input.first_mut() };
    let Some(dims) = value.and_then(dims) else { return };
    let at = dice.below(dims.len());
    let text = match dice.below(4) {
        0 => format!("{}n{}", "(".repeat(depth), ")".repeat(depth)),
        1 => format!("{}n", "-".repeat(depth)),
        2 => vec!["n"; depth].join("*"),
        _ => format!("floor({}/0)", "9".repeat(depth)),
    };
    match what {
        0 => _ = dims.pop(),
        1 => dims.extend(dims.clone()),
        2 => dims.iter_mut().skip(at).take(1).for_each(|dim| dim.value = None),
        3 => {
            dims.iter_mut().skip(at).take(1).for_each(|dim| dim.value = Some(dimension::Value::DimValue(to)))
        }
        _ => dims
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|dim| dim.value = Some(dimension::Value::DimParam(text.clone()))),
    }
}

fn dims(value: &mut ValueInfoProto) -> Option<&mut Vec<tract_onnx::pb::tensor_shape_proto::Dimension>> {
    match value.r#type.as_mut()?.value.as_mut()? {
        type_proto::Value::TensorType(tensor) => Some(&mut tensor.shape.as_mut()?.dim),
    }
}

/// Puts another operator in the place of one.
fn operator(graph: &mut GraphProto, dice: &mut Dice) {
    const OPERATORS: [&str; 24] = [
        "DFT",
        "STFT",
        "HannWindow",
        "MelWeightMatrix",
        "Scan",
        "If",
        "NonZero",
        "EyeLike",
        "Trilu",
        "Multinomial",
        "RandomNormal",
        "NonMaxSuppression",
        "GridSample",
        "QuantizeLinear",
        "MatMul",
        "Gemm",
        "RNN",
        "Compress",
        "OneHot",
        "Shape",
        "Size",
        "InstanceNormalization",
        "BatchNormalization",
        "QLinearConv",
    ];
    let op = dice.pick(&OPERATORS).to_owned();
    if let Some(node) = node(graph, dice) {
        node.op_type = op;
    }
}

/// Puts the graph into graphs, one inside the other.
fn nested(graph: &mut GraphProto, dice: &mut Dice) {
    let depth = dice.pick(&[1, 2, 9, 40]);
    let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    for _ in 0..depth {
        let inner = GraphProto { input: Vec::new(), ..graph.clone() };
        let branch = |name: &str| AttributeProto {
            name: name.to_owned(),
            r#type: AttributeType::Graph as i32,
            g: Some(inner.clone()),
            ..AttributeProto::default()
        };
        let r#if = NodeProto {
            op_type: "If".to_owned(),
            input: vec!["image".to_owned()],
            output: outputs.clone(),
            // Both branches would double it each time.
            attribute: vec![branch("then_branch")],
            ..NodeProto::default()
        };
        graph.node = vec![r#if];
        graph.initializer.clear();
    }
}

/// Has a weight lie in another file, which should not be read.
fn elsewhere(graph: &mut GraphProto, dice: &mut Dice) {
    let location =
        dice.pick(&["../model.toml", "/etc/passwd", "model.onnx", ".", "", "/dev/zero", "a/../../b"]);
    let number = |dice: &mut Dice| match dice.below(3) {
        0 => dice.pick(&EXTREME).to_string(),
        1 => "99999999999999999999".to_owned(),
        _ => "0".to_owned(),
    };
    let entries = [("location", location.to_owned()), ("offset", number(dice)), ("length", number(dice))];
    let Some(tensor) = tensor(graph, dice) else { return };
    tensor.raw_data.clear();
    tensor.data_location = Some(1);
    tensor.external_data = entries
        .into_iter()
        .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value })
        .collect();
}

/// Repeats a node without changing its names, or with.
fn repeated(graph: &mut GraphProto, dice: &mut Dice) {
    let (n, renamed) = (dice.pick(&[1, 2, 500, 30_000]), dice.below(2));
    let Some(node) = node(graph, dice).cloned() else { return };
    for i in 0..n {
        let mut copy = node.clone();
        if renamed == 1 {
            copy.name = format!("copy{i}");
            copy.output.iter_mut().for_each(|output| *output = format!("{output}_{i}"));
        }
        graph.node.push(copy);
    }
}

/// Sizes that are computed of each other, for whatever reads a constant.
fn chained(graph: &mut GraphProto, dice: &mut Dice) {
    let longs: Vec<String> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.data_type == 7)
        .map(|tensor| tensor.name.clone())
        .collect();
    if longs.is_empty() {
        return attribute(graph, dice);
    }
    let (name, n) = (dice.pick(&longs), dice.pick(&[1usize, 3, 40]));
    let op = dice.pick(&["Mul", "Add"]).to_owned();
    let mut last = name.clone();
    let mut made = Vec::new();
    for i in 0..n {
        let next = format!("{name}_chain{i}");
        made.push(NodeProto {
            op_type: op.clone(),
            input: vec![last.clone(), last.clone()],
            output: vec![next.clone()],
            ..NodeProto::default()
        });
        last = next;
    }
    for node in &mut graph.node {
        node.input.iter_mut().filter(|input| **input == name).for_each(|input| input.clone_from(&last));
    }
    graph.node.splice(0..0, made);
}

fn outputs(graph: &mut GraphProto, dice: &mut Dice) {
    match dice.below(3) {
        0 => graph.output.extend(graph.output.clone()),
        1 => graph.output.clear(),
        _ => graph.output.iter_mut().for_each(|output| output.r#type = None),
    }
}

fn typed(graph: &mut GraphProto, dice: &mut Dice) {
    let to = dice.pick(&[0, 1, 2, 7, 8, 9, 10, 11, 14, 16, 22, 99, i32::MAX, i32::MIN]);
    if dice.below(2) == 0 {
        if let Some(tensor) = tensor(graph, dice) {
            tensor.data_type = to;
        }
    } else if let Some(type_proto::Value::TensorType(tensor)) =
        graph.input.first_mut().and_then(|input| input.r#type.as_mut()).and_then(|of| of.value.as_mut())
    {
        tensor.elem_type = to;
    }
}

/// Leads an edge elsewhere: to an own answer, to a later node, to nothing.
fn edges(graph: &mut GraphProto, dice: &mut Dice) {
    let mut known: Vec<String> = graph.node.iter().flat_map(|node| &node.output).cloned().collect();
    known.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    known.extend(["image".to_owned(), String::new(), "nothing".to_owned()]);
    let (to, what) = (dice.pick(&known), dice.below(3));
    let Some(node) = node(graph, dice) else { return };
    match what {
        0 => node.input.push(to),
        1 => _ = node.input.pop(),
        _ => node.input.iter_mut().take(1).for_each(|input| input.clone_from(&to)),
    }
}
