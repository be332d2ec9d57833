//! The kernels in the place of tract's operators: they answer as stock tract does, in every form that
//! this processor runs.

use lepton_testkit::onnx::{Axis, Element, Graph, Node};

use super::*;

pub(super) fn shipped(network: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(network).join("1/model.onnx");
    std::fs::read(path).unwrap()
}

pub(super) fn in_form(bytes: &[u8], form: Option<Form>) -> TractEngine {
    TractEngine::load_with(bytes, None, form).unwrap()
}

/// The largest difference between two answers, by the magnitude of what is answered.
pub(super) fn relative(found: &Tensors, expected: &Tensors) -> f32 {
    assert_eq!(found.len(), expected.len());
    let of = |(found, expected): (&Tensor, &Tensor)| {
        let largest = expected.as_slice::<f32>().unwrap().iter().fold(1.0f32, |most, x| most.max(x.abs()));
        distance(found, expected) / largest
    };
    found.iter().zip(expected).map(of).fold(0.0, f32::max)
}

/// How far a form may be from stock tract: by the order of its sums, and by the 8 bits of bf16.
pub(super) fn bound(form: Form) -> f32 {
    match form.precision() {
        Precision::F32 => 1e-5,
        Precision::Bf16 => 1e-2,
    }
}

/// The operators of a plan for `n` rows of the first input, by name.
pub(super) fn nodes(engine: &TractEngine, n: usize, row: &[usize]) -> Vec<String> {
    let plan = engine.network.next(n, &[row.to_vec()]).unwrap().1;
    plan.model().nodes().iter().map(|node| node.op.name().into_owned()).collect()
}

/// Those of them that the kernels run.
fn operators(engine: &TractEngine, n: usize, row: &[usize]) -> Vec<String> {
    nodes(engine, n, row).into_iter().filter(|name| name.starts_with("Lepton")).collect()
}

#[test]
fn the_shipped_face_network_answers_as_stock_tract_does() {
    let bytes = shipped("face");
    let stock = in_form(&bytes, None);
    let pixels = noise(5, 3 * 48 * 48).iter().map(|x| x * 4.0).collect();
    let batch = Tensor::new::<f32>(vec![3, 1, 48, 48], pixels).unwrap();
    let expected = run(&stock, batch.clone()).unwrap();
    for form in Form::all() {
        let engine = in_form(&bytes, Some(form));
        let far = relative(&run(&engine, batch.clone()).unwrap(), &expected);
        assert!(far <= bound(form), "{form}: {far}");
        let found = nodes(&engine, 1, &[1, 48, 48]);
        assert_eq!(found, ["Source", "LeptonConvolutions"], "{form}: its head too");
        let runs = [1, 8, 9].map(|n| engine.network.next(n, &[vec![1, 48, 48]]).unwrap().0);
        assert_eq!(runs, [1, 8, 5], "{form}: rows run together where nothing of tract's is left");
    }
}

