//! JSON as Python writes it: `NaN`, `Infinity` and `-Infinity` stand for numbers.
//!
//! Invariant: what is JSON already is read as it is; inside texts nothing is changed.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::MAX_JSON;
use crate::folder::Folder;

/// The names that Python gives to numbers that JSON has none for, the longest first.
const NO_NUMBERS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// Reads a file of a model's folder.
pub(super) fn read<T: DeserializeOwned>(folder: &Folder, file: &str) -> Result<T, String> {
    let bytes = folder.read(Path::new(file), MAX_JSON)?;
    serde_json::from_slice(&without_names(&bytes)).map_err(|error| format!("{file}: {error}"))
}

/// The same with `null` where Python has a name for a number.
fn without_names(json: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest, mut in_text) = (Vec::with_capacity(json.len()), json, false);
    while let [byte, behind @ ..] = rest {
        let name = NO_NUMBERS.into_iter().find(|name| !in_text && rest.starts_with(name));
        if let Some(name) = name {
            plain.extend_from_slice(b"null");
            rest = &rest[name.len()..];
            continue;
        }
        plain.push(*byte);
        rest = behind;
        match (byte, behind) {
            (b'"', _) => in_text = !in_text,
            // What is escaped ends no text.
            (b'\\', [escaped, behind @ ..]) if in_text => {
                plain.push(*escaped);
                rest = behind;
            }
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn python_s_numbers_are_read_and_texts_stay_as_they_are() {
        let text =
            br#"{"a": NaN, "b": [Infinity, -Infinity, 1], "NaN": "NaN \" Infinity", "c": "\\", "d": -Infinity}"#;
        let value: Value = serde_json::from_slice(&without_names(text)).unwrap();
        let expected =
            json!({"a": null, "b": [null, null, 1], "NaN": "NaN \" Infinity", "c": "\\", "d": null});
        assert_eq!(value, expected);
    }
}
