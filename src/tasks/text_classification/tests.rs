//! A small tokenizer and networks of no work, asked about texts.

use lepton_testkit::tokenizers;

use super::*;
use crate::{
    engine::{Dim, Port, Signature},
    image::ImageLimits,
    tasks::{Input, Supported, TaskOptions, Truncated},
    tensor::{DType, Tensor},
};

fn port(name: &str, dtype: DType, shape: &[Dim]) -> Port {
    Port { name: name.to_owned(), dtype, shape: shape.to_vec(), batch_axis: Some(0) }
}

fn free(name: &str) -> Dim {
    Dim::Free(name.to_owned())
}

/// The manifest's order of inputs is not the network's.
fn signature() -> Signature {
    let shape = [free("batch"), free("length")];
    Signature {
        inputs: vec![
            port("mask", DType::F32, &shape),
            port("ids", DType::I64, &shape),
            port("reversed", DType::I32, &shape),
        ],
        outputs: vec![port("logits", DType::F32, &[free("batch"), Dim::Fixed(2)])],
    }
}

fn spec() -> TextClassificationSpec {
    TextClassificationSpec {
        labels: Labels::default(),
        output: None,
        scores: None,
        threshold: None,
        tokenizer: "tokenizer.json".into(),
        wordpiece: None,
        temperature: 0.5,
        max_tokens: 7,
        truncation_side: TruncationSide::Right,
        languages: Vec::new(),
        min_tokens: 0,
        pad_id: 99,
        ids: "ids".to_owned(),
        ids_reversed: Some("reversed".to_owned()),
        mask: Some("mask".to_owned()),
        token_types: None,
        positions: None,
        first_position: 0,
    }
}

fn build(spec: &TextClassificationSpec, signature: &Signature) -> Result<TextClassification, SpecError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("labels.txt"), "negative\npositive\n").unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizers::plain()).unwrap();
    build_in(dir.path(), spec, signature)
}

fn build_in(
    dir: &Path,
    spec: &TextClassificationSpec,
    signature: &Signature,
) -> Result<TextClassification, SpecError> {
    let options = TaskOptions { image: ImageLimits { pixels: 1, side: 1, memory: 1 } };
    TextClassification::build(spec, &BuildContext { dir, signature, endings: &[], options })
}

fn task() -> TextClassification {
    build(&spec(), &signature()).unwrap()
}

fn text(text: &str) -> Input {
    Input::text(text)
}

fn refusal(change: impl FnOnce(&mut TextClassificationSpec, &mut Signature)) -> String {
    let (mut spec, mut signature) = (spec(), signature());
    change(&mut spec, &mut signature);
    build(&spec, &signature).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_text_becomes_one_padded_tensor_per_input_in_signature_order() {
    let Prepared { row, context, .. } = task().preprocess(text("very good film")).unwrap();
    let about = About::Text { tokens: 3, truncated: Truncated::No, supported: Supported::Unsaid };
    assert_eq!(context.get::<About>().unwrap(), &about);
    assert_eq!(row[0].as_slice::<f32>().unwrap(), [1.0, 1.0, 1.0, 0.0]);
    assert_eq!(row[1].as_slice::<i64>().unwrap(), [5, 2, 4, 99]);
    assert_eq!(row[2].as_slice::<i32>().unwrap(), [4, 2, 5, 99]);
    assert!(row.iter().all(|tensor| tensor.shape() == [4]));
}

#[test]
fn a_long_text_is_cut_and_the_answer_says_so() {
    let task = task();
    let Prepared { row, context, .. } = task.preprocess(text(&"good ".repeat(40))).unwrap();
    assert_eq!(row[1].shape(), [7]);
    let logits = Tensor::new::<f32>(vec![2], vec![0.0, 0.5 * 3f32.ln()]).unwrap();
    let Answer {
        output: Output::Classes(scores),
        about: About::Text { tokens: 7, truncated: Truncated::Yes, .. },
    } = task.postprocess(vec![logits], &context).unwrap()
    else {
        panic!("no answer about a text that was cut");
    };
    assert_eq!(&*scores.scores[0].label, "positive");
    assert!((scores.scores[0].score - 0.75).abs() < 1e-6);
}

#[test]
fn there_is_a_profile_input_of_every_shape_the_shortest_first() {
    let task = task();
    let shapes: Vec<usize> = task.profile_inputs().iter().map(|input| input.row[0].shape()[0]).collect();
    assert_eq!(shapes, [1, 2, 4, 6, 7]);
    for n_words in 1..20 {
        let Prepared { row, shape, .. } = task.preprocess(text(&"good ".repeat(n_words))).unwrap();
        assert!(shapes.contains(&shape));
        assert_eq!(row[0].shape(), [shape]);
    }
}

#[test]
fn types_are_zero_and_positions_count_from_the_first_one() {
    let (mut spec, mut signature) = (spec(), signature());
    let shape = [free("batch"), free("length")];
    signature.inputs.extend([port("types", DType::I32, &shape), port("at", DType::I64, &shape)]);
    (spec.token_types, spec.positions) = (Some("types".to_owned()), Some("at".to_owned()));
    spec.first_position = 2;
    let Prepared { row, .. } = build(&spec, &signature).unwrap().preprocess(text("very good film")).unwrap();
    assert_eq!(row[3].as_slice::<i32>().unwrap(), [0; 4]);
    assert_eq!(row[4].as_slice::<i64>().unwrap(), [2, 3, 4, 5]);
}

#[test]
fn no_row_is_shorter_than_a_text_can_be_or_a_window_needs() {
    let lengths = |tokenizer: &str, min_tokens| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("labels.txt"), "negative\npositive\n").unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
        let spec = TextClassificationSpec { min_tokens, ..spec() };
        let task = build_in(dir.path(), &spec, &signature()).unwrap();
        let sampled: Vec<usize> = task.profile_inputs().iter().map(|input| input.shape).collect();
        let Prepared { row, .. } = task.preprocess(text("good")).unwrap();
        assert_eq!(row[0].shape(), [sampled[0]]);
        sampled
    };
    assert_eq!(lengths(&tokenizers::plain(), 0), [1, 2, 4, 6, 7]);
    assert_eq!(lengths(&tokenizers::plain(), 5), [5, 6, 7]);
    // One token before each text, and one behind.
    assert_eq!(lengths(&tokenizers::bracketed(), 0), [3, 4, 6, 7]);
}

