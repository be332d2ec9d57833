//! What a file may ask for: each kind of excess is refused by name before anything is built of it, and
//! what honest networks have is not.

use super::*;

/// `x` f32 [batch, 4, 8] through one operator.
const THREE: [Axis; 3] = [Axis::Named("batch"), Axis::Of(4), Axis::Of(8)];

/// The largest and the smallest number, and those just beyond the axes of [`THREE`].
const BEYOND: [i64; 6] = [i64::MIN, i64::MAX, -(1 << 40), 1 << 40, -5, 4];

#[test]
fn an_axis_that_the_tensor_does_not_have_is_refused_for_every_operator_that_names_one() {
    for op in [
        "ArgMax",
        "ArgMin",
        "Concat",
        "DFT",
        "Flatten",
        "Hardmax",
        "LogSoftmax",
        "LpNormalization",
        "Softmax",
        "Split",
        "OneHot",
        "Compress",
    ] {
        for axis in BEYOND {
            let text = refusal(&one_node(Node::new(op, &["x"], &["y"]).int("axis", axis), &THREE).encode());
            assert!(text.contains(&format!("`y ({op})` has axis {axis};")), "{op} {axis}: {text}");
        }
    }
    for (op, weights) in
        [("LayerNormalization", 1), ("Gather", 1), ("GatherElements", 1), ("ScatterElements", 2)]
    {
        let names: Vec<&str> = ["x", "w", "w"].into_iter().take(1 + weights).collect();
        for axis in BEYOND {
            let node = Node::new(op, &names, &["y"]).int("axis", axis);
            let text = refusal(&one_node(node, &THREE).floats("w", &[8], &[1.0; 8]).encode());
            assert!(text.contains("has axis"), "{op} {axis}: {text}");
        }
    }
    for op in ["ReduceMean", "ReduceMax", "ReduceL2", "Squeeze", "Unsqueeze"] {
        for axis in BEYOND {
            let node = Node::new(op, &["x"], &["y"]).ints("axes", &[axis]);
            let told = one_node(node, &THREE).encode();
            let node = Node::new(op, &["x", "axes"], &["y"]);
            let given = one_node(node, &THREE).longs("axes", &[1], &[axis]).encode();
            for bytes in [told, given] {
                let text = refusal(&bytes);
                assert!(text.contains(&format!("({op})` has ax")), "{op} {axis}: {text}");
            }
        }
    }
}

#[test]
fn an_axis_is_followed_through_operators_that_keep_their_number() {
    let graph = Graph::default()
        .input("x", Element::Float, &THREE)
        .floats("w", &[8], &[1.0; 8])
        .longs("one", &[1], &[1])
        .node(Node::new("Relu", &["x"], &["a"]))
        .node(Node::new("Add", &["a", "w"], &["b"]))
        .node(Node::new("Unsqueeze", &["b", "one"], &["c"]))
        .node(Node::new("Transpose", &["c"], &["d"]).ints("perm", &[0, 1, 3, 2]));
    let norm = |axis| {
        let node = Node::new("LayerNormalization", &["d", "v"], &["y"]).int("axis", axis);
        let graph = graph.clone().floats("v", &[4], &[1.0; 4]).node(node);
        graph
            .output("y", Element::Float, &[Axis::Named("batch"), Axis::Of(1), Axis::Of(8), Axis::Of(4)])
            .encode()
    };
    load(&norm(-1));
    let text = refusal(&norm(-5));
    assert!(
        text.contains("`y (LayerNormalization)` has axis -5; for a tensor of 4 axes -4 to 3 are allowed"),
        "{text}"
    );
}

/// A transform of a number has no axis; tract would make room for one until memory ends.
#[test]
fn an_operator_along_an_axis_of_a_single_number_is_refused() {
    for op in ["DFT", "Softmax", "LayerNormalization"] {
        let graph = Graph::default()
            .input("x", Element::Float, &FREE)
            .floats("n", &[], &[1.0])
            .floats("w", &[1], &[1.0])
            .node(Node::new(op, if op == "LayerNormalization" { &["n", "w"] } else { &["n"] }, &["z"]))
            .node(Node::new("Add", &["x", "z"], &["y"]));
        let text = refusal(&graph.output("y", Element::Float, &FREE).encode());
        assert!(text.contains("for a tensor of 0 axes"), "{op}: {text}");
    }
}

