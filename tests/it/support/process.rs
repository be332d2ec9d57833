//! The real binary as a child process on a port of its own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Tells the logs of one test run apart.
static SERVERS: AtomicUsize = AtomicUsize::new(0);

/// A running server. Killed when dropped.
pub struct Lepton {
    child: Child,
    log: PathBuf,
    pub address: SocketAddr,
}

impl Lepton {
    /// Starts the server with the shipped models and waits until it is ready.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts the server with settings from the environment and waits until it is ready.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(&super::models(), settings)
    }

    /// As [`Lepton::start_with`], with a log that cannot be read back.
    pub fn start_logging_to(log: impl Into<Stdio>, settings: &[(&str, &str)]) -> Self {
        Self::launch(command(&super::models(), settings), log.into(), PathBuf::new()).ready()
    }

    /// As [`Lepton::start_with`], with the models of another folder.
    pub fn start_in(models: &Path, settings: &[(&str, &str)]) -> Self {
        Self::launch_logged(command(models, settings)).ready()
    }

    /// As [`Lepton::start_with`], within what `ulimit` allows with these options.
    pub fn start_within(ulimit: &str, settings: &[(&str, &str)]) -> Self {
        let server = command(&super::models(), settings);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit {ulimit} && exec \"$0\" \"$@\""));
        shell.arg(server.get_program()).args(server.get_args());
        shell.envs(settings.iter().copied()).current_dir(env!("CARGO_TARGET_TMPDIR"));
        Self::launch_logged(shell).ready()
    }

    /// Starts the server and does not wait: it has no address yet.
    pub fn start_loading(models: &Path, settings: &[(&str, &str)]) -> Self {
        Self::launch_logged(command(models, settings))
    }

    fn launch_logged(command: Command) -> Self {
        let n = SERVERS.fetch_add(1, Ordering::Relaxed);
        let log =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("server-{}-{n}.log", std::process::id()));
        let file = File::create(&log).expect("a log");
        Self::launch(command, file.into(), log)
    }

    fn launch(mut command: Command, stderr: Stdio, log: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let child = command.spawn().expect("the binary starts");
        Self { child, log, address: SocketAddr::from(([0; 4], 0)) }
    }

    /// Waits until it says that it is ready, and where.
    fn ready(mut self) -> Self {
        let mut line = String::new();
        let mut stdout = BufReader::new(self.child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("readable");
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split_once(','));
        let address = address.and_then(|(address, _)| address.parse().ok());
        let said = || format!("not ready: {line}{}", fs::read_to_string(&self.log).unwrap_or_default());
        self.address = address.unwrap_or_else(|| panic!("{}", said()));
        self
    }

    /// Waits until the log says something.
    pub fn wait_for_log(&self, words: &str) {
        let began = Instant::now();
        while !self.log().contains(words) {
            assert!(began.elapsed() < Duration::from_secs(120), "no {words:?} in {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal by name, as in `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// What was logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("readable")
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }

    /// A memory figure of `/proc/PID/status` in KiB, as `VmHWM`, the peak resident size.
    pub fn memory_kib(&self, figure: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find(|line| line.starts_with(figure)).expect("the figure");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// The peak resident size in KiB once it has stood still for a second: batches are measured in idle
    /// time after the server is ready, and that takes memory, too.
    pub fn settled_peak_kib(&self) -> u64 {
        let (mut peak, mut since) = (self.memory_kib("VmHWM"), Instant::now());
        while since.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.memory_kib("VmHWM");
            if now > peak {
                (peak, since) = (now, Instant::now());
            }
        }
        peak
    }
}

/// The command that serves these models with these settings.
fn command(models: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lepton"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--models"]).arg(models);
    // A folder without a config.toml: the defaults.
    command.envs(settings.iter().copied()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

impl Drop for Lepton {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if !std::thread::panicking() {
            let _removed = fs::remove_file(&self.log);
        }
    }
}
