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

use lepton_scheduler::{
    entry::{QueueEntry, RowShape, SchedParams},
    queue::{Done, Report},
};

use crate::{
    engine::run_rows,
    error::Error,
    metrics::Cost,
    pool::{
        Answered, Loaded,
        job::{self, Caller, Job, Payload, Prepare, Queued, Row},
        meter::{Meter, Spent},
        model::{Model, Waiting},
        sessions::Sessions,
        work_queue::Batch,
    },
    tasks::{Answer, Billing, Further, Item, Workload},
    tensor::Tensors,
};

/// Wall time of preparing that is taken for CPU time: the system takes a good part of it to tell the difference.
const BRIEF: Duration = Duration::from_micros(20);

/// A prepared row and who waits for it.
struct Ready {
    caller: Caller,
    row: Row,
    queue: Duration,
    params: SchedParams,
}

/// Prepares jobs ahead of their run, so that rows of one shape find each other.
pub(super) fn prepare_ahead(batch: Batch) -> Done<Job> {
    let Batch { model, jobs } = batch;
    let (mut rows, mut ended) = (Vec::with_capacity(jobs.len()), Vec::new());
    let mut meter = Meter::start();
    for QueueEntry { params, job: Job { payload, caller, waiting } } in jobs {
        match prepare(payload, caller, params.workload, &model) {
            Some((row, caller)) => {
                let params = SchedParams { shape: RowShape::Prepared(row.bucket), ..params };
                rows.push(QueueEntry { params, job: Job { payload: Payload::Row(row), caller, waiting } });
            }
            None => ended.push(params),
        }
    }
    let spent = meter.lap();
    for job in &mut rows {
        if let Payload::Row(row) = &mut job.job.payload {
            row.prepare.charge(&spent);
        }
    }
    Done::Prepared { queue: model.queue(), rows, ended }
}

/// Runs a batch to its last answer, and reports what it took against what was expected.
/// `shift` measures from the end of the errand before, and from the end of this one when it returns.
pub(super) fn run(batch: Batch, sessions: &mut Sessions, shift: &mut Meter) -> Report {
    let Batch { model, jobs } = batch;
    let Some(loaded) = model.loaded() else {
        for job in jobs {
            job.job.caller.answer(Err(Error::Internal("a job of a model that is not loaded".to_owned())));
        }
        return Report::default();
    };
    let mut run = Run {
        model: &model,
        loaded,
        sessions,
        began: Instant::now(),
        meter: Meter::start(),
        of_rows: Duration::ZERO,
        runs: 0,
        report: Report::default(),
    };
    let mut rows: Vec<Ready> =
        jobs.into_iter().filter_map(|job| ready(&model, job, &mut run.report)).collect();
    let unknown = |row: &&mut Ready| row.row.prepare.cpu.is_none();
    let wall: Duration = rows.iter_mut().filter(unknown).map(|row| row.row.prepare.wall).sum();
    if !wall.is_zero() {
        let spent = if wall < BRIEF {
            run.meter.leave_out(wall);
            Spent { wall, cpu: wall }
        } else {
            run.meter.lap()
        };
        run.of_rows += spent.cpu;
        for row in rows.iter_mut().filter(unknown) {
            row.row.prepare.charge(&spent);
        }
    }
    for row in &rows {
        // What preparing took, and not what was expected of it: how well inputs are priced says nothing of how the
        // machine keeps up.
        let prepare = row.row.prepare.known_cpu();
        run.report.expected += prepare.as_secs_f64();
        run.report.charged += (prepare + row.params.network).as_secs_f64();
    }
    while !rows.is_empty() {
        run.group(take_group(&mut rows));
        if !rows.is_empty() {
            // The next group's run does not pay for this one's answers.
            run.meter.lap();
        }
    }
    // What is not for a row is for the run: each group had one.
    let around = shift.lap().cpu.saturating_sub(run.of_rows);
    if run.runs > 0 {
        model.costs().ran(around / run.runs);
    }
    run.report.wall += run.began.elapsed().as_secs_f64();
    run.report
}

