//! Folders with real networks, loaded and asked: what the files say reaches the scores.

use lepton_testkit::{
    onnx::{Axis, Element, Graph, Node, noise},
    pictures, tokenizers,
};

use super::*;
use crate::{
    engine::run_rows,
    tasks::{Input, Output, Ranked},
};

const BATCH: Axis = Axis::Named("batch");
const LENGTH: Axis = Axis::Named("length");
const LIMITS: TaskOptions =
    TaskOptions { image: ImageLimits { pixels: 1 << 20, side: 1024, memory: 1 << 28 } };

/// A folder called `m` with these files, loaded.
pub(super) fn loaded(files: &[(&str, &[u8])]) -> Result<Loaded, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join("m").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let found = scan(dir.path(), LIMITS).map_err(|error| error.to_string())?.remove(0);
    (found.declared.load)()
}

fn ranked(loaded: &Loaded, input: Input) -> Ranked {
    let prepared = loaded.task.preprocess(input).unwrap();
    let mut session = loaded.engine.open().unwrap();
    let outputs = run_rows(session.as_mut(), &[&prepared.row]).unwrap().remove(0);
    match loaded.task.postprocess(outputs, &prepared.context).unwrap().output {
        Output::Classes(ranked) => ranked,
        other => panic!("{other:?}"),
    }
}

/// The scores in the labels' order.
fn scores(ranked: &Ranked) -> Vec<(String, f32)> {
    let mut scores: Vec<(String, f32)> =
        ranked.scores.iter().map(|scored| (scored.label.to_string(), scored.score)).collect();
    scores.sort_by(|a, b| a.0.cmp(&b.0));
    scores
}

/// A picture of 8 x 8 in colours as `pixel_values`, a matrix, and what comes after it.
fn picture_graph(axes: [Axis; 3], n: i64) -> Graph {
    Graph::default()
        .input("pixel_values", Element::Float, &[BATCH, axes[0], axes[1], axes[2]])
        .floats("w", &[192, n], &noise(3, 192 * n as usize))
        .node(Node::new("Flatten", &["planes"], &["flat"]))
        .node(Node::new("MatMul", &["flat", "w"], &["product"]))
}

fn ended(graph: Graph, last: &str, n: i64) -> Vec<u8> {
    graph
        .node(Node::new(last, &["product"], &["logits"]))
        .output("logits", Element::Float, &[BATCH, Axis::Of(n)])
        .encode()
}

const NCHW: [Axis; 3] = [Axis::Of(3), Axis::Of(8), Axis::Of(8)];

fn plain(last: &str, n: i64) -> Vec<u8> {
    ended(picture_graph(NCHW, n).node(Node::new("Identity", &["pixel_values"], &["planes"])), last, n)
}

const VIT: &[u8] = br#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}"#;
const THREE: &[u8] = br#"{"model_type": "vit", "id2label": {"0": "a", "1": "b", "2": "c"}}"#;

fn of_picture(config: &[u8], preprocessor: &[u8], network: &[u8]) -> Result<Ranked, String> {
    let files =
        [("config.json", config), ("preprocessor_config.json", preprocessor), ("model.onnx", network)];
    let loaded = loaded(&files)?;
    Ok(ranked(&loaded, Input::image(pictures::png(&pictures::smooth(31, 20)))))
}

fn close(one: &Ranked, other: &Ranked) {
    for ((label, score), (same, expected)) in scores(one).iter().zip(scores(other)) {
        assert!(*label == same && (score - expected).abs() < 1e-5, "{label} {score}, {same} {expected}");
    }
}

#[test]
fn a_network_that_ends_in_probabilities_is_not_squashed_again() {
    let logits = of_picture(THREE, VIT, &plain("Identity", 3)).unwrap();
    for last in ["Softmax", "LogSoftmax"] {
        close(&of_picture(THREE, VIT, &plain(last, 3)).unwrap(), &logits);
    }
    let several =
        br#"{"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "multi_label_classification"}"#;
    let logits = of_picture(several, VIT, &plain("Identity", 3)).unwrap();
    let sum: f32 = logits.scores.iter().map(|scored| scored.score).sum();
    assert!((sum - 1.0).abs() > 0.01, "{logits:?}");
    assert_eq!(logits.found, Some(logits.scores.iter().filter(|scored| scored.score >= 0.5).count()));
    close(&of_picture(several, VIT, &plain("Sigmoid", 3)).unwrap(), &logits);
}

