//! A bounded set of things that are slow to make and shared once made.
//!
//! Invariant: a key's value is made once however many threads ask for it at the same time, and a
//! thread that asks for another key does not wait for it. Beyond the capacity, the value that was
//! asked for longest ago goes; a thread that still holds it keeps it alive.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Values by key, the `capacity` last used of them.
pub(super) struct Cache<K, V> {
    capacity: usize,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    /// Counts the calls, so that entries can be told apart by age.
    clock: u64,
    by_key: HashMap<K, Entry<V>>,
}

struct Entry<V> {
    last_used: u64,
    value: Arc<OnceLock<V>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// Makes an empty cache of at least one entry.
    pub(super) fn new(capacity: usize) -> Self {
        let entries = Entries { clock: 0, by_key: HashMap::new() };
        Self { capacity: capacity.max(1), entries: Mutex::new(entries) }
    }

    /// Finds the value of `key`, or makes it while other threads that want it wait.
    pub(super) fn get(&self, key: &K, make: impl FnOnce() -> V) -> V {
        // The lock is given back before anything is made: only the cell of this key is waited for.
        let cell = self.cell(key);
        cell.get_or_init(make).clone()
    }

    fn cell(&self, key: &K) -> Arc<OnceLock<V>> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        if let Some(entry) = entries.by_key.get_mut(key) {
            entry.last_used = now;
            return Arc::clone(&entry.value);
        }
        if entries.by_key.len() >= self.capacity {
            let oldest = entries.by_key.iter().min_by_key(|(_, entry)| entry.last_used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                entries.by_key.remove(&oldest);
            }
        }
        let value = Arc::new(OnceLock::new());
        entries.by_key.insert(key.clone(), Entry { last_used: now, value: Arc::clone(&value) });
        value
    }

    /// No code of a caller runs under the lock, so a poisoned one still guards whole entries.
    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;

    #[test]
    fn two_threads_that_ask_at_once_make_a_value_once() {
        let (cache, n_made, start) = (Cache::new(4), AtomicUsize::new(0), Barrier::new(2));
        let ask = || {
            start.wait();
            cache.get(&"plan", || n_made.fetch_add(1, Ordering::SeqCst) + 1)
        };
        let answers = thread::scope(|scope| {
            let (one, other) = (scope.spawn(ask), scope.spawn(ask));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_eq!((answers, n_made.load(Ordering::SeqCst)), ((1, 1), 1));
    }

    #[test]
    fn making_one_value_does_not_hold_up_another() {
        let cache = Cache::new(4);
        let (started, wait_started) = mpsc::channel();
        let (release, wait_release) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let cache = &cache;
            let slow = scope.spawn(move || {
                cache.get(&"slow", || {
                    started.send(()).unwrap();
                    wait_release.recv().unwrap();
                    1
                })
            });
            wait_started.recv().unwrap();
            assert_eq!(cache.get(&"quick", || 2), 2);
            release.send(()).unwrap();
            assert_eq!(slow.join().unwrap(), 1);
        });
    }

    #[test]
    fn the_value_asked_for_longest_ago_goes_first() {
        let cache = Cache::new(2);
        let made = |key: &'static str| {
            let mut was_made = false;
            cache.get(&key, || was_made = true);
            was_made
        };
        assert!(made("a") && made("b") && !made("a"));
        assert!(made("c"), "b goes, because a was asked for since");
        assert!(!made("a") && made("b"));
    }
}
