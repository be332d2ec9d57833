//! Loads a model in a process of its own first, as the server then does.
//!
//! Invariant: whatever a model's files do to the process that loads them (end it, hold it for ever, take
//! all memory) is the end of that process alone, and becomes a reason with the model's name. A library of
//! 200,000 lines that reads files of strangers cannot be stopped in any other way: a thread that hangs
//! cannot be cancelled, and an allocation that fails or a stack that overflows ends its process.

mod child;

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub(super) use self::child::Rehearse;
use crate::{
    config::{ByteSize, Config, Time},
    cores,
    manifest::ModelId,
    pool::{Declared, LoadModel},
    repository::Found,
};

/// How far a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Extent {
    /// Until it has answered its first sample, as before it is ready.
    Ready,
    /// Until every shape of row was measured, as `lepton check` does.
    Measured,
}

/// What the other process tells of a model that it has loaded.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Loadable {
    pub(super) cells: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Why a model was not loaded.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no other process to try it in.
    NotTried(io::Error),
    /// The model's own fault, in words.
    Refused(String),
}

/// What loading may take.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// CPU time: a machine that is busy with other things costs a model nothing.
    cpu: Duration,
    /// Wall time, for a file that never comes.
    wall: Duration,
    /// Resident bytes.
    memory: u64,
}

/// Wall seconds for each second of CPU time: what waits for a disk or shares its core is slow, not stuck.
const WALL: u32 = 4;

/// Bytes that loading takes for each byte of a network's files: they are read, parsed, packed for one kernel
/// and again in another precision, which together is nine times as much at most.
const TIMES: u64 = 16;

/// Bytes that the process takes before it reads a file.
const BASE: u64 = 32 << 20;

/// Longest time between two looks at the other process. A disk or an allocator fills 50 MiB in it.
const LOOK: Duration = Duration::from_millis(10);

/// Bytes that the other process may say; the names of 20,000 classes are a tenth.
const LONGEST: usize = 16 << 20;

/// Whether this process is stopping: then no trial is waited for.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Held by the one trial that runs where memory is limited.
static TURN: Mutex<()> = Mutex::new(());

/// Ends the trials that run, and those that are begun from now on.
pub(super) fn stop() {
    STOPPING.store(true, Ordering::Relaxed);
}

/// Has `lepton serve` load a model in another process before it does so itself.
pub(super) fn first(config: &Config, found: Found) -> Declared {
    let Found { declared, files_bytes: files, .. } = found;
    if config.models.load_timeout.is_zero() {
        return declared;
    }
    let (config, id, load) = (config.clone(), declared.id(), declared.load);
    let load: LoadModel = Box::new(move || {
        if !fits(files) {
            tracing::warn!(model = %id, "there is no memory to try the model in another process first");
            return load();
        }
        match rehearse(&config, &id, files, Extent::Ready) {
            Ok(_) => {}
            Err(Failure::Refused(reason)) => return Err(reason),
            Err(Failure::NotTried(error)) => tracing::warn!(
                model = %id, %error, "cannot try the model in another process first; it is loaded here"
            ),
        }
        load()
    });
    Declared { load, ..declared }
}

