//! Runs networks for a program that compares engines: commands on standard input, answers on standard
//! output, a line each.
//!
//! `cargo bench --bench engines -- serve` waits for commands; `benches/engines/compare.py` sends them.
//! An answer is `ok` and what was asked for, or `error` and why.
//!
//! | command | answer |
//! | --- | --- |
//! | `forms` | the forms of the kernels that this processor runs, the fastest first |
//! | `load NAME FORM FILE` | nothing; the form `stock` is tract without kernels |
//! | `input NAME DTYPE SHAPE FILE` | nothing; SHAPE is as in `8x3x112x112`, FILE the numbers, little-endian |
//! | `run NAME N` | the nanoseconds of each of N runs |
//! | `pair NAME N` | the nanoseconds that two threads, with a session each, took for N runs each |
//! | `output NAME FILE` | the shape of the first output, whose numbers are written to FILE |
//! | `kernels NAME` | the operators of the network: `NAME KERNEL SHARE`, a semicolon between two |
//! | `drop NAME` | nothing |

#![expect(clippy::print_stdout, reason = "its answers are its purpose")]

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    sync::Barrier,
    time::Instant,
};

use lepton::{
    engine::{Engine, Session, kernels::Form, tract::TractEngine},
    tensor::{DType, Tensor},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    if !std::env::args().any(|word| word == "serve") {
        println!("benches/engines/compare.py drives this: `cargo bench --bench engines -- serve`");
        return Ok(());
    }
    let mut loaded = HashMap::new();
    for line in io::stdin().lock().lines() {
        match answer(&line?, &mut loaded) {
            Ok(text) => println!("ok {text}"),
            Err(error) => println!("error {}", error.to_string().replace('\n', " ")),
        }
        io::stdout().flush()?;
    }
    Ok(())
}

/// A network with the batch that it is measured with.
struct Loaded {
    engine: TractEngine,
    session: Box<dyn Session>,
    batch: Vec<Tensor>,
}

fn answer(line: &str, loaded: &mut HashMap<String, Loaded>) -> Result<String, Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["forms"] => Ok(joined(Form::all(), " ")),
        ["load", name, form, file] => {
            let engine = TractEngine::load_with(&std::fs::read(file)?, None, form_of(form)?)?;
            let session = engine.open()?;
            loaded.insert(name.to_owned(), Loaded { engine, session, batch: Vec::new() });
            Ok(String::new())
        }
        ["input", name, dtype, shape, file] => {
            let shape = shape.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
            let dtype = DType::ALL.into_iter().find(|known| known.name() == dtype);
            let dtype = dtype.ok_or("an element type is written as in `f32`")?;
            let batch = Tensor::from_bytes(dtype, shape, std::fs::read(file)?.into())?;
            found(loaded, name)?.batch = vec![batch];
            Ok(String::new())
        }
        ["run", name, n] => {
            let Loaded { session, batch, .. } = found(loaded, name)?;
            let times: Vec<u128> = timed(&mut **session, batch, n.parse()?)?;
            Ok(joined(times, " "))
        }
        ["pair", name, n] => pair(found(loaded, name)?, n.parse()?),
        ["output", name, file] => {
            let Loaded { session, batch, .. } = found(loaded, name)?;
            let output = session.run(batch.clone())?.swap_remove(0);
            std::fs::write(file, output.bytes())?;
            Ok(joined(output.shape(), "x"))
        }
        ["kernels", name] => {
            let uses = found(loaded, name)?.engine.kernels().iter();
            Ok(joined(uses.map(|part| format!("{} {} {}", part.operator, part.kernel, part.share)), ";"))
        }
        ["drop", name] => {
            loaded.remove(name);
            Ok(String::new())
        }
        _ => Err(format!("`{line}` is no command").into()),
    }
}

fn joined(items: impl IntoIterator<Item = impl ToString>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}

fn form_of(name: &str) -> Result<Option<Form>, Failure> {
    if name == "stock" {
        return Ok(None);
    }
    let form = Form::all().into_iter().find(|form| form.to_string() == name);
    form.map(Some).ok_or_else(|| format!("this processor runs no form `{name}`").into())
}

fn found<'a>(loaded: &'a mut HashMap<String, Loaded>, name: &str) -> Result<&'a mut Loaded, Failure> {
    loaded.get_mut(name).ok_or_else(|| format!("no network `{name}` is loaded").into())
}

/// The nanoseconds of each of `n` runs; copying the batch is not part of a run.
fn timed(session: &mut dyn Session, batch: &[Tensor], n: usize) -> Result<Vec<u128>, Failure> {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let batch = batch.to_vec();
        let start = Instant::now();
        session.run(batch)?;
        times.push(start.elapsed().as_nanos());
    }
    Ok(times)
}

/// Runs `n` batches on each of two threads, and says how long the two of them took, in nanoseconds.
fn pair(loaded: &Loaded, n: usize) -> Result<String, Failure> {
    let Loaded { engine, batch, .. } = loaded;
    let start_line = Barrier::new(2);
    let work = || -> Result<(Instant, Instant), Failure> {
        let session = engine.open();
        start_line.wait();
        let mut session = session?;
        let start = Instant::now();
        timed(&mut *session, batch, n)?;
        Ok((start, Instant::now()))
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let (start, end) = work()?;
        let (other_start, other_end) = other.join().map_err(|_| "the other thread panicked")??;
        Ok((end.max(other_end) - start.min(other_start)).as_nanos().to_string())
    })
}
