//! The recurrent kernels in the place of tract's operators: they answer as stock tract does, in every
//! form that this processor runs.

use lepton_testkit::onnx::{Axis, Element, Graph, Node};

use super::{
    kernels::{in_form, relative, shipped},
    *,
};

fn has_plan_for_any_rows(engine: &TractEngine) -> bool {
    matches!(engine.network.plans, Plans::Many { any: Some(_), .. })
}

/// How far a form may be from stock tract, by the magnitude of what is answered. A factor in bf16 is
/// off by up to 1/512 of itself.
fn bound(form: Form) -> f32 {
    match form.precision() {
        Precision::F32 => 1e-5,
        Precision::Bf16 => 5e-3,
    }
}

/// Numbers of words 1..`n_words`.
fn sentences(seed: u64, n_words: usize, n: usize, length: usize) -> Tensor {
    let id = |x: f32| 1 + ((x + 0.5) * (n_words - 1) as f32) as i64;
    let ids = noise(seed, n * length).into_iter().map(id).collect();
    Tensor::new::<i64>(vec![n, length], ids).unwrap()
}

#[test]
fn the_shipped_sentiment_network_answers_as_stock_tract_does() {
    let bytes = shipped("sentiment");
    let stock = in_form(&bytes, None);
    assert!(!has_plan_for_any_rows(&stock));
    for form in Form::all() {
        let engine = in_form(&bytes, Some(form));
        assert!(has_plan_for_any_rows(&engine), "{form}");
        for (n, length) in [(1, 1), (2, 3), (1, 9), (4, 9), (7, 18), (32, 5), (33, 2), (1, 113)] {
            let batch = sentences(length as u64, 12_288, n, length);
            let (found, expected) = (run(&engine, batch.clone()).unwrap(), run(&stock, batch).unwrap());
            let far = relative(&found, &expected);
            assert!(far <= bound(form), "{form}: {n} rows of {length}: {far}");
        }
    }
}

#[test]
fn a_sentence_alone_equals_the_sentence_in_any_batch() {
    let bytes = shipped("sentiment");
    for form in Form::all() {
        let engine = in_form(&bytes, Some(form));
        for n in [2, 3, 8, 13, 32] {
            assert!(distance_alone(&engine, &sentences(3, 12_288, n, 11)) <= 1e-5, "{form}: {n} rows");
        }
    }
}

#[test]
fn a_word_that_is_not_in_the_vocabulary_is_an_error_and_the_next_text_is_answered() {
    let engine = load(&recurrent(Cell::Gru, SMALL));
    for bad in [16, 1 << 40, i64::MIN, -17] {
        assert!(matches!(run(&engine, ids(&[1, bad, 2])), Err(EngineError::Run(_))), "{bad}");
    }
    // ONNX counts numbers below zero from the end.
    assert_eq!(run(&engine, ids(&[1, -1, 2])).unwrap(), run(&engine, ids(&[1, 15, 2])).unwrap());
}

/// What a recurrence of the file looks like.
#[derive(Debug, Clone, Copy)]
struct Shape {
    operator: &'static str,
    direction: &'static str,
    /// Of `y`, `last` and `memory`.
    outputs: &'static [&'static str],
    with_bias: bool,
    /// States and memories to begin with.
    begin: &'static [&'static str],
    linear_before_reset: i64,
}

const GRU: Shape = Shape {
    operator: "GRU",
    direction: "forward",
    outputs: &["y", "last"],
    with_bias: true,
    begin: &["h0"],
    linear_before_reset: 1,
};

const LSTM: Shape =
    Shape { operator: "LSTM", outputs: &["y", "last", "memory"], begin: &["h0", "c0"], ..GRU };

impl Shape {
    fn n_directions(self) -> i64 {
        if self.direction == "bidirectional" { 2 } else { 1 }
    }

    fn node(self) -> Node {
        let bias = if self.with_bias { "b" } else { "" };
        let inputs = [&["x", "w", "r", bias, ""], self.begin].concat();
        let inputs = if self.begin.is_empty() { &inputs[..4] } else { &inputs };
        let node = Node::new(self.operator, inputs, self.outputs).int("hidden_size", 6);
        let node = node.text("direction", self.direction);
        match self.operator {
            "GRU" => node.int("linear_before_reset", self.linear_before_reset),
            _ => node,
        }
    }

    /// `rows` f32 [batch, length, 5] through the recurrence of 6 units; the answers are transposed so
    /// that the rows lead.
    fn network(self) -> Vec<u8> {
        self.through(self.node())
    }

