//! Where the labels of a network stand. Plain data; `task` reads and checks them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the labels stand: in a file of the model's folder, or in the manifest itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "the name of a file with one label a line, or a list of labels")]
pub enum Labels {
    /// One label a line.
    File(PathBuf),
    Inline(Vec<String>),
}

impl Default for Labels {
    fn default() -> Self {
        Self::File("labels.txt".into())
    }
}

impl Labels {
    /// The file that holds the labels, if one does.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Inline(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_a_file_or_lists_them_itself() {
        #[derive(Deserialize)]
        struct Holder {
            labels: Labels,
        }
        let labels = |text: &str| toml::from_str::<Holder>(text).map(|holder| holder.labels);
        assert_eq!(labels("labels = 'l.txt'").unwrap(), Labels::File("l.txt".into()));
        let inline = Labels::Inline(vec!["no".to_owned(), "yes".to_owned()]);
        assert_eq!(labels("labels = ['no', 'yes']").unwrap(), inline);
        assert!(labels("labels = 3").unwrap_err().to_string().contains("or a list of labels"));
    }
}
