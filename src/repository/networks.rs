//! Which of a folder's files is the network of which version.
//!
//! Invariant: a version is one file, and where it is not clear which, it is refused with the files that there are.

use std::path::{Path, PathBuf};

use super::NETWORK;
use crate::{folder::Folder, manifest::Version};

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

/// Finds every network, in ascending order of versions: `<version>/model.onnx`, or version 1 as `model.onnx` or
/// `onnx/model.onnx` in the folder itself; where there is none, another form of it in the same places.
fn all(folder: &Folder) -> Result<Vec<(Version, PathBuf)>, String> {
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
    if found.is_empty() {
        return Err(format!(
            "there is no network; expected 1/{NETWORK}, the folder's name being the version"
        ));
    }
    found.sort();
    Ok(found)
}

/// Finds the network of that version, or of the highest one.
pub(super) fn find(folder: &Folder, version: Option<Version>) -> Result<(Version, PathBuf), String> {
    let found = all(folder)?;
    let meant = match version {
        Some(_) => found.iter().rev().find(|(other, _)| Some(*other) == version),
        None => found.last(),
    };
    let Some((version, path)) = meant else {
        let known: Vec<String> = found.iter().map(|(version, _)| version.to_string()).collect();
        let asked = version.map_or_else(String::new, |version| version.to_string());
        return Err(format!("there is no version {asked}; there are {}", known.join(", ")));
    };
    if let Some((_, twin)) = found.iter().find(|(other, twin)| other == version && twin != path) {
        return Err(format!(
            "{} and {} are both version {version}; expected one",
            twin.display(),
            path.display()
        ));
    }
    Ok((*version, path.clone()))
}

/// Every version that there is, in ascending order.
pub(super) fn versions(folder: &Folder) -> Result<Vec<Version>, String> {
    let mut versions: Vec<Version> = all(folder)?.into_iter().map(|(version, _)| version).collect();
    versions.dedup();
    Ok(versions)
}

/// Folders that look as if they were meant as versions and are none, with the reason.
pub(super) fn overlooked(folder: &Folder) -> Vec<(String, &'static str)> {
    let (Ok(folders), Ok(found)) = (folder.subfolders(), all(folder)) else { return Vec::new() };
    let reason = |name: &String| {
        let is_found = found.iter().any(|(_, path)| path.parent() == Some(Path::new(name)));
        let digits = name.trim_start_matches(['v', 'V']);
        match name.parse::<u32>() {
            _ if is_found || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => None,
            Ok(_) => Some("it holds no network"),
            Err(_) => Some("its name is no number; expected a folder such as 2"),
        }
    };
    let overlooked = folders.into_iter().filter_map(|name| reason(&name).map(|reason| (name, reason)));
    overlooked.collect()
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
        let (version, path) = find(&Folder::open(&root, "m").unwrap(), None)?;
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

    #[test]
    fn every_version_is_found_and_what_only_looks_like_one_is_told() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for file in
            ["1/model.onnx", "2/model.onnx", "10/model.onnx", "v11/model.onnx", "12/notes.txt", "onnx/x"]
        {
            let path = root.join("m").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let folder = Folder::open(&root, "m").unwrap();
        assert_eq!(versions(&folder).unwrap(), [1, 2, 10].map(Version));
        assert_eq!(find(&folder, None).unwrap().0, Version(10));
        assert_eq!(find(&folder, Some(Version(2))).unwrap(), (Version(2), "2/model.onnx".into()));
        let error = find(&folder, Some(Version(12))).unwrap_err();
        assert_eq!(error, "there is no version 12; there are 1, 2, 10");
        let mut overlooked = overlooked(&folder);
        overlooked.sort();
        let told: Vec<&str> = overlooked.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(told, ["12", "v11"]);
    }
}
