//! Real photographs, from the folder beside the repository. Where it is missing, this is skipped, and
//! says so.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{
    client::{exchange, multipart, post},
    process::Lepton,
};

/// The folder of photographs and what is known of each; nothing where they are missing.
fn photographs() -> Option<(PathBuf, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/photos");
    let Ok(manifest) = fs::read_to_string(folder.join("manifest.json")) else {
        // Past the test runner's capture: what was not tested has to be seen.
        let _told = writeln!(io::stderr(), "skipped: there are no photographs in ../shared/photos");
        return None;
    };
    Some((folder, serde_json::from_str(&manifest).expect("a list")))
}

#[test]
fn the_shipped_detector_counts_faces_and_takes_no_animal_for_one() {
    let Some((folder, manifest)) = photographs() else { return };
    let server = Lepton::start();
    for entry in &manifest {
        let file = entry["file"].as_str().expect("a file");
        let bytes = fs::read(folder.join(file)).expect("readable");
        for side in [320, 640] {
            let path = format!("/v1/vision/classify?side={side}");
            let response = exchange(server.address, &post(&path, "application/octet-stream", &bytes));
            assert_eq!(response.status, 200, "{file}: {}", response.text());
            let n_faces = response.json()["images"][0]["faces"].as_array().expect("faces").len() as u64;
            assert_eq!(Some(n_faces), entry["faces"].as_u64(), "{file} at {side}");
        }
    }
}

/// A picture as PNG.
fn png(picture: &image::RgbImage) -> Vec<u8> {
    let mut bytes = io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    bytes.into_inner()
}

/// The faces that are answered for a picture at that side.
fn faces(server: &Lepton, side: u32, picture: &image::RgbImage) -> Vec<Value> {
    let path = format!("/v1/vision/classify?side={side}&top_k=1");
    let response = exchange(server.address, &post(&path, "image/png", &png(picture)));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["images"][0]["faces"].as_array().expect("faces").clone()
}

#[test]
fn in_an_eighth_of_its_light_a_photograph_shows_the_same_faces_and_no_others() {
    let Some((folder, manifest)) = photographs() else { return };
    let server = Lepton::start();
    for entry in &manifest {
        let file = entry["file"].as_str().expect("a file");
        let mut picture = image::open(folder.join(file)).expect("readable").to_rgb8();
        picture.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|level| level / 8));
        let (found, there) =
            (faces(&server, 320, &picture).len(), entry["faces"].as_u64().expect("a number"));
        // In a crowd one may be lost with the finer levels.
        let lost = if there >= 10 { 1 } else { 0 };
        assert!(found as u64 <= there && found as u64 + lost >= there, "{file}: {found} of {there}");
    }
}

#[test]
fn a_portrait_is_found_at_either_side_and_a_picture_that_is_all_face_with_little_confidence() {
    let Some((folder, manifest)) = photographs() else { return };
    let server = Lepton::start();
    let entry = manifest.iter().find(|entry| entry["file"] == "one_face_astronaut.png").expect("a portrait");
    let picture =
        image::open(folder.join(entry["file"].as_str().expect("a file"))).expect("readable").to_rgb8();
    let whole = faces(&server, 320, &picture);
    let [x, y, width, height] =
        ["x", "y", "width", "height"].map(|key| whole[0]["box"][key].as_f64().expect("a number"));
    let cut = |times: f64| {
        let (side, middle) = (width.max(height) * times, [x + width / 2.0, y + height / 2.0]);
        let [left, top] = middle.map(|middle| (middle - side / 2.0).max(0.0) as u32);
        let part = image::imageops::crop_imm(&picture, left, top, side as u32, side as u32).to_image();
        image::imageops::resize(&part, 600, 600, image::imageops::FilterType::CatmullRom)
    };
    for side in [320, 640] {
        let portrait = faces(&server, side, &cut(1.5));
        assert_eq!(portrait.len(), 1, "at {side}");
        assert!(portrait[0]["confidence"].as_f64() > Some(0.35), "{}", portrait[0]);
        let all_face = faces(&server, side, &cut(0.7));
        assert_eq!(all_face.len(), 1, "at {side}");
        // Below the threshold, so that callers can tell; and classified like any other.
        assert!(all_face[0]["confidence"].as_f64() < Some(0.35), "{}", all_face[0]);
        assert!(all_face[0]["label"].is_string());
        assert!(all_face[0]["box"]["width"].as_f64() > Some(400.0), "{}", all_face[0]);
    }
}

#[test]
fn every_photograph_is_answered_in_its_own_size_alone_and_together() {
    let Some((folder, manifest)) = photographs() else { return };
    let server = Lepton::start();
    let mut photos = Vec::new();
    for entry in &manifest {
        let file = entry["file"].as_str().expect("a file");
        let bytes = fs::read(folder.join(file)).expect("readable");
        let request = post("/v1/vision/classify?model=face", "application/octet-stream", &bytes);
        let response = exchange(server.address, &request);
        assert_eq!(response.status, 200, "{file}: {}", response.text());
        let image = response.json()["images"][0].clone();
        assert_eq!((&image["width"], &image["height"]), (&entry["size"][0], &entry["size"][1]), "{file}");
        let scores = image["scores"].as_array().expect("scores").iter();
        let sum: f64 = scores.map(|score| score["score"].as_f64().expect("a number")).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{file}: the scores add up to {sum}");
        photos.push((bytes, image));
    }
    let parts: Vec<(&str, &[u8])> = photos.iter().map(|(bytes, _)| ("image", bytes.as_slice())).collect();
    let (kind, body) = multipart(&parts);
    let together = exchange(server.address, &post("/v1/vision/classify?model=face", &kind, &body)).json();
    let alone: Vec<&Value> = photos.iter().map(|(_, image)| image).collect();
    assert_eq!(together["images"].as_array().expect("images").iter().collect::<Vec<_>>(), alone);
}
