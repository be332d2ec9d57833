//! Loading a model and measuring it, so that no caller pays for building a plan, and the cost table is
//! full before it is needed.
//!
//! Invariant: a model is ready when its first sample was answered; everything else waits until no
//! request does, and ends when the model's budget is spent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lepton_scheduler::cost::{Best, CostTable, Measured};

use crate::{
    allocator::{self, GiveBack},
    engine::{Session, run_rows},
    pool::{
        Loaded, batch, meter::Meter, model::Model, sessions::Sessions, shared::Shared,
        work_queue::BackgroundTask,
    },
    tasks::ProfileInput,
    tensor::Tensors,
};

/// CPU time that measuring one model may take, over all shapes and batch sizes: what is dearer than
/// that is learnt from requests.
pub(super) const BUDGET: Duration = Duration::from_secs(2);

/// CPU time of the longest run of several rows that is measured, since callers who come meanwhile wait for
/// it; and rows that are measured however long they take. Longer runs are learnt from requests.
const LONGEST: Duration = Duration::from_millis(10);
const ALWAYS: u32 = 4;

/// Runs that a measurement takes, after one that is not counted.
const RUNS: usize = 3;

/// CPU time after which a measurement is content with the runs it has.
const ENOUGH: Duration = Duration::from_millis(20);

/// What a model costs, measured while it is not served.
#[derive(Debug)]
pub struct CostProfile {
    /// By shape and rows.
    pub measured: Vec<Measured>,
    /// How many rows a run should take, by shape.
    pub best: Vec<Best>,
}

/// Measures a model in the way that a server does when it starts.
pub fn profile(loaded: &Loaded, max_rows: usize) -> Result<CostProfile, String> {
    let samples = loaded.task.profile_inputs();
    let mut table = CostTable::new(max_rows, samples.iter().map(|sample| (sample.shape, sample.size())));
    let mut session = loaded.engine.open().map_err(|error| error.to_string())?;
    let (meter, grid) = (Meter::start(), table.grid().to_vec());
    for sample in &samples {
        for rows in &grid {
            let [one, expected] =
                [1, *rows].map(|rows| Duration::from_secs_f64(table.run(sample.shape, rows)));
            if is_too_dear(meter.read().cpu, one, expected) {
                break;
            }
            let cpu = measure(session.as_mut(), &sample.row, *rows)?;
            table.measure(sample.shape, *rows, cpu);
        }
    }
    Ok(CostProfile { measured: table.measured(), best: table.bests() })
}

/// Returns whether a run is not worth measuring, after `spent` on others and where a row alone takes `one`.
fn is_too_dear(spent: Duration, one: Duration, run: Duration) -> bool {
    spent + run * 2 > BUDGET || run > LONGEST.max(one * ALWAYS)
}

/// CPU time of a run of `rows` copies of `row`: the least of a few, for what disturbs a run only adds to it.
fn measure(session: &mut dyn Session, row: &Tensors, rows: usize) -> Result<Duration, String> {
    let rows = vec![row; rows];
    // The first run may build the plan.
    run_rows(session, &rows).map_err(|error| error.to_string())?;
    let (whole, mut times) = (Meter::start(), Vec::with_capacity(RUNS));
    while times.len() < RUNS && (times.is_empty() || whole.read().cpu < ENOUGH) {
        let meter = Meter::start();
        run_rows(session, &rows).map_err(|error| error.to_string())?;
        times.push(meter.read().cpu);
    }
    Ok(times.into_iter().min().unwrap_or_default())
}

/// Loads a model and answers its first sample; what else there is to measure waits for idle time.
pub(super) fn load(
    shared: &Shared,
    model: &Arc<Model>,
    load: crate::pool::LoadModel,
    sessions: &mut Sessions,
) -> Result<(), String> {
    let loaded = batch::guarded(load).map_err(|panic| format!("loading panicked: {panic}"))??;
    // Reading a file and packing its weights takes several times what is kept of it, and the next is read now.
    allocator::give_back(GiveBack::All);
    let samples = batch::guarded(|| loaded.task.profile_inputs())
        .map_err(|panic| format!("making samples panicked: {panic}"))?;
    let grid = model.costs().begin(&samples);
    if let Some(first) = samples.first()
        && let Err(reason) = run_sample(model, &loaded, first, 1, sessions)
    {
        // What did not do is not kept until the model is unloaded.
        sessions.forget(model.queue());
        return Err(reason);
    }
    let n_samples = samples.len();
    model.set_loaded(loaded, samples);
    // Rows alone first, for every request needs to know what they cost; then the small batches.
    let cells = grid.iter().flat_map(|rows| (0..n_samples).map(|sample| (sample, *rows)));
    shared.push_idle(cells.filter(|cell| *cell != (0, 1)).map(|(sample, rows)| BackgroundTask::Measure {
        model: Arc::downgrade(model),
        sample,
        rows,
    }));
    Ok(())
}

/// Measures runs of `rows` rows like the model's sample at that position, where the budget allows it.
pub(super) fn run(
    model: &Arc<Model>,
    sample: usize,
    rows: usize,
    sessions: &mut Sessions,
) -> Result<(), String> {
    match (model.loaded(), model.samples().get(sample)) {
        (Some(loaded), Some(sample)) => run_sample(model, loaded, sample, rows, sessions),
        _ => Ok(()),
    }
}

fn run_sample(
    model: &Model,
    loaded: &Loaded,
    ProfileInput { shape: bucket, row }: &ProfileInput,
    rows: usize,
    sessions: &mut Sessions,
) -> Result<(), String> {
    // A single row costs little, and nothing can be promised without knowing how much.
    if rows > 1 {
        let [one, expected] = [1, rows].map(|rows| model.costs().run(*bucket, rows));
        if is_too_dear(model.measuring(), one, expected) {
            return Ok(());
        }
    }
    let meter = Meter::start();
    let measured = sessions.run(model.queue(), loaded, |session| measure(session, row, rows));
    let spent = meter.read();
    model.add_measuring(spent.cpu);
    model.measured_for(spent.wall, Instant::now());
    model.costs().measure(*bucket, rows, measured?);
    Ok(())
}
