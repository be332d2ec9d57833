//! What it is worth to wait: latency and cost of an answer by the balance that its caller asks for, where
//! requests arrive at random and workers have time to spare.

use std::sync::Arc;

use crate::{Contender, Failure, median, open, order};

/// Offered load, as shares of the saturated throughput.
const LOADS: [f64; 3] = [0.1, 0.3, 0.6];
const ROUNDS: usize = 9;

/// Prints a line per load and contender.
pub(crate) async fn measure(contenders: &[Arc<Contender>], capacity: f64) -> Result<(), Failure> {
    println!(
        "| load | balance | rows of a row's run | CPU us an answer | of fast | p50 ms | p99 ms | in time |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for load in LOADS {
        let mut outcomes: Vec<Vec<open::Outcome>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..=ROUNDS {
            for n in order(round, contenders.len()) {
                let outcome = open::turn(&contenders[n], load * capacity, round as u64).await?;
                // In the first round they learn how rows come.
                if round > 0 {
                    outcomes[n].push(outcome);
                }
            }
        }
        let cpu: Vec<Vec<f64>> =
            outcomes.iter().map(|of| of.iter().map(open::Outcome::cpu_per_answer).collect()).collect();
        for ((contender, of), cpu_of) in contenders.iter().zip(&mut outcomes).zip(&cpu) {
            let share = median(cpu_of.iter().zip(&cpu[0]).map(|(this, fast)| this / fast).collect());
            let batch = median(of.iter().map(open::Outcome::rows_per_run).collect());
            let in_time = median(of.iter().map(open::Outcome::in_time).collect());
            let mut at = |share: f64| median(of.iter_mut().map(|o| o.percentile(share)).collect());
            println!(
                "| {load} | {} | {batch:.1} | {:.1} | {share:.3} | {:.2} | {:.2} | {:.2} % |",
                contender.name,
                median(cpu_of.clone()) * 1e6,
                at(0.5),
                at(0.99),
                100.0 * in_time,
            );
        }
    }
    println!();
    Ok(())
}
