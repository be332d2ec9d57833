//! One worker's sessions, by lane.
//!
//! Invariant: a session that saw a panic is never used again.

use crate::{
    engine::{EngineError, Session},
    pool::Loaded,
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

    /// The session of `lane`.
    pub(super) fn of(&mut self, lane: usize, loaded: &Loaded) -> Result<&mut dyn Session, EngineError> {
        let slot = &mut self.by_lane[lane];
        let session = match slot.take() {
            Some(session) => session,
            None => loaded.engine.open()?,
        };
        Ok(slot.insert(session).as_mut())
    }

    /// Drops the session of `lane`; the next run opens a fresh one.
    pub(super) fn discard(&mut self, lane: usize) {
        self.by_lane[lane] = None;
    }
}
