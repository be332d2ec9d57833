//! What the kernels gain: convolutions with each form of the kernels, and the shipped networks with each
//! form and on stock tract, interleaved in one run.
//!
//! `cargo bench --bench kernels` prints the speed of each convolution, and the median time of a row in
//! microseconds for each network, number of rows and length. `cargo bench --bench kernels -- sentiment 18`
//! measures the cases whose names hold all the words that are given.

#![expect(clippy::print_stdout, reason = "a benchmark answers with a table")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use lepton::{
    engine::{
        Engine, Session,
        kernels::{
            Form, Precision,
            bf16::Bf16,
            conv::{Activation, Conv, Run, Shape},
            maps::{Layout, Number},
        },
        tract::TractEngine,
    },
    tensor::Tensor,
};

/// How long a case is measured, and how often each engine has its turn at least and at most.
const CASE: Duration = Duration::from_millis(900);
const FEWEST_TURNS: usize = 9;
const MOST_TURNS: usize = 400;

const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Tokens of a text.
const LENGTHS: [usize; 6] = [9, 18, 34, 62, 113, 256];

/// Inputs and outputs, the kernel's side, the stride and the picture's side of convolutions.
const CONVOLUTIONS: [([usize; 2], usize, usize, usize); 12] = [
    ([16, 16], 3, 1, 56),
    ([32, 32], 3, 1, 56),
    ([48, 48], 3, 1, 28),
    ([64, 64], 3, 1, 28),
    ([96, 96], 3, 1, 14),
    ([128, 128], 3, 1, 14),
    ([256, 256], 3, 1, 7),
    ([64, 128], 3, 2, 28),
    ([64, 64], 1, 1, 28),
    ([256, 256], 1, 1, 14),
    ([3, 64], 4, 4, 112),
    ([1, 32], 3, 1, 48),
];

/// Products of a turn of a convolution: many enough for the clock.
const TURN: usize = 10_000_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.iter().all(|word| name.split(' ').any(|part| part == word));
    convolutions(wanted)?;
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

/// Prints the speed of each convolution in each form.
fn convolutions(wanted: impl Fn(&str) -> bool) -> Result<(), Failure> {
    let forms = Form::all();
    let titles: Vec<String> = forms.iter().map(Form::to_string).collect();
    println!("GFLOP/s of a convolution with its ReLU, medians of {FEWEST_TURNS} to {MOST_TURNS} turns");
    println!("| convolution | {} |", titles.join(" | "));
    println!("| --- |{}", " --- |".repeat(titles.len()));
    for ([n_inputs, n_outputs], side, stride, picture) in CONVOLUTIONS {
        let name =
            format!("convolution {side}x{side} stride {stride} {n_inputs}-{n_outputs} {picture}x{picture}");
        if !wanted(&name) {
            continue;
        }
        let padding = if side == stride { 0 } else { side / 2 };
        let (kernel, strides, padding) = ([side; 2], [stride; 2], [[padding; 2]; 2]);
        let shape = Shape { n_inputs, n_outputs, kernel, strides, padding };
        let mut turns = Vec::new();
        for form in &forms {
            turns.push(turn(*form, shape, picture).ok_or("a convolution that fits its picture")?);
        }
        let n_pixels = shape.extent([picture; 2]).map_or(0, |[height, width]| height * width);
        let products = n_pixels * n_inputs * n_outputs * side * side;
        let n = TURN.div_ceil(products);
        let times = medians(&mut turns, |turn| {
            (0..n).for_each(|_| turn());
            Ok(())
        })?;
        let speeds: Vec<String> =
            times.iter().map(|time| format!("{:.0}", (2 * products * n) as f64 / time / 1e3)).collect();
        println!("| {name} | {} |", speeds.join(" | "));
    }
    println!();
    Ok(())
}

/// What runs a convolution once in a form; nothing where it does not fit.
fn turn(form: Form, shape: Shape, side: usize) -> Option<Box<dyn FnMut()>> {
    let n_weights = shape.n_outputs * shape.n_inputs * shape.kernel[0] * shape.kernel[1];
    let weights: Vec<f32> = (0..n_weights).map(|i| ((i * 7919) % 512) as f32 / 256.0 - 1.0).collect();
    let conv = Conv::pack(form, shape, &weights, &vec![0.1; shape.n_outputs])?;
    Some(match conv.precision() {
        Precision::F32 => turn_of::<f32>(conv, side)?,
        Precision::Bf16 => turn_of::<Bf16>(conv, side)?,
    })
}

fn turn_of<N: Number>(conv: Conv, side: usize) -> Option<Box<dyn FnMut()>> {
    let Shape { n_inputs, .. } = conv.shape();
    let border = conv.shape().border();
    let input_layout = Layout { n_channels: n_inputs, height: side, width: side, border, pixel: n_inputs };
    let output_layout = conv.answer([side; 2], border)?;
    let pictures: Vec<f32> =
        (0..n_inputs * side * side).map(|i| ((i * 7919) % 512) as f32 / 256.0 - 1.0).collect();
    let (mut input, mut output) = (zeros::<N>(input_layout.picture()), zeros::<N>(output_layout.picture()));
    input_layout.lay_out(&pictures, aligned(&mut input, input_layout.picture()));
    let activation = Activation::Relu;
    Some(Box::new(move || {
        let input = aligned(&mut input, input_layout.picture());
        let output = aligned(&mut output, output_layout.picture());
        conv.run(Run { input, input_layout, summand: None, activation, output, output_layout });
    }))
}

/// Numbers of a cache line, at least.
const LINE: usize = 64;

fn zeros<N: Number>(len: usize) -> Vec<N> {
    vec![N::of(0.0); len + LINE]
}

/// The part of [`zeros`] that begins at a cache line, as maps inside the engine do.
fn aligned<N: Number>(numbers: &mut [N], len: usize) -> &mut [N] {
    let start = numbers.as_ptr().align_offset(LINE);
    &mut numbers[start..start + len]
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
            let batch = Tensor::new::<f32>(vec![n_rows, 1, 48, 48], pixels)?;
            batches.push((format!("{network} rows {n_rows}"), batch));
            continue;
        }
        for length in LENGTHS {
            // Few numbers are common and most are rare, as with words.
            let ids = (0..n_rows * length).map(|i| {
                let x = ((i * 2_654_435_761) % 65_536) as f32 / 65_536.0;
                1 + (x * x * x * 12_000.0) as i64
            });
            let batch = Tensor::new::<i64>(vec![n_rows, length], ids.collect())?;
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
    let mut medians = medians(sessions, |session| Ok(session.run(vec![batch.clone()]).map(drop)?))?;
    medians.iter_mut().for_each(|time| *time /= batch_rows(name));
    let shown: Vec<String> = medians.iter().map(|time| format!("{time:.1}")).collect();
    let gain = medians.last().copied().unwrap_or(0.0) / medians[0];
    println!("| {name} | {} | {gain:.2} |", shown.join(" | "));
    Ok(())
}

/// The median time in microseconds that each subject takes, in turns.
fn medians<S>(subjects: &mut [S], run: impl Fn(&mut S) -> Result<(), Failure>) -> Result<Vec<f64>, Failure> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); subjects.len()];
    let started = Instant::now();
    for turn in 0..MOST_TURNS {
        if turn >= FEWEST_TURNS && started.elapsed() > CASE {
            break;
        }
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run(subject)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(times.iter_mut().map(|times| median(times)).collect())
}

fn batch_rows(name: &str) -> f64 {
    name.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(1.0)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
