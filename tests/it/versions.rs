//! A start with versions and models that do not load: what can be served is, and what is not is named.
//!
//! What is broken here would end the process that loads it: that it does not shows that each load is tried in another
//! process first, those of older versions included.

use std::{fs, path::Path};

use lepton_testkit::{
    onnx::{Axis, convolutional},
    pictures,
};
use tempfile::TempDir;

use crate::{
    models::{MANIFEST, computed, lepton, told},
    support::{
        client::{exchange, get, post},
        process::Lepton,
    },
};

/// Little memory for each load, so that a greedy file is soon told.
const LITTLE: [(&str, &str); 2] =
    [("LEPTON_MODELS_LOAD_TIMEOUT", "10s"), ("LEPTON_MODELS_LOAD_MEMORY", "512MiB")];

/// A folder of models with these networks: name, folder of the version, network.
fn models(networks: &[(&str, &str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, version, network) in networks {
        let model = folder.path().join(name);
        fs::create_dir_all(model.join(version)).unwrap();
        fs::write(model.join("model.toml"), MANIFEST).unwrap();
        fs::write(model.join(version).join("model.onnx"), network).unwrap();
    }
    folder
}

fn good() -> Vec<u8> {
    convolutional(Axis::Named("batch"), 8)
}

fn predict(server: &Lepton, name: &str) -> (u16, String) {
    let path = format!("/v1/models/{name}/predict");
    let answer = exchange(server.address, &post(&path, "image/png", &pictures::png(&pictures::smooth(8, 8))));
    (answer.status, answer.text().to_owned())
}

fn serve(models: &Path, settings: &[(&str, &str)]) -> Lepton {
    Lepton::start_in(models, &[&LITTLE, settings].concat())
}

#[test]
fn where_the_newest_version_does_not_load_the_one_before_is_served_with_a_warning() {
    let models = models(&[
        ("m", "1", &good()),
        ("m", "2", &good()),
        ("m", "3", b"no network"),
        ("m", "10", &computed()),
        ("m", "v11", &good()),
    ]);
    let server = serve(models.path(), &[]);
    let (status, answer) = predict(&server, "m");
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("\"version\":2"), "{answer}");
    assert_eq!(exchange(server.address, &get("/readyz")).status, 200);
    let log = server.log();
    assert!(log.contains("an older one is served") && log.contains("of memory"), "{log}");
    assert!(log.contains("v11") && log.contains("its name is no number"), "{log}");
    let listed = exchange(server.address, &get("/v1/models/m")).json();
    assert_eq!((&listed["versions"], &listed["state"]), (&serde_json::json!([2]), &"ready".into()));
}

#[test]
fn a_model_that_does_not_load_is_named_and_the_others_are_served() {
    let models = models(&[("bad", "1", &computed()), ("good", "1", &good())]);
    fs::create_dir(models.path().join("worse")).unwrap();
    fs::write(models.path().join("worse/model.toml"), "no = 'manifest'\n").unwrap();
    let server = serve(models.path(), &[]);
    assert_eq!(predict(&server, "good").0, 200);
    let (status, answer) = predict(&server, "bad");
    assert!(status == 503 && answer.contains("the model `bad` could not be loaded"), "{status} {answer}");
    let ready = exchange(server.address, &get("/readyz"));
    let expected = "the model `bad` failed to load, the model `worse` failed to load";
    assert!(ready.status == 503 && ready.text().contains(expected), "{}", ready.text());
    assert!(exchange(server.address, &get("/metrics")).text().contains("lepton_ready 0"));
    let worse = exchange(server.address, &get("/v1/models/worse")).json();
    assert!(worse["reason"].as_str().unwrap().contains("model.toml: TOML parse error"), "{worse}");
    drop(server);

    let server = serve(models.path(), &[("LEPTON_MODELS_ON_FAILURE", "ready")]);
    assert_eq!(exchange(server.address, &get("/readyz")).status, 200);
    assert!(exchange(server.address, &get("/metrics")).text().contains("lepton_ready 1"));
    drop(server);

    let ended = told(&lepton("serve", models.path(), &[("LEPTON_MODELS_ON_FAILURE", "exit")]), 1);
    assert!(ended.contains("the model `bad` could not be loaded"), "{ended}");
}

#[test]
fn a_setting_that_names_no_model_is_told_by_check() {
    let models = models(&[("m", "1", &good())]);
    let check = told(&lepton("check", models.path(), &[("LEPTON_MODELS_VISION", "n")]), 1);
    assert!(check.contains("models.vision is n, and there is no such model; the models are m"), "{check}");
    told(&lepton("check", models.path(), &[("LEPTON_MODELS_VISION", "m")]), 0);
}
