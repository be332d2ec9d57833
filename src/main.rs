//! Parse, run, end.

use std::{process::ExitCode, time::Instant};

use lepton::cli::{self, Cli};

fn main() -> ExitCode {
    let started = Instant::now();
    cli::end(Cli::from_command_line().run(started))
}
