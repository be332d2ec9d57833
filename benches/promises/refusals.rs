//! What a refusal costs the server: CPU time of the process, by the threads that spend it.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    child::Lepton,
    probe::Probe,
    report::{Row, Table, met},
    support::{
        client::{Failure, post, saturate},
        median,
        picture::portrait,
    },
};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(1200);
/// Callers that ask again as soon as they are refused.
const CALLERS: usize = 8;
/// The pause of one that does not.
const PAUSE: Duration = Duration::from_millis(20);

/// The bar: CPU milliseconds.
const MOST_MS: f64 = 1.0;

/// Pixels of a photograph's side: nobody decodes and classifies it in the time that [`TERMS`] give.
const SIDE: u16 = 1200;
const TERMS: &str = "x-deadline-ms: 1\r\n";

pub(crate) fn measure(workers: usize) -> Result<(), Failure> {
    let lepton = Lepton::start(workers)?;
    let picture = portrait(SIDE)?;
    let ask = |terms| post("/v1/vision/classify", "image/jpeg", terms, &picture);
    let short = ask(TERMS);
    // What a picture of this size takes is known once one was answered.
    saturate(lepton.address, &[ask("")], 1, 200, PAUSE)?;
    let long = post("/v1/vision/classify", "image/jpeg", TERMS, &vec![0xff; 1 << 20]);
    let busy = |request: &Bytes| -> Result<(), Failure> {
        saturate(lepton.address, std::slice::from_ref(request), CALLERS, 503, ROUND).map(drop)
    };
    let slow = || -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < ROUND {
            // A refusal that leaves a long body unread ends its connection.
            Probe::connect(lepton.address)?.ask(&short)?;
            thread::sleep(PAUSE);
        }
        Ok(())
    };
    let mut table = Table::new("Refusals are cheap: CPU time of the server for a refused request");
    row(&mut table, &lepton, "a photograph, 8 callers that ask again at once", || busy(&short))?;
    row(&mut table, &lepton, "a body of 1 MiB, 8 callers that ask again at once", || busy(&long))?;
    row(&mut table, &lepton, "a photograph, one caller every 20 ms", slow)?;
    table.print();
    Ok(())
}

fn row(
    table: &mut Table,
    lepton: &Lepton,
    what: &str,
    ask: impl Fn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut moving, mut working, mut whole, mut refused) = (vec![], vec![], vec![], 0.0);
    for _ in 0..ROUNDS {
        let count = || lepton.counted("lepton_refusals_total{reason=\"overloaded\"}");
        let (n, before) = (count()?, lepton.used()?);
        ask()?;
        let (used, n) = (lepton.used()?.since(before), count()? - n);
        let ms = |time: Duration| time.as_secs_f64() * 1e3 / n;
        moving.push(ms(used.moving));
        working.push(ms(used.working));
        whole.push(ms(used.moving + used.working));
        refused += n;
    }
    let (whole, moving, working) = (median(whole), median(moving), median(working));
    table.row(Row {
        what: what.to_owned(),
        measured: format!(
            "{whole:.3} ms ({moving:.3} moving bytes, {working:.3} on workers; {refused:.0} refused)"
        ),
        bar: format!("< {MOST_MS} ms"),
        met: met(whole < MOST_MS),
    });
    Ok(())
}
