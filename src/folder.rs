//! One model's folder: the only way to its files.
//!
//! Invariant: what is opened is a regular file below the canonical root of all models, also where a
//! symbolic link leads to it. Errors name files as they stand in the folder.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// A file that may be read.
#[derive(Debug)]
pub(crate) struct Checked {
    path: PathBuf,
    pub(crate) n_bytes: u64,
}

/// A folder below the root of all models.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder called `name` in `root`, which is canonical.
    pub(crate) fn open(root: &Path, name: &str) -> Result<Self, String> {
        let path = root.join(name).canonicalize().map_err(|error| format!("cannot open it: {error}"))?;
        if !path.starts_with(root) {
            return Err("its folder is a link that leads out of the folder of models".to_owned());
        }
        Ok(Self { root: root.to_owned(), path })
    }

    /// The folder itself, canonical.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether something goes by that name.
    pub(crate) fn has(&self, file: &Path) -> bool {
        self.path.join(file).symlink_metadata().is_ok()
    }

    /// The names of the folders in it.
    pub(crate) fn subfolders(&self) -> Result<Vec<String>, String> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if entry.path().is_dir() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
            Ok(names)
        };
        list().map_err(|error| format!("cannot list its folder: {error}"))
    }

    /// The bytes of all files in the folder of `file`.
    pub(crate) fn bytes_beside(&self, file: &Path) -> u64 {
        let entries = fs::read_dir(self.path.join(file.parent().unwrap_or(Path::new(""))));
        let sizes = entries.into_iter().flatten().flatten().filter_map(|entry| entry.path().metadata().ok());
        sizes.filter(fs::Metadata::is_file).map(|file| file.len()).fold(0, u64::saturating_add)
    }

    /// The names of the files in the folder `below` it, in order; none where there is no such folder.
    pub(crate) fn files(&self, below: &Path) -> Vec<String> {
        let entries = fs::read_dir(self.path.join(below)).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        let mut names: Vec<String> =
            files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Makes sure that `file` may be read: a regular file within the root, not larger than allowed.
    pub(crate) fn check(&self, file: &Path, most_bytes: u64) -> Result<Checked, String> {
        let name = file.display();
        let plain = file.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain {
            return Err(format!("{name} is not allowed; expected a file in the model's folder"));
        }
        let path = self.path.join(file).canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no {name}"),
            _ => format!("cannot read {name}: {error}"),
        })?;
        if !path.starts_with(&self.root) {
            return Err(format!("{name} is a link that leads out of the folder of models"));
        }
        let metadata = path.metadata().map_err(|error| format!("cannot read {name}: {error}"))?;
        if !metadata.is_file() {
            return Err(format!("{name} is not a regular file"));
        }
        let n_bytes = metadata.len();
        if n_bytes > most_bytes {
            return Err(format!("{name} has {n_bytes} bytes; allowed are {most_bytes}"));
        }
        Ok(Checked { path, n_bytes })
    }

    /// Reads a whole file of at most `most_bytes`.
    pub(crate) fn read(&self, file: &Path, most_bytes: u64) -> Result<Vec<u8>, String> {
        let Checked { path, .. } = self.check(file, most_bytes)?;
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            // The file may grow between the check and the reading.
            File::open(path)?.take(most_bytes).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| format!("cannot read {}: {error}", file.display()))
    }

    /// Reads a whole text file of at most `most_bytes`.
    pub(crate) fn read_text(&self, file: &Path, most_bytes: u64) -> Result<String, String> {
        String::from_utf8(self.read(file, most_bytes)?)
            .map_err(|_| format!("{} is not UTF-8", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with one model folder, and a secret beside the root.
    fn root() -> (tempfile::TempDir, PathBuf) {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let root = outside.path().canonicalize().unwrap().join("models");
        fs::create_dir_all(root.join("face")).unwrap();
        fs::write(root.join("face/labels.txt"), "a\nb\n").unwrap();
        (outside, root)
    }

    #[test]
    fn a_file_in_the_folder_is_read_up_to_its_limit() {
        let (_keep, root) = root();
        let folder = Folder::open(&root, "face").unwrap();
        assert_eq!(folder.read_text(Path::new("labels.txt"), 4).unwrap(), "a\nb\n");
        assert_eq!(
            folder.read(Path::new("labels.txt"), 3).unwrap_err(),
            "labels.txt has 4 bytes; allowed are 3"
        );
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let (_keep, root) = root();
        let folder = Folder::open(&root, "face").unwrap();
        let absolute = root.join("face/labels.txt");
        for bad in
            [Path::new("../../secret"), Path::new("../face/labels.txt"), Path::new("/etc/passwd"), &absolute]
        {
            assert!(folder.read(bad, 100).unwrap_err().contains("is not allowed"), "{bad:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_may_lead_to_another_place_below_the_root_only() {
        use std::os::unix::fs::symlink;
        let (_keep, root) = root();
        fs::create_dir(root.join("blobs")).unwrap();
        fs::write(root.join("blobs/1f"), "x").unwrap();
        symlink("../blobs/1f", root.join("face/inside")).unwrap();
        symlink("../../secret", root.join("face/outside")).unwrap();
        symlink("..", root.join("out")).unwrap();
        let folder = Folder::open(&root, "face").unwrap();
        assert_eq!(folder.read(Path::new("inside"), 9).unwrap(), b"x");
        let error = folder.read(Path::new("outside"), 9).unwrap_err();
        assert_eq!(error, "outside is a link that leads out of the folder of models");
        assert!(Folder::open(&root, "out").unwrap_err().contains("leads out"));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_by_its_name() {
        let (_keep, root) = root();
        fs::create_dir(root.join("face/model.onnx")).unwrap();
        let folder = Folder::open(&root, "face").unwrap();
        assert_eq!(folder.check(Path::new("model.onnx"), 9).unwrap_err(), "model.onnx is not a regular file");
        assert_eq!(folder.check(Path::new("none"), 9).unwrap_err(), "there is no none");
    }
}
