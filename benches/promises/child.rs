//! The real binary as a child process: what it has used, what it has counted.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::{probe::Probe, support::client::Failure};

/// A running server with the shipped models. Killed when dropped.
pub(crate) struct Lepton {
    process: Child,
    pub(crate) address: SocketAddr,
}

/// CPU time that a server has used.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    /// On the threads that move bytes.
    pub(crate) moving: Duration,
    /// On the workers.
    pub(crate) working: Duration,
}

/// How much of a core workers use once they have measured all that they want to, and how long that is
/// looked at.
const SETTLED: f64 = 0.02;
const LOOK: Duration = Duration::from_millis(400);

impl Lepton {
    /// Starts the server with the defaults and so many workers, on the cores that the calling thread
    /// may use, and waits until every model is loaded and measured.
    pub(crate) fn start(workers: usize) -> Result<Self, Failure> {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lepton"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--models", models]);
        command.args(["--workers", &workers.to_string()]);
        // A folder without a config.toml: the defaults.
        command.current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split_once(','));
        let address = address.ok_or("the server did not start")?.0.parse()?;
        let lepton = Self { process, address };
        lepton.settle()?;
        Ok(lepton)
    }

    /// Waits until the idle time is no longer used to measure.
    fn settle(&self) -> Result<(), Failure> {
        for _ in 0..50 {
            let before = self.used()?.working;
            thread::sleep(LOOK);
            if (self.used()?.working - before).as_secs_f64() < SETTLED * LOOK.as_secs_f64() {
                return Ok(());
            }
        }
        Err("the workers do not come to rest".into())
    }

    /// What its threads have used, to the nanosecond (`/proc/PID/task/TID/schedstat`).
    pub(crate) fn used(&self) -> Result<Used, Failure> {
        let mut used = Used { moving: Duration::ZERO, working: Duration::ZERO };
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let thread = thread?.path();
            let ran = fs::read_to_string(thread.join("schedstat"))?;
            let ran = ran.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
            let worker = fs::read_to_string(thread.join("comm"))?.starts_with("lepton-worker");
            *if worker { &mut used.working } else { &mut used.moving } += Duration::from_nanos(ran);
        }
        Ok(used)
    }

    /// A counter of `/metrics`, as in `lepton_refusals_total{reason="overloaded"}`; 0 where nothing has
    /// been counted yet.
    pub(crate) fn counted(&self, series: &str) -> Result<f64, Failure> {
        let text = Probe::connect(self.address)?.get("/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value.map_or(Ok(0.0), str::parse)?)
    }
}

impl Used {
    /// What was used after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { moving: self.moving - before.moving, working: self.working - before.working }
    }
}

impl Drop for Lepton {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
