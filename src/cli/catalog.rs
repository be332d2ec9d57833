//! From the folder of models into the pool, as `lepton serve` does it: each is tried in another process first, and where
//! the newest version does not load, the one before it is served.

use anyhow::Result;

use super::{rehearsal, repository};
use crate::{
    config::Config,
    manifest::{BatchSpec, ModelId, ModelName, Version},
    pool::{Declared, ModelPool, State},
    repository::{Found, Repository, RepositoryError},
};

/// The models that the settings name, and how they are loaded.
#[derive(Debug, Clone)]
pub(super) struct Catalog {
    config: Config,
    repository: Repository,
}

/// What is to be served at the start.
pub(super) struct Scanned {
    pub(super) models: Vec<Declared>,
    /// Bytes of all networks.
    pub(super) network_bytes: u64,
}

impl Catalog {
    pub(super) fn new(config: &Config) -> Self {
        Self { config: config.clone(), repository: repository(config) }
    }

    /// Finds every model in its newest version. One whose folder is broken is declared all the same, and fails to load
    /// with the reason, so that it is shown where models are.
    pub(super) fn scan(&self) -> Result<Scanned> {
        let (mut models, mut network_bytes) = (Vec::new(), 0);
        for found in self.repository.scan()? {
            match found {
                Ok(found) => {
                    network_bytes += found.network_bytes;
                    models.push(self.declare(found));
                }
                Err(error) => models.extend(self.broken(&error)),
            }
        }
        Ok(Scanned { models, network_bytes })
    }

    /// Loads, for each model that is not ready, the newest of the older versions that does load.
    pub(super) async fn fall_back(&self, pool: &ModelPool) {
        for model in pool.defaults() {
            let State::Failed(reason) = model.state() else { continue };
            for version in self.before(model.id()) {
                let found = match self.repository.find(model.name(), Some(version)) {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::error!(model = %model.name(), %version, %error, "an older version is broken, too");
                        continue;
                    }
                };
                match pool.load(self.declare(found)).await {
                    Ok(older) => {
                        tracing::warn!(
                            model = %model.name(),
                            newest = %model.version(),
                            served = %older.version(),
                            reason,
                            "the newest version could not be loaded; an older one is served"
                        );
                        break;
                    }
                    Err(error) => {
                        tracing::error!(model = %model.name(), %version, %error, "nor could an older version")
                    }
                }
            }
        }
    }

    fn declare(&self, found: Found) -> Declared {
        rehearsal::first(&self.config, found)
    }

    /// The versions below that one, the highest first.
    fn before(&self, id: &ModelId) -> Vec<Version> {
        let mut versions = self.repository.versions(&id.name).unwrap_or_default();
        versions.retain(|version| *version < id.version);
        versions.reverse();
        versions
    }

    fn broken(&self, error: &RepositoryError) -> Option<Declared> {
        let RepositoryError::Model { name, reason } = error else { return None };
        let Ok(name) = name.parse::<ModelName>() else {
            tracing::error!(%error, "a folder is left out");
            return None;
        };
        let versions = self.repository.versions(&name).unwrap_or_default();
        let reason = reason.clone();
        Some(Declared {
            name,
            version: versions.last().copied().unwrap_or(Version(1)),
            description: String::new(),
            licence: String::new(),
            batch: BatchSpec::default(),
            task: None,
            load: Box::new(move || Err(reason)),
        })
    }
}