#[test]
fn a_name_that_two_things_make_is_refused() {
    let twice = |graph: Graph| refusal(&graph.output("y", Element::Float, &FREE).encode());
    let graph = || Graph::default().input("x", Element::Float, &FREE);
    let relu = || Node::new("Relu", &["x"], &["y"]);
    let text = twice(graph().node(relu()).node(Node::new("Neg", &["x"], &["y"])));
    assert_eq!(
        text,
        "cannot load the network: `y` is made twice, by an operator and by an operator; each name may be made once"
    );
    let by_input = twice(graph().node(relu()).node(Node::new("Neg", &["y"], &["x"])));
    assert!(by_input.contains("`x` is made twice, by an input and by an operator"), "{by_input}");
    let weights = graph().floats("w", &[1], &[1.0]).floats("w", &[1], &[2.0]).node(relu());
    assert!(twice(weights).contains("`w` is made twice, by a weight and by a weight"));
    let inputs = graph().input("x", Element::Float, &FREE).node(relu());
    assert!(twice(inputs).contains("`x` is made twice, by an input and by an input"));
    let outputs = graph().node(relu()).output("y", Element::Float, &FREE);
    assert!(twice(outputs).contains("the output `y` is declared twice"));
    let attributes = graph().node(relu().int("alpha", 1).int("alpha", 2));
    assert!(twice(attributes).contains("has the attribute alpha twice"));
    // A weight may be the value of an input where nobody gives one.
    let defaulted = graph().input("w", Element::Float, &[Axis::Of(1)]).floats("w", &[1], &[2.0]);
    load(&defaulted.node(Node::new("Mul", &["x", "w"], &["y"])).output("y", Element::Float, &FREE).encode());
}

#[test]
fn data_that_contradict_their_shape_are_refused() {
    let text = |graph: Graph| refusal(&graph.encode());
    let add = || one_node(Node::new("Add", &["x", "w"], &["y"]), &FREE);
    for (dims, bytes) in [(&[4][..], 12), (&[2, 4], 16), (&[1 << 40, 4], 16), (&[0], 4), (&[], 8)] {
        let found = text(add().raw("w", Element::Float, dims, &vec![0; bytes]));
        assert!(found.contains("the tensor `w` of shape") && found.contains("it needs"), "{dims:?}: {found}");
    }
    assert!(text(add().raw("w", Element::Float, &[4], &[])).contains("holds 0 numbers, it needs 4"));
    for dims in [&[-1][..], &[1 << 62, 1 << 62], &[i64::MIN]] {
        assert!(
            text(add().raw("w", Element::Float, dims, &[0; 4])).contains("which no memory holds"),
            "{dims:?}"
        );
    }
    assert!(text(add().raw("w", Element::Float, &[1; 33], &[0; 4])).contains("33 axes, 32 are allowed"));
}

