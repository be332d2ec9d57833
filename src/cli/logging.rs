//! Logs: one subscriber, on standard error, so that standard output holds answers only.

mod line;

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use self::line::Plain;
use crate::config::{LogConfig, LogFormat};

/// Starts logging; colours only for a terminal.
pub(super) fn start(config: &LogConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&config.filter).with_context(|| {
        format!(
            "log.filter is {:?}; allowed is a level, or levels by module such as info,lepton=debug",
            config.filter
        )
    })?;
    let is_terminal = io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_terminal);
    let started = match config.format {
        LogFormat::Text if is_terminal => lines.try_init(),
        LogFormat::Text => lines.fmt_fields(Plain).event_format(Plain).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
