//! Logs: one subscriber, on standard error, so that standard output holds answers only.
//!
//! Invariant: from [`start`] on nothing of this process waits for whoever reads standard error, and nothing
//! ends because it cannot be written: everything goes through the [`Outlet`].

mod line;
mod outlet;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    time::Duration,
};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use self::{
    line::Plain,
    outlet::{Lost, Outlet},
};
use crate::config::{LogConfig, LogFormat};

/// How long an ending process waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// As long, where it is to end at once.
const AT_ONCE: Duration = Duration::from_millis(50);

static STANDARD_ERROR: Outlet = Outlet::new();
static STANDARD_OUTPUT: Outlet = Outlet::new();

/// Opens the way to standard error, which [`say`] goes by also before logging starts.
pub(super) fn open() -> io::Result<()> {
    STANDARD_ERROR.start(io::stderr(), tell_of_lost)
}

/// Starts logging; colours only for a terminal.
pub(super) fn start(config: &LogConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&config.filter).with_context(|| {
        format!(
            "log.filter is {:?}; allowed is a level, or levels by module such as info,lepton=debug",
            config.filter
        )
    })?;
    let is_terminal = io::stderr().is_terminal();
    // The library's complaints about itself go to standard error by a way that can end the process.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines)
        .with_ansi(is_terminal)
        .log_internal_errors(false);
    let started = match config.format {
        LogFormat::Text if is_terminal => lines.try_init(),
        LogFormat::Text => lines.fmt_fields(Plain).event_format(Plain).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Writes a line that is no event, as `eprintln!` does, but never waits and never fails.
pub(super) fn say(text: &str) {
    show(&format!("{text}\n"));
}

/// Writes text as it is, as `eprint!` does.
pub(super) fn show(text: &str) {
    STANDARD_ERROR.push(text.as_bytes());
}

/// Writes a line to standard output, and does not wait for whoever reads it.
pub(super) fn announce(text: &str) -> io::Result<()> {
    STANDARD_OUTPUT.start(io::stdout(), |_| {})?;
    STANDARD_OUTPUT.push(format!("{text}\n").as_bytes());
    Ok(())
}

/// Has what was logged written, if that is possible in half a second, before the process ends.
pub(super) fn finish() {
    STANDARD_ERROR.flush(LAST_LINES);
    // Where no thread could be started there is nobody else to write it.
    let _ = io::stderr().write_all(&STANDARD_ERROR.unattended());
}

/// As [`finish`], where the process is to end at once.
pub(super) fn finish_at_once() {
    STANDARD_ERROR.flush(AT_ONCE);
}

/// What an event is written to: all of it at once.
struct Lines;

impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        STANDARD_ERROR.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tell_of_lost(Lost(lines): Lost) {
    tracing::warn!(lines, "lines of log were lost: they came faster than they could be written");
}

/// Logs a panic, which the standard library would write to standard error itself and wait for it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no text");
    let at = panic.location().map(tracing::field::display);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = std::thread::current();
    tracing::error!(thread = thread.name(), at, backtrace, "panicked: {text}");
}
