//! What the scheduler is worth: Lepton's rule against those of other servers, on the shipped networks.
//!
//! `cargo bench --bench scheduler` measures, in one process without HTTP, for each network and for one and
//! two workers:
//! - saturated throughput (64 callers that ask again as soon as they are answered), with rows batched as
//!   measured, one by one, greedily, and in a window of 5 ms or 32 rows;
//! - latency and goodput (answers within 100 ms) where requests arrive at random at 0.3, 0.7, 1, 1.5 and
//!   2 times that throughput;
//! - what waiting for company is worth: latency and CPU time of an answer by the balance that is asked for,
//!   at 0.1, 0.3 and 0.6 times that throughput.
//!
//! Rules take turns, so that what else the machine does befalls all of them; medians of the turns are
//! printed. All rules have Lepton's buckets of row shapes and its admission. `-- sentiment 1` measures one
//! network with one worker, `-- saturated` and `-- balance` the first and the last of these alone.

#![expect(clippy::print_stdout, reason = "a benchmark answers with tables")]

mod balance;
mod closed;
mod open;
#[path = "../support/picture.rs"]
mod picture;
mod rules;
mod texts;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use lepton::{
    config::Config,
    manifest::Balance,
    metrics::Metrics,
    pool::{Claim, Class, Model, ModelPool, PoolOptions, Reply},
    repository,
    tasks::{Input, TaskOptions},
};

use self::{picture::portrait, rules::Rule};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The rules, Lepton's first.
const RULES: [(&str, Rule); 4] = [
    ("measured", Rule::Measured),
    ("one by one", Rule::Single),
    ("greedy", Rule::Drain),
    ("window", Rule::Window { rows: 32, wait: Duration::from_millis(5) }),
];

/// The networks that ship.
const NETWORKS: [&str; 3] = ["sentiment", "face", "face-detector"];

/// What callers may ask for, the default first.
const BALANCES: [(&str, Balance); 3] =
    [("fast", Balance::Fast), ("balanced", Balance::Balanced), ("cheap", Balance::Cheap)];

/// A pool under one rule, and what it is asked.
struct Contender {
    name: &'static str,
    balance: Balance,
    pool: ModelPool,
    model: Arc<Model>,
    inputs: Arc<[Input]>,
}

impl Contender {
    async fn start(
        (name, rule, balance): (&'static str, Rule, Balance),
        network: &str,
        workers: usize,
    ) -> Result<Arc<Self>, Failure> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let found = repository::scan(&models, TaskOptions::from(&Config::default().limits))?;
        let declared = found.into_iter().map(|found| found.declared);
        let declared = declared.filter(|declared| declared.name.as_str() == network).collect();
        // Room for the longest queue that the open loop can make before its deadlines refuse more.
        let options = PoolOptions { workers, queue_rows: 65_536, queue_bytes: 1 << 30 };
        let pool = ModelPool::start_with(&options, rule.policy(), declared, &Metrics::new())?;
        let model = pool.model(network, None)?;
        let contender = Self { name, balance, pool, model, inputs: inputs(network)? };
        contender.ready().await?;
        Ok(Arc::new(contender))
    }

    /// Waits until the model is measured, and not only ready.
    async fn ready(&self) -> Result<(), Failure> {
        self.pool.ready().await.map_err(|(id, reason)| format!("{id}: {reason}"))?;
        let mut cells = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let now = self.model.measured().len();
            if now == cells {
                return Ok(());
            }
            cells = now;
        }
    }

    /// Asks for one answer.
    fn ask(
        &self,
        input: &Input,
        arrived: Instant,
        deadline: Duration,
    ) -> Result<Reply, lepton::error::Error> {
        let claim = Claim {
            arrived,
            deadline,
            size: input.size(),
            after: Duration::ZERO,
            class: Class::Interactive,
            balance: self.balance,
        };
        let mut replies = self.pool.reserve(&self.model, claim)?.submit(vec![input.clone()])?;
        replies.pop().ok_or_else(|| lepton::error::Error::malformed("no reply"))
    }
}

fn inputs(network: &str) -> Result<Arc<[Input]>, Failure> {
    Ok(match network {
        "face" | "face-detector" => [Input::image(portrait(250)?)].into(),
        _ => {
            // Dealt like cards, so that long and short ones come mixed.
            let order = (0..texts::TEXTS.len()).map(|i| i * 17 % texts::TEXTS.len());
            order.map(|i| Input::text(texts::TEXTS[i])).collect()
        }
    })
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let asked = |word: &str, all: &[&str]| {
        words.iter().any(|other| other == word) || !all.iter().any(|of| words.iter().any(|other| other == of))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    for network in NETWORKS {
        for workers in [1, 2] {
            if asked(network, &NETWORKS) && asked(&workers.to_string(), &["1", "2"]) {
                runtime.block_on(measure(network, workers))?;
            }
        }
    }
    Ok(())
}

async fn measure(network: &str, workers: usize) -> Result<(), Failure> {
    let only = |word: &str| std::env::args().any(|other| other == word);
    println!("## {network}, {workers} worker{}\n", if workers == 1 { "" } else { "s" });
    if !only("balance") {
        let mut contenders = Vec::new();
        for (name, rule) in RULES {
            contenders.push(Contender::start((name, rule, Balance::Fast), network, workers).await?);
        }
        let capacity = closed::measure(&contenders).await?;
        if only("saturated") {
            return Ok(());
        }
        open::measure(&contenders, capacity).await?;
    }
    let mut contenders = Vec::new();
    for (name, balance) in BALANCES {
        contenders.push(Contender::start((name, Rule::Measured, balance), network, workers).await?);
    }
    let capacity = closed::measure(&contenders[..1]).await?;
    balance::measure(&contenders, capacity).await
}

/// The order in which `n` contenders take their turns in a round: each goes first in every nth.
fn order(round: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |turn| (round + turn) % n)
}

/// The median.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
