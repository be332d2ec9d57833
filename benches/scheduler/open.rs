//! Latency and goodput where requests arrive at random, whatever the answers do (Poisson arrivals; times
//! count from when a request was meant to arrive).

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lepton::pool::Reply;
use lepton_load::{Arrivals, Rate};
use tokio::sync::mpsc;

use crate::{Contender, Failure, median, order};

/// Offered load, as shares of the saturated throughput, and the turns that each gets.
const LOADS: [(f64, usize); 5] = [(0.3, 15), (0.7, 5), (1.0, 5), (1.5, 3), (2.0, 5)];
const ROUND: Duration = Duration::from_millis(600);
const DEADLINE: Duration = Duration::from_millis(100);

/// What came of the requests of one turn.
#[derive(Default)]
pub(crate) struct Outcome {
    offered: usize,
    refused: usize,
    /// Accepted, and then late or not answered.
    broken: usize,
    /// Seconds, of those that were answered in time.
    latencies: Vec<f64>,
    /// CPU seconds that answers cost, and the rows of the runs that they were in, summed over them.
    cpu: f64,
    batches: usize,
    elapsed: f64,
}

impl Outcome {
    fn goodput(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed
    }

    pub(crate) fn cpu_per_answer(&self) -> f64 {
        self.cpu / self.latencies.len() as f64
    }

    pub(crate) fn rows_per_run(&self) -> f64 {
        self.batches as f64 / self.latencies.len() as f64
    }

    /// The share of requests that were answered in time.
    pub(crate) fn in_time(&self) -> f64 {
        self.latencies.len() as f64 / self.offered as f64
    }

    /// Milliseconds within which this share of the answers came.
    pub(crate) fn percentile(&mut self, share: f64) -> f64 {
        self.latencies.sort_by(f64::total_cmp);
        let position = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(position).copied().unwrap_or(f64::NAN) * 1e3
    }
}

/// Prints a line per load and rule.
pub(crate) async fn measure(contenders: &[Arc<Contender>], capacity: f64) -> Result<(), Failure> {
    println!("| load | rule | goodput/s | refused | promises kept | p50 ms | p99 ms | p50 / one by one |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut goodputs = Vec::new();
    for (load, rounds) in LOADS {
        let mut outcomes: Vec<Vec<Outcome>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for n in order(round, contenders.len()) {
                outcomes[n].push(turn(&contenders[n], load * capacity, round as u64).await?);
            }
        }
        let p50s: Vec<Vec<f64>> = outcomes
            .iter_mut()
            .map(|of| of.iter_mut().map(|outcome| outcome.percentile(0.5)).collect())
            .collect();
        for ((contender, of), p50) in contenders.iter().zip(&mut outcomes).zip(&p50s) {
            let sum = |count: fn(&Outcome) -> usize| of.iter().map(count).sum::<usize>() as f64;
            let (refused, offered) = (sum(|o| o.refused), sum(|o| o.offered));
            let kept = 1.0 - sum(|o| o.broken) / (offered - refused);
            let goodput = median(of.iter().map(Outcome::goodput).collect());
            let p99 = median(of.iter_mut().map(|o| o.percentile(0.99)).collect());
            let ratio = median(p50.iter().zip(&p50s[1]).map(|(ours, single)| ours / single).collect());
            println!(
                "| {load} | {} | {goodput:.0} | {:.1} % | {:.2} % | {:.2} | {p99:.2} | {ratio:.3} |",
                contender.name,
                100.0 * refused / offered,
                100.0 * kept,
                median(p50.clone()),
            );
            if contender.name == contenders[0].name {
                goodputs.push((load, goodput));
            }
        }
    }
    let at = |load: f64| {
        goodputs.iter().find(|(other, _)| *other == load).map_or(f64::NAN, |(_, goodput)| *goodput)
    };
    println!("\ngoodput of `{}` at 2 over 1 times capacity: {:.3}\n", contenders[0].name, at(2.0) / at(1.0));
    Ok(())
}

/// Offers `rate` requests a second for a while.
pub(crate) async fn turn(contender: &Arc<Contender>, rate: f64, seed: u64) -> Result<Outcome, Failure> {
    let rate = Rate::per_second(rate).ok_or("a load without a rate")?;
    let arrivals = Arrivals::Poisson { rate, seed };
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Reply)>();
    let offering = Arc::clone(contender);
    let generator = thread::Builder::new()
        .name("arrivals".to_owned())
        .spawn(move || offer(&offering, &arrivals, &sender))?;
    let mut answers = tokio::task::JoinSet::new();
    while let Some((intended, reply)) = receiver.recv().await {
        answers.spawn(async move { (reply.await.ok().map(|answered| answered.cost), intended.elapsed()) });
    }
    let (mut outcome, began) = generator.join().map_err(|_| "the generator panicked")?;
    while let Some(answer) = answers.join_next().await {
        match answer? {
            (Some(cost), took) if took <= DEADLINE => {
                outcome.latencies.push(took.as_secs_f64());
                outcome.cpu += cost.cpu.as_secs_f64();
                outcome.batches += cost.batch;
            }
            _ => outcome.broken += 1,
        }
    }
    outcome.elapsed = began.elapsed().as_secs_f64().min(ROUND.as_secs_f64());
    Ok(outcome)
}

/// Asks when it is time to, and hands on what has to be waited for.
fn offer(
    contender: &Contender,
    arrivals: &Arrivals,
    replies: &mpsc::UnboundedSender<(Instant, Reply)>,
) -> (Outcome, Instant) {
    let mut outcome = Outcome::default();
    let began = Instant::now();
    for offset in arrivals.schedule().take_while(|offset| *offset <= ROUND) {
        let intended = began + offset;
        let now = Instant::now();
        if intended > now {
            thread::sleep(intended - now);
        }
        let input = &contender.inputs[outcome.offered % contender.inputs.len()];
        outcome.offered += 1;
        match contender.ask(input, intended, DEADLINE) {
            Ok(reply) => drop(replies.send((intended, reply))),
            Err(_) => outcome.refused += 1,
        }
    }
    (outcome, began)
}
