//! The other process: loads one model within limits that the kernel holds, and tells what came of it.

use std::{
    io::{self, Read, Write},
    panic,
};

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Extent, Loadable};
use crate::{
    cli::{check, repository},
    config::{Config, Options},
    engine::run_rows,
    manifest::{ModelName, Version},
    pool::{self, Loaded},
    repository::{Found, RepositoryError},
};

/// Address space beyond what may be resident: allocators reserve more than they use.
const RESERVED: u64 = 8 << 30;

/// Loads a model for another process, which says how on standard input.
#[derive(Debug, Args)]
pub(in crate::cli) struct Rehearse {
    /// The model's name.
    model: ModelName,
    /// Which version of it.
    #[arg(long)]
    version: u32,
    /// How far it is loaded.
    #[arg(long, value_enum)]
    extent: Extent,
    /// CPU seconds after which the kernel ends this process.
    #[arg(long)]
    cpu_seconds: u64,
    /// Bytes that may be resident.
    #[arg(long)]
    memory: u64,
}

impl Rehearse {
    /// Reads the settings, loads the model and prints what came of it as JSON.
    pub(in crate::cli) fn run(&self) -> Result<()> {
        let mut settings = String::new();
        io::stdin().read_to_string(&mut settings).context("cannot read the settings")?;
        let config = Options::from_toml("on standard input", &settings)?.resolve()?;
        self.limit()?;
        // A panic becomes a reason; the text for a person at the terminal would only be in its way.
        panic::set_hook(Box::new(|_| {}));
        let told = self.load(&config)?;
        let told = serde_json::to_vec(&told).context("cannot tell what came of it")?;
        io::stdout().write_all(&told).context("cannot tell what came of it")
    }

    fn load(&self, config: &Config) -> Result<Result<Loadable, String>> {
        let found = match repository(config).find(&self.model, Some(Version(self.version))) {
            Ok(found) => found,
            Err(RepositoryError::Model { reason, .. }) => return Ok(Err(reason)),
            Err(error) => return Err(error.into()),
        };
        let Found { declared, network_bytes, .. } = found;
        let (load, max_rows, extent) = (declared.load, declared.batch.max_rows, self.extent);
        let work = || match extent {
            Extent::Ready => load().and_then(|loaded| answer(&loaded)).map(|()| Loadable::default()),
            Extent::Measured => check::measured(load, max_rows, network_bytes),
        };
        // On a thread as the workers are: one with more stack would load what overflows theirs.
        pool::on_a_worker(work).context("cannot start a thread")
    }

    /// Has the kernel hold this process to its limits.
    fn limit(&self) -> Result<()> {
        let lower = |resource: Resource, to: u64| {
            // What is lower already stays so.
            let Rlimit { maximum, .. } = getrlimit(resource);
            let to = maximum.map_or(to, |maximum| maximum.min(to));
            setrlimit(resource, Rlimit { current: Some(to), maximum })
        };
        lower(Resource::Cpu, self.cpu_seconds)
            .and_then(|()| lower(Resource::As, self.memory.saturating_mul(2).saturating_add(RESERVED)))
            .and_then(|()| lower(Resource::Core, 0))
            .context("cannot lower this process's limits")?;
        // Where memory ends all the same, this process goes first. It may always say so of itself.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("cannot follow the process that asks")?;
        Ok(())
    }
}

/// Answers the first sample, as a server does before it is ready.
fn answer(loaded: &Loaded) -> Result<(), String> {
    let text = |error: crate::engine::EngineError| error.to_string();
    let mut session = loaded.engine.open().map_err(text)?;
    match loaded.task.profile_inputs().first() {
        Some(sample) => run_rows(session.as_mut(), &[&sample.row]).map(|_| ()).map_err(text),
        None => Ok(()),
    }
}
