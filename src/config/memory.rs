//! Lowers limits so that the worst that callers may send fits into the memory that there is.
//!
//! Invariant: limits are only ever lowered, and never below what a small picture needs. An answer that
//! says "too large" loses one request; the kernel's out-of-memory killer loses all of them. Where even the lowest
//! limits are too much, nothing is served.

use thiserror::Error;

use crate::config::{ByteSize, Config};

const MIB: u64 = 1 << 20;

/// What the process holds beside networks, workers and connections: its code, the runtime, tokenizers, and what
/// the allocator has not given back. Measured with the shipped models while 64 callers send photographs: with one
/// worker 128 MiB, with two 167 MiB, pictures and bodies included.
const PROCESS: u64 = 60 * MIB;

/// What a worker holds beside the picture that it decodes: the buffers of its sessions.
const WORKER: u64 = 28 * MIB;

/// What a network holds for each byte of its file: the file while it loads, its weights as they are packed.
const NETWORK: u64 = 2;

/// What a connection holds: its buffers and its task.
const CONNECTION: u64 = 8 << 10;

/// The least that is left for bodies that wait, and for a picture. With less, what the allocator keeps of bodies
/// that are refused by the thousand is already too much.
const LEAST_QUEUE: u64 = 8 * MIB;
const LEAST_PICTURE: u64 = 12 * MIB;

/// A limit that was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lowered {
    /// The setting's key.
    pub key: &'static str,
    pub from: ByteSize,
    pub to: ByteSize,
}

/// What is to be served, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    pub workers: usize,
    /// Bytes of the files of all networks.
    pub network_bytes: u64,
}

/// There is less memory than anything can be served with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "this needs at least {needed} of memory and may have {memory}: {networks} for the networks, {workers} for \
     workers ({n_workers}) and the pictures that they decode, {connections} for connections and {rest} for the rest; \
     allow it more, or lower pool.workers or server.max_connections"
)]
pub struct TooLittle {
    pub needed: ByteSize,
    pub memory: ByteSize,
    networks: ByteSize,
    workers: ByteSize,
    n_workers: usize,
    connections: ByteSize,
    rest: ByteSize,
}

impl Config {
    /// Lowers limits to fit into `memory` bytes: of what is left beside networks, workers and connections, a
    /// fifth for bodies that wait, the rest for the pictures that workers decode at once.
    pub fn fit(&mut self, memory: u64, serving: Serving) -> Result<Vec<Lowered>, TooLittle> {
        let Serving { workers, network_bytes } = serving;
        let n_workers = workers.max(1) as u64;
        let networks = network_bytes.saturating_mul(NETWORK);
        let connections = (self.server.max_connections as u64).saturating_mul(CONNECTION);
        let held = [PROCESS, networks, n_workers * WORKER, connections]
            .iter()
            .fold(0u64, |a, b| a.saturating_add(*b));
        let least = LEAST_QUEUE + n_workers * LEAST_PICTURE;
        // A twentieth is left over: the allocator's pages are not all full.
        let Some(spare) = (memory - memory / 20).checked_sub(held).filter(|spare| *spare >= least) else {
            let up = |bytes: u64| ByteSize::mib(bytes.div_ceil(MIB));
            let needed = up(held.saturating_add(least).saturating_mul(20) / 19);
            return Err(TooLittle {
                needed,
                memory: ByteSize(memory),
                networks: up(networks),
                workers: up(n_workers * (WORKER + LEAST_PICTURE)),
                n_workers: workers,
                connections: up(connections),
                rest: up(PROCESS + LEAST_QUEUE),
            });
        };
        let whole_mib = |bytes: u64| ByteSize(bytes & !(MIB - 1));
        let queue = (spare / 5).max(LEAST_QUEUE);
        let picture = whole_mib((spare - queue) / n_workers);
        let queue = whole_mib(queue);
        let Self { limits, pool, .. } = self;
        let settings = [
            ("pool.queue_bytes", &mut pool.queue_bytes, queue),
            ("limits.image_memory", &mut limits.image_memory, picture),
            ("limits.body", &mut limits.body, queue),
            ("limits.text", &mut limits.text, queue),
        ];
        let lower = |(key, setting, to): (&'static str, &mut ByteSize, ByteSize)| {
            let from = std::mem::replace(setting, to.min(*setting));
            (from > to).then_some(Lowered { key, from, to })
        };
        Ok(settings.into_iter().filter_map(lower).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many bytes as the files of the shipped networks have, about.
    const SHIPPED: u64 = 16 << 20;

    fn fit(memory: u64, workers: usize) -> Result<(Config, Vec<Lowered>), TooLittle> {
        let mut config = Config::default();
        let lowered = config.fit(memory, Serving { workers, network_bytes: SHIPPED })?;
        Ok((config, lowered))
    }

    #[test]
    fn where_there_is_room_nothing_is_lowered() {
        assert_eq!(fit(4 << 30, 2).unwrap(), (Config::default(), vec![]));
    }

    #[test]
    fn in_a_container_of_256_mib_a_photograph_of_12_megapixels_still_fits() {
        let (config, lowered) = fit(256 << 20, 2).unwrap();
        let keys: Vec<_> = lowered.iter().map(|lowered| lowered.key).collect();
        assert_eq!(keys, ["pool.queue_bytes", "limits.image_memory"]);
        assert_eq!(
            (config.pool.queue_bytes, config.limits.image_memory),
            (ByteSize::mib(17), ByteSize::mib(34))
        );
        config.check().unwrap();
    }

    #[test]
    fn too_little_is_refused_with_what_is_needed() {
        let refused = fit(128 << 20, 1).unwrap_err();
        insta::assert_snapshot!(refused, @"this needs at least 156MiB of memory and may have 128MiB: 32MiB for the networks, 40MiB for workers (1) and the pictures that they decode, 8MiB for connections and 68MiB for the rest; allow it more, or lower pool.workers or server.max_connections");
        assert!(fit(refused.needed.0, 1).is_ok(), "so much is enough");
        assert!(fit(refused.needed.0 - (2 << 20), 1).is_err(), "and no less");
        let large = Serving { workers: usize::MAX >> 32, network_bytes: u64::MAX };
        assert!(Config::default().fit(1 << 40, large).is_err());
    }

    #[test]
    fn what_is_served_is_a_sound_configuration_that_fits() {
        for mib in [1, 8, 32, 64, 100, 150, 200, 256, 1000, 100_000] {
            for workers in [1, 2, 64] {
                let Ok((config, _)) = fit(mib << 20, workers) else { continue };
                config.check().unwrap();
                let workers = workers as u64;
                let worst = PROCESS
                    + 2 * SHIPPED
                    + config.pool.queue_bytes.0
                    + workers * (WORKER + config.limits.image_memory.0);
                assert!(worst <= mib << 20, "{mib} MiB, {workers} workers");
            }
        }
        assert!(fit(1000 << 20, 2).is_ok() && fit(1000 << 20, 64).is_err());
    }
}
