//! Parse, run, print the error chain, exit code.

use std::{process::ExitCode, time::Instant};

use lepton::cli::Cli;

fn main() -> ExitCode {
    let started = Instant::now();
    match Cli::from_command_line().run(started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}
