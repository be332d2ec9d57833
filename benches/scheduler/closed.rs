//! Saturated throughput: callers that ask again as soon as they are answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{Contender, Failure, median, order};

const CALLERS: usize = 64;
/// Many short turns: what else the machine does for a second or two falls on all rules alike.
const ROUNDS: usize = 41;
const TURN: Duration = Duration::from_millis(150);

/// Rows a second, and the mean rows of the run that a row was in.
#[derive(Clone, Copy)]
struct Rate {
    rows: f64,
    batch: f64,
}

/// Prints a table, and answers the first contender's throughput in rows a second.
pub(crate) async fn measure(contenders: &[Arc<Contender>]) -> Result<f64, Failure> {
    let mut rates: Vec<Vec<Rate>> = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for n in order(round, contenders.len()) {
            let rate = rate(&contenders[n]).await?;
            // The first round warms up.
            if round > 0 {
                rates[n].push(rate);
            }
        }
    }
    let rows = |of: &[Rate]| median(of.iter().map(|rate| rate.rows).collect());
    let ratio = |other: &[Rate]| {
        median(rates[0].iter().zip(other).map(|(ours, theirs)| ours.rows / theirs.rows).collect())
    };
    println!("| rule | answers/s | mean rows of a row's run | measured / this |\n| --- | --- | --- | --- |");
    for (contender, rates) in contenders.iter().zip(&rates) {
        let batch = median(rates.iter().map(|rate| rate.batch).collect());
        println!("| {} | {:.0} | {batch:.1} | {:.3} |", contender.name, rows(rates), ratio(rates));
    }
    println!();
    Ok(rows(&rates[0]))
}

async fn rate(contender: &Arc<Contender>) -> Result<Rate, Failure> {
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (next, batches) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let last = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CALLERS {
        let (contender, stop) = (Arc::clone(contender), Arc::clone(&stop));
        let (answered, next, batches) = (Arc::clone(&answered), Arc::clone(&next), Arc::clone(&batches));
        let last = Arc::clone(&last);
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let input = &contender.inputs[turn % contender.inputs.len()];
                let reply = contender.ask(input, Instant::now(), Duration::from_secs(60))?.await?;
                batches.fetch_add(reply.cost.batch, Ordering::Relaxed);
                answered.fetch_add(1, Ordering::Relaxed);
                last.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        });
    }
    tokio::time::sleep(TURN).await;
    let answered = answered.load(Ordering::Relaxed) as f64;
    let batch = batches.load(Ordering::Relaxed) as f64 / answered;
    // Until the last answer and not until now: large batches in the making are no loss.
    let rate = Rate { rows: answered / (last.load(Ordering::Relaxed) as f64 / 1e9), batch };
    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(rate)
}
