//! Places for connections, and who makes way where all of them are taken.
//!
//! Invariant: only the accepting loop takes places. Whoever waits for nothing but its caller makes way, longest
//! first; a connection with a request in it never does.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::Id,
    time::{Instant, sleep},
};

use super::{
    faults::{Fault, Faults},
    state::{ConnectionPermit, ConnectionState, PermitKind},
};

/// Connections that are accepted beyond `server.max_connections`, so that a server that is full says so, to
/// probes that it lives and to everybody else that there is no room. Each answers one request.
pub(super) const RESERVE: usize = 16;

/// How often it is looked whether some connection may make way by now, where every place is taken.
const LOOK: Duration = Duration::from_millis(10);

pub(super) struct Places {
    regular: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    /// Every open connection.
    open: HashMap<Id, Arc<ConnectionState>>,
}

impl Places {
    pub(super) fn new(regular: usize) -> Self {
        let places = |n| Arc::new(Semaphore::new(n));
        Self { regular: places(regular), reserve: places(RESERVE), open: HashMap::new() }
    }

    /// Waits until there is a place, free or of a connection that may make way.
    pub(super) async fn room(&self) {
        let is_free = |places: &Semaphore| places.available_permits() > 0;
        while !is_free(&self.regular) && !is_free(&self.reserve) && self.idlest(None).is_none() {
            tokio::select! {
                free = self.regular.acquire() => drop(free),
                free = self.reserve.acquire() => drop(free),
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Takes a place: a free one, that of the connection that has been idle longest, one of the reserve, and of
    /// its connections the one that has been there longest for nothing. `None` where there is no such place.
    pub(super) fn take(&self, faults: &Faults) -> Option<ConnectionPermit> {
        let free = |places: &Arc<Semaphore>, kind| {
            Some(ConnectionPermit::new(kind, Arc::clone(places).try_acquire_owned().ok()?))
        };
        let made = |kind| {
            // Those that have just ended have none to give, and are not asked again.
            let permit = std::iter::from_fn(|| self.idlest(Some(kind)).map(|state| state.make_way()))
                .flatten()
                .next()?;
            faults.note(Fault::MadeWay, None);
            Some(permit)
        };
        free(&self.regular, PermitKind::Regular)
            .or_else(|| made(PermitKind::Regular))
            .or_else(|| free(&self.reserve, PermitKind::Reserve))
            .or_else(|| made(PermitKind::Reserve))
    }

    /// Has the connection that has been idle longest end, if there is one: for what is scarce beside places.
    pub(super) fn make_way(&self) {
        drop(self.idlest(None).and_then(|state| state.make_way()));
    }

    /// Of the connections that may make way, the one that has waited longest.
    fn idlest(&self, kind: Option<PermitKind>) -> Option<&Arc<ConnectionState>> {
        let now = Instant::now().into_std();
        let states = self.open.values().filter(|state| kind.is_none_or(|kind| state.kind() == kind));
        let idle = states.filter_map(|state| Some((state.idle(now)?, state)));
        idle.max_by_key(|(idle, _)| *idle).map(|(_, state)| state)
    }

    /// Takes in that a connection has begun.
    pub(super) fn remember(&mut self, id: Id, state: Arc<ConnectionState>) {
        self.open.insert(id, state);
    }

    /// Takes in that it has ended.
    pub(super) fn forget(&mut self, id: Id) {
        self.open.remove(&id);
    }
}
