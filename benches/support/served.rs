//! A server in this process, on threads of its own.

use std::{net::SocketAddr, sync::Arc, thread};

use lepton::{
    config::Config,
    http::AppState,
    manifest::ModelName,
    metrics::Metrics,
    pipelines::{self, Pipelines},
    pool::{Declared, ModelPool, PoolOptions, before_parking},
    server::Server,
};
use tokio::{net::TcpListener, sync::oneshot};

use super::client::Failure;

/// A server on a port of its own, its models loaded. The settings are the defaults.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<(), Failure>>,
}

impl Served {
    /// Serves `models` with so many workers, and waits until they are loaded.
    pub(crate) fn start(workers: usize, models: Vec<Declared>) -> Result<Self, Failure> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let metrics = Metrics::new();
        let config = Config::default();
        let options = PoolOptions {
            workers,
            queue_rows: config.pool.queue_rows,
            queue_bytes: config.pool.queue_bytes.0 as usize,
        };
        let pool = ModelPool::start(&options, models, &metrics)?;
        let thread = thread::Builder::new().name("server".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .on_thread_park(before_parking)
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                pool.ready().await.map_err(|(id, reason)| format!("{id}: {reason}"))?;
                ready.send(listener.local_addr()?)?;
                // Other folders of models have none.
                let models = pool.models();
                let tasks: Vec<_> =
                    models.iter().map(|model| (model.name().clone(), model.descriptor())).collect();
                let task =
                    |name: &ModelName| tasks.iter().find(|(other, _)| other == name).map(|(_, task)| *task);
                let pipelines =
                    Pipelines::new(pipelines::scan(&config.models.dir)?, task).unwrap_or_default();
                let server = Server::new(AppState::new(config, Arc::new(pool), pipelines, Arc::new(metrics)));
                let until = async {
                    let _told = stopped.await;
                };
                server.serve(listener, until).await?;
                Ok(())
            })
        })?;
        Ok(Self { address: is_ready.recv()?, stop, thread })
    }

    /// Stops it as a signal would.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        let _gone = self.stop.send(());
        self.thread.join().map_err(|_| "the server panicked")?
    }
}
