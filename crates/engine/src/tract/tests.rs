//! What the engine promises, on networks made by code.

use half::f16;
use lepton_testkit::onnx::{
    Axis, Cell, Element, Graph, Node, SMALL, Sizes, convolutional, noise, recurrent, recurrent_graph,
};
use proptest::prelude::*;
use tract_onnx::prelude::tvec;

use super::{
    plans::{MOST_PLANS, Plans},
    values::value_of,
    *,
};
use crate::{
    Dim,
    tensor::{DType, Tensor},
};

mod census;
mod kernels;
mod operators;
mod recurrent;
mod refused;
mod regions;
mod shared;
mod whole;

const SIDE: i64 = 8;

fn load(bytes: &[u8]) -> TractEngine {
    TractEngine::load(bytes, None).unwrap()
}

/// A file without a folder, whose leading axis is the rows.
fn from(bytes: &[u8]) -> Origin<'_> {
    Origin { bytes, folder: None, batching: Batching::Required }
}

fn refusal(bytes: &[u8]) -> String {
    TractEngine::load(bytes, None).unwrap_err().to_string()
}

fn run(engine: &TractEngine, input: Tensor) -> Result<Tensors, EngineError> {
    engine.open().unwrap().run(vec![input])
}

fn pictures(seed: u64, n: usize) -> Tensor {
    let side = SIDE as usize;
    Tensor::new::<f32>(vec![n, 1, side, side], noise(seed, n * side * side)).unwrap()
}

/// Rows of word ids, some of them padded at the end.
fn texts(seed: u64, n: usize, length: usize) -> Tensor {
    let words = SMALL.words as f32;
    let ids = noise(seed, n * length).into_iter().enumerate().map(|(i, x)| {
        let (row, position) = (i / length, i % length);
        if position >= length.saturating_sub(row % 3).max(1) {
            0
        } else {
            1 + ((x + 0.5) * (words - 1.0)) as i64
        }
    });
    Tensor::new::<i64>(vec![n, length], ids.collect()).unwrap()
}

fn ids(values: &[i64]) -> Tensor {
    Tensor::new::<i64>(vec![1, values.len()], values.to_vec()).unwrap()
}

