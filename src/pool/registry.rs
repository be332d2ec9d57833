//! Which models there are, by name and version, and which version answers those who name none.
//!
//! Invariant: a reader sees one whole table and waits for nobody. Every change makes a new table and puts it in the place
//! of the old one at once; a model that is in no table any more lives on for those who found it before.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::{
    error::Error,
    manifest::{ModelId, ModelName, Version},
    pool::{
        capacity::Capacity,
        model::{Model, State, lock},
    },
};

/// Why a model was not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelLoadError {
    #[error("the model {0} is being loaded already")]
    Busy(ModelId),
    #[error("the model {id} could not be loaded: {reason}")]
    Failed { id: ModelId, reason: String },
    #[error("the model {0} was unloaded before it was ready")]
    Unloaded(ModelId),
    #[error("the server is stopping")]
    Stopping,
}

/// What becomes of the other versions of a name once a new one is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    Keep,
    Unload,
}

/// All models of a pool.
pub(super) struct Registry {
    table: ArcSwap<Table>,
    /// TimeReservation while a table is made of the one before.
    writing: Mutex<()>,
    rows: usize,
    bytes: usize,
}

/// The models at one moment, in the order of their names.
#[derive(Clone, Default)]
struct Table {
    names: Vec<Named>,
}

/// The versions of one name. There is one at least, here or among those that are coming.
#[derive(Clone)]
struct Named {
    name: ModelName,
    /// What all versions together may take of the pool's room.
    share: Arc<Capacity>,
    /// In ascending order, each once.
    versions: Vec<Arc<Model>>,
    /// Those that are to take the place of a version that is ready, once they are.
    coming: Vec<Arc<Model>>,
    /// The position of the version that answers where none is named: the highest that is ready, else the highest.
    default: usize,
}

impl Named {
    fn default(&self) -> Option<&Arc<Model>> {
        self.versions.get(self.default)
    }

    fn choose_default(&mut self) {
        let ready = self.versions.iter().rposition(|model| model.is_serving());
        self.default = ready.unwrap_or(self.versions.len().saturating_sub(1));
    }

    fn position(&self, version: Version) -> Result<usize, usize> {
        self.versions.binary_search_by_key(&version, |model| model.version())
    }
}

impl Table {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.names.binary_search_by(|named| named.name.as_str().cmp(name))
    }

    fn named(&self, name: &str) -> Option<&Named> {
        self.find(name).ok().map(|at| &self.names[at])
    }

    fn named_mut(&mut self, name: &ModelName) -> Option<&mut Named> {
        self.find(name.as_str()).ok().map(|at| &mut self.names[at])
    }
}

impl Registry {
    /// Makes an empty registry of a pool with room for `rows` rows and `bytes` bytes.
    pub(super) fn new(rows: usize, bytes: usize) -> Self {
        Self { table: ArcSwap::default(), writing: Mutex::new(()), rows, bytes }
    }

    /// Finds a model by the name that a caller wrote: that version, or the one that answers where none is named.
    pub(super) fn find(&self, name: &str, version: Option<Version>) -> Result<Arc<Model>, Error> {
        let table = self.table.load();
        let Some(named) = table.named(name) else {
            let known = table.names.iter().map(|named| named.name.to_string());
            return Err(not_found(shorten(name), known));
        };
        let found = match version {
            None => named.default(),
            Some(version) => named.position(version).ok().map(|at| &named.versions[at]),
        };
        found.cloned().ok_or_else(|| {
            let asked = version.map_or_else(|| name.to_owned(), |version| format!("{name}/{version}"));
            not_found(asked, named.versions.iter().map(|model| model.id().to_string()))
        })
    }

    /// Every version of every name, in order.
    pub(super) fn models(&self) -> Vec<Arc<Model>> {
        self.table.load().names.iter().flat_map(|named| &named.versions).cloned().collect()
    }

    /// For each name, in order, the version that answers where none is named.
    pub(super) fn defaults(&self) -> Vec<Arc<Model>> {
        self.table.load().names.iter().filter_map(Named::default).cloned().collect()
    }

    /// The versions of a name that are ready, in ascending order; while none is, the one that answers.
    pub(super) fn versions(&self, name: &ModelName) -> Vec<Version> {
        let table = self.table.load();
        let Some(named) = table.named(name.as_str()) else { return Vec::new() };
        let ready = named.versions.iter().filter(|model| model.is_serving());
        let ready: Vec<Version> = ready.map(|model| model.version()).collect();
        if ready.is_empty() {
            named.default().map(|model| model.version()).into_iter().collect()
        } else {
            ready
        }
    }

