//! `lepton serve`: listen, load, say so, and stop in order.

use std::{
    fs, io,
    net::SocketAddr,
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::{
    catalog::{Catalog, Scanned},
    find_pipelines, fit, logging, rehearsal, start_pool,
};
use crate::{
    config::{Config, OnFailure, Serving, Workers},
    cores,
    http::AppState,
    metrics::{Metrics, Readiness},
    pipelines::Pipelines,
    pool::{Model, ModelPool, State, before_parking},
    server::Server,
};

/// The exit code of a process that was told to stop twice: 128 and the number of SIGINT.
const STOPPED_TWICE: i32 = 130;

/// How long a stop waits for workers once every caller is answered or cut: for a load that does not end, say.
const LEAVE: Duration = Duration::from_secs(2);

/// How long after a signal a SIGHUP belongs to it: a terminal that closes sends one, and its shell another.
const SAME_HANGUP: Duration = Duration::from_secs(1);

/// Serves until a signal, or until models fail to load and the settings say that it is to end.
pub(super) fn serve(mut config: Config, started: Instant) -> Result<()> {
    fit::into_descriptors(&mut config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.server.io_threads)
        .thread_name("lepton-io")
        .on_thread_park(before_parking)
        .enable_all()
        .build()
        .context("cannot start the threads that move bytes")?;
    let metrics = Arc::new(Metrics::new());
    // Listening comes before loading: whoever watches the process can ask it how far it is.
    let listener = runtime.block_on(listen(config.server.listen))?;
    let catalog = Catalog::new(&config);
    let Scanned { models, network_bytes } = catalog.scan()?;
    let pipelines = find_pipelines(&config, |name| {
        models.iter().find(|model| model.name == *name).map(|model| model.task)
    })?;
    for (setting, name) in
        [("models.vision", &config.models.vision), ("models.sentiment", &config.models.sentiment)]
    {
        if pipelines.find(name.as_str()).is_none() && models.iter().all(|model| model.name != *name) {
            tracing::warn!(setting, model = %name, "there is no such model; its route will answer that it is not found");
        }
    }
    let pool = Arc::new(start_pool(&config, models, &metrics)?);
    let elastic = Elastic { config: config.clone(), network_bytes, pool: Arc::clone(&pool) };
    let leave = LEAVE.min(config.server.drain);
    let start = Start { catalog, metrics: Arc::clone(&metrics), started };
    let served = runtime.block_on(serve_until_stopped(config, listener, elastic, pipelines, start));
    // The runtime lives on meanwhile, and with it what a second signal does.
    let n_busy = pool.leave(leave);
    if n_busy > 0 {
        tracing::warn!(workers = n_busy, "workers are still busy with what nobody waits for: leaving them");
        // Dropping the pool would wait for them.
        std::mem::forget(Arc::clone(&pool));
    }
    // In this order: tasks that still hold the pool end with the runtime, then its threads are joined.
    drop(runtime);
    drop(pool);
    served
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (server.listen, --listen; port 0 takes a free one)")
    })
}

async fn serve_until_stopped(
    config: Config,
    listener: TcpListener,
    elastic: Elastic,
    pipelines: Pipelines,
    start: Start,
) -> Result<()> {
    let (pool, metrics) = (Arc::clone(&elastic.pool), Arc::clone(&start.metrics));
    let address = listener.local_addr().context("cannot tell the address that was taken")?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let (fail, failed) = oneshot::channel();
    let elastic = tokio::spawn(follow_cores(elastic));
    let on_failure = config.models.on_failure;
    let server = Server::new(AppState::new(config, Arc::clone(&pool), pipelines, Arc::clone(&metrics)));
    let stop = async {
        tokio::select! {
            name = signals.next() => tracing::info!(signal = name, "stopping; a second signal exits at once"),
            reason = start.failure(&pool, address, on_failure) => {
                // The receiver lives until the server has stopped.
                let _ = fail.send(reason);
            }
        }
        rehearsal::stop();
        elastic.abort();
        metrics.set_ready(Readiness::NotReady);
        tokio::spawn(async move {
            let name = signals.next().await;
            tracing::warn!(signal = name, "stopped twice: exiting at once");
            logging::finish_at_once();
            process::exit(STOPPED_TWICE);
        });
    };
    server.serve(listener, stop).await.context("cannot serve")?;
    let mut failed = failed;
    failed.try_recv().map_or(Ok(()), Err)
}

/// What the number of workers depends on, and where they are.
struct Elastic {
    config: Config,
    network_bytes: u64,
    pool: Arc<ModelPool>,
}

/// How often the cores are counted: two small files a control group, microseconds of work.
const COUNT_CORES: Duration = Duration::from_secs(2);

