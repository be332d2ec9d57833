//! What is claimed of the scheduler as its callers see it, through HTTP: a table per claim with what
//! was measured, the bar, and whether it is met.
//!
//! `cargo bench --bench promises` measures all of them, in about six minutes; `-- overload` or
//! another of their names only that one. Where a figure is compared with another, both are of this run
//! and taken in alternation. The callers run on the same cores, and what they use is printed where it
//! matters.

#![expect(clippy::print_stdout, reason = "a benchmark answers with tables")]

mod child;
mod harm;
mod health;
mod hurry;
mod nothing;
mod open_loop;
mod overhead;
mod overload;
mod probe;
mod refusals;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::{env, thread};

use self::support::client::Failure;

/// A claim's name on the command line, and how it is measured with so many workers.
type Claim = (&'static str, fn(usize) -> Result<(), Failure>);

const CLAIMS: [Claim; 7] = [
    ("refusals", refusals::measure),
    ("health", health::measure),
    ("one-core", |_| health::measure_confined()),
    ("overhead", |_| overhead::measure()),
    ("hurry", hurry::measure),
    ("overload", |_| overload::measure()),
    ("harm", harm::measure),
];

fn main() -> Result<(), Failure> {
    // `cargo bench` adds an option of its own.
    let asked: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let names = CLAIMS.map(|(name, _)| name);
    if let Some(unknown) = asked.iter().find(|word| !names.contains(&word.as_str())) {
        return Err(format!("`{unknown}` is no claim; there are {}", names.join(", ")).into());
    }
    let cores = thread::available_parallelism()?.get();
    for (name, measure) in CLAIMS {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            measure(cores)?;
        }
    }
    Ok(())
}