#[test]
fn one_logit_is_a_sigmoid_and_a_regression_a_number() {
    let one = br#"{"id2label": {"0": "a"}}"#;
    let value =
        of_picture(br#"{"id2label": {"0": "a"}, "problem_type": "regression"}"#, VIT, &plain("Identity", 1))
            .unwrap();
    let score = of_picture(one, VIT, &plain("Identity", 1)).unwrap();
    let expected = 1.0 / (1.0 + (-value.scores[0].score).exp());
    assert!((score.scores[0].score - expected).abs() < 1e-6, "{value:?} {score:?}");
    close(&of_picture(one, VIT, &plain("Sigmoid", 1)).unwrap(), &score);
}

#[test]
fn the_layout_and_the_type_of_the_input_change_no_answer() {
    let raw: &[u8] = br#"{"image_processor_type": "ViTImageProcessor", "size": 8, "do_rescale": false, "do_normalize": false}"#;
    let behind = picture_graph([Axis::Of(8), Axis::Of(8), Axis::Of(3)], 3)
        .node(Node::new("Transpose", &["pixel_values"], &["planes"]).ints("perm", &[0, 3, 1, 2]));
    let first = of_picture(THREE, VIT, &plain("Identity", 3)).unwrap();
    close(&of_picture(THREE, VIT, &ended(behind, "Identity", 3)).unwrap(), &first);
    let scaled = |graph: Graph, name: &str| {
        graph.floats("small", &[], &[0.01]).node(Node::new("Mul", &[name, "small"], &["planes"]))
    };
    let floats = ended(scaled(picture_graph(NCHW, 3), "pixel_values"), "Identity", 3);
    let bytes = Graph::default()
        .input("pixel_values", Element::Byte, &[BATCH, Axis::Of(3), Axis::Of(8), Axis::Of(8)])
        .floats("w", &[192, 3], &noise(3, 192 * 3))
        .node(Node::new("Cast", &["pixel_values"], &["cast"]).int("to", Element::Float as i64))
        .node(Node::new("Flatten", &["planes"], &["flat"]))
        .node(Node::new("MatMul", &["flat", "w"], &["product"]));
    let bytes = ended(scaled(bytes, "cast"), "Identity", 3);
    close(&of_picture(THREE, raw, &bytes).unwrap(), &of_picture(THREE, raw, &floats).unwrap());
    assert!(
        of_picture(THREE, VIT, &bytes).unwrap_err().contains("expected do_rescale and do_normalize false")
    );
}

#[test]
fn labels_that_read_the_same_are_told_apart() {
    let cranes = br#"{"id2label": {"0": "crane", "1": "tank", "2": "crane"}}"#;
    let ranked = of_picture(cranes, VIT, &plain("Identity", 3)).unwrap();
    let mut numbers: Vec<(u32, &str)> =
        ranked.scores.iter().map(|scored| (scored.index.unwrap(), &*scored.label)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [(0, "crane"), (1, "tank"), (2, "crane")]);
}

/// Word vectors through a convolution of that width, the greatest of each channel, a matrix.
fn window(width: i64, extra: &[&str]) -> Vec<u8> {
    let mut graph = Graph::default().input("ids", Element::Long, &[BATCH, LENGTH]);
    for name in extra {
        graph = graph.input(name, Element::Long, &[BATCH, LENGTH]);
    }
    graph
        .floats("words", &[12, 4], &noise(1, 48))
        .floats("w", &[6, 4, width], &noise(2, 24 * width as usize))
        .floats("out", &[6, 2], &noise(3, 12))
        .node(Node::new("Gather", &["words", "ids"], &["e"]))
        .node(Node::new("Transpose", &["e"], &["t"]).ints("perm", &[0, 2, 1]))
        .node(Node::new("Conv", &["t", "w"], &["c"]))
        .node(Node::new("GlobalMaxPool", &["c"], &["g"]))
        .node(Node::new("Flatten", &["g"], &["f"]))
        .node(Node::new("MatMul", &["f", "out"], &["logits"]))
        .output("logits", Element::Float, &[BATCH, Axis::Of(2)])
        .encode()
}

#[test]
fn texts_shorter_than_a_window_are_refused_or_padded() {
    let toml = |more: &str| {
        format!("[task.text-classification]\nlabels = ['a', 'b']\nmax_tokens = 16\nids = 'ids'\n{more}")
    };
    let load = |toml: &str, network: &[u8]| {
        let tokenizer = tokenizers::plain();
        loaded(&[
            ("model.toml", toml.as_bytes()),
            ("tokenizer.json", tokenizer.as_bytes()),
            ("1/model.onnx", network),
        ])
    };
    let Err(error) = load(&toml(""), &window(5, &[])) else { panic!("a window of 5 over 1 token") };
    assert!(error.contains("slides a window over less than it is wide"), "{error}");
    assert!(error.contains("min_tokens in a model.toml"), "{error}");
    let padded = load(&toml("min_tokens = 5\n"), &window(5, &[])).unwrap();
    for text in ["good", "good bad film very good film good"] {
        let scores = scores(&ranked(&padded, Input::text(text)));
        assert!(scores.iter().all(|(_, score)| (0.01..0.99).contains(score)), "{scores:?}");
    }
    let Err(error) = load(&toml(""), &window(1, &["mask"])) else { panic!("nothing fills the mask") };
    assert!(error.starts_with("model.toml: the network also takes \"mask\""), "{error}");
}

#[test]
fn a_vocabulary_and_a_quantised_file_are_a_model() {
    // What is read is the name: the network in it may be any.
    let network = Graph::default()
        .input("input_ids", Element::Long, &[BATCH, LENGTH])
        .input("attention_mask", Element::Long, &[BATCH, LENGTH])
        .input("token_type_ids", Element::Int, &[BATCH, LENGTH])
        .floats("words", &[12, 2], &noise(1, 24))
        .longs("one", &[1], &[1])
        .longs("two", &[1], &[2])
        .node(Node::new("Gather", &["words", "input_ids"], &["e"]))
        .node(Node::new("Cast", &["token_type_ids"], &["types"]).int("to", Element::Float as i64))
        .node(Node::new("Cast", &["attention_mask"], &["m"]).int("to", Element::Float as i64))
        .node(Node::new("Add", &["m", "types"], &["sum"]))
        .node(Node::new("Unsqueeze", &["sum", "two"], &["weights"]))
        .node(Node::new("Mul", &["e", "weights"], &["kept"]))
        .node(Node::new("ReduceSum", &["kept", "one"], &["logits"]).int("keepdims", 0))
        .output("e", Element::Float, &[BATCH, LENGTH, Axis::Of(2)])
        .output("logits", Element::Float, &[BATCH, Axis::Named("labels")])
        .encode();
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nbad\n";
    let loaded = loaded(&[
        ("config.json", br#"{"model_type": "bert", "x": NaN}"#),
        ("vocab.txt", vocabulary.as_bytes()),
        ("onnx/model_quantized.onnx", &network),
    ])
    .unwrap();
    let found = scores(&ranked(&loaded, Input::text("Good bad")));
    let words = noise(1, 24);
    let logit = |label: usize| [2, 4, 5, 3].map(|id: usize| words[id * 2 + label]).iter().sum::<f32>();
    let expected = 1.0 / (1.0 + (logit(1) - logit(0)).exp());
    assert_eq!(found[0].0, "LABEL_0");
    assert!((found[0].1 - expected).abs() < 1e-5, "{found:?} {expected}");
}

#[test]
fn a_network_that_cannot_tell_padding_from_text_is_refused() {
    let network = |real: &str| {
        Graph::default()
            .input("input_ids", Element::Long, &[BATCH, LENGTH])
            .floats("words", &[12, 2], &noise(1, 24))
            .longs("zero", &[], &[0])
            .longs("one", &[1], &[1])
            .longs("two", &[1], &[2])
            .node(Node::new("Gather", &["words", "input_ids"], &["e"]))
            .node(Node::new("Equal", &["input_ids", "zero"], &["padding"]))
            .node(Node::new("Equal", &["input_ids", "input_ids"], &["all"]))
            .node(Node::new("Not", &["padding"], &["words_only"]))
            .node(Node::new("Cast", &[real], &["m"]).int("to", Element::Float as i64))
            .node(Node::new("Unsqueeze", &["m", "two"], &["weights"]))
            .node(Node::new("Mul", &["e", "weights"], &["kept"]))
            .node(Node::new("ReduceSum", &["kept", "one"], &["logits"]).int("keepdims", 0))
            .output("logits", Element::Float, &[BATCH, Axis::Of(2)])
            .encode()
    };
    let load = |network: &[u8]| {
        let tokenizer = tokenizers::plain();
        loaded(&[("config.json", b"{}"), ("tokenizer.json", tokenizer.as_bytes()), ("model.onnx", network)])
    };
    assert!(load(&network("words_only")).is_ok());
    let Err(error) = load(&network("all")) else { panic!("padding counts") };
    assert!(error.contains("answers change where a text is padded"), "{error}");
}
