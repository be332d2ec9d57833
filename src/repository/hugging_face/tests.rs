//! What the files of other tools say, and what is refused.

use std::fs;

use super::*;
use crate::{engine::Port, tensor::DType};

fn described(files: &[(&str, &str)]) -> Result<Description, String> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().canonicalize().unwrap();
    fs::create_dir(path.join("m")).unwrap();
    for (name, text) in files {
        fs::write(path.join("m").join(name), text).unwrap();
    }
    Description::read(&Folder::open(&path, "m").unwrap())
}

fn signature(inputs: &[&str], channels: usize) -> Signature {
    let port = |name: &&str| Port {
        name: (*name).to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Free("batch".to_owned()), Dim::Fixed(channels)],
    };
    Signature { inputs: inputs.iter().map(port).collect(), outputs: vec![] }
}

const LABELS: &str = r#"{"model_type": "vit", "id2label": {"0": "cat", "10": "k", "2": "b", "1": "a", "3": "c",
    "4": "d", "5": "e", "6": "f", "7": "g", "8": "h", "9": "i"}, "hidden_size": 192}"#;

fn image(preprocessor: &str) -> Result<ImageInputSpec, String> {
    let manifest = described(&[(CONFIG, LABELS), (PREPROCESSOR, preprocessor)])?
        .manifest(&signature(&["pixel_values"], 3))?;
    let TaskSpec::ImageClassification(spec) = manifest.task else { panic!("{manifest:?}") };
    Ok(spec.input)
}

