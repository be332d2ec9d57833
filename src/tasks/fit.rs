//! Holds a manifest to its files and its network: what does not fit is refused with both numbers.
//!
//! Invariant: no file outside the model's own folder is read, and none without a size limit.

use std::{
    fs::File,
    io::Read,
    path::{Component, Path},
    sync::Arc,
};

use super::SpecError;
use crate::{
    engine::{Dim, Port, Signature},
    manifest::Labels,
};

/// Largest file of labels, in bytes.
const MAX_LABELS_BYTES: u64 = 1 << 20;

pub(super) fn misfit(text: impl Into<String>) -> SpecError {
    SpecError::Misfit(text.into())
}

/// Reads a file of a model's folder. The manifest names it by a plain name, so that it can name no
/// other folder's.
pub(super) fn read(dir: &Path, name: &Path, max_bytes: u64) -> Result<Vec<u8>, SpecError> {
    let file = name.display().to_string();
    let mut parts = name.components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name.as_os_str())
    {
        let reason = "it must be the plain name of a file in the model's own folder".to_owned();
        return Err(SpecError::File { file, reason });
    }
    let failed = |reason: String| SpecError::File { file: file.clone(), reason };
    let opened = File::open(dir.join(name)).map_err(|e| failed(e.to_string()))?;
    if !opened.metadata().map_err(|e| failed(e.to_string()))?.is_file() {
        return Err(failed("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    opened.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > max_bytes {
        return Err(failed(format!("it is larger than the {max_bytes} bytes allowed")));
    }
    Ok(bytes)
}

/// Labels, and what they stand in, as a refusal names it.
pub(super) struct Listed {
    pub(super) source: String,
    pub(super) labels: Arc<[Arc<str>]>,
}

/// The labels and where they stand, none of them blank. In a file they stand one a line; a byte order
/// mark, carriage returns and blank lines at the end are no labels.
pub(super) fn listed(dir: &Path, labels: &Labels) -> Result<Listed, SpecError> {
    let (source, labels) = match labels {
        Labels::Inline(labels) => ("the list of labels".to_owned(), labels.clone()),
        Labels::File(name) => {
            let file = name.display().to_string();
            let text = String::from_utf8(read(dir, name, MAX_LABELS_BYTES)?)
                .map_err(|_| SpecError::File { file: file.clone(), reason: "it is not UTF-8".to_owned() })?;
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            (file, text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
        }
    };
    if let Some(blank) = labels.iter().position(String::is_empty) {
        return Err(misfit(format!("label {} of {source} is blank", blank + 1)));
    }
    Ok(Listed { source, labels: labels.into_iter().map(Arc::from).collect() })
}

/// Finds an input that the manifest names.
pub(super) fn input<'a>(
    signature: &'a Signature,
    key: &str,
    name: &str,
) -> Result<(usize, &'a Port), SpecError> {
    signature.input(name).ok_or_else(|| {
        let names: Vec<&str> = signature.inputs.iter().map(|port| port.name.as_str()).collect();
        misfit(format!("{key} names the input {name:?}, but the network's inputs are {}", names.join(", ")))
    })
}

/// Refuses a network with inputs that the manifest fills with nothing.
pub(super) fn all_filled(signature: &Signature, filled: &[&str]) -> Result<(), SpecError> {
    match signature.inputs.iter().find(|port| !filled.contains(&port.name.as_str())) {
        Some(port) => {
            let (name, found) = (&port.name, port.describe());
            Err(misfit(format!("the network also takes {name:?}, {found}, which nothing fills")))
        }
        None => Ok(()),
    }
}

/// Refuses an axis of another extent than the manifest's.
pub(super) fn axis(port: &Port, axis: usize, what: &str, wanted: usize) -> Result<(), SpecError> {
    match port.shape.get(axis) {
        Some(Dim::Fixed(n)) if *n != wanted => {
            let name = &port.name;
            Err(misfit(format!("{what} is {wanted}, but input {name:?} takes {n}")))
        }
        _ => Ok(()),
    }
}

/// Refuses what would turn levels into no numbers: one value or one per channel, all finite.
pub(super) fn normalisation(channels: usize, scale: f32, mean: &[f32], std: &[f32]) -> Result<(), SpecError> {
    for (values, name) in [(mean, "mean"), (std, "std")] {
        let n_values = values.len();
        if n_values != 1 && n_values != channels {
            return Err(misfit(format!("{name} has {n_values} values, but 1 or {channels} are allowed")));
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(misfit(format!("{name} is {values:?}, but its values must be finite")));
        }
    }
    if std.contains(&0.0) {
        return Err(misfit(format!("std is {std:?}, but samples cannot be divided by 0")));
    }
    if !scale.is_finite() || scale == 0.0 {
        return Err(misfit(format!("scale is {scale}, but it must be a finite number other than 0")));
    }
    Ok(())
}

/// Refuses a temperature that would turn logits over or into nonsense.
pub(super) fn temperature(temperature: f32) -> Result<f32, SpecError> {
    if temperature.is_finite() && temperature > 0.0 {
        Ok(temperature)
    } else {
        Err(misfit(format!("temperature is {temperature}, but it must be a number above 0")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_labels(content: &[u8]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("labels.txt"), content).unwrap();
        match listed(dir.path(), &Labels::default()) {
            Ok(Listed { labels, .. }) => Ok(labels.iter().map(|label| label.to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn labels_are_trimmed_lines() {
        assert_eq!(read_labels(b"good\r\n  bad \n\n").unwrap(), ["good", "bad"]);
        assert_eq!(read_labels("\u{feff}froh\ntr\u{fc}b".as_bytes()).unwrap(), ["froh", "trüb"]);
    }

    #[test]
    fn a_manifest_may_list_its_labels_itself() {
        let inline = Labels::Inline(["no", "yes"].map(str::to_owned).to_vec());
        let Listed { source, labels } = listed(Path::new("nowhere"), &inline).unwrap();
        assert_eq!(
            (source.as_str(), labels.as_ref()),
            ("the list of labels", &[Arc::from("no"), Arc::from("yes")][..])
        );
    }

    #[test]
    fn blank_and_broken_labels_are_refused() {
        assert!(read_labels(b"good\n\nbad").unwrap_err().contains("label 2 of labels.txt is blank"));
        assert!(read_labels(b"\xff\xfe").unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn only_plain_names_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("labels.txt"), "x").unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let absolute = dir.path().join("labels.txt");
        for name in
            [Path::new("../labels.txt"), Path::new("./labels.txt"), Path::new(".."), Path::new(""), &absolute]
        {
            let error = read(&inner, name, 10).unwrap_err().to_string();
            assert!(error.contains("plain name"), "{error}");
        }
        assert!(read(dir.path(), Path::new("labels.txt"), 10).is_ok());
        assert!(read(dir.path(), Path::new("inner"), 10).unwrap_err().to_string().contains("inner"));
        assert!(
            read(dir.path(), Path::new("absent.txt"), 10).unwrap_err().to_string().contains("absent.txt")
        );
        assert!(
            read(dir.path(), Path::new("labels.txt"), 0).unwrap_err().to_string().contains("larger than")
        );
    }

    #[test]
    fn temperatures_must_be_above_zero() {
        assert!(temperature(0.5).is_ok());
        for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(temperature(wrong).is_err());
        }
    }
}
