//! What the kernels gain: the shipped networks with each form of the kernels and on stock tract,
//! interleaved in one run.
//!
//! `cargo bench --bench kernels` prints the median time of a row in microseconds, for each network,
//! number of rows and length. `cargo bench --bench kernels -- sentiment 18` measures the cases whose
//! names hold all the words that are given.

#![expect(clippy::print_stdout, reason = "a benchmark answers with a table")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use lepton::{
    engine::{Engine, Session, kernels::Form, tract::TractEngine},
    tensor::{Data, Tensor},
};

/// How long a case is measured, and how often each engine has its turn at least and at most.
const CASE: Duration = Duration::from_millis(900);
const FEWEST_TURNS: usize = 9;
const MOST_TURNS: usize = 400;

const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Tokens of a text.
const LENGTHS: [usize; 6] = [9, 18, 34, 62, 113, 256];

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.iter().all(|word| name.split(' ').any(|part| part == word));
    let columns = columns();
    let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
    println!("microseconds a row, medians of {FEWEST_TURNS} to {MOST_TURNS} turns");
    println!("| network | {} | stock / first |", titles.join(" | "));
    println!("| --- |{}", " --- |".repeat(titles.len() + 1));
    for network in ["sentiment", "face"] {
        let mut sessions = Vec::new();
        for (_, form) in &columns {
            sessions.push(open(network, *form)?);
        }
        for (name, batch) in batches(network)? {
            if wanted(&name) {
                report(&name, &mut sessions, &batch)?;
            }
        }
    }
    Ok(())
}

/// The forms that this processor runs, the best first, and stock tract last.
fn columns() -> Vec<(String, Option<Form>)> {
    let forms = Form::all().into_iter().map(|form| (form.to_string(), Some(form)));
    forms.chain([("stock tract".to_owned(), None)]).collect()
}

fn open(network: &str, form: Option<Form>) -> Result<Box<dyn Session>, Failure> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let bytes = std::fs::read(models.join(network).join("1/model.onnx"))?;
    Ok(TractEngine::load_with(&bytes, None, form)?.open()?)
}

/// The inputs of a network, each with its name.
fn batches(network: &str) -> Result<Vec<(String, Tensor)>, Failure> {
    let mut batches = Vec::new();
    for n_rows in ROWS {
        if network == "face" {
            let pixels = (0..n_rows * 48 * 48).map(|i| ((i * 7919) % 512) as f32 / 128.0 - 2.0).collect();
            let batch = Tensor::new(vec![n_rows, 1, 48, 48], Data::F32(pixels))?;
            batches.push((format!("{network} rows {n_rows}"), batch));
            continue;
        }
        for length in LENGTHS {
            // Few numbers are common and most are rare, as with words.
            let ids = (0..n_rows * length).map(|i| {
                let x = ((i * 2_654_435_761) % 65_536) as f32 / 65_536.0;
                1 + (x * x * x * 12_000.0) as i64
            });
            let batch = Tensor::new(vec![n_rows, length], Data::I64(ids.collect()))?;
            batches.push((format!("{network} length {length} rows {n_rows}"), batch));
        }
    }
    Ok(batches)
}

fn report(name: &str, sessions: &mut [Box<dyn Session>], batch: &Tensor) -> Result<(), Failure> {
    // The first turn of each makes its plan.
    for session in sessions.iter_mut() {
        session.run(vec![batch.clone()])?;
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); sessions.len()];
    let started = Instant::now();
    for turn in 0..MOST_TURNS {
        if turn >= FEWEST_TURNS && started.elapsed() > CASE {
            break;
        }
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            let batch = vec![batch.clone()];
            let start = Instant::now();
            session.run(batch)?;
            times.push(start.elapsed().as_secs_f64() * 1e6 / batch_rows(name));
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let shown: Vec<String> = medians.iter().map(|time| format!("{time:.1}")).collect();
    let gain = medians.last().copied().unwrap_or(0.0) / medians[0];
    println!("| {name} | {} | {gain:.2} |", shown.join(" | "));
    Ok(())
}

fn batch_rows(name: &str) -> f64 {
    name.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(1.0)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