    fn through(self, node: Node) -> Vec<u8> {
        let (d, n) = (self.n_directions(), |n: i64| n as usize);
        let gates = match self.operator {
            "LSTM" => 24,
            "GRU" => 18,
            _ => 6,
        };
        let mut graph = Graph::default()
            .input("rows", Element::Float, &[Axis::Named("batch"), Axis::Named("length"), Axis::Of(5)])
            .floats("w", &[d, gates, 5], &noise(1, n(d * gates * 5)))
            .floats("r", &[d, gates, 6], &noise(2, n(d * gates * 6)))
            .node(Node::new("Transpose", &["rows"], &["x"]).ints("perm", &[1, 0, 2]));
        if self.with_bias {
            graph = graph.floats("b", &[d, 2 * gates], &noise(3, n(d * 2 * gates)));
        }
        if !self.begin.is_empty() {
            graph = graph
                .longs("zero", &[1], &[0])
                .longs("one", &[1], &[1])
                .longs("directions", &[1], &[d])
                .longs("state", &[1], &[6])
                .node(Node::new("Shape", &["rows"], &["shape"]))
                .node(Node::new("Slice", &["shape", "zero", "one"], &["n_rows"]))
                .node(Node::new("Concat", &["directions", "n_rows", "state"], &["begin"]).int("axis", 0));
        }
        for (seed, name) in self.begin.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            // One state for each direction, the same for all rows.
            let values = [*name, "_of_all"].concat();
            graph = graph.floats(&values, &[d, 1, 6], &noise(5 + seed as u64, n(d * 6))).node(Node::new(
                "Expand",
                &[&values, "begin"],
                &[name],
            ));
        }
        graph = graph.node(node);
        let batch = Axis::Named("batch");
        for name in self.outputs.iter().filter(|name| !name.is_empty()) {
            let rows = [*name, "_rows"].concat();
            let node = Node::new("Transpose", &[name], &[&rows]);
            graph = if *name == "y" {
                let axes = [batch, Axis::Named("length"), Axis::Of(d), Axis::Of(6)];
                graph.node(node.ints("perm", &[2, 0, 1, 3])).output(&rows, Element::Float, &axes)
            } else {
                let axes = [batch, Axis::Of(d), Axis::Of(6)];
                graph.node(node.ints("perm", &[1, 0, 2])).output(&rows, Element::Float, &axes)
            };
        }
        graph.encode()
    }
}

/// Rows of vectors of 5 numbers.
fn vectors(n: usize, length: usize) -> Tensor {
    Tensor::new::<f32>(vec![n, length, 5], noise(7, n * length * 5)).unwrap()
}

#[test]
fn every_shape_of_a_recurrence_answers_as_stock_tract_does() {
    for direction in ["forward", "reverse", "bidirectional"] {
        let shapes = [
            GRU,
            Shape { with_bias: false, ..GRU },
            Shape { begin: &[], ..GRU },
            Shape { begin: &[], outputs: &["y"], ..GRU },
            Shape { outputs: &["", "last"], ..GRU },
            LSTM,
            Shape { with_bias: false, ..LSTM },
            Shape { begin: &[], ..LSTM },
            Shape { begin: &["h0"], ..LSTM },
            Shape { begin: &["", "c0"], ..LSTM },
            Shape { outputs: &["y"], ..LSTM },
            Shape { outputs: &["", "last"], ..LSTM },
            Shape { outputs: &["", "", "memory"], ..LSTM },
        ];
        for shape in shapes.map(|shape| Shape { direction, ..shape }) {
            let bytes = shape.network();
            let stock = in_form(&bytes, None);
            for form in Form::all() {
                let engine = in_form(&bytes, Some(form));
                assert!(has_plan_for_any_rows(&engine), "{form}: {shape:?}");
                for (n, length) in [(1, 1), (3, 2), (1, 4), (5, 7), (9, 3)] {
                    let batch = vectors(n, length);
                    let (found, expected) =
                        (run(&engine, batch.clone()).unwrap(), run(&stock, batch).unwrap());
                    let far = relative(&found, &expected);
                    assert!(far <= bound(form), "{form}: {n} of {length}, {shape:?}: {far}");
                }
            }
        }
    }
}

#[test]
fn a_recurrence_that_the_kernel_does_not_know_stays_as_it_is() {
    for bytes in [Shape { linear_before_reset: 0, ..GRU }.network(), RNN.network()] {
        let (engine, stock) = (load(&bytes), in_form(&bytes, None));
        assert!(!has_plan_for_any_rows(&engine));
        assert_eq!(run(&engine, vectors(2, 5)).unwrap(), run(&stock, vectors(2, 5)).unwrap());
    }
}

const RNN: Shape = Shape { operator: "RNN", ..GRU };

/// The steps of each row in the opposite order.
fn turned(rows: &Tensor) -> Tensor {
    let (length, shape) = (rows.shape()[1], rows.shape().to_vec());
    let n_per_step: usize = shape[2..].iter().product();
    let rows = rows.as_slice::<f32>().unwrap().chunks_exact(length * n_per_step);
    let data = rows.flat_map(|row| row.chunks_exact(n_per_step).rev().flatten().copied());
    Tensor::new::<f32>(shape, data.collect()).unwrap()
}

