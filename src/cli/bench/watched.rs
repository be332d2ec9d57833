//! A measurement under somebody's eyes: how it goes on standard error, and that it can be interrupted.

use std::{
    io::{self, IsTerminal},
    process,
    time::Duration,
};

use anyhow::Result;
use lepton_load::{self as load, End, Load, Outcome, Plan, Progress};
use tokio::{signal::unix::SignalKind, sync::watch};

use crate::cli::logging;

/// The exit code of a process that was interrupted twice: 128 and the number of SIGINT.
const INTERRUPTED_TWICE: i32 = 130;

/// Turns true at the first interruption; the second ends the process.
pub(super) fn interruption() -> io::Result<watch::Receiver<bool>> {
    let (tell, told) = watch::channel(false);
    let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for n in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if n > 0 {
                process::exit(INTERRUPTED_TWICE);
            }
            tell.send_replace(true);
        }
    });
    Ok(told)
}

pub(super) async fn measured(plan: &Plan, stopped: &watch::Receiver<bool>) -> Result<Outcome> {
    let is_terminal = io::stderr().is_terminal();
    let mut stopped = stopped.clone();
    let stop = async {
        if stopped.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let name = match &plan.load {
        Load::Closed(callers) => format!("{callers} callers"),
        Load::Open { arrivals, .. } => arrivals.to_string(),
    };
    let mut tell = |progress: &Progress| {
        if is_terminal {
            logging::show(&format!("\r\x1b[K{name}: {}", line(progress)));
        }
    };
    let run = load::run(plan, stop, &mut tell).await;
    if is_terminal {
        logging::show("\r\x1b[K");
    }
    let run = run?;
    if run.end == End::Interrupted {
        logging::say("interrupted; this is what was measured until then");
    }
    Ok(run)
}

/// How a second was, in one line.
fn line(progress: &Progress) -> String {
    let ms = |time: Option<Duration>| {
        time.map_or_else(|| "-".to_owned(), |time| format!("{:.2}", time.as_secs_f64() * 1e3))
    };
    let phase = match (progress.warming_up, progress.duration) {
        (Some(_), _) => "warming up".to_owned(),
        (None, Some(duration)) => format!("{} of {} s", progress.elapsed.as_secs(), duration.as_secs_f64()),
        (None, None) => format!("{} s", progress.elapsed.as_secs()),
    };
    let seconds = progress.over.as_secs_f64().max(1e-3);
    format!(
        "{phase}, {:.0} ok/s, p50 {} ms, p99 {} ms, {:.0} refused/s, {:.0} failed/s, {} connections",
        progress.ok as f64 / seconds,
        ms(progress.p50),
        ms(progress.p99),
        progress.refused as f64 / seconds,
        progress.failed as f64 / seconds,
        progress.callers,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_one_line() {
        let progress = Progress {
            elapsed: Duration::from_millis(3200),
            warming_up: None,
            duration: Some(Duration::from_secs(10)),
            ok: 500,
            refused: 10,
            failed: 0,
            over: Duration::from_secs(1),
            p50: Some(Duration::from_micros(1234)),
            p99: None,
            callers: 4,
        };
        let expected = "3 of 10 s, 500 ok/s, p50 1.23 ms, p99 - ms, 10 refused/s, 0 failed/s, 4 connections";
        assert_eq!(line(&progress), expected);
    }
}