    /// Every model, those included that are to take another's place.
    pub(super) fn all(&self) -> Vec<Arc<Model>> {
        let table = self.table.load();
        table.names.iter().flat_map(|named| named.versions.iter().chain(&named.coming)).cloned().collect()
    }

    /// Enters a model that is about to be loaded, made with its name's share of the room. Where its version is served
    /// already, that goes on until the new one is ready.
    pub(super) fn enter(
        &self,
        id: &ModelId,
        make: impl FnOnce(Arc<Capacity>) -> Arc<Model>,
    ) -> Result<Arc<Model>, ModelLoadError> {
        self.change(|table| {
            let at = match table.find(id.name.as_str()) {
                Ok(at) => at,
                Err(at) => {
                    let share = Arc::new(Capacity::new(self.rows, self.bytes));
                    let (name, versions, coming) = (id.name.clone(), Vec::new(), Vec::new());
                    table.names.insert(at, Named { name, share, versions, coming, default: 0 });
                    at
                }
            };
            let named = &mut table.names[at];
            let is_coming = named.coming.iter().any(|model| model.version() == id.version);
            let position = named.position(id.version);
            let is_loading =
                position.is_ok_and(|position| named.versions[position].state() == State::Loading);
            if is_coming || is_loading {
                return Err(ModelLoadError::Busy(id.clone()));
            }
            let model = make(Arc::clone(&named.share));
            match position {
                Ok(position) if named.versions[position].is_serving() => {
                    named.coming.push(Arc::clone(&model));
                }
                Ok(position) => named.versions[position] = Arc::clone(&model),
                Err(position) => named.versions.insert(position, Arc::clone(&model)),
            }
            Ok(model)
        })
    }

    /// Ends the loading of a model: requests go to it from now on, and those that it takes the place of are left to
    /// finish; or it has failed, and nothing else changes. Does nothing where it was unloaded meanwhile.
    pub(super) fn settle(&self, model: &Arc<Model>, loaded: Result<(), String>, others: Others) {
        self.change(|table| {
            let state = match &loaded {
                Ok(()) => State::Ready,
                Err(reason) => State::Failed(reason.clone()),
            };
            if !model.change_state(&State::Loading, state) {
                return;
            }
            let Some(named) = table.named_mut(model.name()) else { return };
            let n_coming = named.coming.len();
            named.coming.retain(|other| !Arc::ptr_eq(other, model));
            if loaded.is_err() {
                return;
            }
            if named.coming.len() < n_coming
                && let Ok(position) = named.position(model.version())
            {
                let old = std::mem::replace(&mut named.versions[position], Arc::clone(model));
                old.set_state(State::Unloading);
            }
            if others == Others::Unload {
                named.versions.retain(|other| {
                    // One that is still loading comes after this one.
                    let stays = Arc::ptr_eq(other, model) || other.state() == State::Loading;
                    if !stays {
                        other.set_state(State::Unloading);
                    }
                    stays
                });
            }
        });
    }

    /// Takes a model out: nobody finds it any more.
    pub(super) fn remove(&self, id: &ModelId) -> Result<(), Error> {
        self.change(|table| {
            let is_meant = |model: &Arc<Model>| model.version() == id.version;
            let named = table.named_mut(&id.name);
            let leaving = named.map_or_else(Vec::new, |named| {
                let versions = named.versions.extract_if(.., |model| is_meant(model));
                versions.chain(named.coming.extract_if(.., |model| is_meant(model))).collect()
            });
            leaving.iter().for_each(|model| model.set_state(State::Unloading));
            if leaving.is_empty() {
                let known = table.names.iter().flat_map(|named| &named.versions);
                return Err(not_found(id.to_string(), known.map(|model| model.id().to_string())));
            }
            table.names.retain(|named| !named.versions.is_empty() || !named.coming.is_empty());
            Ok(())
        })
    }

    /// Takes every model out.
    pub(super) fn clear(&self) {
        self.change(|table| table.names.clear());
    }

    /// Makes a table of the one before, and shares the room anew: a name takes at most three quarters of it while there
    /// are others.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let writing = lock(&self.writing);
        let old = self.table.load_full();
        let mut table = Table::clone(&old);
        let done = change(&mut table);
        let n_names = table.names.len();
        let share = |whole: usize| if n_names <= 1 { whole } else { (whole - whole / 4).max(1) };
        for named in &mut table.names {
            named.choose_default();
            named.share.limit(share(self.rows), share(self.bytes));
        }
        self.table.store(Arc::new(table));
        drop(writing);
        // Dropping the last holder of a model takes other locks.
        drop(old);
        done
    }
}

fn not_found(name: String, known: impl Iterator<Item = String>) -> Error {
    Error::ModelNotFound { name, known: known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ") }
}

/// Cuts what a caller wrote to a length that is fit for an error text.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
