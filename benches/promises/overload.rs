//! More than can be done: how much of it is still done in time, and whether what was promised is kept.

use std::time::Duration;

use super::{
    child::Lepton,
    open_loop::{Load, offer},
    report::{Row, Table, met},
    support::{
        client::{Failure, saturate},
        median,
        work::Work,
    },
};

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_millis(2500);
const CAPACITY: Duration = Duration::from_millis(1200);
const CALLERS: usize = 32;
const FACTORS: [f64; 3] = [1.0, 1.5, 2.0];

const DEADLINE: Duration = Duration::from_millis(100);
const TERMS: &str = "x-deadline-ms: 100\r\n";

/// The bars: goodput at 2 times capacity over that at capacity, and promises kept at 1.5 times.
const GOODPUT: f64 = 0.95;
const KEPT: f64 = 0.99;

/// What one factor has shown, a value per round.
#[derive(Default)]
struct Figures {
    /// Answers in time, a second, as the callers saw them.
    goodput: Vec<f64>,
    /// Promises over all rounds.
    kept: f64,
    broken: f64,
    /// Runs of the network over all rounds, and their rows.
    runs: f64,
    rows: f64,
    callers: Vec<f64>,
    moving: Vec<f64>,
    working: Vec<f64>,
}

pub(crate) fn measure() -> Result<(), Failure> {
    let mut table =
        Table::new("Overload: answers within 100 ms, as callers see them, offered at random moments");
    for (work, workers) in [(Work::picture()?, 1), (Work::picture()?, 2), (Work::sentence(), 1)] {
        overload(&mut table, &work, workers)?;
    }
    table.print();
    Ok(())
}

fn overload(table: &mut Table, work: &Work, workers: usize) -> Result<(), Failure> {
    let lepton = Lepton::start(workers)?;
    let (plain, request) = ([work.request("")], [work.request(TERMS)]);
    let mut figures = FACTORS.map(|_| Figures::default());
    let (mut capacities, mut ratios) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let capacity = saturate(lepton.address, &plain, CALLERS, 200, CAPACITY)?;
        capacities.push(capacity);
        let mut goodputs = FACTORS;
        // Every other round backwards, so that what drifts falls on all alike.
        let mut order = [0, 1, 2];
        if round % 2 == 1 {
            order.reverse();
        }
        for n in order {
            let rate = FACTORS[n] * capacity;
            let seed = (round * FACTORS.len() + n) as u64;
            let load = Load { address: lepton.address, requests: &request, rate, time: TIME, seed };
            goodputs[n] = one(&lepton, work.model, &load, &mut figures[n])?;
        }
        ratios.push(goodputs[2] / goodputs[0]);
    }

    let (name, ratio, capacity) =
        (format!("{}, workers {workers}", work.name), median(ratios), median(capacities));
    table.row(Row {
        what: format!("{name}: goodput at 2 times capacity"),
        measured: format!("{ratio:.3} of that at capacity ({capacity:.0}/s)"),
        bar: format!(">= {GOODPUT}"),
        met: met(ratio >= GOODPUT),
    });
    let Figures { kept, broken, .. } = figures[1];
    let share = kept / (kept + broken);
    table.row(Row {
        what: format!("{name}: promises kept at 1.5 times capacity"),
        measured: format!("{share:.4} of {:.0}", kept + broken),
        bar: format!(">= {KEPT}"),
        met: met(share >= KEPT),
    });
    for (factor, figures) in FACTORS.iter().zip(figures) {
        let Figures { goodput, kept, broken, runs, rows, callers, moving, working } = figures;
        table.note(
            &format!("{name}: at {factor} times"),
            format!(
                "{:.0}/s in time; kept {:.4}; {:.1} rows a run; cores: callers {:.2}, moving bytes {:.2}, workers {:.2}",
                median(goodput),
                kept / (kept + broken),
                rows / runs,
                median(callers),
                median(moving),
                median(working)
            ),
        );
    }
    Ok(())
}

/// Offers `load`, adds what it showed, and gives the answers in time, a second.
fn one(lepton: &Lepton, model: &str, load: &Load, figures: &mut Figures) -> Result<f64, Failure> {
    let promises = |outcome: &str| {
        lepton.counted(&format!(
            "lepton_promises_total{{model=\"{model}\",outcome=\"{outcome}\",version=\"1\"}}"
        ))
    };
    let batches =
        |what: &str| lepton.counted(&format!("lepton_batch_rows_{what}{{model=\"{model}\",version=\"1\"}}"));
    let counts =
        || Ok::<_, Failure>([promises("kept")?, promises("broken")?, batches("count")?, batches("sum")?]);
    let (counted, before) = (counts()?, lepton.used()?);
    let seen = offer(load)?;
    let (used, seconds) = (lepton.used()?.since(before), load.time.as_secs_f64());
    let goodput = seen.good(DEADLINE) as f64 / seconds;
    figures.goodput.push(goodput);
    let Figures { kept, broken, runs, rows, .. } = figures;
    for ((sum, now), then) in [kept, broken, runs, rows].into_iter().zip(counts()?).zip(counted) {
        *sum += now - then;
    }
    figures.callers.push(seen.cores);
    figures.moving.push(used.moving.as_secs_f64() / seconds);
    figures.working.push(used.working.as_secs_f64() / seconds);
    Ok(goodput)
}
