//! How far `lepton predict` is.

use std::{
    io::{self, IsTerminal},
    time::Instant,
};

use super::{PATIENCE, logging};

/// How far the work is, told on standard error where the answers themselves do not show it.
pub(super) struct ProgressLine {
    told: Instant,
    shown: Shown,
}

/// Where progress is shown.
enum Shown {
    /// The answers run over the same terminal.
    Nowhere,
    OnOneLine,
}

impl ProgressLine {
    pub(super) fn start() -> Self {
        let shown = match io::stderr().is_terminal() && !io::stdout().is_terminal() {
            true => Shown::OnOneLine,
            false => Shown::Nowhere,
        };
        Self { told: Instant::now(), shown }
    }

    pub(super) fn tell(&mut self, n_answered: usize) {
        if matches!(self.shown, Shown::OnOneLine) && self.told.elapsed() >= PATIENCE {
            self.told = Instant::now();
            logging::show(&format!("\r{n_answered} answered"));
        }
    }

    pub(super) fn end(&self) {
        if matches!(self.shown, Shown::OnOneLine) {
            logging::show("\r\x1b[K");
        }
    }
}
