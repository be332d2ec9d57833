//! The worker threads: the only place where threads start, and where everything that costs CPU
//! runs.
//!
//! Invariant: a worker outlives whatever it runs. It leaves only when the queue is closed and empty.

use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use crate::pool::{
    LoadModel, batch,
    model::{Model, State},
    queue::{Chore, Errand},
    sessions::Sessions,
    shared::Shared,
};

/// Starts the workers.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |index: usize| {
        let shared = Arc::clone(shared);
        Builder::new().name(format!("lepton-worker-{index}")).spawn(move || work(&shared))
    };
    (0..shared.workers()).map(start).collect()
}

fn work(shared: &Shared) {
    let mut sessions = Sessions::new(shared.models().len());
    while let Some(errand) = shared.next() {
        match errand {
            Errand::Batch(batch) => batch::run(batch, &mut sessions),
            Errand::Chore(Chore::Load { model, load }) => {
                let state = match load_model(shared, &model, load, &mut sessions) {
                    Ok(()) => State::Ready,
                    Err(reason) => State::Failed(reason),
                };
                model.set_state_unless_stopping(state);
                shared.announce();
            }
            Errand::Chore(Chore::WarmUp { model, sample, rows }) => {
                let Some(loaded) = model.loaded() else { continue };
                if let Err(reason) = batch::warm_up(&model, loaded, &sample, rows, &mut sessions) {
                    tracing::error!(model = %model.name(), reason, "a warm-up run failed");
                }
            }
            Errand::Rest | Errand::Leave => {}
        }
    }
}

/// Loads a model and answers its first sample; the others, and full batches, wait for idle time.
fn load_model(
    shared: &Shared,
    model: &Arc<Model>,
    load: LoadModel,
    sessions: &mut Sessions,
) -> Result<(), String> {
    let loaded = batch::guarded(load).map_err(|panic| format!("loading panicked: {panic}"))??;
    let loaded = model.set_loaded(loaded);
    let samples = batch::guarded(|| loaded.task.samples())
        .map_err(|panic| format!("making samples panicked: {panic}"))?;
    let samples: Vec<_> = samples.into_iter().map(Arc::new).collect();
    if let Some(first) = samples.first() {
        batch::warm_up(model, loaded, first, 1, sessions)?;
    }
    let full = Some(model.max_rows()).filter(|rows| *rows > 1);
    shared.push_idle(samples.into_iter().enumerate().flat_map(|(position, sample)| {
        let one = Some(1).filter(|_| position > 0);
        let warm_up =
            move |rows| Chore::WarmUp { model: Arc::clone(model), sample: Arc::clone(&sample), rows };
        one.into_iter().chain(full).map(warm_up)
    }));
    Ok(())
}
