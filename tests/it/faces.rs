//! Faces found by one network and read by another, through the real binary.
//!
//! The detector is made here: a convolution that takes a cell of red for a face. It has no landmarks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use image::{Rgb, RgbImage};
use lepton_testkit::{
    onnx::{Axis, Element, Graph, Node},
    pictures,
};
use serde_json::{Value, json};

use crate::support::{
    client::{Response, exchange, get, post, post_with},
    models,
    process::Lepton,
};

const VISION: &str = "/v1/vision/classify";

/// What a cell of the finest grid sees, in pixels of the input, and how wide a face is said to be there.
const CELL: usize = 8;
const FACE: f32 = 32.0;

/// A network of three grids, in which a cell is a face where it is red all over. The others find nothing.
fn red_detector() -> Vec<u8> {
    let free = |name| Axis::Named(name);
    let mut graph = Graph::default().input(
        "image",
        Element::Float,
        &[free("batch"), Axis::Of(3), free("height"), free("width")],
    );
    for (name, stride) in [("stride_8", 8), ("stride_16", 16), ("stride_32", 32)] {
        let area = stride * stride;
        let mut weights = vec![0.0; 5 * 3 * area];
        if stride == CELL {
            // Samples are -2 to 2: red gives 32, grey 0, and 28 is needed: nearly all of the cell.
            let of = |channel: usize| [8.0, -4.0, -4.0][channel] / area as f32;
            for channel in 0..3 {
                weights[channel * area..][..area].fill(of(channel));
            }
        }
        let logit = if stride == CELL { -28.0 } else { -20.0 };
        let log = (FACE / stride as f32).ln();
        let kernel = [stride as i64; 2];
        graph = graph
            .floats(&format!("{name}_w"), &[5, 3, kernel[0], kernel[1]], &weights)
            .floats(&format!("{name}_b"), &[5], &[logit, 0.5, 0.5, log, log])
            .node(
                Node::new("Conv", &["image", &format!("{name}_w"), &format!("{name}_b")], &[name])
                    .ints("kernel_shape", &kernel)
                    .ints("strides", &kernel),
            )
            .output(name, Element::Float, &[free("batch"), Axis::Of(5), free("rows"), free("columns")]);
    }
    graph.encode()
}

const MANIFEST: &str = r#"
description = "finds what is red"
licence = "MIT"
precision = "f32"
[task.face-detection]
labels = ["face"]
sides = [320, 640]
[task.face-detection.input]
name = "image"
color = "rgb"
mean = [0.5]
std = [0.25]
[[task.face-detection.outputs]]
name = "stride_8"
stride = 8
[[task.face-detection.outputs]]
name = "stride_16"
stride = 16
[[task.face-detection.outputs]]
name = "stride_32"
stride = 32
"#;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

/// The shipped classifier beside the detector of this file.
fn with_detector() -> (tempfile::TempDir, PathBuf) {
    let keep = tempfile::tempdir().expect("a folder");
    let root = keep.path().to_owned();
    copy(&models().join("face"), &root.join("face"));
    let detector = root.join("face-detector");
    fs::create_dir_all(detector.join("1")).expect("a folder");
    fs::write(detector.join("1/model.onnx"), red_detector()).expect("written");
    fs::write(detector.join("model.toml"), MANIFEST).expect("written");
    copy(&models().join("faces"), &root.join("faces"));
    (keep, root)
}

fn server() -> (tempfile::TempDir, Lepton) {
    let (keep, root) = with_detector();
    let server = Lepton::start_in(&root, &[]);
    (keep, server)
}

/// A grey picture with red squares of that many pixels.
fn picture(width: u32, height: u32, squares: &[[u32; 2]], side: u32) -> RgbImage {
    let mut picture = pictures::smooth(width, height);
    picture.pixels_mut().for_each(|pixel| *pixel = Rgb([pixel.0[1]; 3]));
    for [left, top] in squares {
        for y in *top..top + side {
            for x in *left..left + side {
                picture.put_pixel(x, y, Rgb([255, 0, 0]));
            }
        }
    }
    picture
}

