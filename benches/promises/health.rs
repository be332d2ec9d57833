//! Whether those who watch the server are answered while it is offered far more than it can do.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{
    child::Lepton,
    open_loop::{Load, offer},
    probe::{look, oversleep},
    report::{Row, Table, Times, met},
    support::{
        client::{Failure, saturate},
        work::Work,
    },
};

/// What is offered, as a multiple of what can be done, and for how long.
const TIMES: f64 = 5.0;
const TIME: Duration = Duration::from_secs(8);
const CAPACITY: Duration = Duration::from_millis(1500);
const CALLERS: usize = 32;
const PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// The bar: milliseconds of which 99 in 100 looks take less.
const MOST_MS: f64 = 50.0;

/// With all cores, as many workers as there are.
pub(crate) fn measure(workers: usize) -> Result<(), Failure> {
    let title = "Health under overload: images and texts at 5 times capacity, workers = cores";
    watch(title, workers)
}

/// Server, callers and watcher on one core together.
pub(crate) fn measure_confined() -> Result<(), Failure> {
    let all = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).ok_or("no core")?);
    // Threads and processes that start from here inherit it.
    sched_setaffinity(None, &one)?;
    let title = "Health under overload, server and callers on one core: 5 times capacity, 1 worker";
    let watched = watch(title, 1);
    sched_setaffinity(None, &all)?;
    watched
}

fn watch(title: &'static str, workers: usize) -> Result<(), Failure> {
    let lepton = Lepton::start(workers)?;
    let works = [Work::picture()?, Work::sentence()];
    let requests = |terms: &str| -> Vec<Bytes> { works.iter().map(|work| work.request(terms)).collect() };
    let capacity = saturate(lepton.address, &requests(""), CALLERS, 200, CAPACITY)?;
    let requests = requests("x-deadline-ms: 100\r\n");
    let load =
        Load { address: lepton.address, requests: &requests, rate: TIMES * capacity, time: TIME, seed: 1 };
    let before = lepton.used()?;

    let over = AtomicBool::new(false);
    let (seen, looks) = thread::scope(|scope| {
        let watcher = thread::Builder::new().name("watcher".to_owned());
        let watcher = watcher.spawn_scoped(scope, || {
            let (mut looks, mut sleeps) = ([vec![], vec![], vec![]], Vec::new());
            while !over.load(Ordering::Relaxed) {
                for (path, looks) in PATHS.iter().zip(&mut looks) {
                    looks.push(look(lepton.address, path)?);
                    sleeps.push(oversleep(PAUSE));
                }
            }
            Ok::<_, Failure>((looks, sleeps))
        })?;
        let seen = offer(&load);
        over.store(true, Ordering::Relaxed);
        Ok::<_, Failure>((seen?, watcher.join().map_err(|_| "the watcher panicked")??))
    })?;
    let used = lepton.used()?.since(before);

    let (looks, sleeps) = looks;
    let mut table = Table::new(title);
    for (path, looks) in PATHS.iter().zip(looks) {
        let times = Times::new(looks);
        let p99 = times.ms(0.99);
        table.row(Row {
            what: format!("{path} p99, a connection each"),
            measured: format!(
                "{p99:.1} ms (p50 {:.1}, worst {:.1}, {} looks)",
                times.ms(0.5),
                times.ms(1.0),
                times.n_times()
            ),
            bar: format!("< {MOST_MS:.0} ms"),
            met: met(p99 < MOST_MS),
        });
    }
    let sleeps = Times::new(sleeps);
    table.note("a timer of the watcher's, p99 late by", format!("{:.1} ms", sleeps.ms(0.99)));
    let (rate, seconds) = (seen.offered as f64 / TIME.as_secs_f64(), TIME.as_secs_f64());
    table.note(
        "offered",
        format!("{rate:.0}/s, {:.1} times {capacity:.0}/s ({})", rate / capacity, seen.statuses()),
    );
    table.note(
        "cores used",
        format!(
            "callers {:.2}, moving bytes {:.2}, workers {:.2}; requests left {:.1} ms late at the median",
            seen.cores,
            used.moving.as_secs_f64() / seconds,
            used.working.as_secs_f64() / seconds,
            seen.left_late.as_secs_f64() * 1e3
        ),
    );
    table.print();
    Ok(())
}