/// `x` f32 [batch, 4, 9, 11] to `y`, by convolutions of 3x3 whose weights are `w` [16, 4] and `v` [16, 16].
fn pictures_through(nodes: &[Node], output: (&'static str, i64)) -> Vec<u8> {
    let axes = [Axis::Named("batch"), Axis::Of(4), Axis::Of(9), Axis::Of(11)];
    let graph = Graph::default()
        .input("x", Element::Float, &axes)
        .floats("w", &[16, 4, 3, 3], &noise(1, 16 * 4 * 9))
        .floats("v", &[16, 16, 3, 3], &noise(2, 16 * 16 * 9))
        .floats("grouped", &[16, 4, 3, 3], &noise(2, 16 * 4 * 9))
        .floats("b", &[16], &noise(3, 16))
        .floats("zero", &[1], &[0.0]);
    let graph = nodes.iter().cloned().fold(graph, Graph::node);
    let (name, n_channels) = output;
    let axes = [Axis::Named("batch"), Axis::Of(n_channels), Axis::Named("height"), Axis::Named("width")];
    graph.output(name, Element::Float, &axes).encode()
}

fn same(inputs: &[&str], output: &str) -> Node {
    Node::new("Conv", inputs, &[output]).ints("pads", &[1, 1, 1, 1])
}

#[test]
fn chains_of_convolutions_answer_as_stock_tract_does() {
    let relu = |from: &str, to: &str| Node::new("Relu", &[from], &[to]);
    let add = |one: &str, other: &str, to: &str| Node::new("Add", &[one, other], &[to]);
    let first = [same(&["x", "w", "b"], "c"), relu("c", "r")];
    let with = |rest: &[Node]| [&first[..], rest].concat();
    let cases = [
        // A residual block, its summand on either side.
        with(&[same(&["r", "v", "b"], "d"), add("d", "r", "s"), relu("s", "y")]),
        with(&[same(&["r", "v", "b"], "d"), add("r", "d", "s"), relu("s", "y")]),
        // Two branches, neither with a bias, and no activation.
        with(&[same(&["r", "v"], "d"), same(&["r", "v"], "e"), add("d", "e", "y")]),
        // A value that is also read by an operator that the kernel does not know.
        with(&[same(&["r", "v", "b"], "d"), Node::new("Sigmoid", &["r"], &["g"]), add("d", "g", "y")]),
        // A summand that is a picture but no answer of a convolution, and one added to itself.
        with(&[
            Node::new("Tanh", &["r"], &["t"]),
            same(&["t", "v", "b"], "d"),
            same(&["d", "v", "b"], "e"),
            add("e", "t", "s"),
            relu("s", "y"),
        ]),
        with(&[same(&["r", "v", "b"], "d"), add("d", "d", "s"), relu("s", "y")]),
        // Strides and padding on one side only.
        with(&[Node::new("Conv", &["r", "v", "b"], &["y"])
            .ints("pads", &[0, 1, 2, 0])
            .ints("strides", &[2, 3])]),
        // A convolution in groups between two that are taken.
        with(&[
            Node::new("Conv", &["r", "grouped"], &["d"]).ints("pads", &[1, 1, 1, 1]).int("group", 4),
            same(&["d", "v", "b"], "e"),
            same(&["e", "v", "b"], "y"),
        ]),
        with(&[same(&["r", "v", "b"], "d"), Node::new("GlobalAveragePool", &["d"], &["y"])]),
    ];
    for nodes in cases {
        let bytes = pictures_through(&nodes, ("y", 16));
        let stock = in_form(&bytes, None);
        let batch = Tensor::new::<f32>(vec![2, 4, 9, 11], noise(9, 2 * 4 * 99)).unwrap();
        let expected = run(&stock, batch.clone()).unwrap();
        for form in Form::all() {
            let engine = in_form(&bytes, Some(form));
            assert!(
                operators(&engine, 1, &[4, 9, 11]).contains(&"LeptonConvolutions".to_owned()),
                "{nodes:?}"
            );
            let far = relative(&run(&engine, batch.clone()).unwrap(), &expected);
            assert!(far <= bound(form), "{form}: {far} for {nodes:?}");
        }
    }
}

#[test]
fn a_network_without_anything_for_the_kernels_is_untouched() {
    let grouped = Node::new("Conv", &["x", "v4", "b"], &["y"]).ints("pads", &[1, 1, 1, 1]).int("group", 4);
    let axes = [Axis::Named("batch"), Axis::Of(4), Axis::Of(9), Axis::Of(11)];
    let graph = Graph::default()
        .input("x", Element::Float, &axes)
        .floats("v4", &[16, 1, 3, 3], &noise(1, 16 * 9))
        .floats("b", &[16], &noise(3, 16))
        .node(grouped);
    let bytes = graph.output("y", Element::Float, &[axes[0], Axis::Of(16), axes[2], axes[3]]).encode();
    let (engine, stock) = (load(&bytes), in_form(&bytes, None));
    assert_eq!(operators(&engine, 1, &[4, 9, 11]), [""; 0]);
    let batch = Tensor::new::<f32>(vec![2, 4, 9, 11], noise(9, 2 * 4 * 99)).unwrap();
    assert_eq!(run(&engine, batch.clone()).unwrap(), run(&stock, batch).unwrap());
}

#[test]
fn the_share_of_each_kernel_is_told_and_why_the_rest_has_none() {
    let Some(form) = Form::best(Precision::F32) else { return };
    let told = |engine: &TractEngine| -> Vec<String> {
        let uses = engine.kernels().iter();
        uses.map(|part| {
            let percent = (100.0 * part.share).round();
            format!("{} {percent} on {}: {}", part.operator, part.kernel, part.reason.unwrap_or("-"))
        })
        .collect()
    };
    let face = told(&in_form(&shipped("face"), Some(form)));
    assert_eq!(face[0], format!("Conv 100 on {form}: -"));
    assert_eq!(face[1], format!("EinSum 0 on {form}: -"));
    let sentiment = told(&in_form(&shipped("sentiment"), Some(form)));
    assert!(
        sentiment[0].starts_with("Gru 9") && sentiment[0].ends_with(&format!("on {form}: -")),
        "{sentiment:?}"
    );
    let stock = told(&in_form(&shipped("face"), None));
    assert_eq!(stock[0], "Conv 100 on tract: this processor runs no form of the kernels");
    let grouped = Node::new("Conv", &["r", "grouped"], &["y"]).ints("pads", &[1, 1, 1, 1]).int("group", 4);
    let nodes = [same(&["x", "w", "b"], "c"), same(&["c", "v", "b"], "r"), grouped];
    let engine = in_form(&pictures_through(&nodes, ("y", 16)), Some(form));
    assert!(told(&engine)[1].ends_with("on tract: its channels are in groups"), "{:?}", told(&engine));
}