/// Keeps as many workers as there are cores to use, where nobody said how many: a container's quota may
/// be changed while it runs.
async fn follow_cores(Elastic { config, network_bytes, pool }: Elastic) {
    let Workers::Auto = config.pool.workers else { return };
    let mut seen = pool.workers();
    loop {
        tokio::time::sleep(COUNT_CORES).await;
        let (cores, workers) = (cores::usable(), pool.workers());
        if cores == std::mem::replace(&mut seen, cores) {
            continue;
        }
        // Each worker may decode a picture, and the limits were made for as many as there were.
        let fits = |workers: usize| {
            let fit = |memory| config.clone().fit(memory, Serving { workers, network_bytes });
            cores::memory().is_none_or(|memory| fit(memory).is_ok_and(|lowered| lowered.is_empty()))
        };
        let wanted = (workers + 1..=cores).take_while(|n| fits(*n)).last().unwrap_or(workers.min(cores));
        if let Err(error) = pool.resize(wanted) {
            tracing::error!(%error, cores, wanted, "cannot start more workers");
        } else if wanted < cores {
            tracing::warn!(
                cores,
                workers = wanted,
                "there are more cores than workers that the memory is enough for"
            );
        } else {
            tracing::info!(from = workers, to = wanted, "the number of workers follows the cores");
        }
    }
}

/// How the models come up.
struct Start {
    catalog: Catalog,
    metrics: Arc<Metrics>,
    /// When the process started.
    started: Instant,
}

impl Start {
    /// Waits for the models, tries older versions of those that do not load, says what is served, and then waits for
    /// ever; returns only where the process is to end for a model that could not be loaded.
    async fn failure(&self, pool: &ModelPool, address: SocketAddr, on_failure: OnFailure) -> anyhow::Error {
        pool.settled().await;
        if on_failure != OnFailure::Exit {
            self.catalog.fall_back(pool).await;
        }
        let (mut ready, mut failed) = (Vec::new(), Vec::new());
        for model in pool.defaults() {
            match model.state() {
                State::Failed(reason) => failed.push((model.name().clone(), reason)),
                _ => ready.push(model),
            }
        }
        if let Some((name, reason)) = failed.first()
            && (on_failure == OnFailure::Exit || ready.is_empty())
        {
            return anyhow!("{reason}").context(format!("the model `{name}` could not be loaded"));
        }
        for (name, reason) in &failed {
            tracing::error!(model = %name, reason, "the model could not be loaded; the others are served");
        }
        let is_ready = failed.is_empty() || on_failure == OnFailure::Ready;
        if is_ready {
            self.metrics.set_ready(Readiness::Ready);
        }
        let kind = |model: &Model| model.descriptor().map_or("", |task| task.name);
        let names: Vec<String> = ready
            .iter()
            .map(|model| format!("{} {} ({})", model.name(), model.version(), kind(model)))
            .collect();
        let (names, ready_ms) = (names.join(", "), self.started.elapsed().as_millis());
        let mut line = format!("listening on http://{address}, ready in {ready_ms} ms: {names}");
        if failed.is_empty() {
            tracing::info!(%address, ready_ms, models = names, workers = pool.workers(), "ready");
        } else {
            let failed: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
            let failed = failed.join(", ");
            tracing::warn!(%address, ready_ms, models = names, failed, is_ready, "serving without all models");
            line = format!("listening on http://{address}, in {ready_ms} ms: {names}; not loaded: {failed}");
        }
        if let Err(error) = logging::announce(&line) {
            tracing::warn!(%error, "standard output is not told what is served");
        }
        std::future::pending().await
    }
}

/// The signals that ask a process to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where whoever started the process has it ignored, as nohup(1) does.
    hangup: Option<Signal>,
    last: Option<Instant>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup =
            if ignores(&status, SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup, last: None })
    }

    /// Waits for the next one and names it.
    async fn next(&mut self) -> &'static str {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let name = tokio::select! {
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
                _ = hangup => {
                    if self.last.is_some_and(|last| last.elapsed() < SAME_HANGUP) {
                        continue;
                    }
                    "SIGHUP"
                }
            };
            self.last = Some(Instant::now());
            return name;
        }
    }
}

/// Whether a process of this `/proc/PID/status` ignores a signal.
fn ignores(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{
        manifest::{BatchSpec, Version},
        pool::{Declared, PoolOptions},
    };

    #[test]
    fn a_stop_leaves_a_worker_whose_load_does_not_end() {
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let load = move || {
            begin.send(()).unwrap();
            // Ends when the test does.
            let _ = ended.recv();
            Err("no network".to_owned())
        };
        let model = Declared {
            name: "endless".parse().unwrap(),
            version: Version(1),
            description: String::new(),
            licence: String::new(),
            batch: BatchSpec::default(),
            task: None,
            load: Box::new(load),
        };
        let options = PoolOptions { workers: 3, queue_rows: 1, queue_bytes: 1 };
        let pool = ModelPool::start(&options, vec![model], &Metrics::new()).unwrap();
        begun.recv().unwrap();
        // Those without a load leave.
        while pool.leave(Duration::from_millis(1)) > 1 {}
        assert_eq!(pool.leave(Duration::from_millis(1)), 1);
        drop(end);
        assert_eq!(pool.leave(Duration::from_secs(60)), 0);
    }

    #[test]
    fn a_signal_that_nohup_ignores_is_left_ignored() {
        let status = |mask: &str| format!("Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        let hangup = SignalKind::hangup();
        assert!(ignores(&status("0000000000001001"), hangup));
        assert!(!ignores(&status("0000000000001000"), hangup));
        assert!(!ignores("", hangup));
    }
}
