//! What HTTP, the queue and the hop between threads cost: the same inputs through the server and in
//! a bare loop, interleaved in one run.
//!
//! `cargo bench --bench serving` prints, for each endpoint and number of workers:
//! - saturated throughput of the server as a share of that of as many threads that do nothing but
//!   decode, prepare, run and answer in a loop, one input at a time;
//! - the median time of one request at concurrency 1, beside that of one turn of the bare loop.
//!
//! The load generator runs on the same cores and is part of the server's figure.

#![expect(clippy::print_stdout, reason = "a benchmark answers with a table")]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lepton::{
    config::Config,
    http::AppState,
    image::ImageLimits,
    metrics::Metrics,
    pool::{Loaded, ModelPool, PoolOptions, Rule},
    repository,
    server::Server,
    task::{Input, TaskOptions},
    tensor::Tensor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// Rounds of each measurement; the median of their ratios is printed.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(1500);
/// Callers that keep the server busy.
const CALLERS: usize = 32;
/// Turns of the latency measurement, bare and served in alternation.
const TURNS: usize = 400;

const SENTENCE: &str = "The plot is thin and the ending is silly, but the actors have so much fun \
                        together that I never once looked at my watch.";

/// One endpoint with one input.
struct Work {
    name: &'static str,
    model: &'static str,
    path: &'static str,
    content_type: &'static str,
    body: Bytes,
    input: Input,
}

fn works() -> [Work; 2] {
    let portrait = portrait();
    let body = Bytes::from(serde_json::json!({ "text": SENTENCE }).to_string());
    [
        Work {
            name: "vision, JPEG 250x250",
            model: "face",
            path: "/v1/vision/classify",
            content_type: "image/jpeg",
            body: portrait.clone(),
            input: Input::Image(portrait),
        },
        Work {
            name: "text, 24 words",
            model: "sentiment",
            path: "/v1/text/sentiment",
            content_type: "application/json",
            body,
            input: Input::Text(SENTENCE.to_owned()),
        },
    ]
}

/// A JPEG with about the detail of a photograph, drawn by code.
fn portrait() -> Bytes {
    let picture = image::RgbImage::from_fn(250, 250, |x, y| {
        let (dx, dy) = (x as f32 - 125.0, y as f32 - 120.0);
        let face = (1.0 - (dx * dx / 6400.0 + dy * dy / 10000.0)).clamp(0.0, 1.0);
        let grain = ((x * 37 + y * 91 + x * y * 3) % 23) as f32;
        let tone = |base: f32, gain: f32| (base + gain * face + grain + dy * 0.2).clamp(0.0, 255.0) as u8;
        image::Rgb([tone(60.0, 140.0), tone(70.0, 90.0), tone(80.0, 60.0)])
    });
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    if let Err(error) = encoder.encode(&picture, 250, 250, jpeg_encoder::ColorType::Rgb) {
        unreachable!("a drawn picture encodes: {error}");
    }
    Bytes::from(jpeg)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    println!(
        "| endpoint | workers | bare loop /s | served /s | served / bare | p50 bare us | p50 served us | difference us |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for workers in [1, 2] {
        for work in works() {
            measure(&work, workers)?;
        }
    }
    Ok(())
}

fn task_options() -> TaskOptions {
    let limits = Config::default().limits;
    let image =
        ImageLimits { pixels: limits.image_pixels, side: limits.image_side, memory: limits.image_memory.0 };
    TaskOptions { image }
}

fn measure(work: &Work, workers: usize) -> Result<(), Failure> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let found = repository::scan(&models, task_options())?;
    let bare = found.into_iter().find(|found| found.declared.name.as_str() == work.model);
    let bare = (bare.ok_or("the model is not there")?.declared.load)()?;
    let served = Served::start(workers, &models)?;
    let request = request(work);

    let mut ratios = Vec::new();
    let (mut bare_rates, mut served_rates) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let bare_rate = bare_rate(&bare, work, workers);
        let served_rate = served.rate(&request)?;
        // The first round warms up.
        if round > 0 {
            bare_rates.push(bare_rate);
            served_rates.push(served_rate);
            ratios.push(served_rate / bare_rate);
        }
    }
    let (bare_us, served_us) = latencies(&bare, work, &served, &request)?;
    println!(
        "| {} | {workers} | {:.0} | {:.0} | {:.3} | {bare_us:.0} | {served_us:.0} | {:.0} |",
        work.name,
        median(bare_rates),
        median(served_rates),
        median(ratios),
        served_us - bare_us,
    );
    served.stop()
}