/// tract leaves the attribute unread: it would answer as if the steps were read forward.
#[test]
fn a_reversed_recurrence_answers_as_a_forward_one_on_turned_steps() {
    let late = Shape { linear_before_reset: 0, ..GRU };
    for shape in [GRU, Shape { begin: &[], ..GRU }, late, LSTM, RNN, Shape { with_bias: false, ..RNN }] {
        let reversed = Shape { direction: "reverse", ..shape }.network();
        for form in Form::all().into_iter().map(Some).chain([None]) {
            let (forward, reversed) = (in_form(&shape.network(), form), in_form(&reversed, form));
            for (n, length) in [(1, 1), (2, 5), (5, 4)] {
                let batch = vectors(n, length);
                let mut expected = run(&forward, turned(&batch)).unwrap();
                expected[0] = turned(&expected[0]);
                let found = run(&reversed, batch.clone()).unwrap();
                assert!(relative(&found, &expected) <= 1e-6, "{form:?}: {n} of {length}, {shape:?}");
                let unread = run(&forward, batch).unwrap();
                assert!(length == 1 || relative(&unread, &expected) > 1e-2, "{shape:?} must tell them apart");
            }
        }
    }
}

/// h' = tanh(x + h) over 1 and 0: read backwards, 0 leaves nothing behind for 1 to add to.
#[test]
fn a_reversed_recurrence_of_one_number_answers_as_by_hand() {
    let axes = [Axis::Named("batch"), Axis::Named("length"), Axis::Of(1)];
    let answers = |direction: &str| {
        let graph = Graph::default().input("rows", Element::Float, &axes).floats("one", &[1, 1, 1], &[1.0]);
        let node = Node::new("RNN", &["x", "one", "one"], &["y"]).int("hidden_size", 1);
        let graph = graph
            .node(Node::new("Transpose", &["rows"], &["x"]).ints("perm", &[1, 0, 2]))
            .node(node.text("direction", direction))
            .longs("axis", &[1], &[1])
            .node(Node::new("Squeeze", &["y", "axis"], &["states"]))
            .node(Node::new("Transpose", &["states"], &["z"]).ints("perm", &[1, 0, 2]));
        let engine = load(&graph.output("z", Element::Float, &axes).encode());
        let batch = Tensor::new::<f32>(vec![1, 2, 1], vec![1.0, 0.0]).unwrap();
        run(&engine, batch).unwrap()[0].as_slice::<f32>().unwrap().to_vec()
    };
    let near = |found: &[f32], expected: [f32; 2]| {
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= 1e-6)
    };
    assert!(near(&answers("forward"), [0.761_594_2, 0.642_014_9]));
    assert!(near(&answers("reverse"), [0.761_594_2, 0.0]));
}

#[test]
fn what_a_recurrence_says_that_is_not_served_is_named() {
    let refusal =
        |shape: Shape, node: Node| TractEngine::load(&shape.through(node), None).unwrap_err().to_string();
    let prefix = "the network's operator's attribute is not served: ";
    let usual = LSTM.node().texts("activations", &["sigmoid", "Tanh", "Tanh"]);
    assert!(TractEngine::load(&LSTM.through(usual), None).is_ok());
    let cases = [
        (RNN, RNN.node().texts("activations", &["Relu"]), "activations Relu of RNN `y`"),
        (
            LSTM,
            LSTM.node().texts("activations", &["Sigmoid", "Relu", "Tanh"]),
            "activations Sigmoid, Relu, Tanh of LSTM `y`",
        ),
        (LSTM, LSTM.node().int("clip", 3), "clip of LSTM `y`"),
        (LSTM, LSTM.node().int("input_forget", 1), "input_forget of LSTM `y`"),
        (GRU, Shape { direction: "upwards", ..GRU }.node(), "direction upwards of GRU `y`"),
        (
            GRU,
            Shape { direction: "reverse", ..GRU }.node().int("layout", 1),
            "layout 1 and another direction than forward of GRU `y`",
        ),
    ];
    for (shape, node, expected) in cases {
        assert_eq!(refusal(shape, node), [prefix, expected].concat());
    }
}

#[test]
fn texts_through_an_lstm_answer_as_stock_tract_does() {
    let bytes = recurrent(Cell::Lstm, SMALL);
    let stock = in_form(&bytes, None);
    for form in Form::all() {
        let engine = in_form(&bytes, Some(form));
        assert!(has_plan_for_any_rows(&engine), "{form}");
        for (n, length) in [(1, 1), (4, 9), (33, 2), (3, 40)] {
            let batch = texts(length as u64, n, length);
            let (found, expected) = (run(&engine, batch.clone()).unwrap(), run(&stock, batch).unwrap());
            let far = relative(&found, &expected);
            assert!(far <= bound(form), "{form}: {n} rows of {length}: {far}");
        }
    }
}
