//! The worker threads: the only place where threads start, and where everything that costs CPU
//! runs.
//!
//! Invariant: a worker outlives whatever it runs. It leaves only when the queue is closed and empty, or
//! when there are to be fewer workers.

use std::{
    io,
    sync::{Arc, Weak},
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use lepton_scheduler::queue::Done;

use crate::{
    allocator::{self, GiveBack},
    pool::{
        LoadModel, batch,
        idle_trim::IdleTrim,
        meter::Meter,
        model::{self, Model},
        registry::Others,
        sessions::Sessions,
        shared::Shared,
        warm_up,
        work_queue::{Assignment, BackgroundTask, Gone},
    },
};

/// How much less the workers are to be scheduled than the threads that move bytes, so that these answer
/// `/healthz` and refuse what cannot be done while every core is busy. Five steps are about a third of
/// the weight (sched(7)).
const NICENESS: i32 = 5;

/// The number of a thread that is no worker.
const LOADER: usize = usize::MAX;

/// How often it is looked whether workers have left.
const LOOK: Duration = Duration::from_millis(1);

/// Worker threads, each with its number.
#[derive(Default)]
pub(super) struct Workers {
    threads: Vec<(usize, JoinHandle<()>)>,
}

impl Workers {
    /// Starts those of the workers 0 to `n` that do not run.
    pub(super) fn fill(&mut self, n: usize, shared: &Arc<Shared>) -> io::Result<()> {
        // Those that have left make room for others of their number.
        self.threads.retain(|(_, thread)| !thread.is_finished());
        for worker in 0..n {
            if self.threads.iter().any(|(other, _)| *other == worker) {
                continue;
            }
            let shared = Arc::clone(shared);
            let builder = Builder::new().name(format!("lepton-worker-{worker}"));
            self.threads.push((worker, builder.spawn(move || work(worker, &shared))?));
        }
        Ok(())
    }

    /// Starts a thread that loads a model while the workers serve others.
    pub(super) fn load(
        &mut self,
        shared: &Arc<Shared>,
        model: &Arc<Model>,
        load: LoadModel,
        others: Others,
    ) -> io::Result<()> {
        self.threads.retain(|(_, thread)| !thread.is_finished());
        let (shared, model) = (Arc::clone(shared), Arc::downgrade(model));
        let builder = Builder::new().name("lepton-loader".to_owned());
        let work = move || {
            // Behind the workers, as they are behind the threads that move bytes.
            step_back();
            step_back();
            // One at a time: reading a network takes several times the memory that it needs.
            let _turn = model::lock(shared.loading());
            load_model(&shared, &model, load, others, &mut Sessions::default());
            allocator::give_back(GiveBack::All);
        };
        self.threads.push((LOADER, builder.spawn(work)?));
        Ok(())
    }

    /// Waits for workers to leave, at most `longest`; gives how many have not.
    pub(super) fn leave(&mut self, longest: Duration) -> usize {
        let until = Instant::now() + longest;
        loop {
            let n_busy = self.threads.iter().filter(|(_, thread)| !thread.is_finished()).count();
            if n_busy == 0 || Instant::now() >= until {
                return n_busy;
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits for every worker to leave.
    pub(super) fn join(&mut self) {
        for (_, thread) in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked outside of any batch");
            }
        }
    }
}

/// Loads a model, or does what comes of that, on a thread as the workers are, and waits for it; a panic
/// becomes a reason.
///
/// # Errors
/// Where the thread cannot be started.
pub fn on_a_worker<T: Send>(
    work: impl FnOnce() -> Result<T, String> + Send,
) -> io::Result<Result<T, String>> {
    thread::scope(|scope| {
        let builder = Builder::new().name("lepton-worker".to_owned());
        let thread = builder.spawn_scoped(scope, || {
            step_back();
            batch::guarded(work).unwrap_or_else(|panic| Err(format!("the network panicked: {panic}")))
        })?;
        Ok(thread.join().unwrap_or_else(|_| Err("its thread panicked".to_owned())))
    })
}

fn work(worker: usize, shared: &Shared) {
    step_back();
    let (mut sessions, mut seen) = (Sessions::default(), 0);
    let (mut done, mut shift, mut trim) = (Done::Nothing, Meter::start(), IdleTrim::default());
    loop {
        let next = shared.next(worker, std::mem::replace(&mut done, Done::Nothing), trim.due(), &mut seen);
        let Some(assignment) = next else { return };
        match assignment {
            Assignment::Run(batch) => {
                done = Done::Ran(batch::run(batch, &mut sessions, &mut shift));
                trim.worked(Instant::now());
                continue;
            }
            Assignment::Prepare(batch) => done = batch::prepare_ahead(batch),
            Assignment::Background(BackgroundTask::Load { model, load }) => {
                load_model(shared, &model, load, Others::Keep, &mut sessions);
            }
            Assignment::Background(BackgroundTask::Measure { model, sample, rows }) => {
                let Some(model) = model.upgrade() else { continue };
                if let Err(reason) = warm_up::run(&model, sample, rows, &mut sessions) {
                    tracing::error!(model = %model.name(), reason, "a warm-up run failed");
                }
            }
            Assignment::Forget(Gone { queues, loaded }) => {
                sessions.keep(&queues);
                drop(loaded);
                allocator::give_back(GiveBack::All);
            }
            Assignment::Rest(_) => {
                if trim.is_due(Instant::now()) {
                    allocator::give_back(GiveBack::Old);
                }
                // No run pays for it.
                shift = Meter::start();
                continue;
            }
            Assignment::Leave => {}
        }
        trim.worked(Instant::now());
        shift = Meter::start();
    }
}

/// Loads a model and enters it among those that are served, unless it was unloaded before its turn came.
fn load_model(
    shared: &Shared,
    model: &Weak<Model>,
    load: LoadModel,
    others: Others,
    sessions: &mut Sessions,
) {
    let Some(model) = model.upgrade() else { return };
    let loaded = if shared.is_closed() {
        Err("the server is stopping".to_owned())
    } else {
        warm_up::load(shared, &model, load, sessions)
    };
    shared.registry().settle(&model, loaded, others);
    shared.announce();
}

/// Lets the threads that move bytes go first.
fn step_back() {
    let thread = rustix::thread::gettid();
    // On Linux a thread has a niceness of its own, and anybody may raise it.
    let raised = rustix::process::getpriority_process(Some(thread))
        .and_then(|niceness| rustix::process::setpriority_process(Some(thread), niceness + NICENESS));
    if let Err(error) = raised {
        tracing::warn!(%error, "a worker could not step back behind the threads that move bytes");
    }
}
