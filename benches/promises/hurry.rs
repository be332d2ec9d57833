//! A caller with a millisecond: refused or answered, but not late.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    child::Lepton,
    open_loop::{Load, offer},
    probe::{Probe, oversleep},
    report::{Row, Table, Times, met},
    support::{
        client::{Failure, post, saturate},
        work::Work,
    },
};

const TIME: Duration = Duration::from_secs(5);
const CAPACITY: Duration = Duration::from_millis(1500);
const CALLERS: usize = 32;
/// How much of what can be done the others ask for.
const OTHERS: f64 = 0.7;
/// The pause between two requests: a caller in a hurry is no load of its own.
const PAUSE: Duration = Duration::from_millis(1);

const DEADLINE: Duration = Duration::from_millis(1);
/// The bar: milliseconds after the deadline.
const MOST_MS: f64 = 5.0;

/// What the caller has seen.
struct Seen {
    /// By status, how long after the deadline the answer was there.
    late: BTreeMap<u16, Vec<Duration>>,
    /// How long `/healthz` took, and how much too long a thread slept, in between.
    health: Vec<Duration>,
    sleeps: Vec<Duration>,
}

pub(crate) fn measure(workers: usize) -> Result<(), Failure> {
    let lepton = Lepton::start(workers)?;
    let mut table = Table::new("A deadline of 1 ms: short texts, refused or met, never more than 5 ms late");
    let over = AtomicBool::new(false);
    let alone = thread::scope(|scope| {
        let caller = thread::Builder::new().spawn_scoped(scope, || hurry(lepton.address, &over))?;
        thread::sleep(TIME);
        over.store(true, Ordering::Relaxed);
        caller.join().map_err(|_| "the caller panicked")?
    })?;
    rows(&mut table, "alone", alone);

    let works = [Work::picture()?, Work::sentence()];
    let requests = |terms: &str| -> Vec<Bytes> { works.iter().map(|work| work.request(terms)).collect() };
    let capacity = saturate(lepton.address, &requests(""), CALLERS, 200, CAPACITY)?;
    let requests = requests("x-deadline-ms: 100\r\n");
    let load =
        Load { address: lepton.address, requests: &requests, rate: OTHERS * capacity, time: TIME, seed: 2 };
    let over = AtomicBool::new(false);
    let (others, beside) = thread::scope(|scope| {
        let caller = thread::Builder::new().spawn_scoped(scope, || hurry(lepton.address, &over))?;
        let others = offer(&load);
        over.store(true, Ordering::Relaxed);
        Ok::<_, Failure>((others?, caller.join().map_err(|_| "the caller panicked")??))
    })?;
    rows(&mut table, "others at 0.7 of capacity", beside);
    table.note("the others", format!("{:.0}/s offered ({})", load.rate, others.statuses()));
    table.print();
    Ok(())
}

fn hurry(address: SocketAddr, over: &AtomicBool) -> Result<Seen, Failure> {
    let request = post("/v1/text/sentiment", "text/plain", "x-deadline-ms: 1\r\n", b"A fine film.");
    let mut seen = Seen { late: BTreeMap::new(), health: Vec::new(), sleeps: Vec::new() };
    let mut probe = Probe::connect(address)?;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let status = probe.ask(&request)?.status;
        seen.late.entry(status).or_default().push(began.elapsed().saturating_sub(DEADLINE));
        let began = Instant::now();
        probe.get("/healthz")?;
        seen.health.push(began.elapsed());
        seen.sleeps.push(oversleep(PAUSE));
    }
    Ok(seen)
}

fn rows(table: &mut Table, when: &str, seen: Seen) {
    for (status, late) in seen.late {
        let late = Times::new(late);
        let worst = late.ms(1.0);
        table.row(Row {
            what: format!("{when}: status {status}, {} answers, the latest", late.n_times()),
            measured: format!("{worst:.1} ms late (p99 {:.1}, p99.9 {:.1})", late.ms(0.99), late.ms(0.999)),
            bar: format!("<= {MOST_MS:.0} ms"),
            met: met(worst <= MOST_MS),
        });
    }
    let (health, sleeps) = (Times::new(seen.health), Times::new(seen.sleeps));
    let figures = |times: &Times| format!("worst {:.1} ms, p99.9 {:.1}", times.ms(1.0), times.ms(0.999));
    table.note(&format!("{when}: /healthz in between"), figures(&health));
    table.note(&format!("{when}: a timer of the caller's in between"), figures(&sleeps));
}