#[test]
fn a_network_of_one_length_gets_rows_of_that_length() {
    let mut signature = signature();
    signature.inputs.iter_mut().for_each(|port| port.shape[1] = Dim::Fixed(5));
    let task = build(&spec(), &signature).unwrap();
    let Prepared { row, context, .. } = task.preprocess(text("good good bad film good film")).unwrap();
    assert_eq!(row[1].as_slice::<i64>().unwrap(), [2, 2, 3, 4, 2]);
    let about = About::Text { tokens: 5, truncated: Truncated::Yes, supported: Supported::Unsaid };
    assert_eq!(context.get::<About>().unwrap(), &about);
    assert_eq!(task.preprocess(text("good")).unwrap().row[1].as_slice::<i64>().unwrap(), [2, 99, 99, 99, 99]);
    assert_eq!(task.profile_inputs().len(), 1);
}

#[test]
fn the_shape_is_guessed_from_the_bytes() {
    let guess = |bytes| task().shape_class(&RequestSize::of(bytes));
    assert_eq!([guess(0), guess(14), guess(9999)], [1, 4, 7].map(ShapeClass::Likely));
}

#[test]
fn no_text_and_an_image_are_invalid() {
    for input in [text(""), text(" \n"), Input::image(vec![0xff, 0xd8])] {
        assert!(matches!(task().preprocess(input), Err(Error::Invalid(_))));
    }
}

#[test]
fn a_spec_that_does_not_fit_is_refused_with_what_would() {
    let cases = [
        (refusal(|spec, _| spec.max_tokens = 0), "max_tokens is 0, but 1 to 8192 are allowed"),
        (refusal(|spec, _| spec.max_tokens = 9000), "max_tokens is 9000, but 1 to 8192 are allowed"),
        (
            refusal(|spec, _| spec.ids = "tokens".to_owned()),
            "ids names the input \"tokens\", but the network's inputs are mask, ids, reversed",
        ),
        (
            refusal(|spec, _| spec.mask = None),
            "the network also takes \"mask\", f32 [batch, length], which nothing fills",
        ),
        (
            refusal(|spec, _| spec.ids_reversed = Some("ids".to_owned())),
            "ids and ids_reversed both name the input \"ids\"",
        ),
        (
            refusal(|_, signature| signature.inputs[1].dtype = DType::F32),
            "input \"ids\" is f32 [batch, length], but it must be i64 or i32 [batch, length]",
        ),
        (
            refusal(|_, signature| signature.inputs[1].shape[1] = Dim::Fixed(128)),
            "the network's inputs take rows of different lengths",
        ),
        (
            refusal(|_, signature| signature.outputs[0].shape[1] = Dim::Fixed(5)),
            "labels.txt has 2 labels, but the network gives 5 logits",
        ),
        (refusal(|spec, _| spec.pad_id = 1 << 40), "pad_id is 1099511627776, but the network takes i32"),
    ];
    for (refusal, expected) in cases {
        assert_eq!(refusal, expected);
    }
    assert!(refusal(|spec, _| spec.tokenizer = "labels.txt".into()).contains("cannot read labels.txt"));
}

#[test]
fn the_manifest_of_a_classifier_is_read() {
    let text = "[task.text-classification]\nmax_tokens = 7\npad_id = 99\ntemperature = 0.5\nids = 'ids'\n\
                ids_reversed = 'reversed'\nmask = 'mask'\n";
    assert_eq!(section::<TextClassificationSpec>(text, DESCRIPTOR.name).unwrap(), spec());
}