/// Makes a job's row ready to run, or ends the job at once where there is none to run.
fn ready(model: &Model, job: Queued, report: &mut Report) -> Option<Ready> {
    if job.job.caller.is_gone() || job.due() < Instant::now() {
        job::end(job);
        return None;
    }
    let QueueEntry { params, job: Job { payload, caller, waiting } } = job;
    let queue = params.queued.elapsed();
    drop::<Waiting>(waiting);
    let ahead = matches!(payload, Payload::Row(_));
    let (row, caller) = prepare(payload, caller, params.workload, model)?;
    if ahead {
        // The batch took that time as well, only earlier.
        report.wall += row.prepare.wall.as_secs_f64();
    }
    let queue = if ahead { queue.saturating_sub(row.prepare.wall) } else { queue };
    Some(Ready { caller, row, queue, params })
}

/// Prepares a row where that was not done ahead; answers the caller where it cannot be.
fn prepare(payload: Payload, caller: Caller, workload: Workload, model: &Model) -> Option<(Row, Caller)> {
    let input = match payload {
        Payload::Row(row) => return Some((row, caller)),
        Payload::Input(input) => input,
    };
    let loaded = model.loaded().filter(|_| !caller.is_gone())?;
    let step = input.step.clone();
    let began = Instant::now();
    let prepared = caller.span.in_scope(|| {
        guarded(|| loaded.task.preprocess(input))
            .unwrap_or_else(|panic| Err(Error::Internal(format!("preparing the input panicked: {panic}"))))
    });
    match prepared {
        Ok(prepared) => {
            let (tensors, bucket, context) = (prepared.row, prepared.shape, prepared.context);
            let step = prepared.picture.zip(step);
            // Its CPU time is known at the end of the stage.
            let prepare = Prepare { wall: began.elapsed(), cpu: None };
            Some((Row { tensors, bucket, context, step, prepare }, caller))
        }
        Err(error) => {
            model.costs().failed(workload, began.elapsed());
            caller.answer(Err(error));
            None
        }
    }
}

/// Takes the first row and all others of its shape, in order.
fn take_group(rows: &mut Vec<Ready>) -> Vec<Ready> {
    if rows.len() == 1 {
        return std::mem::take(rows);
    }
    let shapes =
        |row: &Ready| row.row.tensors.iter().map(|t| (t.dtype(), t.shape().to_vec())).collect::<Vec<_>>();
    let Some(first) = rows.first().map(shapes) else { return Vec::new() };
    let (group, others) = std::mem::take(rows).into_iter().partition(|row| shapes(row) == first);
    *rows = others;
    group
}

/// A batch on its way through the network.
struct Run<'a> {
    model: &'a Arc<Model>,
    loaded: &'a Loaded,
    sessions: &'a mut Sessions,
    began: Instant,
    /// Measures from just before the next run.
    meter: Meter,
    /// CPU time that was spent on the rows themselves: preparing, the network, answering.
    of_rows: Duration,
    runs: u32,
    report: Report,
}

