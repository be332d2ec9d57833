//! Folders with these files, described for networks of these signatures.

use std::fs;

use super::*;
use crate::{
    engine::{Dim, Port, Signature},
    hugging_face::CONFIG,
    manifest::{Labels, Scores, TruncationSide},
    tasks::{ImageClassificationSpec, TextClassificationSpec},
    tensor::DType,
};

const PREPROCESSOR: &str = "preprocessor_config.json";
const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.txt";

/// Runs `work` on a folder with these files.
fn described<T>(
    files: &[(&str, &str)],
    work: impl FnOnce(&HuggingFaceFolder<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().canonicalize().unwrap();
    fs::create_dir(path.join("m")).unwrap();
    for (name, text) in files {
        fs::write(path.join("m").join(name), text).unwrap();
    }
    let folder = Folder::open(&path, "m").unwrap();
    work(&HuggingFaceFolder::open(&folder)?)
}

/// What the folder is said to be, by the task that claims it.
fn summary(files: &[(&str, &str)]) -> Result<String, String> {
    described(files, |folder| Source::described(folder).map(|source| source.about().description))
}

fn port(name: &str, dtype: DType, shape: &[Dim]) -> Port {
    let batch = Dim::Free("batch".to_owned());
    Port {
        name: name.to_owned(),
        dtype,
        shape: std::iter::once(batch).chain(shape.iter().cloned()).collect(),
        batch_axis: Some(0),
    }
}

fn texts(inputs: &[&str], n_labels: usize) -> Signature {
    let length = Dim::Free("length".to_owned());
    let inputs = inputs.iter().map(|name| port(name, DType::I64, std::slice::from_ref(&length))).collect();
    Signature { inputs, outputs: vec![port("logits", DType::F32, &[Dim::Fixed(n_labels)])] }
}

fn text(config: &str, tokenizer: &str, signature: &Signature) -> Result<TextClassificationSpec, String> {
    let files = [(CONFIG, config), (TOKENIZER, "{}"), ("tokenizer_config.json", tokenizer)];
    described(&files, |folder| TextClassificationSpec::described(folder, signature))
}

#[test]
fn a_text_model_takes_its_length_from_the_tightest_limit() {
    let text = |config: &str, tokenizer: &str| {
        let config = format!(r#"{{"id2label": {{"0": "a"}}, {config}}}"#);
        text(&config, tokenizer, &texts(&["input_ids", "attention_mask"], 1)).unwrap()
    };
    let spec = text(r#""model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1"#, "{}");
    assert_eq!((spec.max_tokens, spec.pad_id), (512, 1));
    assert_eq!((spec.ids.as_str(), spec.mask.as_deref()), ("input_ids", Some("attention_mask")));
    assert_eq!(text(r#""max_position_embeddings": 512"#, r#"{"model_max_length": 128}"#).max_tokens, 128);
    assert_eq!(text(r#""pad_token_id": null"#, r#"{"model_max_length": 1e30}"#).max_tokens, 512);
    assert_eq!(text(r#""n_positions": 1024, "max_position_embeddings": 256"#, "{}").max_tokens, 256);
}

#[test]
fn a_long_text_is_cut_where_the_tokenizer_says() {
    let left = text("{}", r#"{"truncation_side": "left"}"#, &texts(&["input_ids"], 2)).unwrap();
    assert_eq!(left.truncation_side, TruncationSide::Left);
}

#[test]
fn positions_are_counted_as_the_code_of_each_model_counts_them() {
    let limit = |model: &str, pad: &str| {
        let config =
            format!(r#"{{"model_type": "{model}", "max_position_embeddings": 66, "pad_token_id": {pad}}}"#);
        text(&config, "{}", &texts(&["input_ids"], 2)).unwrap().max_tokens
    };
    for model in ["roberta", "xlm-roberta", "camembert", "longformer", "ibert", "luke", "esm"] {
        assert_eq!([limit(model, "1"), limit(model, "null"), limit(model, "0")], [64, 64, 65], "{model}");
    }
    assert_eq!([limit("mpnet", "1"), limit("mpnet", "0")], [64, 64]);
    for model in ["bert", "distilbert", "electra", "deberta-v2", "albert", "bart"] {
        assert_eq!(limit(model, "1"), 66, "{model}");
    }
}

#[test]
fn every_usual_input_of_a_text_network_is_filled() {
    let names = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];
    let spec = text(r#"{"model_type": "bert"}"#, "{}", &texts(&names, 2)).unwrap();
    assert_eq!(spec.token_types.as_deref(), Some("token_type_ids"));
    assert_eq!((spec.positions.as_deref(), spec.first_position), (Some("position_ids"), 0));
    let roberta = r#"{"model_type": "roberta", "pad_token_id": 1}"#;
    assert_eq!(text(roberta, "{}", &texts(&names, 2)).unwrap().first_position, 2);
}

#[test]
fn a_network_without_the_usual_inputs_is_refused_with_those_it_has() {
    let error = text("{}", "{}", &texts(&["tokens", "mask"], 2)).unwrap_err();
    assert_eq!(error, "the network has no input `input_ids`; it has `tokens`, `mask`");
    let error = text("{}", "{}", &texts(&["input_ids", "bbox"], 2)).unwrap_err();
    assert!(error.starts_with("the network also takes `bbox`, i64 [batch, length]"), "{error}");
}

#[test]
fn the_logits_are_found_and_counted() {
    let output = |outputs: Vec<Port>| {
        let signature = Signature { outputs, ..texts(&["input_ids"], 2) };
        text("{}", "{}", &signature).map(|spec| spec.output.unwrap())
    };
    let length = Dim::Free("length".to_owned());
    let states = || port("states", DType::F32, &[length.clone(), Dim::Fixed(8)]);
    let scores = |name: &str, n| port(name, DType::F32, &[Dim::Fixed(n)]);
    assert_eq!(output(vec![states(), scores("logits", 2)]).unwrap(), "logits");
    assert_eq!(output(vec![scores("pooled", 8), scores("y", 2)]).unwrap(), "y");
    assert_eq!(output(vec![port("logits", DType::F32, std::slice::from_ref(&length))]).unwrap(), "logits");
    let error = output(vec![scores("logits", 7)]).unwrap_err();
    assert!(error.contains("id2label is left out, which means 2 labels, but the network gives 7"), "{error}");
    let error = output(vec![states()]).unwrap_err();
    assert!(
        error.contains("no output of logits") && error.contains("`states` f32 [batch, length, 8]"),
        "{error}"
    );
}

#[test]
fn the_problem_is_told_to_the_task() {
    let signature = texts(&["input_ids"], 2);
    let problem = |name: &str| {
        let spec = text(&format!(r#"{{"problem_type": "{name}"}}"#), "{}", &signature).unwrap();
        (spec.scores, spec.threshold)
    };
    assert_eq!(problem("single_label_classification"), (None, None));
    assert_eq!(problem("multi_label_classification"), (None, Some(0.5)));
    assert_eq!(problem("regression"), (Some(Scores::Values), None));
}

#[test]
fn python_s_numbers_are_no_obstacle() {
    let config =
        r#"{"classifier_dropout": NaN, "hidden_dropout": -Infinity, "id2label": {"0": "NaN", "1": "b"}}"#;
    let labels = described(&[(CONFIG, config), (TOKENIZER, "{}")], |folder| Ok(folder.classes()?.labels()));
    assert_eq!(labels.unwrap(), Labels::Inline(["NaN", "b"].map(str::to_owned).to_vec()));
    assert!(summary(&[(CONFIG, "["), (TOKENIZER, "{}")]).unwrap_err().contains("config.json: EOF"));
}

#[test]
fn pictures_come_in_by_the_usual_name_or_the_only_one() {
    let files = [
        (CONFIG, r#"{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}"#),
        (PREPROCESSOR, r#"{"image_processor_type": "ViTImageProcessor", "size": 8}"#),
    ];
    assert_eq!(summary(&files).unwrap(), "vit, image classification into 2 labels");
    let input = |names: &[&str]| {
        let pixels = [3, 8, 8].map(Dim::Fixed);
        let inputs = names.iter().map(|name| port(name, DType::F32, &pixels)).collect();
        let signature = Signature { inputs, ..texts(&[], 2) };
        let spec = described(&files, |folder| ImageClassificationSpec::described(folder, &signature))?;
        Ok::<_, String>(spec.input.name)
    };
    assert_eq!(input(&["pixel_values"]).unwrap(), "pixel_values");
    assert_eq!(input(&["x"]).unwrap(), "x");
    assert!(input(&["pixel_values", "mask"]).unwrap_err().contains("also takes `mask`"));
    assert!(input(&["a", "b"]).unwrap_err().contains("no input `pixel_values`; it has `a`, `b`"));
}

#[test]
fn it_must_be_clear_whether_images_or_texts_are_taken() {
    let refused = |files: &[(&str, &str)]| summary(files).unwrap_err();
    assert!(
        refused(&[(CONFIG, "{}")]).contains("there is neither preprocessor_config.json nor tokenizer.json")
    );
    let other = refused(&[(CONFIG, "{}"), ("spiece.model", "")]);
    assert!(other.contains("there is a spiece.model, but no tokenizer.json"), "{other}");
    assert!(refused(&[(CONFIG, "{}"), (PREPROCESSOR, "{}"), (TOKENIZER, "{}")]).contains("there are both"));
    let both = |name: &str| {
        let config = format!(r#"{{"architectures": ["{name}"]}}"#);
        summary(&[(CONFIG, &config), (PREPROCESSOR, "{}"), (TOKENIZER, "{}")]).unwrap()
    };
    assert_eq!(both("CLIPForImageClassification"), "image classification into 2 labels");
    assert_eq!(both("LayoutLMForSequenceClassification"), "text classification into 2 labels");
}

#[test]
fn a_vocabulary_is_enough_for_texts() {
    let files = [(CONFIG, r#"{"model_type": "bert"}"#), (VOCABULARY, "[UNK]\n[CLS]\n[SEP]\ngood\n")];
    let signature = texts(&["input_ids"], 2);
    let spec = described(&files, |folder| TextClassificationSpec::described(folder, &signature)).unwrap();
    assert_eq!(spec.tokenizer, Path::new(VOCABULARY));
    assert!(spec.wordpiece.is_some());
}