#[test]
fn labels_stand_in_the_order_of_their_numbers() {
    let description = described(&[(CONFIG, LABELS), (PREPROCESSOR, "{}")]).unwrap();
    assert_eq!(description.labels, ["cat", "a", "b", "c", "d", "e", "f", "g", "h", "i", "k"]);
    assert_eq!(description.summary(), "vit, image classification into 11 labels");
    let inverse = described(&[(CONFIG, r#"{"label2id": {"no": 0, "yes": 1}}"#), (TOKENIZER, "{}")]);
    assert_eq!(inverse.unwrap().labels, ["no", "yes"]);
}

#[test]
fn labels_with_a_gap_are_refused() {
    for (config, expected) in [
        (r#"{"id2label": {"0": "a", "2": "b"}}"#, "2 stands for 1"),
        (r#"{"id2label": {"a": "b"}}"#, "expected numbers"),
        ("{}", "names no labels"),
        ("[", "config.json: EOF"),
    ] {
        let error = described(&[(CONFIG, config), (TOKENIZER, "{}")]).unwrap_err();
        assert!(error.contains(expected), "{config}: {error}");
    }
}

#[test]
fn a_stretching_preprocessor_becomes_an_input() {
    let input = image(
        r#"{"do_resize": true, "size": {"height": 224, "width": 192}, "resample": 3, "do_rescale": true,
            "rescale_factor": 0.00392156862745098, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]}"#,
    );
    assert_eq!(
        input.unwrap(),
        ImageInputSpec {
            name: "pixel_values".to_owned(),
            width: 192,
            height: 224,
            color: Color::Rgb,
            fit: Fit::Stretch,
            filter: Filter::Bicubic,
            scale: 1.0 / 255.0,
            mean: vec![0.5, 0.4, 0.3],
            std: vec![0.2, 0.2, 0.2],
        }
    );
}

#[test]
fn a_shortest_edge_with_a_cut_of_that_side_covers() {
    let text = r#"{"size": {"shortest_edge": 224}, "do_center_crop": true, "crop_size": {"height": 224, "width": 224},
        "do_normalize": false, "do_rescale": false}"#;
    let input = image(text).unwrap();
    assert_eq!((input.width, input.height, input.fit), (224, 224, Fit::Cover));
    assert_eq!((input.scale, input.mean, input.std), (1.0, vec![0.0], vec![1.0]));
}

#[test]
fn what_a_manifest_cannot_say_is_refused_not_approximated() {
    let normal = r#""image_mean": [0.5], "image_std": [0.5]"#;
    for (text, expected) in [
        (format!(r#"{{"size": 224, "resample": 1, {normal}}}"#), "resample 1 is not served"),
        (
            format!(
                r#"{{"size": {{"shortest_edge": 256}}, "do_center_crop": true, "crop_size": 224, {normal}}}"#
            ),
            "is not served",
        ),
        (format!(r#"{{"size": {{"shortest_edge": 224}}, {normal}}}"#), "is not served"),
        (format!(r#"{{"size": 224, "do_resize": false, {normal}}}"#), "do_resize is false"),
        (r#"{"size": 224}"#.to_owned(), "image_mean or image_std is missing"),
        ("{}".to_owned(), "names no size"),
    ] {
        let error = image(&text).unwrap_err();
        assert!(error.starts_with(PREPROCESSOR) && error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_colours_are_those_of_the_network() {
    let files = [(CONFIG, LABELS), (PREPROCESSOR, r#"{"size": 8, "image_mean": [0.5], "image_std": [0.5]}"#)];
    let manifest = described(&files).unwrap().manifest(&signature(&["pixel_values"], 1)).unwrap();
    let TaskSpec::ImageClassification(spec) = manifest.task else { panic!("{manifest:?}") };
    assert_eq!(spec.input.color, Color::Gray);
}

#[test]
fn a_text_model_takes_its_length_from_the_tightest_limit() {
    let text = |config: &str, tokenizer: &str| {
        let config = format!(r#"{{"id2label": {{"0": "a"}}, {config}}}"#);
        let files = [(CONFIG, config.as_str()), (TOKENIZER, "{}"), (TOKENIZER_CONFIG, tokenizer)];
        let manifest =
            described(&files).unwrap().manifest(&signature(&["input_ids", "attention_mask"], 1)).unwrap();
        let TaskSpec::TextClassification(spec) = manifest.task else { panic!("{manifest:?}") };
        spec
    };
    let spec = text(r#""model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1"#, "{}");
    assert_eq!((spec.max_tokens, spec.pad_id), (512, 1));
    assert_eq!((spec.ids.as_str(), spec.mask.as_deref()), ("input_ids", Some("attention_mask")));
    assert_eq!(text(r#""max_position_embeddings": 512"#, r#"{"model_max_length": 128}"#).max_tokens, 128);
    let left = text(r#""max_position_embeddings": 512"#, r#"{"truncation_side": "left"}"#);
    assert_eq!((left.max_tokens, left.truncation_side), (512, TruncationSide::Left));
    assert_eq!(text(r#""n_positions": 1024"#, "{}").max_tokens, 1024);
    assert_eq!(text(r#""pad_token_id": null"#, r#"{"model_max_length": 1e30}"#).max_tokens, 512);
}

#[test]
fn positions_are_counted_as_the_code_of_each_model_counts_them() {
    let limit = |model: &str, pad: &str| {
        let config = format!(
            r#"{{"id2label": {{"0": "a"}}, "model_type": "{model}", "max_position_embeddings": 66, "pad_token_id": {pad}}}"#
        );
        let described = described(&[(CONFIG, &config), (TOKENIZER, "{}")]).unwrap();
        match described.kind {
            Kind::Text { max_tokens, .. } => max_tokens,
            Kind::Image(_) => panic!("{described:?}"),
        }
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
fn a_network_without_the_usual_inputs_is_refused_with_those_it_has() {
    let description = described(&[(CONFIG, LABELS), (TOKENIZER, "{}")]).unwrap();
    let error = description.manifest(&signature(&["tokens", "mask"], 1)).unwrap_err();
    assert_eq!(error, "the network has no input `input_ids`; it has `tokens`, `mask`");
}

#[test]
fn it_must_be_clear_whether_images_or_texts_are_taken() {
    assert!(described(&[(CONFIG, LABELS)]).unwrap_err().contains("neither"));
    assert!(
        described(&[(CONFIG, LABELS), (PREPROCESSOR, "{}"), (TOKENIZER, "{}")]).unwrap_err().contains("both")
    );
    let many = LABELS.replace("\"vit\"", "\"vit\", \"problem_type\": \"multi_label_classification\"");
    assert!(described(&[(CONFIG, &many), (TOKENIZER, "{}")]).unwrap_err().contains("is not served"));
}
