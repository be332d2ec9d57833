//! Networks without a task: which axis the file calls the rows, and tensors that run as they are.

use std::path::Path;

use super::*;
use crate::{LoadOptions, load as load_artifact, run_rows};

const TIME: [Axis; 2] = [Axis::Named("time"), Axis::Of(2)];

fn declared(bytes: &[u8]) -> Arc<dyn Engine> {
    let artifact = Artifact { file: Path::new("1/model.onnx"), bytes, folder: None };
    let options = LoadOptions { batching: Batching::Declared, ..LoadOptions::default() };
    load_artifact(&artifact, options).unwrap()
}

/// A network that adds up its first axis.
fn sums(axes: &[Axis], output: &[Axis]) -> Vec<u8> {
    let sum = Node::new("ReduceSum", &["x", "axes"], &["y"]).int("keepdims", 1);
    let graph = Graph::default().input("x", Element::Float, axes).longs("axes", &[1], &[0]).node(sum);
    graph.output("y", Element::Float, output).encode()
}

fn relu(axes: &[Axis], output: &[Axis]) -> Vec<u8> {
    let graph = Graph::default().input("x", Element::Float, axes).node(Node::new("Relu", &["x"], &["y"]));
    graph.output("y", Element::Float, output).encode()
}

fn axes_of(engine: &dyn Engine) -> [Option<usize>; 2] {
    let signature = engine.signature();
    [signature.inputs[0].batch_axis, signature.outputs[0].batch_axis]
}

#[test]
fn rows_are_the_axis_that_the_file_calls_a_batch_or_fixes_to_one() {
    let named = |name| [Axis::Named(name), Axis::Of(2)];
    for name in ["batch", "batch_size", "N"] {
        assert_eq!(axes_of(&*declared(&relu(&named(name), &named(name)))), [Some(0); 2], "{name}");
    }
    let one = [Axis::Of(1), Axis::Of(2)];
    assert_eq!(axes_of(&*declared(&relu(&one, &one))), [Some(0); 2]);
    for (input, output) in [
        (named("time"), named("time")),
        (named("batch"), named("batch_too")),
        (named("batch"), one),
        ([Axis::Of(3), Axis::Of(2)], [Axis::Of(3), Axis::Of(2)]),
    ] {
        let engine = declared(&relu(&input, &output));
        assert_eq!(axes_of(&*engine), [None; 2], "{input:?}");
        assert!(!engine.open().unwrap().stacks_rows());
    }
}

#[test]
fn an_axis_of_time_is_never_cut() {
    let engine = declared(&sums(&TIME, &[Axis::Of(1), Axis::Of(2)]));
    let mut session = engine.open().unwrap();
    for n in [1, 5, 9] {
        let input = Tensor::new([n, 2], (0..2 * n).map(|i| i as f32).collect()).unwrap();
        let output = session.run(vec![input]).unwrap();
        let expected = [(0..n).map(|i| 2.0 * i as f32).sum(), (0..n).map(|i| 2.0 * i as f32 + 1.0).sum()];
        assert_eq!((output[0].shape(), output[0].as_slice::<f32>().unwrap()), (&[1, 2][..], &expected[..]));
    }
}

#[test]
fn rows_of_a_network_without_an_axis_for_them_run_one_by_one() {
    let engine = declared(&sums(&TIME, &[Axis::Of(1), Axis::Of(2)]));
    let rows = [[1.0f32, 2.0, 3.0, 4.0].to_vec(), [5.0f32, 6.0].to_vec()];
    let rows = rows.map(|row| vec![Tensor::new([row.len() / 2, 2], row).unwrap()]);
    let answers = run_rows(&mut *engine.open().unwrap(), &[&rows[0], &rows[1]]).unwrap();
    let sums: Vec<&[f32]> = answers.iter().map(|answer| answer[0].as_slice().unwrap()).collect();
    assert_eq!(sums, [[4.0, 6.0], [5.0, 6.0]]);
}

#[test]
fn a_single_number_goes_in_and_comes_out() {
    let graph = Graph::default()
        .input("x", Element::Float, &[])
        .input("by", Element::Float, &[Axis::Of(3)])
        .node(Node::new("Mul", &["x", "by"], &["scaled"]))
        .node(Node::new("ReduceSum", &["scaled"], &["sum"]).int("keepdims", 0));
    let graph = graph.output("scaled", Element::Float, &[Axis::Of(3)]).output("sum", Element::Float, &[]);
    let bytes = graph.encode();
    assert!(refusal(&bytes).contains("needs the rows as leading axis"), "a task cannot have it");
    let mut session = declared(&bytes).open().unwrap();
    let number = Tensor::new([0usize; 0], vec![2.0f32]).unwrap();
    let by = Tensor::new([3], vec![1.0f32, 2.0, 3.0]).unwrap();
    let outputs = session.run(vec![number.clone(), by]).unwrap();
    assert_eq!(outputs[0].as_slice::<f32>().unwrap(), [2.0, 4.0, 6.0]);
    assert_eq!((outputs[1].shape(), outputs[1].as_slice::<f32>().unwrap()), (&[][..], &[12.0][..]));
    let short = Tensor::new([2], vec![1.0f32, 2.0]).unwrap();
    let error = session.run(vec![number, short]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the batch does not fit the network: `by` takes f32 [3], f32 [2] was given"
    );
}

#[test]
fn the_outputs_of_a_network_of_one_shape_are_known_at_load() {
    let axes = [Axis::Of(3), Axis::Of(2)];
    let engine = declared(&sums(&axes, &[Axis::Named("some"), Axis::Named("other")]));
    assert_eq!(engine.signature().outputs[0].shape, [Dim::Fixed(1), Dim::Fixed(2)]);
}
