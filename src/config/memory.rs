//! Lowers limits so that the worst that callers may send fits into the memory that there is.
//!
//! Invariant: limits are only ever lowered, and never below what a small picture needs. An answer that
//! says "too large" loses one request; the kernel's out-of-memory killer loses all of them.

use crate::config::{ByteSize, Config};

/// What the process holds before any request, in bytes: its code, the shipped networks and their plans.
const BASE: u64 = 128 << 20;

/// The least that any of these limits is lowered to, in bytes.
const LEAST: u64 = 1 << 20;

/// A limit that was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lowered {
    /// The setting's key.
    pub key: &'static str,
    pub from: ByteSize,
    pub to: ByteSize,
}

impl Config {
    /// Lowers limits to fit into `memory` bytes: of what is left beside the networks, one third for
    /// bodies that wait, two thirds for the pictures that `workers` decode at once.
    pub fn fit(&mut self, memory: u64, workers: usize) -> Vec<Lowered> {
        let spare = memory.saturating_sub(BASE).max(memory / 4);
        let whole_mib = |bytes: u64| ByteSize((bytes & !(LEAST - 1)).max(LEAST));
        let queue = whole_mib(spare / 3);
        let picture = whole_mib(spare * 2 / 3 / workers.max(1) as u64);
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
        settings.into_iter().filter_map(lower).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_room_nothing_is_lowered() {
        let mut config = Config::default();
        assert_eq!(config.fit(4 << 30, 2), []);
        assert_eq!(config, Config::default());
    }

    #[test]
    fn in_a_container_of_256_mib_a_photograph_of_12_megapixels_still_fits() {
        let mut config = Config::default();
        let keys: Vec<_> = config.fit(256 << 20, 2).iter().map(|lowered| lowered.key).collect();
        assert_eq!(keys, ["pool.queue_bytes", "limits.image_memory"]);
        assert_eq!(
            (config.pool.queue_bytes, config.limits.image_memory),
            (ByteSize::mib(42), ByteSize::mib(42))
        );
        config.check().unwrap();
    }

    #[test]
    fn what_is_left_is_a_sound_configuration_however_little_there_is() {
        for mib in [1, 8, 32, 64, 100, 200, 1000] {
            for workers in [1, 2, 64] {
                let mut config = Config::default();
                config.fit(mib << 20, workers);
                config.check().unwrap();
                let worst = config.pool.queue_bytes.0 + workers as u64 * config.limits.image_memory.0;
                assert!(worst <= (mib << 20) + (workers as u64 + 1) * LEAST, "{mib} MiB, {workers} workers");
            }
        }
    }
}
