//! The recipes of `training/`, run whole on little data with `--smoke`. They need Python with the
//! packages of `training/requirements.txt`, in `.venv` or as `TRAINING_PYTHON` names it, and the
//! data beside the repository. Where either is missing this is skipped, and says so.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// The Python that can train, or why there is none.
fn python(root: &Path) -> Result<OsString, String> {
    let named = env::var_os("TRAINING_PYTHON");
    let python = named.unwrap_or_else(|| root.join(".venv/bin/python").into_os_string());
    let has_all = Command::new(&python)
        .args(["-c", "import numpy, onnx, onnxruntime, PIL, skimage, sklearn, tokenizers, torch"])
        .output()
        .is_ok_and(|output| output.status.success());
    let lacking = || format!("{} cannot import the packages of training/requirements.txt", python.display());
    if has_all { Ok(python.clone()) } else { Err(lacking()) }
}

/// Every file of a folder and of those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Runs a recipe and holds what it writes to what ships: the same files, none empty.
fn writes_what_ships(recipe: &str, model: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = root.join("../shared/data");
    let skipped = |reason: &str| {
        // Past the test runner's capture: what was not tested has to be seen.
        let _told = writeln!(io::stderr(), "skipped: training/{recipe}.py --smoke: {reason}");
    };
    if !data.is_dir() {
        return skipped("there is no data in ../shared/data");
    }
    let python = match python(root) {
        Ok(python) => python,
        Err(reason) => return skipped(&reason),
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let (cache, out) = (scratch.path().join("cache"), scratch.path().join("out"));
    let run = Command::new(python)
        .arg(root.join(format!("training/{recipe}.py")))
        .args(["--smoke", "--data"])
        .arg(&data)
        .arg("--cache")
        .arg(&cache)
        .arg("--out")
        .arg(&out)
        .output()
        .expect("Python starts");
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{recipe} ended with {}: {told}", run.status);
    let relative = |folder: &Path| {
        let mut names: Vec<PathBuf> =
            files(folder).iter().map(|path| path.strip_prefix(folder).expect("inside").to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(relative(&out), relative(&root.join("models").join(model)));
    for file in files(&out) {
        assert!(fs::metadata(&file).is_ok_and(|about| about.len() > 0), "{} is empty", file.display());
    }
}

#[test]
fn data_that_are_missing_are_named_with_their_source_and_hash() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().expect("a folder");
    let sources = Command::new("python3")
        .arg(root.join("training/sources.py"))
        .arg("--data")
        .arg(scratch.path().join("data"))
        .output();
    let Ok(run) = sources else {
        let _told = writeln!(io::stderr(), "skipped: training/sources.py: there is no python3");
        return;
    };
    let told = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{told}{}", String::from_utf8_lossy(&run.stderr));
    for part in [
        "data/ferplus-train.tar.xz is missing",
        "from https://github.com/microsoft/FERPlus",
        "SHA-256 c5c3573a0f523b6fbe668f989d49a5f4c9c735ee8a7b2fa959e4e07f5cf916f6",
        "models/yunet/yunet_n_dynamic.onnx is missing",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
}

#[test]
fn the_recipe_of_the_face_classifier_runs_from_data_to_card() {
    writes_what_ships("face", "face");
}

#[test]
fn the_recipe_of_the_face_detector_runs_from_data_to_card() {
    writes_what_ships("detector", "face-detector");
}

#[test]
fn the_recipe_of_the_sentiment_reader_runs_from_data_to_card() {
    writes_what_ships("sentiment", "sentiment");
}