#[test]
fn a_convolution_that_contradicts_its_weights_is_refused() {
    let four = [Axis::Named("batch"), Axis::Of(2), Axis::Of(8), Axis::Of(8)];
    let conv =
        |node: Node| refusal(&one_node(node, &four).floats("w", &[3, 2, 3, 3], &noise(1, 54)).encode());
    let node = || Node::new("Conv", &["x", "w"], &["y"]);
    for (node, expected) in [
        (node().ints("kernel_shape", &[5, 5]), "kernel_shape [5, 5] and weights of [3, 3]"),
        (node().ints("pads", &[1, 1]), "2 numbers in pads, 4 are needed"),
        (node().ints("strides", &[1, 1, 1]), "3 numbers in strides, 2 are needed"),
        (node().int("group", 2), "3 channels in 2 groups"),
        (node().int("group", 0), "has group 0"),
        (node().ints("strides", &[0, 1]), "has strides 0"),
        (node().ints("dilations", &[1 << 30, 1]), "has dilations 1073741824"),
        (node().ints("pads", &[1 << 40, 0, 0, 0]), "has pads 1099511627776"),
        (node().ints("kernel_shape", &[1 << 40, 1 << 40]), "has kernel_shape 1099511627776"),
    ] {
        let text = conv(node);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn sizes_that_a_file_gives_in_a_few_bytes_are_multiplied_out() {
    const HUGE: i64 = 1 << 40;
    let huge = |op: &str, inputs: &[&str], sizes: &[i64]| {
        let names: Vec<&str> = inputs.to_vec();
        let graph =
            Graph::default().input("x", Element::Float, &FREE).longs("n", &[sizes.len() as i64], sizes);
        let graph = graph.longs("zero", &[], &[0]).longs("size", &[], sizes.get(..1).unwrap_or(&[0]));
        let graph = graph.node(Node::new(op, &names, &["y"])).output("y", Element::Float, &FREE);
        refusal(&graph.encode())
    };
    for (op, inputs) in [
        ("ConstantOfShape", &["n"][..]),
        ("Expand", &["x", "n"]),
        ("Reshape", &["x", "n"]),
        ("Tile", &["x", "n"]),
        ("Pad", &["x", "n"]),
        ("OneHot", &["x", "size", "x"]),
        ("HannWindow", &["size"]),
        ("BlackmanWindow", &["size"]),
        ("DFT", &["x", "size"]),
        ("TopK", &["x", "n"]),
        ("Resize", &["x", "", "", "n"]),
    ] {
        let text = huge(op, inputs, &[HUGE, 2]);
        assert!(text.contains("elements are allowed"), "{op}: {text}");
    }
    let range = Graph::default()
        .input("x", Element::Float, &FREE)
        .longs("from", &[], &[i64::MIN])
        .longs("to", &[], &[i64::MAX])
        .longs("by", &[], &[1])
        .node(Node::new("Range", &["from", "to", "by"], &["y"]))
        .output("y", Element::Long, &FREE);
    assert!(refusal(&range.encode()).contains("elements are allowed"));
    let grown = one_node(Node::new("Resize", &["x", "", "by"], &["y"]), &FREE);
    assert!(refusal(&grown.floats("by", &[2], &[1.0, 1e9]).encode()).contains("has the factor 1000000000"));
}

#[test]
fn what_constants_ask_for_together_is_limited_too() {
    let each = LIMITS.elements as i64 / 4;
    let graph = (0..5).fold(Graph::default().input("x", Element::Float, &FREE), |graph, i| {
        let (sizes, filled) = (format!("n{i}"), format!("f{i}"));
        graph.longs(&sizes, &[1], &[each]).node(Node::new("ConstantOfShape", &[&sizes], &[&filled]))
    });
    let graph = graph.node(Node::new("Relu", &["x"], &["y"])).output("y", Element::Float, &FREE);
    let text = refusal(&graph.encode());
    assert!(text.contains("elements together, up to `f4 (ConstantOfShape)`"), "{text}");
}

#[test]
fn the_name_of_an_axis_is_no_program() {
    let named =
        |name: &'static str| one_node(Node::new("Relu", &["x"], &["y"]), &[Axis::Named(name), Axis::Of(4)]);
    let leak = |name: String| -> &'static str { name.leak() };
    let deep = |open: &str, close: &str, n: usize| leak(format!("{}n{}", open.repeat(n), close.repeat(n)));
    for (open, close) in [("(", ")"), ("floor(", ")"), ("-", ""), ("- ", ""), ("max(1,", ")")] {
        let text = refusal(&named(deep(open, close, 17)).encode());
        assert!(text.contains("brackets deep, 16 are allowed"), "{open}: {text}");
        let text = refusal(&named(deep(open, close, 6000)).encode());
        assert!(text.contains("bytes, 256 are allowed"), "{open}: {text}");
    }
    for honest in ["batch", "floor(height/2 - 1/2) + 1", "unk__12", "past_sequence_length + 1", "((n))"] {
        load(&named(honest).encode());
    }
}

#[test]
fn texts_of_any_length_are_cut_in_errors_and_refused_as_names() {
    let long = "n".repeat(100_000);
    let graph = one_node(Node::new("Relu", &["x"], &["y"]), &FREE).floats(&long, &[1], &[1.0]);
    let text = refusal(&graph.encode());
    assert!(text.len() < 300 && text.contains("has 100000 bytes, 4096 are allowed"), "{text}");
}

/// A table of word vectors is as large as its vocabulary: it lies on the disk, and is no bomb.
#[test]
fn a_table_of_more_elements_than_any_value_may_have_is_served() {
    let graph = |rows: i64| {
        Graph::default()
            .input("ids", Element::Long, &[Axis::Named("batch"), Axis::Named("length")])
            .floats("table", &[rows, 8], &noise(1, 8 * rows as usize))
            .node(Node::new("Gather", &["table", "ids"], &["y"]))
            .output("y", Element::Float, &[Axis::Named("batch"), Axis::Named("length"), Axis::Of(8)])
            .encode()
    };
    let limits = Limits { elements: 100, ..LIMITS };
    let engine = TractEngine::load_within(from(&graph(1000)), None, limits).unwrap();
    assert_eq!(run(&engine, ids(&[0, 999])).unwrap()[0].shape(), [1, 2, 8]);
    // What is computed has no such excuse.
    let small = TractEngine::load_within(from(&graph(10)), None, limits).unwrap();
    let text = run(&small, ids(&[0; 13])).unwrap_err().to_string();
    assert!(text.contains("makes a tensor of shape [1, 13, 8], 100 elements are allowed"), "{text}");
}

/// What is alive at once is limited, and not each value alone.
#[test]
fn many_values_that_are_alive_at_once_are_refused() {
    // Each value is made of the one before, and they are added up from the last to the first.
    let wide = |n: usize| {
        let graph = Graph::default().input("x", Element::Float, &FREE).floats("by", &[64, 1], &noise(1, 64));
        let graph = graph.node(Node::new("Mul", &["x", "by"], &["v0"]));
        let graph = (1..n).fold(graph, |graph, i| {
            let (last, next) = (format!("v{}", i - 1), format!("v{i}"));
            graph.node(Node::new("Exp", &[&last], &[&next]))
        });
        let graph = (1..n).rev().fold(graph, |graph, i| {
            let sum = if i == n - 1 { format!("v{i}") } else { format!("s{i}") };
            let (last, next) = (format!("v{}", i - 1), format!("s{}", i - 1));
            graph.node(Node::new("Add", &[&sum, &last], &[&next]))
        });
        let graph = graph.node(Node::new("ReduceMax", &["s0"], &["y"]).ints("axes", &[0]));
        graph.output("y", Element::Float, &FREE).encode()
    };
    let limits = Limits { elements: 300, ..LIMITS };
    let answer = |n: usize| {
        let engine = TractEngine::load_within(from(&wide(n)), None, limits).unwrap();
        run(&engine, Tensor::new::<f32>(vec![1, 4], vec![1.0; 4]).unwrap())
    };
    answer(2).unwrap();
    let text = answer(20).unwrap_err().to_string();
    assert!(text.contains("elements are alive at once") && text.contains("1200 are allowed"), "{text}");
}

#[test]
fn where_weights_lie_in_another_file_is_held_against_their_shape() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w"), [0; 64]).unwrap();
    let load = |entries: &[(&str, &str)]| {
        let graph = one_node(Node::new("Add", &["x", "w"], &["y"]), &FREE);
        let graph = graph.external_of("w", Element::Float, &[4], entries);
        TractEngine::load(&graph.encode(), Some(folder.path())).map(|_| ()).map_err(|error| error.to_string())
    };
    load(&[("location", "w"), ("offset", "8"), ("length", "16")]).unwrap();
    for (entries, expected) in [
        ([("offset", "0"), ("length", "20")], "takes 20 bytes of another file, it needs 16"),
        ([("offset", "18446744073709551615"), ("length", "16")], "ends beyond any file"),
        ([("offset", "9223372036854775807"), ("length", "16")], "ends beyond any file"),
        ([("offset", "-1"), ("length", "16")], "the offset of the tensor `w` in another file is no number"),
        ([("offset", "60"), ("length", "16")], "past the end of its file"),
        ([("offset", "0"), ("length", "99999999999999999999")], "is no number"),
    ] {
        let text = load(&[("location", "w"), entries[0], entries[1]]).unwrap_err();
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
