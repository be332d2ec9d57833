//! Model folders on disk, turned into models that the pool can load.
//!
//! ```text
//! models/
//!   face/
//!     model.toml      what the network is for; or config.json and its kin, as Hugging Face has them
//!     labels.txt      what the manifest names
//!     2/model.onnx    the network; the highest version is served first
//! ```
//!
//! Invariant: only regular files below the one canonical root are opened, and each is read up to a
//! limit. Errors name the model and the file by their plain names, never by the root's path.

mod evidence;
mod manifest;
mod networks;
mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
};

use thiserror::Error;

use self::evidence::TaskEvidence;
pub use self::manifest::Manifest;
use crate::{
    engine::{self, Artifact, Criteria, Ending, LoadOptions, choose_precision},
    folder::Folder,
    hugging_face::{self, HuggingFaceFolder},
    manifest::{BatchSpec, ModelName, PrecisionPolicy, Version},
    pipelines,
    pool::{Declared, Loaded},
    tasks::{BuildContext, Descriptor, HuggingFace, SpecError, TASKS, TaskOptions},
};

const MANIFEST: &str = "model.toml";
const NETWORK: &str = "model.onnx";

/// Largest network, in bytes: what one protobuf message can hold.
const MAX_NETWORK: u64 = 2 << 30;
/// Largest manifest or JSON description, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;
/// Largest file that a task reads, in bytes.
const MAX_TASK_FILE: u64 = 256 << 20;

/// Why models cannot be served. For the operator.
#[derive(Debug, Error)]
pub enum RepositoryError {
    #[error(
        "cannot read the folder of models, {dir:?}: {reason}; expected a folder with one folder per model"
    )]
    Dir { dir: PathBuf, reason: std::io::Error },
    #[error(
        "there is no model in {dir:?}; expected folders such as face/, each with {MANIFEST} and 1/{NETWORK}"
    )]
    Empty { dir: PathBuf },
    #[error("the model `{name}`: {reason}")]
    Model { name: String, reason: String },
}

/// A model on disk, not loaded yet.
pub struct Found {
    pub declared: Declared,
    /// Bytes of the network's file.
    pub network_bytes: u64,
    /// Bytes of all files beside the network, itself included: its weights may be in some of them.
    pub files_bytes: u64,
}

/// Finds every model below `dir`, in the order of their names, each in its highest version. Networks are read later,
/// on the pool's threads. Folders that hold no model are skipped with a warning.
///
/// # Errors
/// Where one of them is broken; [`Repository::scan`] goes on with the others.
pub fn scan(dir: &Path, options: TaskOptions) -> Result<Vec<Found>, RepositoryError> {
    Repository::new(dir, options).scan()?.into_iter().collect()
}

/// The folder of model folders.
#[derive(Debug, Clone)]
pub struct Repository {
    dir: PathBuf,
    options: TaskOptions,
}

impl Repository {
    /// Looks into `dir` whenever it is asked: what is there may change meanwhile.
    pub fn new(dir: &Path, options: TaskOptions) -> Self {
        Self { dir: dir.to_owned(), options }
    }

    /// Finds every model, in the order of their names, each in its highest version, or the reason why it is none.
    ///
    /// # Errors
    /// Where the folder cannot be read, or there is no model in it.
    pub fn scan(&self) -> Result<Vec<Result<Found, RepositoryError>>, RepositoryError> {
        let root = self.root()?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&root).map_err(|reason| self.unreadable(reason))? {
            let entry = entry.map_err(|reason| self.unreadable(reason))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Dot folders belong to tools and mounts: `.git`, `..data`.
            if !name.starts_with('.') && root.join(&name).is_dir() {
                names.push(name);
            }
        }
        names.sort();
        let found: Vec<_> = names
            .into_iter()
            .filter_map(|name| {
                let found = find(&root, &name, None, self.options);
                found.map_err(|reason| RepositoryError::Model { name, reason }).transpose()
            })
            .collect();
        if found.is_empty() {
            return Err(RepositoryError::Empty { dir: self.dir.clone() });
        }
        Ok(found)
    }

    /// Finds a model in that version, or in its highest one.
    ///
    /// # Errors
    /// Where there is none, or it is broken.
    pub fn find(&self, name: &ModelName, version: Option<Version>) -> Result<Found, RepositoryError> {
        let found = find(&self.root()?, name.as_str(), version, self.options);
        let broken = |reason| RepositoryError::Model { name: name.to_string(), reason };
        found.map_err(broken)?.ok_or_else(|| broken(format!("its folder has no {MANIFEST}")))
    }

    /// Every version of a model that there is, in ascending order.
    ///
    /// # Errors
    /// Where there is none, or its folder is broken.
    pub fn versions(&self, name: &ModelName) -> Result<Vec<Version>, RepositoryError> {
        let versions =
            Folder::open(&self.root()?, name.as_str()).and_then(|folder| networks::versions(&folder));
        versions.map_err(|reason| RepositoryError::Model { name: name.to_string(), reason })
    }

    fn root(&self) -> Result<PathBuf, RepositoryError> {
        self.dir.canonicalize().map_err(|reason| self.unreadable(reason))
    }

    fn unreadable(&self, reason: std::io::Error) -> RepositoryError {
        RepositoryError::Dir { dir: self.dir.clone(), reason }
    }
}

