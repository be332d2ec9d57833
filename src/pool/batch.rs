//! One batch on one worker: prepare each, stack, run, split, answer each.
//!
//! Invariant: every job that enters leaves with exactly one answer. A panic or an error inside a
//! run of many rows reruns them one by one, so that only the guilty one gets the error.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    error::Error,
    metrics::Cost,
    pool::{
        Answered, Loaded,
        model::Model,
        queue::{Batch, Caller, Job},
        sessions::Sessions,
    },
    task::Frame,
    tensor::{Tensor, Tensors},
};

/// A prepared row and who waits for it.
struct Row {
    caller: Caller,
    tensors: Tensors,
    frame: Frame,
    queue: Duration,
    prepare: Spent,
}

/// Runs a batch to its last answer.
pub(super) fn run(batch: Batch, sessions: &mut Sessions) {
    let Batch { model, jobs } = batch;
    let Some(loaded) = model.loaded() else {
        for job in jobs {
            job.caller.answer(Err(Error::Internal("a job of a model that is not loaded".to_owned())));
        }
        return;
    };
    let mut rows: Vec<Row> = jobs.into_iter().filter_map(|job| prepare(job, loaded)).collect();
    while !rows.is_empty() {
        let group = take_group(&mut rows);
        run_group(&model, loaded, group, sessions);
    }
}

/// Runs `rows` copies of a sample that no caller waits for, to have their plan built and their cost
/// measured.
pub(super) fn warm_up(
    model: &Arc<Model>,
    loaded: &Loaded,
    sample: &Tensors,
    rows: usize,
    sessions: &mut Sessions,
) -> Result<(), String> {
    let rows = vec![sample; rows];
    infer(model, loaded, &rows, sessions)?;
    // The first run built the plan; the second one tells what rows will cost.
    let meter = Meter::start();
    infer(model, loaded, &rows, sessions)?;
    model.learn(rows.len(), meter.read().cpu);
    Ok(())
}

/// Prepares a job's row, or answers the job at once where there is none to run.
fn prepare(job: Job, loaded: &Loaded) -> Option<Row> {
    let Job { input, caller, waiting } = job;
    drop(waiting);
    if caller.is_gone() {
        return None;
    }
    if caller.due() < Instant::now() {
        let deadline = caller.deadline;
        caller.answer(Err(Error::DeadlineExceeded { deadline }));
        return None;
    }
    let queue = caller.queued.elapsed();
    let meter = Meter::start();
    let prepared = caller.span.in_scope(|| {
        guarded(|| loaded.task.prepare(input))
            .unwrap_or_else(|panic| Err(Error::Internal(format!("preparing the input panicked: {panic}"))))
    });
    match prepared {
        Ok(prepared) => {
            let prepare = meter.read();
            Some(Row { caller, tensors: prepared.row, frame: prepared.frame, queue, prepare })
        }
        Err(error) => {
            caller.answer(Err(error));
            None
        }
    }
}

/// Takes the first row and all others of its shape, in order.
fn take_group(rows: &mut Vec<Row>) -> Vec<Row> {
    let shapes = |row: &Row| row.tensors.iter().map(|t| (t.dtype(), t.shape().to_vec())).collect::<Vec<_>>();
    let Some(first) = rows.first().map(shapes) else { return Vec::new() };
    let (group, others) = std::mem::take(rows).into_iter().partition(|row| shapes(row) == first);
    *rows = others;
    group
}

/// Runs rows of one shape and answers their callers.
fn run_group(model: &Arc<Model>, loaded: &Loaded, mut group: Vec<Row>, sessions: &mut Sessions) {
    group.retain(|row| !row.caller.is_gone());
    if group.is_empty() {
        return;
    }
    let meter = Meter::start();
    let tensors: Vec<&Tensors> = group.iter().map(|row| &row.tensors).collect();
    match infer(model, loaded, &tensors, sessions) {
        Ok(outputs) => answer(model, loaded, group, outputs, meter.read()),
        Err(reason) if group.len() > 1 => {
            tracing::warn!(model = %model.name(), rows = group.len(), reason, "a run failed, its rows run one by one");
            for row in group {
                run_group(model, loaded, vec![row], sessions);
            }
        }
        Err(reason) => {
            for row in group {
                let _entered = row.caller.span.clone().entered();
                tracing::error!(model = %model.name(), reason, "a row failed");
                row.caller.answer(Err(Error::Internal(reason.clone())));
            }
        }
    }
}

/// Makes and sends each row's answer.
fn answer(model: &Arc<Model>, loaded: &Loaded, group: Vec<Row>, outputs: Vec<Tensors>, infer: Spent) {
    let n_rows = group.len();
    let share = infer.cpu / u32::try_from(n_rows).unwrap_or(u32::MAX).max(1);
    model.metrics().ran(n_rows);
    let mut cpu_of_all = infer.cpu;
    for (row, outputs) in group.into_iter().zip(outputs) {
        let meter = Meter::start();
        let answer = row.caller.span.in_scope(|| {
            guarded(|| loaded.task.answer(outputs, &row.frame))
                .unwrap_or_else(|panic| Err(Error::Internal(format!("making the answer panicked: {panic}"))))
        });
        let answering = meter.read();
        let own = row.prepare.cpu + answering.cpu;
        cpu_of_all += own;
        let cost = Cost {
            queue: row.queue,
            prepare: row.prepare.wall,
            infer: infer.wall,
            answer: answering.wall,
            cpu: own + share,
            batch: n_rows,
        };
        if answer.is_ok() {
            model.metrics().answered(&cost);
        }
        row.caller.answer(answer.map(|answer| Answered { answer, cost }));
    }
    model.learn(n_rows, cpu_of_all);
}

/// Stacks rows, runs them, and splits the outputs by row again.
fn infer(
    model: &Arc<Model>,
    loaded: &Loaded,
    rows: &[&Tensors],
    sessions: &mut Sessions,
) -> Result<Vec<Tensors>, String> {
    let n_inputs = rows.first().map_or(0, |row| row.len());
    let stack = |input: usize| Tensor::stack(rows.iter().map(|row| &row[input]));
    let batch: Tensors = (0..n_inputs).map(stack).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let session = sessions.of(model.lane(), loaded).map_err(|e| e.to_string())?;
    let outputs = match guarded(|| session.run(batch)) {
        Ok(outputs) => outputs.map_err(|e| e.to_string())?,
        Err(panic) => {
            // Nobody knows what state a session is in after a panic.
            sessions.discard(model.lane());
            return Err(format!("the network panicked: {panic}"));
        }
    };
    let mut by_row: Vec<Tensors> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in &outputs {
        let parts = output.split(rows.len()).map_err(|e| e.to_string())?;
        by_row.iter_mut().zip(parts).for_each(|(row, part)| row.push(part));
    }
    Ok(by_row)
}

/// Runs `work`; a panic becomes its message.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // What a panic may have left half-done is dropped by the callers of this function.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Wall and CPU time that a piece of work took on this thread.
#[derive(Debug, Clone, Copy)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Self {
        Self { wall: Instant::now(), cpu: thread_cpu() }
    }

    fn read(&self) -> Spent {
        Spent { wall: self.wall.elapsed(), cpu: thread_cpu().saturating_sub(self.cpu) }
    }
}

/// CPU time of the calling thread so far.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
