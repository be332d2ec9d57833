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
        let scores = image["faces"][0]["scores"].as_array().expect("scores").iter();
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
