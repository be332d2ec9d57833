//! Inputs that were once answered wrongly, each with the right value and the reference that gave it, from the folder
//! beside the repository. Where it is missing, these are skipped, and say so.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use lepton::{
    image::{Channels, ImageLimits, Picture, Preprocessing},
    manifest::{ImageInputSpec, TruncationSide},
    text::{Limit, Tokenizer},
};
use serde_json::{Value, json};

use crate::support::{
    client::{Connection, exchange, post},
    models,
    process::Lepton,
};

const LIMITS: ImageLimits = ImageLimits { pixels: 25_000_000, side: 8192, memory: 1 << 28 };

/// One case: its name, its folder, what is right.
struct Case {
    name: String,
    folder: PathBuf,
    expected: Value,
}

impl Case {
    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder.join(file)).unwrap_or_else(|error| panic!("{}: {file}: {error}", self.name))
    }
}

/// Every case that `is_of_kind` chooses.
fn cases(is_of_kind: impl Fn(&Case) -> bool) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases");
    let Ok(entries) = fs::read_dir(&root) else {
        // Past the test runner's capture: what was not tested has to be seen.
        let _told = writeln!(io::stderr(), "skipped: there are no cases in ../shared/cases");
        return Vec::new();
    };
    let case = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.expect("a readable folder");
        let text = fs::read_to_string(entry.path().join("expected.json")).ok()?;
        let expected = serde_json::from_str(&text).expect("JSON");
        Some(Case { name: entry.file_name().to_string_lossy().into_owned(), folder: entry.path(), expected })
    };
    let mut found: Vec<Case> = entries.filter_map(case).filter(|case| is_of_kind(case)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!found.is_empty(), "no case of this kind in {root:?}");
    found
}

/// A picture as a row of 32 x 32 samples, 0 to 255, of colours or grey.
fn thumbnail(name: &str, bytes: &[u8], color: &str) -> ([u32; 2], Vec<f32>) {
    let spec = json!({"name": "", "width": 32, "height": 32, "color": color, "scale": 1.0, "mean": [0.0], "std": [1.0]});
    let spec: ImageInputSpec = serde_json::from_value(spec).expect("a manifest's input");
    let preprocessing = Preprocessing::new(&spec);
    let picture = Picture::decode(bytes, LIMITS, preprocessing.channels());
    let picture = picture.unwrap_or_else(|error| panic!("{name}: {error}"));
    let row = preprocessing.row(&picture, picture.whole()).expect("a row");
    ([picture.width(), picture.height()], row)
}

#[test]
fn pictures_are_decoded_as_by_the_reference() {
    for case in cases(|case| case.expected["pixels"].is_string()) {
        let png = case.expected["pixels"].as_str().expect("a file");
        let file = png.replace(".expected.png", "");
        let file = ["jpg", "jpeg", "png", "webp"].map(|ending| format!("{file}.{ending}"));
        let file = file.iter().find(|file| case.folder.join(file).exists()).expect("a picture");
        let color = if case.name.starts_with("gray_") { "gray" } else { "rgb" };
        let (size, row) = thumbnail(&case.name, &case.read(file), color);
        let (_, right) = thumbnail(&case.name, &case.read(png), color);
        assert_eq!(json!(size), case.expected["size"], "{}", case.name);
        let mean = row.iter().zip(&right).map(|(a, b)| (a - b).abs()).sum::<f32>() / row.len() as f32;
        assert!(mean <= 1.5, "{}: {mean} levels from the reference", case.name);
    }
}

#[test]
fn forms_that_are_not_read_are_named() {
    for case in cases(|case| case.name == "png_cgbi") {
        let error =
            Picture::decode(&case.read("png_cgbi.png"), LIMITS, Channels::Rgb).expect_err("no picture");
        assert!(error.to_string().contains("CgBI"), "{error}");
    }
}