/// Loads a model whose files take `files` bytes in another process, and tells what came of it.
pub(super) fn rehearse(
    config: &Config,
    id: &ModelId,
    files: u64,
    extent: Extent,
) -> Result<Loadable, Failure> {
    // Where memory is scarce, one model at a time takes it twice.
    let _turn = cores::memory().map(|_| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    let budget = Budget::of(config, files);
    let mut trial = Trial::start(config, id, extent, budget).map_err(Failure::NotTried)?;
    let status = trial.watch(budget).map_err(Failure::Refused)?;
    trial.told(status, budget).map_err(Failure::Refused)
}

impl Budget {
    fn of(config: &Config, files: u64) -> Self {
        let timeout = config.models.load_timeout;
        let wanted = config.models.load_memory.0.saturating_add(files.saturating_mul(TIMES));
        let memory = left().map_or(wanted, |left| wanted.min(left));
        Self { cpu: timeout, wall: timeout * WALL, memory }
    }
}

/// The memory that is left to another process: the kernel ends one of a control group that has no more.
fn left() -> Option<u64> {
    let most = cores::memory()? / 10 * 9;
    Some(most.saturating_sub(resident(std::process::id()).unwrap_or(0)))
}

/// Whether there is memory to load a model of a given number of bytes in another process.
fn fits(files: u64) -> bool {
    left().is_none_or(|left| BASE.saturating_add(files.saturating_mul(TIMES)) <= left)
}

/// Another process that loads one model. Ended when dropped.
struct Trial {
    child: Child,
    said: Vec<u8>,
    complained: Vec<u8>,
}

impl Trial {
    fn start(config: &Config, id: &ModelId, extent: Extent, budget: Budget) -> io::Result<Self> {
        // This very program, also where its file was replaced since.
        let own = Path::new("/proc/self/exe");
        let program = if own.exists() { own.to_owned() } else { std::env::current_exe()? };
        let settings = config.to_toml().map_err(io::Error::other)?;
        let seconds = budget.cpu.as_secs_f64().ceil().max(1.0);
        let mut command = Command::new(program);
        command.arg0("lepton").args(["rehearse", id.name.as_str(), "--version", &id.version.to_string()]);
        command.args(["--extent", if extent == Extent::Ready { "ready" } else { "measured" }]);
        command.args(["--cpu-seconds", &seconds.to_string(), "--memory", &budget.memory.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A signal from the terminal is for the server, which ends this one when it leaves.
        let mut child = command.process_group(0).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Where it left before it read them, its status tells why.
            let _ = stdin.write_all(settings.as_bytes());
        }
        let unblock = |fd: Option<&dyn std::os::fd::AsFd>| {
            fd.map_or(Ok(()), |fd| rustix::io::ioctl_fionbio(fd.as_fd(), true))
        };
        unblock(child.stdout.as_ref().map(|fd| fd as _))?;
        unblock(child.stderr.as_ref().map(|fd| fd as _))?;
        Ok(Self { child, said: Vec::new(), complained: Vec::new() })
    }

    /// Waits for the end of the process, and ends it where it takes more than it may.
    fn watch(&mut self, budget: Budget) -> Result<ExitStatus, String> {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(1));
        loop {
            self.listen();
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    self.listen();
                    return Ok(status);
                }
                Err(error) => return Err(format!("cannot tell how loading it went: {error}")),
            }
            if STOPPING.load(Ordering::Relaxed) {
                return Err("it was being loaded when the server was stopped".to_owned());
            }
            if resident(self.child.id()).is_some_and(|bytes| bytes > budget.memory) {
                return Err(too_large(budget));
            }
            if started.elapsed() > budget.wall {
                let (wall, cpu) = (Time(budget.wall), Time(budget.cpu));
                return Err(format!(
                    "loading it takes more than {wall}, four times the {cpu} of CPU time that it may \
                     (models.load_timeout)"
                ));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK);
        }
    }

    /// Takes what the process has said meanwhile, so that it never waits for a reader.
    fn listen(&mut self) {
        let Self { child, said, complained } = self;
        drain(child.stdout.as_mut(), said);
        drain(child.stderr.as_mut(), complained);
    }

    /// What a process that has ended told, or why it did not.
    fn told(&self, status: ExitStatus, budget: Budget) -> Result<Loadable, String> {
        const SIGXCPU: i32 = 24;
        const SIGKILL: i32 = 9;
        if status.success() {
            return serde_json::from_slice(&self.said)
                .unwrap_or_else(|error| Err(format!("what came of loading it cannot be read: {error}")));
        }
        let complaint = String::from_utf8_lossy(&self.complained);
        let lines: Vec<&str> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last: String = lines[lines.len().saturating_sub(2)..].join("; ").chars().take(300).collect();
        Err(match status.signal() {
            Some(SIGXCPU) => {
                format!("loading it takes more than {} of CPU time (models.load_timeout)", Time(budget.cpu))
            }
            Some(SIGKILL) => {
                "loading it was ended from outside (signal 9), for want of memory most likely".to_owned()
            }
            _ if last.contains("memory allocation of") => format!("{}: {last}", too_large(budget)),
            Some(signal) => format!("loading it ends the process that tries it (signal {signal}): {last}"),
            None => format!("loading it ends the process that tries it ({status}): {last}"),
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn too_large(budget: Budget) -> String {
    // Whole mebibytes, for a sum of two sizes is seldom a round one.
    let most = ByteSize((budget.memory >> 20) << 20);
    format!("loading it takes more than {most} of memory (models.load_memory and {TIMES} times its files)")
}

/// Takes what there is to read now. What goes beyond the limit is lost.
fn drain(from: Option<&mut impl Read>, to: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut part = [0; 4096];
    loop {
        match from.read(&mut part) {
            Ok(0) => return,
            Ok(n) if to.len() < LONGEST => to.extend_from_slice(&part[..n]),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing more just now, or never again.
            Err(_) => return,
        }
    }
}

/// The resident bytes of a process, where the kernel tells them.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
