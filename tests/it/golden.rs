//! The shipped networks answer through HTTP as they did in PyTorch when they were exported.
//!
//! `golden.json` beside each model was written by the training recipe: inputs and the logits that
//! the trained network gave for them.

use lepton::{
    engine::{
        Engine,
        kernels::{Form, Precision},
        tract::TractEngine,
    },
    tensor::Tensor,
};
use serde_json::{Value, json};

use crate::support::{
    client::{exchange, get, multipart, post},
    models,
    process::Lepton,
};

/// Probabilities in f32 agree within this: a tenth of a percent.
const IN_F32: f64 = 1e-3;

/// Probabilities in bf16 agree within what `precision = "auto"` accepts.
const IN_BF16: f64 = 1e-2;

/// How near a model's probabilities have to be, in the precision that the server chose for it.
fn tolerance(server: &Lepton, model: &str) -> f64 {
    let told = exchange(server.address, &get(&format!("/v1/models/{model}"))).json();
    match told["precision"]["used"].as_str().expect("a precision") {
        "f32" => IN_F32,
        _ => IN_BF16,
    }
}

fn read(model: &str, file: &str) -> String {
    let path = models().join(model).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn golden(model: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(&read(model, "golden.json")).expect("JSON");
    golden["cases"].as_array().expect("cases").clone()
}

/// Softmax of the golden logits over the model's calibration temperature, by label.
fn expected(model: &str, case: &Value) -> Vec<(String, f64)> {
    let manifest: toml::Table = read(model, "model.toml").parse().expect("TOML");
    let task = manifest["task"].as_table().and_then(|t| t.values().next()).expect("a task");
    let temperature = task["temperature"].as_float().expect("a temperature");
    let logits = case["logits"].as_array().expect("logits").iter();
    let logits: Vec<f64> = logits.map(|logit| logit.as_f64().expect("a number") / temperature).collect();
    let highest = logits.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    let labels = read(model, "labels.txt");
    labels.lines().map(str::to_owned).zip(logits.iter().map(|logit| (logit - highest).exp() / sum)).collect()
}

/// Holds ranked scores to the expected ones.
fn assert_scores(answer: &Value, expected: &[(String, f64)], tolerance: f64, input: &str) {
    let scores = answer["scores"].as_array().unwrap_or_else(|| panic!("no scores in {answer}"));
    assert_eq!(scores.len(), expected.len());
    assert_eq!((&scores[0]["label"], &scores[0]["score"]), (&answer["label"], &answer["score"]));
    for (label, probability) in expected {
        let found = scores.iter().find(|score| score["label"] == *label).expect("every label");
        let difference = (found["score"].as_f64().expect("a number") - probability).abs();
        assert!(difference <= tolerance, "{input}: {label} is {}, expected {probability}", found["score"]);
    }
}

#[test]
fn texts_are_read_as_pytorch_read_them_alone_and_together() {
    let server = Lepton::start();
    let tolerance = tolerance(&server, "sentiment");
    let cases = golden("sentiment");
    let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().expect("a text")).collect();
    let ask = |body: Value| {
        let request = post("/v1/text/sentiment", "application/json", body.to_string().as_bytes());
        let response = exchange(server.address, &request);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()["results"].as_array().expect("results").clone()
    };
    let together = ask(json!({ "texts": texts }));
    for ((case, text), in_batch) in cases.iter().zip(&texts).zip(&together) {
        let alone = ask(json!({ "text": text })).remove(0);
        let expected = expected("sentiment", case);
        for answer in [&alone, in_batch] {
            assert_scores(answer, &expected, tolerance, text);
            assert_eq!(answer["tokens"].as_u64(), case["ids"].as_array().map(|ids| ids.len() as u64));
        }
        let difference =
            alone["score"].as_f64().expect("a score") - in_batch["score"].as_f64().expect("a score");
        assert!(difference.abs() <= 1e-4, "{text}: alone and together differ by {difference}");
    }
}

#[test]
fn faces_are_read_as_pytorch_read_them_alone_and_together() {
    let server = Lepton::start();
    let tolerance = tolerance(&server, "face");
    let cases = golden("face");
    let pictures: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| {
            let i = case["i"].as_u64().expect("an index") as u32;
            let picture = image::GrayImage::from_fn(48, 48, |x, y| {
                image::Luma([((x * 7 + y * 13 + i * 29) % 256) as u8])
            });
            let mut png = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut png, image::ImageFormat::Png).expect("encodable");
            png.into_inner()
        })
        .collect();
    let parts: Vec<(&str, &[u8])> = pictures.iter().map(|png| ("image", png.as_slice())).collect();
    let (kind, form) = multipart(&parts);
    let together = exchange(server.address, &post("/v1/vision/classify?model=face", &kind, &form)).json();
    for (i, (case, png)) in cases.iter().zip(&pictures).enumerate() {
        let alone =
            exchange(server.address, &post("/v1/vision/classify?model=face", "image/png", png)).json();
        let expected = expected("face", case);
        for answer in [&alone["images"][0], &together["images"][i]] {
            assert_eq!((&answer["width"], &answer["height"]), (&json!(48), &json!(48)));
            assert_scores(answer, &expected, tolerance, &format!("picture {i}"));
        }
        assert_eq!(alone["images"][0], together["images"][i]);
    }
}

/// What the detector was given, by its golden file's formula: f32 [1, 3, 64, 96].
fn scene(i: usize) -> Tensor {
    let pixel = |c: usize, x: usize, y: usize| (x * 7 + y * 13 + c * 31 + i * 29) % 256;
    let places = (0..3).flat_map(|c| (0..64).flat_map(move |y| (0..96).map(move |x| (c, x, y))));
    let numbers = places.map(|(c, x, y)| (pixel(c, x, y) as f32 / 255.0 - 0.5) / 0.25);
    Tensor::new::<f32>(vec![1, 3, 64, 96], numbers.collect()).expect("as many numbers")
}

#[test]
fn scenes_are_read_as_pytorch_read_them_by_tract_and_by_the_kernels() {
    let network = models().join("face-detector/1/model.onnx");
    let network = std::fs::read(&network).unwrap_or_else(|e| panic!("{}: {e}", network.display()));
    for form in [None, Form::best(Precision::F32)] {
        let engine = TractEngine::load_with(&network, None, form).expect("a network");
        let mut session = engine.open().expect("a session");
        for case in golden("face-detector") {
            let i = case["i"].as_u64().expect("an index") as usize;
            let outputs = session.run(vec![scene(i)]).expect("an answer");
            for (port, output) in engine.signature().outputs.iter().zip(&outputs) {
                let expected = case[port.name.as_str()].as_array().expect("the output's numbers");
                let found = output.as_slice::<f32>().expect("f32");
                assert_eq!(found.len(), expected.len(), "{}", port.name);
                for (found, expected) in found.iter().zip(expected) {
                    let expected = expected.as_f64().expect("a number");
                    let near = (f64::from(*found) - expected).abs() <= IN_F32 * expected.abs().max(1.0);
                    assert!(near, "{form:?}, scene {i}, {}: {found} for {expected}", port.name);
                }
            }
        }
    }
}
