//! `lepton check`: what the settings come to, and whether every model loads, takes and costs what it
//! should.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::find_models;
use crate::{
    config::{ByteSize, Config, Workers},
    cores,
    engine::{EngineError, Port},
    pool::Loaded,
    repository::Found,
    tensor::{Tensor, Tensors},
};

/// Runs that a measurement takes, after one that is not counted.
const RUNS: usize = 7;
/// Time after which a measurement is content with the runs it has.
const BUDGET: Duration = Duration::from_millis(500);

/// Prints the settings, then a table of the models.
pub(super) fn check(config: &Config) -> Result<()> {
    let mut out = io::stdout().lock();
    let settings = config.to_toml().context("cannot print the settings")?;
    let workers = match config.pool.workers {
        Workers::Auto => format!("# \"auto\" workers are {} here\n", cores::usable()),
        Workers::Exactly(_) => String::new(),
    };
    writeln!(out, "{settings}{workers}").context("cannot print the settings")?;

    let found = find_models(config)?;
    let n_models = found.len();
    let mut table = Table::new(["model", "version", "task", "labels", "network", "loaded in", "per row"]);
    let mut failures = Vec::new();
    for Found { declared, network_bytes } in found {
        let (name, version, max_rows) = (declared.name, declared.version, declared.max_rows);
        eprintln!("loading {name} {version}");
        let started = Instant::now();
        let checked = (declared.load)().and_then(|loaded| {
            let load = started.elapsed();
            Checked::of(&loaded, load, max_rows).map_err(|error| error.to_string())
        });
        match checked {
            Ok(checked) => {
                let [task, labels, load, cost] = checked.cells;
                let size = readable(ByteSize(network_bytes));
                table.row([name.to_string(), version.to_string(), task, labels, size, load, cost]);
                checked.notes.into_iter().for_each(|note| table.note(note));
            }
            Err(reason) => {
                table.note(format!("{name} {version} does not load: {reason}"));
                failures.push(name.to_string());
            }
        }
    }
    write!(out, "{table}").context("cannot print the models")?;
    if !failures.is_empty() {
        bail!("{} of {n_models} models cannot be served: {}", failures.len(), failures.join(", "));
    }
    Ok(())
}

/// What a loaded model shows in the table.
struct Checked {
    cells: [String; 4],
    notes: Vec<String>,
}

impl Checked {
    fn of(loaded: &Loaded, load: Duration, max_rows: usize) -> Result<Self, EngineError> {
        let Loaded { engine, task } = loaded;
        let signature = engine.signature();
        let samples = task.samples();
        let one = measure(loaded, &samples, 1)?;
        let mut notes: Vec<String> = Vec::new();
        notes.extend(signature.inputs.iter().map(|port| format!("takes {}", described(port))));
        notes.extend(signature.outputs.iter().map(|port| format!("gives {}", described(port))));
        notes.push(format!("labels {}", task.labels().join(", ")));
        if max_rows > 1 {
            notes.push(format!("per row in runs of {max_rows}: {}", measure(loaded, &samples, max_rows)?));
        }
        let cells = [task.kind().to_owned(), task.labels().len().to_string(), milliseconds(load), one];
        Ok(Self { cells, notes })
    }
}

fn described(port: &Port) -> String {
    format!("{}: {}", port.name, port.describe())
}

/// Time of the network alone per row, for the cheapest and the dearest shape of a row.
fn measure(loaded: &Loaded, samples: &[Tensors], n_rows: usize) -> Result<String, EngineError> {
    let (Some(cheapest), Some(dearest)) = (samples.first(), samples.last()) else {
        return Ok("unknown".to_owned());
    };
    let least = measure_shape(loaded, cheapest, n_rows)?;
    if samples.len() == 1 {
        return Ok(milliseconds(least));
    }
    Ok(format!("{} to {}", milliseconds(least), milliseconds(measure_shape(loaded, dearest, n_rows)?)))
}

fn measure_shape(loaded: &Loaded, row: &Tensors, n_rows: usize) -> Result<Duration, EngineError> {
    let stack = |tensor| Tensor::stack(std::iter::repeat_n(tensor, n_rows));
    let batch: Tensors = row
        .iter()
        .map(stack)
        .collect::<Result<_, _>>()
        .map_err(|error| EngineError::Batch(error.to_string()))?;
    let mut session = loaded.engine.open()?;
    session.run(batch.clone())?;
    let (started, mut times) = (Instant::now(), Vec::with_capacity(RUNS));
    while times.len() < RUNS && (times.is_empty() || started.elapsed() < BUDGET) {
        let batch = batch.clone();
        let run = Instant::now();
        session.run(batch)?;
        times.push(run.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2] / u32::try_from(n_rows).unwrap_or(u32::MAX))
}

/// Three digits are as many as such a measurement is worth.
fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    let digits = if ms >= 100.0 {
        0
    } else if ms >= 10.0 {
        1
    } else if ms >= 1.0 {
        2
    } else {
        3
    };
    format!("{ms:.digits$} ms")
}

fn readable(size: ByteSize) -> String {
    match size.0 {
        bytes if bytes < 1 << 20 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        bytes => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

/// Rows in columns, with notes that run over all of them.
struct Table<const N: usize> {
    lines: Vec<Line<N>>,
}

enum Line<const N: usize> {
    Row([String; N]),
    Note(String),
}

impl<const N: usize> Table<N> {
    fn new(head: [&str; N]) -> Self {
        Self { lines: vec![Line::Row(head.map(str::to_uppercase))] }
    }

    fn row(&mut self, cells: [String; N]) {
        self.lines.push(Line::Row(cells));
    }

    fn note(&mut self, note: String) {
        self.lines.push(Line::Note(note));
    }
}

impl<const N: usize> std::fmt::Display for Table<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut widths = [0; N];
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = cell.chars().count().max(*width);
                }
            }
        }
        for line in &self.lines {
            match line {
                Line::Row(cells) => {
                    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
                    writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
                }
                Line::Note(note) => {
                    for line in note.lines() {
                        writeln!(f, "  {line}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_notes_are_not_counted() {
        let mut table = Table::new(["model", "task"]);
        table.row(["face".to_owned(), "image-classification".to_owned()]);
        table.note("takes image: f32 [batch, 1, 48, 48]".to_owned());
        table.row(["sentiment".to_owned(), "text".to_owned()]);
        insta::assert_snapshot!(table.to_string().trim_end(), @r"
        MODEL      TASK
        face       image-classification
          takes image: f32 [batch, 1, 48, 48]
        sentiment  text
        ");
    }

    #[test]
    fn times_have_three_digits() {
        for (us, text) in [(52, "0.052 ms"), (1234, "1.23 ms"), (12_345, "12.3 ms"), (1_234_567, "1235 ms")] {
            assert_eq!(milliseconds(Duration::from_micros(us)), text);
        }
        assert_eq!(readable(ByteSize(2_415_459)), "2.3 MiB");
        assert_eq!(readable(ByteSize(26_112)), "25.5 KiB");
    }
}
