//! One worker's sessions, one for each model that it has run.
//!
//! Invariant: a session that saw a panic is never used again.

use std::fmt::Display;

use lepton_scheduler::arena::Key;

use crate::{
    engine::{EngineError, Session},
    pool::{Loaded, batch::guarded},
};

/// One worker's sessions, opened when first needed, by the lane of their model: few enough to look through.
#[derive(Default)]
pub(super) struct Sessions {
    by_lane: Vec<(Key, Box<dyn Session>)>,
}

impl Sessions {
    /// Drops the sessions of models whose lane is not among these.
    pub(super) fn keep(&mut self, lanes: &[Key]) {
        self.by_lane.retain(|(lane, _)| lanes.contains(lane));
    }

    /// Drops the session of `lane`, if there is one.
    pub(super) fn forget(&mut self, lane: Key) {
        self.by_lane.retain(|(other, _)| *other != lane);
    }

    /// Works with the session of `lane`. An error or a panic becomes its text; after a panic nobody knows
    /// what state the session is in, and the next work opens a fresh one.
    pub(super) fn run<T, E: Display>(
        &mut self,
        lane: Key,
        loaded: &Loaded,
        work: impl FnOnce(&mut dyn Session) -> Result<T, E>,
    ) -> Result<T, String> {
        let session = self.of(lane, loaded).map_err(|error| error.to_string())?;
        match guarded(|| work(session)) {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(panic) => {
                self.forget(lane);
                Err(format!("the network panicked: {panic}"))
            }
        }
    }

    /// The session of `lane`.
    fn of(&mut self, lane: Key, loaded: &Loaded) -> Result<&mut dyn Session, EngineError> {
        let at = match self.by_lane.iter().position(|(other, _)| *other == lane) {
            Some(at) => at,
            None => {
                self.by_lane.push((lane, loaded.engine.open()?));
                self.by_lane.len() - 1
            }
        };
        Ok(self.by_lane[at].1.as_mut())
    }
}
