//! `lepton check`: what the settings come to, and whether every model loads, takes and costs what it
//! should.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    find_pipelines, logging,
    rehearsal::{self, Extent, Failure, Loadable},
    repository,
};
use crate::{
    config::{ByteSize, Config, ModelsConfig, Workers},
    cores,
    engine::{KernelUse, Port},
    pipelines::Pipeline,
    pool::{self, Best, CostProfile, LoadModel, Measured},
    repository::{Found, RepositoryError},
};

/// Prints the settings, then a table of the models.
pub(super) fn check(config: &Config) -> Result<()> {
    let mut out = io::stdout().lock();
    let settings = config.to_toml().context("cannot print the settings")?;
    let workers = match config.pool.workers {
        Workers::Auto => format!("# \"auto\" workers are {} here\n", cores::usable()),
        Workers::Exactly(_) => String::new(),
    };
    writeln!(out, "{settings}{workers}").context("cannot print the settings")?;

    let found = repository(config).scan()?;
    let pipelines = find_pipelines(config, |name| {
        let found = found.iter().flatten().find(|found| found.declared.name == *name);
        found.map(|found| found.declared.task)
    })?;
    let n_models = found.len();
    let mut table = Table::new(["model", "version", "task", "labels", "network", "loaded in", "per row"]);
    let (mut failures, mut names) = (Vec::new(), Vec::new());
    for found in found {
        let found = match found {
            Ok(found) => found,
            Err(RepositoryError::Model { name, reason }) => {
                table.note(format!("{name} cannot be loaded: {reason}"));
                names.push(name.clone());
                failures.push(name);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        names.push(found.declared.name.to_string());
        let (name, version) = (found.declared.name.clone(), found.declared.version);
        logging::say(&format!("loading {name} {version}"));
        let checked = checked(config, found).and_then(|Loadable { cells, notes }| {
            let cells: [String; 5] = cells.try_into().map_err(|_| "what came of it is not complete")?;
            Ok((cells, notes))
        });
        match checked {
            Ok(([task, labels, size, load, cost], notes)) => {
                table.row([name.to_string(), version.to_string(), task, labels, size, load, cost]);
                notes.into_iter().for_each(|note| table.note(note));
            }
            Err(reason) => {
                table.note(format!("{name} {version} does not load: {reason}"));
                failures.push(name.to_string());
            }
        }
    }
    for Pipeline { name, spec } in pipelines.iter() {
        let readers: Vec<&str> = spec.readers.iter().map(|reader| reader.model.as_str()).collect();
        names.push(name.to_string());
        table.note(format!("pipeline {name}: {}, then {}", spec.detector, readers.join(", ")));
    }
    write!(out, "{table}").context("cannot print the models")?;
    let missing = missing(&config.models, &names);
    missing.iter().for_each(|missing| logging::say(missing));
    if !failures.is_empty() {
        bail!("{} of {n_models} models cannot be served: {}", failures.len(), failures.join(", "));
    }
    if let [first, ..] = missing.as_slice() {
        bail!("{first}");
    }
    Ok(())
}

/// The settings that name a model that is not there. Without the models that ship, nobody misses them.
fn missing(models: &ModelsConfig, names: &[String]) -> Vec<String> {
    let default = Config::default().models;
    let settings = [
        ("models.vision", &models.vision, &default.vision),
        ("models.sentiment", &models.sentiment, &default.sentiment),
    ];
    let missing = settings.into_iter().filter(|(_, name, default)| name != default);
    let missing = missing.filter(|(_, name, _)| !names.iter().any(|known| known == name.as_str()));
    missing
        .map(|(setting, name, _)| {
            format!("{setting} is {name}, and there is no such model; the models are {}", names.join(", "))
        })
        .collect()
}

/// Loads and measures a model, in another process where there can be one: whatever its files do to it, the
/// others are checked as well.
fn checked(config: &Config, found: Found) -> Result<Loadable, String> {
    let Found { declared, network_bytes, files_bytes } = found;
    if !config.models.load_timeout.is_zero() {
        match rehearsal::rehearse(config, &declared.id(), files_bytes, Extent::Measured) {
            Ok(checked) => return Ok(checked),
            Err(Failure::Refused(reason)) => return Err(reason),
            Err(Failure::NotTried(error)) => {
                tracing::warn!(%error, "cannot check the model in another process; it is loaded here");
            }
        }
    }
    let work = || measured(declared.load, declared.batch.max_rows, network_bytes);
    pool::on_a_worker(work).map_err(|error| format!("cannot start a thread: {error}"))?
}

/// Loads a model whose network's file has this number of bytes, and measures it.
pub(super) fn measured(load: LoadModel, max_rows: usize, network_bytes: u64) -> Result<Loadable, String> {
    let started = Instant::now();
    let loaded = load()?;
    let took = started.elapsed();
    let (engine, task, precision) = (&loaded.engine, &loaded.task, &loaded.precision);
    let signature = engine.signature();
    let profile = pool::profile(&loaded, max_rows)?;
    let mut notes: Vec<String> = Vec::new();
    notes.extend(signature.inputs.iter().map(|port| format!("takes {}", described(port))));
    notes.extend(signature.outputs.iter().map(|port| format!("gives {}", described(port))));
    notes.push(format!("labels {}", task.labels().join(", ")));
    notes.extend(precision.iter().map(|chosen| format!("precision {chosen}")));
    notes.extend(kernels(engine.kernels()));
    notes.extend(costs(&profile));
    let cells = vec![
        task.descriptor().name.to_owned(),
        task.labels().len().to_string(),
        readable(ByteSize(network_bytes)),
        milliseconds(took),
        range(&profile),
    ];
    Ok(Loadable { cells, notes })
}

fn described(port: &Port) -> String {
    format!("{}: {}", port.name, port.describe())
}

/// What runs which share of the network's products.
fn kernels(uses: &[KernelUse]) -> impl Iterator<Item = String> {
    uses.iter().map(|part| {
        let KernelUse { operator, kernel, share, reason, .. } = part;
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{:.1} % of the products in {operator} on {kernel}{reason}", share * 100.0)
    })
}

/// CPU time of the network per row in its best runs, for the cheapest and the dearest shape.
fn range(profile: &CostProfile) -> String {
    let best = |best: &Best| {
        let of = |cell: &&Measured| cell.shape_class == best.shape_class && cell.rows == best.rows;
        profile.measured.iter().find(of).map(|cell| cell.seconds_per_row)
    };
    let costs: Vec<f64> = profile.best.iter().filter_map(best).collect();
    match costs.as_slice() {
        [] => "unknown".to_owned(),
        [one] => in_ms(*one),
        [first, .., last] => format!("{} to {}", in_ms(*first), in_ms(*last)),
    }
}

/// The cost table: a line per shape of row, a column per number of rows in a run.
fn costs(profile: &CostProfile) -> Vec<String> {
    let mut grid: Vec<usize> = profile.measured.iter().map(|cell| cell.rows).collect();
    grid.sort_unstable();
    grid.dedup();
    if grid.len() < 2 {
        return Vec::new();
    }
    let head: String = grid.iter().map(|rows| format!("{rows:>8}")).collect();
    let mut lines = vec![
        "CPU ms per row, by the shape of a row and the rows in a run:".to_owned(),
        format!("{:>8}{head}    best", "shape"),
    ];
    for best in &profile.best {
        let cell = |rows: &usize| {
            let found = profile
                .measured
                .iter()
                .find(|cell| cell.shape_class == best.shape_class && cell.rows == *rows);
            found.map_or_else(|| format!("{:>8}", "-"), |cell| format!("{:>8.3}", cell.seconds_per_row * 1e3))
        };
        let cells: String = grid.iter().map(cell).collect();
        lines.push(format!("{:>8}{cells}{:>8}", best.shape_class, best.rows));
    }
    lines
}

fn in_ms(seconds: f64) -> String {
    milliseconds(Duration::from_secs_f64(seconds))
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
    fn costs_stand_by_shape_and_rows() {
        let cell = |shape_class, rows, ms: f64| Measured {
            shape_class,
            rows,
            seconds_per_row: ms / 1e3,
            p95_seconds_per_row: ms / 1e3,
            runs: 3,
        };
        let measured = vec![cell(9, 1, 0.07), cell(9, 4, 0.05), cell(256, 1, 1.3)];
        let best = vec![Best { shape_class: 9, rows: 4 }, Best { shape_class: 256, rows: 1 }];
        let profile = CostProfile { measured, best };
        assert_eq!(range(&profile), "0.050 ms to 1.30 ms");
        insta::assert_snapshot!(costs(&profile).join("\n"), @r"
        CPU ms per row, by the shape of a row and the rows in a run:
           shape       1       4    best
               9   0.070   0.050       4
             256   1.300       -       1
        ");
        let alone =
            CostProfile { measured: vec![cell(0, 1, 2.0)], best: vec![Best { shape_class: 0, rows: 1 }] };
        assert_eq!((range(&alone), costs(&alone).len()), ("2.00 ms".to_owned(), 0));
    }

    #[test]
    fn a_setting_that_names_no_model_is_told_and_a_default_is_not() {
        let mut models = Config::default().models;
        let names = ["face".to_owned(), "mood".to_owned()];
        assert_eq!(missing(&models, &names), [""; 0], "those that ship need not be there");
        models.sentiment = "mod".parse().unwrap();
        models.vision = "mood".parse().unwrap();
        insta::assert_snapshot!(missing(&models, &names).join("; "), @"models.sentiment is mod, and there is no such model; the models are face, mood");
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