impl Run<'_> {
    /// Runs rows of one shape and answers their callers.
    fn group(&mut self, mut group: Vec<Ready>) {
        group.retain(|row| !row.caller.is_gone());
        let Some(first) = group.first() else { return };
        self.report.expected += self.model.costs().run(first.row.bucket, group.len()).as_secs_f64();
        let tensors: Vec<&Tensors> = group.iter().map(|row| &row.row.tensors).collect();
        match self.sessions.run(self.model.queue(), self.loaded, |session| run_rows(session, &tensors)) {
            Ok(outputs) => {
                let infer = self.meter.lap();
                self.of_rows += infer.cpu;
                self.runs += 1;
                self.answer(group, outputs, infer);
            }
            Err(reason) => self.fail(group, reason),
        }
    }

    /// Finds out which row is guilty of a run's failure.
    fn fail(&mut self, group: Vec<Ready>, reason: String) {
        let model = self.model.name();
        if group.len() > 1 {
            let rows = group.len();
            tracing::warn!(%model, rows, reason, "a run failed, its rows run one by one");
            for row in group {
                self.meter.lap();
                self.group(vec![row]);
            }
            return;
        }
        for row in group {
            let _entered = row.caller.span.clone().entered();
            tracing::error!(%model, reason, "a row failed");
            row.caller.answer(Err(Error::Internal(reason.clone())));
        }
    }

    /// Makes and sends each row's answer.
    fn answer(&mut self, group: Vec<Ready>, outputs: Vec<Tensors>, infer: Spent) {
        let (model, n_rows) = (self.model, group.len());
        let share = infer.cpu / u32::try_from(n_rows).unwrap_or(u32::MAX).max(1);
        model.metrics().ran(n_rows);
        if let Some(first) = group.first() {
            model.costs().learn(first.row.bucket, size_of(&first.row.tensors), n_rows, infer.cpu);
        }
        for (Ready { caller, row, queue, params }, outputs) in group.into_iter().zip(outputs) {
            let mut more = More::default();
            let outputs = caller.span.in_scope(|| self.further(&row, outputs, &mut more));
            let began = Instant::now();
            let answer = outputs.and_then(|outputs| {
                caller.span.in_scope(|| {
                    let made = guarded(|| self.answered(&row, outputs));
                    made.unwrap_or_else(|panic| {
                        Err(Error::Internal(format!("making the answer panicked: {panic}")))
                    })
                })
            });
            // Microseconds: not worth asking the system what of it was CPU time.
            let answering = began.elapsed();
            self.of_rows += answering + more.spent.cpu;
            let prepare = row.prepare.known_cpu();
            model.costs().handled(params.workload, params.bytes, prepare, answering + more.unforeseen);
            let cost = Cost {
                queue,
                prepare: row.prepare.wall,
                infer: infer.wall + more.spent.wall,
                answer: answering,
                cpu: prepare + answering + share + more.spent.cpu,
                batch: n_rows,
            };
            if answer.is_ok() {
                model.metrics().answered(&cost);
            }
            keep(model, &params, &mut self.report);
            caller.answer(answer.map(|(answer, items)| Answered { answer, cost, items }));
        }
    }
}

impl Run<'_> {
    /// Makes a row's answer, and of its picture what the next models of a pipeline read.
    fn answered(&self, row: &Row, outputs: Tensors) -> Result<(Answer, Vec<Item>), Error> {
        let answer = self.loaded.task.postprocess(outputs, &row.context)?;
        let items = match &row.step {
            Some((picture, step)) => step.items(picture, &answer)?,
            None => Vec::new(),
        };
        Ok((answer, items))
    }

    /// Runs, one by one, the further rows that an answer needs; gives the outputs of all rows in order.
    fn further(&mut self, row: &Row, mut outputs: Tensors, more: &mut More) -> Result<Tensors, Error> {
        let (model, loaded) = (self.model, self.loaded);
        loop {
            let began = Instant::now();
            let next = guarded(|| loaded.task.further(&row.tensors, &outputs, &row.context))
                .unwrap_or_else(|panic| Err(Error::Internal(format!("a further row panicked: {panic}"))))?;
            let Some(Further { row: tensors, shape: bucket, billing }) = next else { return Ok(outputs) };
            let (making, meter) = (began.elapsed(), Meter::start());
            let run = self.sessions.run(model.queue(), loaded, |session| run_rows(session, &[&tensors]));
            let infer = meter.read();
            more.spent.wall += making + infer.wall;
            more.spent.cpu += making + infer.cpu;
            outputs.extend(run.map_err(Error::Internal)?.into_iter().flatten());
            match billing {
                Billing::Upfront => self.report.expected += model.costs().run(bucket, 1).as_secs_f64(),
                Billing::OnAverage => more.unforeseen += making + infer.cpu,
            }
            model.costs().learn(bucket, size_of(&tensors), 1, infer.cpu);
        }
    }
}

/// What the further runs of a row took.
#[derive(Default)]
struct More {
    spent: Spent,
    /// CPU time of those that the input was not charged with.
    unforeseen: Duration,
}

/// Numbers in a row, over all inputs.
fn size_of(row: &Tensors) -> usize {
    row.iter().map(|tensor| tensor.shape().iter().product::<usize>()).sum()
}

/// Holds what was promised against what it took.
fn keep(model: &Model, params: &SchedParams, report: &mut Report) {
    let took = params.queued.elapsed();
    if Instant::now() <= params.due() {
        model.metrics().promise_kept();
    } else {
        model.metrics().promise_broken();
    }
    if let Some(predicted) = params.predicted {
        model.metrics().predicted(predicted, took);
        if params.teaches_slowdown() {
            report.promises.push((predicted.as_secs_f64(), took.as_secs_f64()));
        }
    }
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
