//! Folders built by code, scanned and loaded.

mod described;
mod embedded;
mod served;

use super::*;
use crate::image::ImageLimits;

const SENTIMENT: &str = "description = 'tone'\nlicence = 'MIT'\n[task.text-classification]\nmax_tokens = 8\nids = 'ids'\n[batch]\nmax_rows = 4\n";
const OPTIONS: TaskOptions = TaskOptions { image: ImageLimits { pixels: 1, side: 1, memory: 1 << 28 } };

/// A folder of models with these files, each holding its text.
fn models(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn scanned(files: &[(&str, &str)]) -> Result<Vec<Declared>, String> {
    let found = scan(models(files).path(), OPTIONS).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|found| found.declared).collect())
}

#[test]
fn models_are_declared_by_name_with_what_their_manifest_says() {
    let declared = scanned(&[
        ("tone/model.toml", SENTIMENT),
        ("tone/1/model.onnx", ""),
        ("tone/10/model.onnx", ""),
        ("tone/9/model.onnx", ""),
        ("tone/11/notes.txt", "no network here"),
        ("echo/model.toml", SENTIMENT),
        ("echo/model.onnx", ""),
        (".git/config", ""),
        ("README.md", ""),
        ("notes/ideas.txt", ""),
    ])
    .unwrap();
    let found: Vec<_> = declared.iter().map(|d| (d.name.as_str(), d.version.0, d.batch.max_rows)).collect();
    assert_eq!(found, [("echo", 1, 4), ("tone", 10, 4)]);
    assert_eq!((declared[0].description.as_str(), declared[0].licence.as_str()), ("tone", "MIT"));
}

#[test]
fn a_folder_of_hugging_face_is_a_model_too() {
    let config = r#"{"id2label": {"0": "no", "1": "yes"}, "model_type": "distilbert"}"#;
    let declared =
        scanned(&[("sst/config.json", config), ("sst/tokenizer.json", "{}"), ("sst/onnx/model.onnx", "")])
            .unwrap();
    assert_eq!((declared[0].version.0, declared[0].batch.max_rows), (1, 32));
    assert_eq!(declared[0].description, "distilbert, text classification into 2 labels");
}

#[test]
fn what_is_wrong_is_told_with_the_model_the_file_and_what_is_expected() {
    for (files, expected) in [
        (&[("Tone/model.toml", SENTIMENT)][..], "the model `Tone`: \"Tone\" cannot be a model's name"),
        (&[("tone/model.toml", SENTIMENT)], "the model `tone`: there is no network; expected 1/model.onnx"),
        (&[("tone/model.toml", "x = 1\n")], "the model `tone`: model.toml: TOML parse error at line 1"),
        (
            &[("tone/1/model.onnx", "")],
            "the model `tone`: there is a 1/model.onnx, but nothing says what it is for",
        ),
        (
            &[("tone/model.toml", SENTIMENT), ("tone/1/model.onnx", ""), ("tone/01/model.onnx", "")],
            "the model `tone`: 01/model.onnx and 1/model.onnx are both version 1",
        ),
        (
            &[("tone/model.toml", SENTIMENT), ("tone/1/model.onnx", ""), ("tone/model.onnx", "")],
            "the model `tone`: 1/model.onnx and model.onnx are both version 1",
        ),
        (&[("notes/ideas.txt", "")], "there is no model in "),
    ] {
        let Err(error) = scanned(files) else { panic!("{expected}") };
        assert!(error.starts_with(expected), "{error}");
    }
    let zero = SENTIMENT.replace("max_rows = 4", "max_rows = 0");
    let Err(error) = scanned(&[("tone/model.toml", &zero), ("tone/1/model.onnx", "")]) else {
        panic!("0 rows")
    };
    assert_eq!(error, "the model `tone`: model.toml: batch.max_rows is 0; allowed is 1 and more");
}

#[test]
fn a_missing_folder_of_models_is_named_as_it_was_written() {
    let Err(error) = scan(Path::new("no/such/models"), OPTIONS) else { panic!("it exists") };
    assert!(error.to_string().starts_with("cannot read the folder of models, \"no/such/models\""), "{error}");
}

#[test]
fn a_broken_network_is_told_by_its_plain_name() {
    let dir = models(&[("tone/model.toml", SENTIMENT), ("tone/3/model.onnx", "no network")]);
    let found = scan(dir.path(), OPTIONS).unwrap().remove(0);
    assert_eq!(found.network_bytes, 10);
    let Err(error) = (found.declared.load)() else { panic!("it loaded") };
    assert!(error.starts_with("3/model.onnx: "), "{error}");
    assert!(!error.contains(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_detector_that_would_hold_many_pictures_at_once_is_refused() {
    let detector = "[task.face-detection]\nsides = [320]\noutputs = []\n[task.face-detection.input]\nname = 'image'\n\
                    color = 'rgb'\nmean = [0.5]\nstd = [0.25]\n[batch]\nmax_rows = 8\n";
    let Err(error) = scanned(&[("eyes/model.toml", detector), ("eyes/1/model.onnx", "")]) else {
        panic!("8 rows")
    };
    assert_eq!(error, "the model `eyes`: model.toml: batch.max_rows is 8; a detector allows 1");
}
