//! One worker's sessions, by lane.
//!
//! Invariant: a session that saw a panic is never used again.

use std::fmt::Display;

use crate::{
    engine::{EngineError, Session},
    pool::{Loaded, batch::guarded},
};

/// One worker's sessions, opened when first needed.
pub(super) struct Sessions {
    by_lane: Vec<Option<Box<dyn Session>>>,
}

impl Sessions {
    /// Makes room for a session per lane.
    pub(super) fn new(lanes: usize) -> Self {
        Self { by_lane: (0..lanes).map(|_| None).collect() }
    }

    /// Works with the session of `lane`. An error or a panic becomes its text; after a panic nobody knows
    /// what state the session is in, and the next work opens a fresh one.
    pub(super) fn run<T, E: Display>(
        &mut self,
        lane: usize,
        loaded: &Loaded,
        work: impl FnOnce(&mut dyn Session) -> Result<T, E>,
    ) -> Result<T, String> {
        let session = self.of(lane, loaded).map_err(|error| error.to_string())?;
        match guarded(|| work(session)) {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(panic) => {
                self.by_lane[lane] = None;
                Err(format!("the network panicked: {panic}"))
            }
        }
    }

    /// The session of `lane`.
    fn of(&mut self, lane: usize, loaded: &Loaded) -> Result<&mut dyn Session, EngineError> {
        let slot = &mut self.by_lane[lane];
        let session = match slot.take() {
            Some(session) => session,
            None => loaded.engine.open()?,
        };
        Ok(slot.insert(session).as_mut())
    }
}
