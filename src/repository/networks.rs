//! Which of a folder's files is the network.
//!
//! Invariant: one file is served, and where that is not clear the folder is refused with the files that there are.

use std::path::{Path, PathBuf};

use super::{NETWORK, folder::Folder};
use crate::manifest::Version;

/// Networks under the names that exporters give to other forms of `model.onnx`, the preferred first: where it is
/// missing, one of them is enough.
const OTHER_FORMS: [&str; 6] = [
    "model_optimized.onnx",
    "model_quantized.onnx",
    "model_int8.onnx",
    "model_uint8.onnx",
    "model_fp16.onnx",
    "model_q4.onnx",
];

/// Finds the network with the highest version: `<version>/model.onnx`, or version 1 as `model.onnx` or
/// `onnx/model.onnx` in the folder itself; where there is none, another form of it in the same places.
pub(super) fn newest(folder: &Folder) -> Result<(Version, PathBuf), String> {
    let mut places: Vec<(Version, PathBuf)> = Vec::new();
    for name in folder.subfolders()? {
        if let Ok(number) = name.parse() {
            places.push((Version(number), name.into()));
        }
    }
    places.extend(["", "onnx"].map(|place| (Version(1), place.into())));
    let mut found: Vec<(Version, PathBuf)> =
        places.iter().map(|(version, place)| (*version, place.join(NETWORK))).collect();
    found.retain(|(_, path)| folder.has(path));
    if found.is_empty() {
        for (version, place) in places {
            found.extend(other_form(folder, &place)?.map(|path| (version, path)));
        }
    }
    found.sort();
    let [rest @ .., (version, path)] = found.as_slice() else {
        return Err(format!(
            "there is no network; expected 1/{NETWORK}, the folder's name being the version"
        ));
    };
    if let Some((_, twin)) = rest.iter().find(|(other, _)| other == version) {
        return Err(format!(
            "{} and {} are both version {version}; expected one",
            twin.display(),
            path.display()
        ));
    }
    Ok((*version, path.clone()))
}

/// The network in a place without a `model.onnx`: another form of it, or the only one there.
fn other_form(folder: &Folder, place: &Path) -> Result<Option<PathBuf>, String> {
    if let Some(form) = OTHER_FORMS.into_iter().find(|form| folder.has(&place.join(form))) {
        return Ok(Some(place.join(form)));
    }
    let mut files = folder.files(place);
    files.retain(|file| file.ends_with(".onnx"));
    match files.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(place.join(only))),
        several => {
            Err(format!("there is no {NETWORK} among {}; expected one of that name", several.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(files: &[&str]) -> Result<String, String> {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for file in files {
            let path = root.join("m").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let (version, path) = newest(&Folder::open(&root, "m").unwrap())?;
        Ok(format!("{version} {}", path.display()))
    }

    #[test]
    fn another_form_of_the_network_is_enough_where_there_is_no_model_onnx() {
        for (files, expected) in [
            (&["onnx/model_quantized.onnx"][..], "1 onnx/model_quantized.onnx"),
            (&["model_int8.onnx", "model_q4.onnx"], "1 model_int8.onnx"),
            (&["onnx/model_quantized.onnx", "onnx/model.onnx"], "1 onnx/model.onnx"),
            (&["model_quantized.onnx", "onnx/model.onnx"], "1 onnx/model.onnx"),
            (&["2/resnet.onnx", "1/model_int8.onnx"], "2 2/resnet.onnx"),
            (&["mine.onnx", "mine.onnx.data"], "1 mine.onnx"),
        ] {
            assert_eq!(found(files).as_deref(), Ok(expected), "{files:?}");
        }
    }

    #[test]
    fn networks_that_are_not_told_apart_are_refused_by_their_names() {
        let error = found(&["a.onnx", "b.onnx"]).unwrap_err();
        assert_eq!(error, "there is no model.onnx among a.onnx, b.onnx; expected one of that name");
        let error = found(&["model_int8.onnx", "onnx/model_int8.onnx"]).unwrap_err();
        assert!(error.contains("are both version 1"), "{error}");
        assert!(found(&["labels.txt"]).unwrap_err().contains("there is no network"));
    }
}