/// One turn of the bare loop: what a worker does, and nothing else.
fn turn(loaded: &Loaded, session: &mut dyn lepton::engine::Session, input: Input) -> Result<(), Failure> {
    let prepared = loaded.task.prepare(input)?;
    let batch: Result<Vec<Tensor>, _> =
        prepared.row.iter().map(|tensor| Tensor::stack([tensor].into_iter())).collect();
    let outputs = session.run(batch?)?;
    let row: Result<Vec<Vec<Tensor>>, _> = outputs.iter().map(|output| output.split(1)).collect();
    let answer = loaded.task.answer(row?.into_iter().flatten().collect(), &prepared.frame)?;
    std::hint::black_box(answer);
    Ok(())
}

/// Turns a second of `threads` bare loops.
fn bare_rate(loaded: &Loaded, work: &Work, threads: usize) -> f64 {
    let (stop, turns, start) = (AtomicBool::new(false), AtomicUsize::new(0), Barrier::new(threads + 1));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let Ok(mut session) = loaded.engine.open() else { return };
                start.wait();
                while !stop.load(Ordering::Relaxed) {
                    if turn(loaded, session.as_mut(), work.input.clone()).is_ok() {
                        turns.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        start.wait();
        let began = Instant::now();
        thread::sleep(ROUND);
        let rate = turns.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// Medians of one bare turn and one request, in microseconds, taken in alternation.
fn latencies(loaded: &Loaded, work: &Work, served: &Served, request: &[u8]) -> Result<(f64, f64), Failure> {
    let mut session = loaded.engine.open()?;
    let (mut bare, mut through) = (Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut caller = Caller::connect(served.address).await?;
        for _ in 0..TURNS {
            let began = Instant::now();
            turn(loaded, session.as_mut(), work.input.clone())?;
            bare.push(began.elapsed().as_secs_f64() * 1e6);
            let began = Instant::now();
            caller.ask(request).await?;
            through.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Ok::<(), Failure>(())
    })?;
    Ok((median(bare), median(through)))
}

/// A server in this process, on threads of its own.
struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<(), Failure>>,
}

impl Served {
    fn start(workers: usize, models: &Path) -> Result<Self, Failure> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let metrics = Metrics::new();
        let config = Config::default();
        let options = PoolOptions {
            workers,
            queue_rows: config.pool.queue_rows,
            queue_bytes: config.pool.queue_bytes.0 as usize,
            rule: Rule::Measured,
        };
        let found = repository::scan(models, task_options())?;
        let pool =
            ModelPool::start(&options, found.into_iter().map(|found| found.declared).collect(), &metrics)?;
        let thread = thread::Builder::new().name("server".to_owned()).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                pool.ready().await.map_err(|(name, reason)| format!("{name}: {reason}"))?;
                ready.send(listener.local_addr()?)?;
                let server = Server::new(AppState::new(config, Arc::new(pool), Arc::new(metrics)));
                let until = async {
                    let _told = stopped.await;
                };
                server.serve(listener, until).await?;
                Ok(())
            })
        })?;
        Ok(Self { address: is_ready.recv()?, stop, thread })
    }

    /// Answers a second, with [`CALLERS`] that each ask again as soon as they are answered.
    fn rate(&self, request: &[u8]) -> Result<f64, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (request, answers) = (Bytes::copy_from_slice(request), Arc::new(AtomicUsize::new(0)));
        runtime.block_on(async {
            let mut callers = tokio::task::JoinSet::new();
            for _ in 0..CALLERS {
                let (request, answers) = (request.clone(), Arc::clone(&answers));
                let mut caller = Caller::connect(self.address).await?;
                callers.spawn(async move {
                    loop {
                        match caller.ask(&request).await {
                            Ok(()) => answers.fetch_add(1, Ordering::Relaxed),
                            Err(error) => return error,
                        };
                    }
                });
            }
            let began = Instant::now();
            match tokio::time::timeout(ROUND, callers.join_next()).await {
                Ok(Some(ended)) => Err(ended?),
                Ok(None) => Err("no caller".into()),
                Err(_) => Ok(answers.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()),
            }
        })
    }

    fn stop(self) -> Result<(), Failure> {
        let _gone = self.stop.send(());
        self.thread.join().map_err(|_| "the server panicked")?
    }
}

fn request(work: &Work) -> Vec<u8> {
    let mut request = format!(
        "POST {} HTTP/1.1\r\nhost: bench\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        work.path,
        work.content_type,
        work.body.len()
    )
    .into_bytes();
    request.extend_from_slice(&work.body);
    request
}

/// A kept-alive connection that reads no more of an answer than it has to.
struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    async fn ask(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            if !self.buffer.starts_with(b"HTTP/1.1 200 ") {
                return Err(String::from_utf8_lossy(&self.buffer).into_owned().into());
            }
            let head = std::str::from_utf8(&self.buffer[..end])?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.ok_or("an answer without a length")?.parse()?;
            if self.buffer.len() >= end + 4 + length {
                return Ok(());
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