#[test]
fn folders_of_models_answer_as_the_library_that_wrote_them() {
    for case in cases(|case| case.expected["expected"].is_array()) {
        let expected = case.expected["expected"].as_array().expect("answers");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lepton"));
        command.args(["predict", "m"]).env("LEPTON_MODELS_DIR", &case.folder).stdout(Stdio::piped());
        let images = expected.iter().filter_map(|answer| answer["image"].as_str());
        let images: Vec<PathBuf> =
            images.map(|image| case.folder.join(Path::new(image).file_name().expect("a name"))).collect();
        let texts: Vec<&str> = expected.iter().filter_map(|answer| answer["text"].as_str()).collect();
        // A line is a text: those that hold a line's end, or nothing, have no place in a file of lines.
        let is_line = |text: &&str| !text.contains('\n') && !text.trim().is_empty();
        let lines: Vec<&str> = texts.iter().copied().filter(is_line).collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), lines.join("\n")).expect("a file");
        match images.as_slice() {
            [] => command.arg(file.path()),
            images => command.args(images),
        };
        let output = command.stderr(Stdio::piped()).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {told}", case.name);
        let answers = String::from_utf8(output.stdout).expect("UTF-8");
        let answers: Vec<Value> =
            answers.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let right: Vec<&Value> = expected
            .iter()
            .filter(|answer| answer["text"].as_str().is_none_or(|text| is_line(&text)))
            .collect();
        assert_eq!(answers.len(), right.len(), "{}: {told}", case.name);
        let labels = case.expected["labels"].as_array().expect("labels");
        for (answer, right) in answers.iter().zip(right) {
            let right = by_label(labels.iter().zip(right["scores"].as_array().expect("scores")));
            let scores = scores_of(answer);
            let got = by_label(scores.iter().map(|score| (&score["label"], &score["score"])));
            assert_eq!(got.len(), right.len(), "{}: {answer}", case.name);
            for (label, scores) in &right {
                let got = got.get(label).unwrap_or_else(|| panic!("{}: no {label} in {answer}", case.name));
                let close = got.iter().zip(scores).all(|(a, b)| (a - b).abs() <= 1e-3);
                assert!(close && got.len() == scores.len(), "{}: {label} {got:?}, not {scores:?}", case.name);
            }
        }
    }
}

/// The scores of an answer.
fn scores_of(answer: &Value) -> &Vec<Value> {
    answer["scores"].as_array().unwrap_or_else(|| panic!("no scores in {answer}"))
}

/// Scores by their labels, of which some repeat.
fn by_label<'a>(scores: impl Iterator<Item = (&'a Value, &'a Value)>) -> BTreeMap<String, Vec<f64>> {
    let mut by_label: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (label, score) in scores {
        let label = label.as_str().expect("a label").to_owned();
        by_label.entry(label).or_default().push(score.as_f64().expect("a number"));
    }
    by_label.values_mut().for_each(|scores| scores.sort_by(f64::total_cmp));
    by_label
}

#[test]
fn texts_are_split_as_by_the_library_that_made_the_tokenizer() {
    let json = fs::read(models().join("sentiment/tokenizer.json")).expect("the shipped tokenizer");
    let limit = Limit { max_tokens: 64, side: TruncationSide::Right };
    let tokenizer = Tokenizer::from_json(&json, limit).expect("a tokenizer");
    for case in cases(|case| case.expected["cases"].is_array()) {
        for text in case.expected["cases"].as_array().expect("texts") {
            let ids = tokenizer.encode(text["text"].as_str().expect("a text")).expect("ids").ids;
            assert_eq!(json!(ids), text["ids"], "{}: {text}", case.name);
        }
    }
}

#[test]
fn requests_of_real_clients_are_answered_as_plain_ones() {
    if cases(|case| case.name.starts_with("http_")).is_empty() {
        return;
    }
    let server = Lepton::start_with(&[("LEPTON_SERVER_CORS", "https://page.example")]);
    let picture = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faces.jpg")).expect("a picture");
    let path = "/v1/vision/classify";
    let ask = |content_type: &str, body: &[u8]| {
        let response = exchange(server.address, &post(path, content_type, body));
        assert_eq!(response.status, 200, "{content_type}: {}", response.text());
        response.json()["images"].clone()
    };
    let plain = ask("image/jpeg", &picture);
    assert_eq!(ask("image/jpg", &picture), plain);

    let encoded = BASE64_STANDARD.encode(&picture);
    let wrapped: Vec<&str> =
        encoded.as_bytes().chunks(76).map(|line| str::from_utf8(line).unwrap()).collect();
    assert_eq!(ask("application/json", json!({"image": wrapped.join("\n")}).to_string().as_bytes()), plain);
    assert_eq!(ask("application/json", format!("\u{feff}{}", json!({"image": encoded})).as_bytes()), plain);

    let head = "--X\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a \"b\".jpg\"\r\n\r\n";
    let form = [head.as_bytes(), &picture, b"\r\n--X--\r\n"].concat();
    assert_eq!(ask("multipart/form-data; boundary=X", &form), plain);

    let preflight = format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: test\r\norigin: https://page.example\r\n\
         access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n\r\n"
    );
    let mut connection = Connection::open(server.address);
    connection.send(preflight.as_bytes()).expect("a server that reads");
    let response = connection.receive_without_body().expect("an answer");
    assert!([200, 204].contains(&response.status), "{}", response.status);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://page.example"));
}