/// The largest difference between two answers of one shape.
fn distance(one: &Tensor, other: &Tensor) -> f32 {
    assert_eq!(one.shape(), other.shape());
    let pairs = one.as_slice::<f32>().unwrap().iter().zip(other.as_slice::<f32>().unwrap());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Runs every row of `batch` alone, and says how far that is from its row in the batch.
fn distance_alone(engine: &TractEngine, batch: &Tensor) -> f32 {
    let n = batch.shape()[0];
    let together = run(engine, batch.clone()).unwrap()[0].split(n).unwrap();
    let rows = batch.split(n).unwrap();
    let alone =
        rows.iter().map(|row| run(engine, Tensor::stack([row].into_iter()).unwrap()).unwrap().remove(0));
    let alone = alone.map(|answer| answer.split(1).unwrap().remove(0));
    together.iter().zip(alone).map(|(one, other)| distance(one, &other)).fold(0.0, f32::max)
}

/// A recurrent network whose cells start from nothing that the file names.
fn recurrent_without_initial_state() -> Vec<u8> {
    Graph::default()
        .input("x", Element::Float, &[Axis::Named("batch"), Axis::Named("length"), Axis::Of(4)])
        .floats("w", &[1, 16, 4], &noise(1, 64))
        .floats("r", &[1, 16, 4], &noise(2, 64))
        .node(Node::new("Transpose", &["x"], &["by_step"]).ints("perm", &[1, 0, 2]))
        .node(Node::new("LSTM", &["by_step", "w", "r"], &["y", "last"]).int("hidden_size", 4))
        .longs("zero", &[1], &[0])
        .node(Node::new("Squeeze", &["last", "zero"], &["out"]))
        .output("out", Element::Float, &[Axis::Named("batch"), Axis::Of(4)])
        .encode()
}

/// `x` f32 [`axes`] through one operator to `y`.
fn one_node(node: Node, axes: &[Axis]) -> Graph {
    Graph::default().input("x", Element::Float, axes).node(node).output("y", Element::Float, axes)
}

const FREE: [Axis; 2] = [Axis::Named("batch"), Axis::Of(4)];

#[test]
fn the_signature_names_types_and_axes() {
    let engine = load(&recurrent(Cell::Gru, SMALL));
    let signature = engine.signature();
    assert_eq!(signature.inputs[0].name, "ids");
    assert_eq!(signature.inputs[0].describe(), "i64 [batch, length]");
    assert_eq!(signature.outputs[0].name, "logits");
    assert_eq!(signature.outputs[0].describe(), "f32 [batch, 2]");
    let engine = load(&convolutional(Axis::Of(1), SIDE));
    assert_eq!(engine.signature().inputs[0].describe(), "f32 [1, 1, 8, 8]");
}

#[test]
fn an_output_shape_that_the_file_gets_wrong_is_put_right() {
    let node = Node::new("GlobalAveragePool", &["x"], &["y"]);
    let axes = [Axis::Named("n"), Axis::Of(2), Axis::Of(4), Axis::Of(4)];
    let engine = load(&one_node(node, &axes).encode());
    assert_eq!(engine.signature().outputs[0].describe(), "f32 [n, 2, 1, 1]");
}

#[test]
fn a_network_of_one_row_runs_row_by_row() {
    let (fixed, free) =
        (load(&convolutional(Axis::Of(1), SIDE)), load(&convolutional(Axis::Named("n"), SIDE)));
    let batch = pictures(1, 3);
    let (one, other) = (run(&fixed, batch.clone()).unwrap(), run(&free, batch).unwrap());
    assert_eq!(one[0].shape(), [3, 3]);
    assert_eq!(distance(&one[0], &other[0]), 0.0);
}

/// Without this the next test would prove nothing: the fixture must be one that can leak.
#[test]
fn a_kept_state_would_leak_one_text_into_the_next() {
    let engine = TractEngine::load_with(&recurrent(Cell::Lstm, SMALL), None, None).unwrap();
    let plan = engine.network.next(1, &[vec![3]]).unwrap().1;
    let mut kept = plan.spawn().unwrap();
    let mut answer = || {
        let input = value_of(&ids(&[3, 7, 5])).unwrap();
        kept.run(tvec!(input)).unwrap()[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    };
    assert_ne!(answer(), answer());
}

#[test]
fn a_session_carries_nothing_from_one_text_to_the_next() {
    let forms = Form::all().into_iter().map(Some).chain([None]);
    for (cell, form) in forms.flat_map(|form| [(Cell::Gru, form), (Cell::Lstm, form)]) {
        let load = || TractEngine::load_with(&recurrent(cell, SMALL), None, form).unwrap();
        let engine = load();
        let (a, b) = (ids(&[3, 7, 5]), ids(&[1, 1, 9]));
        let fresh = |text: &Tensor| run(&load(), text.clone()).unwrap();
        let mut session = engine.open().unwrap();
        assert_ne!(fresh(&a), fresh(&b), "the texts must differ for {cell:?}");
        for text in [&a, &b, &a, &a] {
            assert_eq!(session.run(vec![text.clone()]).unwrap(), fresh(text), "{cell:?} in {form:?}");
        }
    }
}

#[test]
fn two_threads_at_once_get_the_answers_of_one() {
    let engine = load(&recurrent(Cell::Lstm, SMALL));
    let batches: Vec<Tensor> = (0..24).map(|i| texts(i, 1 + i as usize % 4, 5 + i as usize % 3)).collect();
    let answer = |engine: &TractEngine| -> Vec<Tensors> {
        let mut session = engine.open().unwrap();
        batches.iter().map(|batch| session.run(vec![batch.clone()]).unwrap()).collect()
    };
    let alone = answer(&load(&recurrent(Cell::Lstm, SMALL)));
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| answer(&engine)), scope.spawn(|| answer(&engine))];
        for thread in threads {
            assert_eq!(thread.join().unwrap(), alone);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn a_picture_alone_equals_the_picture_in_a_batch(seed: u64) {
        let engine = load(&convolutional(Axis::Named("batch"), SIDE));
        for n in 1..=9 {
            prop_assert!(distance_alone(&engine, &pictures(seed, n)) <= 1e-4, "{n} rows");
        }
    }

    #[test]
    fn a_text_alone_equals_the_text_in_a_batch(seed: u64, length in 1usize..20) {
        for cell in [Cell::Gru, Cell::Lstm] {
            let engine = load(&recurrent(cell, SMALL));
            for n in 1..=9 {
                prop_assert!(distance_alone(&engine, &texts(seed, n, length)) <= 1e-4, "{cell:?}, {n} rows");
            }
        }
    }

}

#[test]
fn a_recurrence_without_an_initial_state_of_its_own_starts_from_zero() {
    let engine = load(&recurrent_without_initial_state());
    for n in [1, 2, 5, 33] {
        let batch = Tensor::new::<f32>(vec![n, 3, 4], noise(n as u64, n * 12)).unwrap();
        assert!(distance_alone(&engine, &batch) <= 1e-4, "{n} rows");
    }
}

#[test]
fn a_file_with_contradicting_inner_shapes_loads() {
    let graph = recurrent_graph(Cell::Gru, SMALL)
        .inner("embedded", Element::Float, &[Axis::Named("s0"), Axis::Named("s1"), Axis::Of(SMALL.width)])
        .inner("mean", Element::Float, &[Axis::Named("s7"), Axis::Of(SMALL.state)]);
    let (plain, annotated) = (load(&recurrent(Cell::Gru, SMALL)), load(&graph.encode()));
    let batch = texts(1, 4, 6);
    assert_eq!(run(&plain, batch.clone()).unwrap(), run(&annotated, batch).unwrap());
}

#[test]
fn a_batch_that_does_not_fit_is_refused_with_both_sides() {
    let engine = load(&convolutional(Axis::Named("batch"), SIDE));
    let batch = |shape: &[usize]| {
        let tensor = Tensor::new::<f32>(shape, vec![0.0; shape.iter().product()]).unwrap();
        run(&engine, tensor).unwrap_err().to_string()
    };
    assert_eq!(
        batch(&[1, 1, 8, 9]),
        "the batch does not fit the network: `image` takes f32 [batch, 1, 8, 8], f32 [1, 1, 8, 9] was given"
    );
    assert!(batch(&[1, 64]).contains("f32 [1, 64] was given"));
    assert!(batch(&[0, 1, 8, 8]).contains("`image` has 0 rows"));
    assert!(batch(&[]).contains("f32 [] was given"));
    let bytes = Tensor::new::<u8>(vec![1, 1, 8, 8], vec![0; 64]).unwrap();
    assert!(run(&engine, bytes).unwrap_err().to_string().contains("u8 [1, 1, 8, 8] was given"));
    let none = engine.open().unwrap().run(vec![]).unwrap_err().to_string();
    assert!(none.contains("0 tensors were given for 1 inputs"));
    let empty = Tensor::new::<i64>(vec![1, 0], vec![]).unwrap();
    assert!(matches!(run(&load(&recurrent(Cell::Gru, SMALL)), empty), Err(EngineError::Batch(_))));
}

#[test]
fn outputs_whose_leading_axis_is_not_the_rows_are_refused() {
    let flat = |batch| {
        let axes = [batch, Axis::Of(4)];
        let graph = Graph::default().input("x", Element::Float, &axes).longs("all", &[1], &[-1]);
        let graph = graph.node(Node::new("Reshape", &["x", "all"], &["y"]));
        graph.output("y", Element::Float, &[Axis::Named("values")]).encode()
    };
    assert!(refusal(&flat(Axis::Of(1))).contains("[4] of `y` for one row"));
    let input = Tensor::new::<f32>(vec![2, 4], vec![0.0; 8]).unwrap();
    let error = run(&load(&flat(Axis::Named("batch"))), input).unwrap_err();
    assert_eq!(error.to_string(), "the network failed: an output has 4 rows for a run of 1");
}

#[test]
fn more_lengths_than_plans_are_kept_are_still_answered() {
    let engine = load(&recurrent(Cell::Gru, SMALL));
    let mut session = engine.open().unwrap();
    let mut answers = || -> Vec<Tensors> {
        (1..=MOST_PLANS + 2).map(|length| session.run(vec![texts(1, 1, length)]).unwrap()).collect()
    };
    assert_eq!(answers(), answers());
}

#[test]
fn numbers_that_are_not_finite_pass_through() {
    let engine = load(&one_node(Node::new("Sqrt", &["x"], &["y"]), &FREE).encode());
    let input = Tensor::new::<f32>(vec![1, 4], vec![-1.0, 4.0, f32::INFINITY, f32::NAN]).unwrap();
    let answer = run(&engine, input).unwrap();
    let answer = answer[0].as_slice::<f32>().unwrap();
    assert!(answer[0].is_nan() && answer[1] == 2.0 && answer[2] == f32::INFINITY && answer[3].is_nan());
}

#[test]
fn every_served_type_goes_in_and_comes_out() {
    let shape = [2, 1];
    let cases = [
        (Element::Bool, Tensor::new(shape, vec![true, false])),
        (Element::Byte, Tensor::new(shape, vec![0u8, 255])),
        (Element::UnsignedShort, Tensor::new(shape, vec![0u16, 1 << 15])),
        (Element::UnsignedInt, Tensor::new(shape, vec![0u32, 1 << 31])),
        (Element::UnsignedLong, Tensor::new(shape, vec![0u64, 1 << 63])),
        (Element::SignedByte, Tensor::new(shape, vec![1i8, -2])),
        (Element::Short, Tensor::new(shape, vec![1i16 << 14, -2])),
        (Element::Int, Tensor::new(shape, vec![1i32 << 20, -2])),
        (Element::Long, Tensor::new(shape, vec![1i64 << 40, -2])),
        (Element::Half, Tensor::new(shape, vec![f16::from_f32(1.5), f16::NEG_INFINITY])),
        (Element::Float, Tensor::new(shape, vec![1.5f32, -2.0])),
        (Element::Double, Tensor::new(shape, vec![1.0f64 / 3.0, -2.0])),
        (Element::Text, Tensor::of_strings(shape, &["", "na\u{ef}ve"])),
    ];
    assert_eq!(cases.len(), DType::ALL.len() - 1, "tract has all but bf16");
    for (element, input) in cases {
        let axes = [Axis::Named("batch"), Axis::Of(1)];
        let graph = Graph::default().input("x", element, &axes).node(Node::new("Identity", &["x"], &["y"]));
        let engine = load(&graph.output("y", element, &axes).encode());
        let input = input.unwrap();
        assert_eq!(run(&engine, input.clone()).unwrap(), [input], "{element:?}");
    }
}

#[test]
fn an_output_of_another_type_than_declared_is_an_error() {
    let graph = Graph::default().input("x", Element::Float, &FREE).node(Node::new("Relu", &["x"], &["y"]));
    let engine = load(&graph.output("y", Element::Long, &FREE).encode());
    assert_eq!(engine.signature().outputs[0].dtype, DType::I64);
    let input = Tensor::new::<f32>(vec![1, 4], vec![0.0; 4]).unwrap();
    assert!(matches!(run(&engine, input), Err(EngineError::Run(_))));
}

#[test]
fn a_larger_network_than_the_fixture_keeps_its_promises_too() {
    let engine = load(&recurrent(Cell::Gru, Sizes { words: 16, width: 32, state: 64 }));
    assert!(distance_alone(&engine, &texts(5, 7, 12)) <= 1e-4);
}
