//! What HTTP, the queue and the hop between threads cost: the same inputs through the server and in
//! a bare loop, interleaved in one run.
//!
//! `cargo bench --bench serving` prints, for each endpoint and number of workers:
//! - saturated throughput of the server as a share of that of as many threads that do nothing but
//!   decode, prepare, run and answer in a loop, one input at a time;
//! - the median time of one request at concurrency 1, beside that of one turn of the bare loop.
//!
//! The load generator runs on the same cores and is part of the server's figure.

#![expect(clippy::print_stdout, reason = "a benchmark answers with a table")]

#[path = "support/mod.rs"]
mod support;

use std::{
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lepton::{
    config::Config,
    pool::Loaded,
    repository,
    tasks::{Input, TaskOptions},
    tensor::Tensor,
};

use self::support::{
    client::{Caller, Failure, saturate},
    median,
    picture::portrait,
    served::Served,
    work::{SENTENCE, Work},
};

/// Rounds of each measurement; the median of their ratios is printed.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(1500);
/// Callers that keep the server busy.
const CALLERS: usize = 32;
/// Turns of the latency measurement, bare and served in alternation.
const TURNS: usize = 400;

fn main() -> Result<(), Failure> {
    println!(
        "| endpoint | workers | bare loop /s | served /s | served / bare | p50 bare us | p50 served us | difference us |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for workers in [1, 2] {
        measure(&Work::picture()?, &Input::image(portrait(250)?), workers)?;
        measure(&Work::sentence(), &Input::text(SENTENCE), workers)?;
    }
    Ok(())
}

fn task_options() -> TaskOptions {
    TaskOptions::from(&Config::default().limits)
}

fn measure(work: &Work, input: &Input, workers: usize) -> Result<(), Failure> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let found = repository::scan(&models, task_options())?;
    let bare = found.into_iter().find(|found| found.declared.name.as_str() == work.model);
    let bare = (bare.ok_or("the model is not there")?.declared.load)()?;
    let found = repository::scan(&models, task_options())?;
    let served = Served::start(workers, found.into_iter().map(|found| found.declared).collect())?;
    let request = work.request("");

    let mut ratios = Vec::new();
    let (mut bare_rates, mut served_rates) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let bare_rate = bare_rate(&bare, input, workers);
        let served_rate = saturate(served.address, std::slice::from_ref(&request), CALLERS, 200, ROUND)?;
        // The first round warms up.
        if round > 0 {
            bare_rates.push(bare_rate);
            served_rates.push(served_rate);
            ratios.push(served_rate / bare_rate);
        }
    }
    let (bare_us, served_us) = latencies(&bare, input, &served, &request)?;
    println!(
        "| {} | {workers} | {:.0} | {:.0} | {:.3} | {bare_us:.0} | {served_us:.0} | {:.0} |",
        work.name,
        median(bare_rates),
        median(served_rates),
        median(ratios),
        served_us - bare_us,
    );
    served.stop()
}

/// One turn of the bare loop: what a worker does, and nothing else.
fn turn(loaded: &Loaded, session: &mut dyn lepton::engine::Session, input: Input) -> Result<(), Failure> {
    let prepared = loaded.task.preprocess(input)?;
    let batch: Result<Vec<Tensor>, _> =
        prepared.row.iter().map(|tensor| Tensor::stack([tensor].into_iter())).collect();
    let outputs = session.run(batch?)?;
    let row: Result<Vec<Vec<Tensor>>, _> = outputs.iter().map(|output| output.split(1)).collect();
    let answer = loaded.task.postprocess(row?.into_iter().flatten().collect(), &prepared.context)?;
    std::hint::black_box(answer);
    Ok(())
}

/// Turns a second of `threads` bare loops.
fn bare_rate(loaded: &Loaded, input: &Input, threads: usize) -> f64 {
    let (stop, turns, start) = (AtomicBool::new(false), AtomicUsize::new(0), Barrier::new(threads + 1));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let Ok(mut session) = loaded.engine.open() else { return };
                start.wait();
                while !stop.load(Ordering::Relaxed) {
                    if turn(loaded, session.as_mut(), input.clone()).is_ok() {
                        turns.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        start.wait();
        let began = Instant::now();
        thread::sleep(ROUND);
        let rate = turns.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// Medians of one bare turn and one request, in microseconds, taken in alternation.
fn latencies(loaded: &Loaded, input: &Input, served: &Served, request: &[u8]) -> Result<(f64, f64), Failure> {
    let mut session = loaded.engine.open()?;
    let (mut bare, mut through) = (Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut caller = Caller::connect(served.address).await?;
        for _ in 0..TURNS {
            let began = Instant::now();
            turn(loaded, session.as_mut(), input.clone())?;
            bare.push(began.elapsed().as_secs_f64() * 1e6);
            let began = Instant::now();
            let status = caller.ask(request).await?;
            through.push(began.elapsed().as_secs_f64() * 1e6);
            if status != 200 {
                return Err(format!("answered {status}").into());
            }
        }
        Ok::<(), Failure>(())
    })?;
    Ok((median(bare), median(through)))
}
