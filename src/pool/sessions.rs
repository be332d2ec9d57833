//! One worker's sessions, one for each model that it has run.
//!
//! Invariant: a session that saw a panic is never used again.

use std::fmt::Display;

use lepton_scheduler::arena::Key;

use crate::{
    engine::{EngineError, Session},
    pool::{Loaded, batch::guarded},
};

/// One worker's sessions, opened when first needed, by the queue of their model: few enough to look through.
#[derive(Default)]
pub(super) struct Sessions {
    by_queue: Vec<(Key, Box<dyn Session>)>,
}

impl Sessions {
    /// Drops the sessions of models whose queue is not among these.
    pub(super) fn keep(&mut self, queues: &[Key]) {
        self.by_queue.retain(|(queue, _)| queues.contains(queue));
    }

    /// Drops the session of `queue`, if there is one.
    pub(super) fn forget(&mut self, queue: Key) {
        self.by_queue.retain(|(other, _)| *other != queue);
    }

    /// Works with the session of `queue`. An error or a panic becomes its text; after a panic nobody knows
    /// what state the session is in, and the next work opens a fresh one.
    pub(super) fn run<T, E: Display>(
        &mut self,
        queue: Key,
        loaded: &Loaded,
        work: impl FnOnce(&mut dyn Session) -> Result<T, E>,
    ) -> Result<T, String> {
        let session = self.of(queue, loaded).map_err(|error| error.to_string())?;
        match guarded(|| work(session)) {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(panic) => {
                self.forget(queue);
                Err(format!("the network panicked: {panic}"))
            }
        }
    }

    /// The session of `queue`.
    fn of(&mut self, queue: Key, loaded: &Loaded) -> Result<&mut dyn Session, EngineError> {
        let at = match self.by_queue.iter().position(|(other, _)| *other == queue) {
            Some(at) => at,
            None => {
                self.by_queue.push((queue, loaded.engine.open()?));
                self.by_queue.len() - 1
            }
        };
        Ok(self.by_queue[at].1.as_mut())
    }
}
