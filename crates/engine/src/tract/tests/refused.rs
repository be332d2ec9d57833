//! Files that are broken, hostile or not served: each is an error with a clear text, and never a panic.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn broken_bytes_are_an_error_and_never_a_panic(
        at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        for mut bytes in [convolutional(Axis::Named("batch"), SIDE), recurrent(Cell::Gru, SMALL)] {
            for (index, value) in &at {
                let position = index.index(bytes.len());
                bytes[position] = *value;
            }
            let _ = TractEngine::load(&bytes, None);
        }
    }
}

#[test]
fn a_truncated_file_is_refused_at_every_tenth() {
    for bytes in [convolutional(Axis::Named("batch"), SIDE), recurrent(Cell::Gru, SMALL)] {
        for tenth in 0..10 {
            let error = TractEngine::load(&bytes[..bytes.len() * tenth / 10], None).unwrap_err();
            assert!(matches!(error, EngineError::Load(_)), "{tenth}: {error}");
        }
    }
}

#[test]
fn types_operators_and_shapes_that_are_not_served_are_named() {
    let short = Graph::default()
        .input("x", Element::BrainHalf, &FREE)
        .node(Node::new("Relu", &["x"], &["y"]))
        .output("y", Element::BrainHalf, &FREE);
    assert_eq!(
        refusal(&short.encode()),
        "the network's element type is not served: bfloat16 of `x`; it must be bool, u8 to u64, i8 to i64, f16, f32, f64 or string"
    );
    let unknown = one_node(Node::new("Telepathy", &["x"], &["y"]), &FREE);
    assert_eq!(refusal(&unknown.encode()), "the network's operator is not served: Telepathy");
    let four = one_node(Node::new("Relu", &["x"], &["y"]), &[Axis::Of(4), Axis::Of(2)]);
    assert_eq!(
        refusal(&four.encode()),
        "the network's leading axis is not served: 4 in `x` f32 [4, 2]; it must be 1 or free"
    );
    let mixed = one_node(Node::new("Add", &["x", "z"], &["y"]), &FREE).input(
        "z",
        Element::Float,
        &[Axis::Of(1), Axis::Of(4)],
    );
    assert!(refusal(&mixed.encode()).contains("it must be 1 for all or free for all"));
}

#[test]
fn graphs_that_do_not_hang_together_are_refused() {
    assert!(refusal(b"").contains("holds no graph"));
    let no_maker = one_node(Node::new("Relu", &["x"], &["z"]), &FREE);
    assert_eq!(refusal(&no_maker.encode()), "cannot load the network: nothing makes its output `y`");
    let no_source = one_node(Node::new("Add", &["x", "z"], &["y"]), &FREE);
    assert_eq!(refusal(&no_source.encode()), "cannot load the network: `z` is read but nothing makes it");
    let no_input = Graph::default().floats("y", &[1], &[1.0]).output("y", Element::Float, &[Axis::Of(1)]);
    assert!(refusal(&no_input.encode()).contains("0 inputs and 1 outputs"));
}

#[test]
fn a_file_that_demands_too_much_is_refused_with_the_limit() {
    let bytes = recurrent(Cell::Gru, SMALL);
    let refusal = |limits| TractEngine::load_within(from(&bytes), None, limits).unwrap_err().to_string();
    assert!(refusal(Limits { nodes: 4, ..LIMITS }).contains("4 are allowed"));
    assert!(refusal(Limits { weight_bytes: 100, ..LIMITS }).contains("100 bytes allowed"));
}

#[test]
fn a_constant_of_a_few_bytes_cannot_demand_a_huge_tensor() {
    let huge = Graph::default()
        .input("x", Element::Float, &FREE)
        .longs("sizes", &[3], &[1 << 20, 1 << 20, 4])
        .node(Node::new("ConstantOfShape", &["sizes"], &["fill"]))
        .node(Node::new("Add", &["x", "fill"], &["y"]))
        .output("y", Element::Float, &FREE);
    assert!(refusal(&huge.encode()).contains("elements are allowed"));
    let wide = one_node(Node::new("Relu", &["x"], &["y"]), &[Axis::Named("batch"), Axis::Of(1 << 40)]);
    assert!(refusal(&wide.encode()).contains("elements allowed"));
    let padding = Node::new("Conv", &["x", "w"], &["y"]).ints("pads", &[1 << 14; 4]);
    let padded = one_node(padding, &[Axis::Named("batch"), Axis::Of(1), Axis::Of(8), Axis::Of(8)]);
    let text = refusal(&padded.floats("w", &[1, 1, 1, 1], &[1.0]).encode());
    assert!(text.contains("`y` makes a tensor of shape [1, 1, 32776, 32776]"), "{text}");
}

/// tract would look for a way to order the axes until memory ends.
#[test]
fn a_transposition_that_is_no_permutation_is_refused() {
    let node = Node::new("Transpose", &["x"], &["y"]).ints("perm", &[0, 0]);
    assert!(refusal(&one_node(node, &FREE).encode()).contains("`y (Transpose)` transposes by [0, 0]"));
}

#[test]
fn weights_beside_the_file_are_read_from_its_folder_alone() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let data: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(folder.join("weights"), &data).unwrap();
    std::fs::write(outer.path().join("weights"), &data).unwrap();
    let file = |location| {
        one_node(Node::new("Add", &["x", "b"], &["y"]), &FREE).external("b", &[4], location).encode()
    };
    let engine = TractEngine::load(&file("weights"), Some(&folder)).unwrap();
    let zeros = Tensor::new::<f32>(vec![1, 4], vec![0.0; 4]).unwrap();
    assert_eq!(run(&engine, zeros).unwrap()[0].as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    for location in ["../weights", "/etc/hostname", "sub", "missing", ""] {
        let error = TractEngine::load(&file(location), Some(&folder)).unwrap_err();
        assert!(matches!(error, EngineError::Load(_)), "{location}: {error}");
    }
    assert!(TractEngine::load(&file("weights"), None).is_err());
    let limits = Limits { weight_bytes: 15, ..LIMITS };
    assert!(
        TractEngine::load_within(Origin { folder: Some(&folder), ..from(&file("weights")) }, None, limits)
            .is_err()
    );
}

#[test]
fn an_output_without_an_axis_for_the_rows_is_refused() {
    let graph = Graph::default().input("x", Element::Float, &FREE);
    let graph = graph.node(Node::new("ReduceSum", &["x"], &["y"]).int("keepdims", 0));
    assert_eq!(
        refusal(&graph.output("y", Element::Float, &[]).encode()),
        "the network's output is not served: `y` is a single number; it needs the rows as leading axis"
    );
}