fn ok(response: Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn ask(server: &Lepton, path: &str, picture: &RgbImage) -> Value {
    ok(exchange(server.address, &post(path, "image/png", &pictures::png(picture))))
}

fn numbers(face: &Value) -> [f64; 4] {
    ["x", "y", "width", "height"].map(|key| face["box"][key].as_f64().expect("a number"))
}

#[test]
fn every_face_is_found_and_read() {
    let (_keep, server) = server();
    // At half its size, a square of 16 is a cell.
    let picture = picture(640, 480, &[[160, 160], [480, 320]], 16);
    let answer = ask(&server, VISION, &picture);
    assert_eq!(answer["model"], "faces");
    assert_eq!(
        answer["stages"],
        json!([{ "model": "face-detector", "version": 1 }, { "model": "face", "version": 1 }])
    );
    let image = &answer["images"][0];
    assert_eq!((&image["width"], &image["height"]), (&json!(640), &json!(480)));
    let faces = image["faces"].as_array().expect("faces");
    let mut boxes: Vec<[f64; 4]> = faces.iter().map(numbers).collect();
    boxes.sort_by(|a, b| a[0].total_cmp(&b[0]));
    assert_eq!(boxes, [[136.0, 136.0, 64.0, 64.0], [456.0, 296.0, 64.0, 64.0]]);
    for face in faces {
        let confidence = face["confidence"].as_f64().expect("a number");
        assert!((0.5..=1.0).contains(&confidence), "{face}");
        assert_eq!(face["scores"].as_array().map(Vec::len), Some(8));
        assert_eq!(
            (&face["label"], &face["score"]),
            (&face["scores"][0]["label"], &face["scores"][0]["score"])
        );
        // The same region, cut out by hand and sent as a picture of its own.
        let [x, y, width, height] = numbers(face).map(|n| n as u32);
        let region = image::imageops::crop_imm(&picture, x, y, width, height).to_image();
        let alone = ask(&server, "/v1/vision/classify?model=face", &region);
        let alone = &alone["images"][0];
        assert_eq!(alone["label"], face["label"]);
        let difference =
            alone["score"].as_f64().expect("a number") - face["score"].as_f64().expect("a number");
        assert!(difference.abs() < 0.02, "{alone} {face}");
    }
}

#[test]
fn where_there_is_no_face_the_answer_is_empty() {
    let (_keep, server) = server();
    let answer = ask(&server, VISION, &picture(320, 240, &[], 0));
    assert_eq!(answer["images"], json!([{ "width": 320, "height": 240, "faces": [] }]));
}

#[test]
fn the_caller_chooses_the_detector_and_the_side() {
    let (_keep, server) = server();
    // Half a cell at the cheap side, a whole one at the accurate side.
    let picture = picture(640, 480, &[[160, 160]], 8);
    let n = |key: &str, path: &str| ask(&server, path, &picture)["images"][0][key].as_array().map(Vec::len);
    let n_faces = |path: &str| n("faces", path);
    assert_eq!(n_faces(VISION), Some(0));
    assert_eq!(n_faces("/v1/vision/classify?side=640"), Some(1));
    assert_eq!(n_faces("/v1/vision/classify?detector=face-detector&side=640"), Some(1));
    assert_eq!(n_faces("/v1/models/faces/predict?side=640"), Some(1));
    assert_eq!(n("regions", "/v1/vision/classify?model=face&detector=face-detector&side=640"), Some(1));
    assert_eq!(n("detections", "/v1/models/face-detector/predict?side=640"), Some(1));
    for path in ["/v1/vision/classify?model=face", "/v1/vision/classify?detector=none"] {
        let answer = ask(&server, path, &picture);
        let mut keys: Vec<&String> = answer["images"][0].as_object().expect("an image").keys().collect();
        keys.sort();
        assert_eq!(keys, ["height", "label", "score", "scores", "width"]);
        assert_eq!((&answer["model"], &answer["version"]), (&json!("face"), &json!(1)));
    }
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_can() {
    let (_keep, server) = server();
    let refusal = |path: &str| {
        let response = exchange(server.address, &post(path, "image/png", b"never read"));
        format!("{} {}", response.status, response.json()["detail"].as_str().unwrap_or_default())
    };
    insta::assert_snapshot!(refusal("/v1/vision/classify?side=500"), @"400 side is 500; allowed are 320, 640");
    insta::assert_snapshot!(refusal("/v1/vision/classify?side=big"), @"400 side is `big`; allowed is a whole number of pixels, at least 1");
    insta::assert_snapshot!(refusal("/v1/vision/classify?model=face&side=320"), @"400 unknown query parameter `side`; allowed are model, detector, top_k, class, balance");
    insta::assert_snapshot!(refusal("/v1/vision/classify?detector=face"), @"422 the model `face` finds no regions; ask a detector, or none");
    insta::assert_snapshot!(refusal("/v1/vision/classify?detector=eyes"), @"404 no model is called `eyes`; the models are `face`, `face-detector`");
    insta::assert_snapshot!(refusal("/v1/vision/classify?model=face-detector&detector=face-detector"), @"422 the model `face-detector` reads no regions of pictures; ask it with detector=none");
    insta::assert_snapshot!(refusal("/v1/models/face/predict?detector=none"), @"400 unknown query parameter `detector`; allowed are top_k, class, balance");
}

#[test]
fn a_detector_alone_answers_detections() {
    let (_keep, server) = server();
    let answer = ask(&server, "/v1/models/face-detector/predict", &picture(640, 480, &[[160, 160]], 16));
    let face = &answer["images"][0]["detections"][0];
    let mut keys: Vec<&String> = face.as_object().expect("a face").keys().collect();
    keys.sort();
    assert_eq!(keys, ["box", "label", "label_id", "score"]);
    assert_eq!(
        ask(&server, "/v1/vision/classify?model=face-detector", &picture(640, 480, &[[160, 160]], 16)),
        answer
    );
    let told = ok(exchange(server.address, &get("/v1/models/face-detector")));
    assert_eq!((&told["task"], &told["labels"]), (&json!("face-detection"), &json!(["face"])));
}

#[test]
fn boxes_stand_upright_whichever_way_the_camera_was_held() {
    let (_keep, server) = server();
    let upright = picture(640, 480, &[[160, 160]], 16);
    for orientation in 1..=8 {
        let stored = pictures::stored_as(&upright, orientation);
        let png = pictures::oriented_png(&stored, orientation);
        let answer = ok(exchange(server.address, &post(VISION, "image/png", &png)));
        let image = &answer["images"][0];
        assert_eq!((&image["width"], &image["height"]), (&json!(640), &json!(480)), "{orientation}");
        assert_eq!(numbers(&image["faces"][0]), [136.0, 136.0, 64.0, 64.0], "{orientation}");
    }
}

#[test]
fn of_a_crowd_the_surest_are_read_and_all_are_found() {
    let (_keep, server) = server();
    let squares: Vec<[u32; 2]> =
        (0..9).flat_map(|y| (0..12).map(move |x| [x * 48 + 16, y * 48 + 16])).collect();
    let answer = ask(&server, VISION, &picture(640, 480, &squares, 16));
    let faces = answer["images"][0]["faces"].as_array().expect("faces");
    assert_eq!(faces.len(), 108);
    assert!(faces.is_sorted_by(|a, b| a["confidence"].as_f64() >= b["confidence"].as_f64()));
    let n_read = faces.iter().take_while(|face| face["label"].is_string()).count();
    assert_eq!(n_read, 64);
    assert!(faces[64..].iter().all(|face| face["label"].is_null() && face["scores"] == json!([])));
}

#[test]
fn images_of_one_request_keep_their_own_faces() {
    let (_keep, server) = server();
    let squares = [&[[160, 160]][..], &[], &[[32, 32], [320, 320]]];
    let images: Vec<String> = squares
        .iter()
        .map(|squares| BASE64_STANDARD.encode(pictures::png(&picture(640, 480, squares, 16))))
        .collect();
    let body = json!({ "images": images }).to_string();
    let answer = ok(exchange(server.address, &post(VISION, "application/json", body.as_bytes())));
    let together = answer["images"].as_array().expect("images");
    for (squares, image) in squares.iter().zip(together) {
        assert_eq!(*image, ask(&server, VISION, &picture(640, 480, squares, 16))["images"][0]);
    }
    let broken = json!({ "images": [images[0], "AAAA"] }).to_string();
    let refused = exchange(server.address, &post(VISION, "application/json", broken.as_bytes()));
    assert_eq!(refused.status, 415);
    assert!(refused.text().contains("images[1]"), "{}", refused.text());
}

#[test]
fn both_stages_are_paid_for_and_fit_the_deadline_or_are_refused() {
    let (_keep, server) = server();
    let png = pictures::png(&picture(640, 480, &[[160, 160], [320, 320]], 16));
    let timed = |deadline: &str| {
        let headers = [("content-type", "image/png"), ("x-deadline-ms", deadline)];
        exchange(server.address, &post_with(VISION, &headers, &png))
    };
    let response = timed("60000");
    let timing = response.header("server-timing").expect("a price").to_owned();
    assert!(timing.contains("infer;dur=") && timing.contains("cpu;dur="), "{timing}");
    ok(response);
    let refused = timed("1");
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    assert!(refused.text().contains("deadline of 1 ms"), "{}", refused.text());
    let metrics = exchange(server.address, &get("/metrics"));
    for (model, rows) in [("face-detector", 1), ("face", 2)] {
        let line = format!("lepton_answered_rows_total{{model=\"{model}\",version=\"1\"}} {rows}");
        assert!(metrics.text().contains(&line), "no {line}");
    }
}