/// Finds the model in the folder called `name`; `None` where there is none.
fn find(
    root: &Path,
    name: &str,
    version: Option<Version>,
    options: TaskOptions,
) -> Result<Option<Found>, String> {
    let folder = Folder::open(root, name)?;
    if folder.has(Path::new(pipelines::FILE)) {
        return Ok(None);
    }
    let Some(source) = Source::find(&folder)? else {
        tracing::warn!(
            folder = name,
            "skipped a folder that is not a model: it has no {MANIFEST} and no {}",
            hugging_face::CONFIG
        );
        return Ok(None);
    };
    let name: ModelName = name.parse().map_err(|error: crate::manifest::NameError| error.to_string())?;
    if version.is_none() {
        for (folder, reason) in networks::overlooked(&folder) {
            tracing::warn!(model = %name, folder, reason, "a folder is not taken for a version");
        }
    }
    let (version, network) = networks::find(&folder, version)?;
    let network_bytes = folder.check(&network, MAX_NETWORK)?.n_bytes;
    let files_bytes = folder.bytes_beside(&network).max(network_bytes);
    let about = source.about();
    tracing::debug!(model = %name, %version, network_bytes, "found");
    let declared = Declared {
        name,
        version,
        description: about.description,
        licence: about.licence,
        batch: about.batch,
        task: Some(about.task),
        load: Box::new(move || load(&folder, &network, &source, options)),
    };
    Ok(Some(Found { declared, network_bytes, files_bytes }))
}

/// Reads the network and builds its task.
fn load(folder: &Folder, network: &Path, source: &Source, options: TaskOptions) -> Result<Loaded, String> {
    let bytes = folder.read(network, MAX_NETWORK)?;
    // Weights beside the network may not lead out of the folder that the network stands in.
    let beside = folder.path().join(network.parent().unwrap_or(Path::new("")));
    let artifact = Artifact { file: network, bytes: &bytes, folder: Some(&beside) };
    let named = |error| format!("{}: {error}", network.display());
    let exact = engine::load(&artifact, LoadOptions::default()).map_err(named)?;
    let described;
    let (spec, policy, file, tolerance) = match source {
        Source::Manifest(manifest) => (&*manifest.task, manifest.precision, Some(MANIFEST), evidence::CLOSE),
        Source::HuggingFace { reader, .. } => {
            described = (reader.spec)(&HuggingFaceFolder::open(folder)?, exact.signature())?;
            (&*described, PrecisionPolicy::default(), None, evidence::SAME)
        }
    };
    for file in spec.files() {
        folder.check(file, MAX_TASK_FILE)?;
    }
    let signature = exact.signature();
    let endings: Vec<Ending> = (0..signature.outputs.len()).map(|output| exact.ending(output)).collect();
    let task = spec
        .build(&BuildContext { dir: folder.path(), signature, endings: &endings, options })
        .map_err(|error| {
            let misfit = matches!(error, SpecError::Misfit(_));
            file.filter(|_| misfit).map_or_else(|| error.to_string(), |file| format!("{file}: {error}"))
        })?;
    trial::answer(&*task, &*exact)?;
    if matches!(source, Source::HuggingFace { .. }) {
        trial::padding(&*task, &*exact)?;
    }
    let criteria = Criteria { policy, tolerance };
    let evidence = TaskEvidence::of(&*task);
    let (engine, decision) = choose_precision(&artifact, exact, criteria, &evidence).map_err(named)?;
    Ok(Loaded { engine, task, precision: Some(decision) })
}

/// What says what a network is for.
enum Source {
    Manifest(Box<Manifest>),
    /// The files of another tool: what the task makes of them depends on the network's inputs.
    HuggingFace {
        task: &'static Descriptor,
        reader: &'static HuggingFace,
        summary: String,
    },
}

/// What is known of a model before its network is read.
struct About {
    description: String,
    licence: String,
    batch: BatchSpec,
    task: &'static Descriptor,
}

impl Source {
    fn find(folder: &Folder) -> Result<Option<Self>, String> {
        if folder.has(Path::new(MANIFEST)) {
            let text = folder.read_text(Path::new(MANIFEST), MAX_MANIFEST)?;
            let manifest = Manifest::parse(&text).map_err(|reason| format!("{MANIFEST}: {reason}"))?;
            return Ok(Some(Self::Manifest(Box::new(manifest))));
        }
        if folder.has(Path::new(hugging_face::CONFIG)) {
            return Self::described(&HuggingFaceFolder::open(folder)?).map(Some);
        }
        match networks::find(folder, None) {
            Ok((_, network)) => Err(format!(
                "there is a {}, but nothing says what it is for; expected {MANIFEST} or {}",
                network.display(),
                hugging_face::CONFIG
            )),
            Err(_) => Ok(None),
        }
    }

    /// Asks every task whether a folder of Hugging Face is for it. The surest one reads it, the first of those that are
    /// as sure.
    fn described(folder: &HuggingFaceFolder<'_>) -> Result<Self, String> {
        let readers = TASKS.iter().filter_map(|task| Some((*task, task.hugging_face.as_ref()?)));
        let claims = readers.filter_map(|(task, reader)| Some(((reader.claims)(folder)?, task, reader)));
        let surest = claims.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let (_, task, reader) = surest.ok_or_else(|| folder.unclaimed())?;
        Ok(Self::HuggingFace { task, reader, summary: (reader.summary)(folder)? })
    }

    fn about(&self) -> About {
        match self {
            Self::Manifest(manifest) => About {
                description: manifest.description.clone(),
                licence: manifest.licence.clone(),
                batch: manifest.batch.clone(),
                task: manifest.task.descriptor(),
            },
            Self::HuggingFace { task, summary, .. } => About {
                description: summary.clone(),
                licence: String::new(),
                batch: HuggingFaceFolder::batch(),
                task,
            },
        }
    }
}

#[cfg(test)]
mod tests;
