//! Fits settings into what this process may use: memory and descriptors.
//!
//! Invariant: what is lowered is said in the log with its key; what cannot be fitted is refused with the number
//! that is needed.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{repository, workers};
use crate::{
    config::{Config, Lowered, Serving, Workers},
    cores,
};

/// Descriptors beside those of regular connections: those of the reserve, of files, pipes and timers.
const DESCRIPTORS: u64 = 80;

/// Lowers what could have the kernel end the process, where a control group limits its memory. Refuses where
/// nothing that could be lowered is enough.
pub(super) fn into_memory(mut config: Config) -> Result<Config> {
    let Some(memory) = cores::memory() else { return Ok(config) };
    let network_bytes = network_bytes(&config);
    let serving = |workers| Serving { workers, network_bytes };
    let mut n_workers = workers(&config);
    if let Workers::Auto = config.pool.workers {
        let fits = |n: &usize| config.clone().fit(memory, serving(*n)).is_ok();
        let n_fitting = (1..=n_workers).rev().find(fits).unwrap_or(1);
        if n_fitting < n_workers {
            tracing::warn!(
                cores = n_workers,
                workers = n_fitting,
                memory_bytes = memory,
                "there is not enough memory for a worker on each core"
            );
            (n_workers, config.pool.workers) = (n_fitting, Workers::Exactly(n_fitting));
        }
    }
    for Lowered { key, from, to } in config.fit(memory, serving(n_workers))? {
        tracing::warn!(key, %from, %to, memory_bytes = memory, workers = n_workers, "a limit was lowered to fit into memory");
    }
    Ok(config)
}

/// Bytes of all networks; none where they cannot be found, which is told when they are looked for.
fn network_bytes(config: &Config) -> u64 {
    let silent = tracing::subscriber::NoSubscriber::default();
    let found = tracing::subscriber::with_default(silent, || repository(config).scan());
    found.map_or(0, |found| found.iter().flatten().map(|model| model.network_bytes).sum())
}

/// Raises the limit of descriptors as far as this process may, and lowers the limit of connections where that
/// is not enough.
pub(super) fn into_descriptors(config: &mut Config) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            limit.current
        }
    };
    // Without a limit there is enough.
    let Some(limit) = limit else { return Ok(()) };
    let wanted = config.server.max_connections;
    let Some(connections) = connections_within(limit, wanted) else {
        bail!(
            "this process may open {limit} files (ulimit -n, LimitNOFILE); it needs {} and one for each connection",
            DESCRIPTORS
        );
    };
    if connections < wanted {
        let key = "server.max_connections";
        tracing::warn!(
            key,
            from = wanted,
            to = connections,
            open_files = limit,
            "a limit was lowered to fit"
        );
        config.server.max_connections = connections;
    }
    tracing::info!(open_files = limit, connections, "connections fit into the limit of open files");
    Ok(())
}

/// Returns how many of `wanted` connections this number of descriptors allows; `None` for none.
fn connections_within(descriptors: u64, wanted: usize) -> Option<usize> {
    let left = usize::try_from(descriptors.saturating_sub(DESCRIPTORS)).unwrap_or(usize::MAX);
    Some(left.min(wanted)).filter(|connections| *connections > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_descriptors() {
        assert_eq!(connections_within(1 << 20, 1024), Some(1024));
        assert_eq!(connections_within(1024, 1024), Some(944));
        assert_eq!(connections_within(81, 1024), Some(1));
        assert_eq!(connections_within(80, 1024), None);
        assert_eq!(connections_within(3, 1), None);
    }
}
