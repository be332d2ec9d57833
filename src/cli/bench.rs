//! `lepton bench`: loads a server, and tells what came of it.
//!
//! Invariant: what was measured is told, also where somebody interrupted it or the server went away.

mod watched;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use lepton_load::{
    self as load, Arrivals, Ask, Load, Order, Outcome, Plan, Rate, Target, Url, WarmUp, report::Report,
};
use tokio::runtime::Runtime;

use self::watched::{interruption, measured};
use super::{Failure, logging};
use crate::{config::Time, http};

/// Callers of a closed loop where nobody said how many.
const CALLERS: NonZeroUsize = NonZeroUsize::new(16).unwrap();
/// Most connections of an open loop where nobody said how many.
const MOST_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// What a sweep offers, as shares of what the server took from a closed loop.
const SWEEP: [f64; 9] = [0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5];
/// Longest warm-up that waits for a steady state.
const LONGEST_WARM_UP: Duration = Duration::from_secs(30);

/// Measures a server under load.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Ask this URL, http://HOST:PORT/PATH
    url: Url,
    /// Send this file, or the files of this folder in the order of their names; say it again for more,
    /// they are sent in turn
    #[arg(long = "body", value_name = "FILE|DIR")]
    bodies: Vec<PathBuf>,
    /// The content type of all bodies [default: by content and name of each file]
    #[arg(long, value_name = "TYPE", requires = "bodies")]
    content_type: Option<String>,
    /// Send this header too, as 'name: value'; say it again for more
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The method [default: POST with a body, else GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Closed loop: so many callers, each asks again as soon as it is answered; a list measures one after
    /// the other [default: 16]. Open loop: the most connections at once [default: 256]
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',')]
    connections: Vec<NonZeroUsize>,
    /// Open loop: requests arrive at this rate a second by chance (Poisson), whatever the server does; a
    /// list measures one after the other
    #[arg(long, value_name = "RATE[,RATE...]", value_delimiter = ',', conflicts_with_all = ["arrivals", "sweep"])]
    rate: Vec<Rate>,
    /// Open loop: requests arrive as recorded in this file, a line for each, in seconds from the start
    #[arg(long, value_name = "FILE", conflicts_with = "sweep")]
    arrivals: Option<PathBuf>,
    /// Find what the server takes with a closed loop, then offer shares of it from a tenth to one and a
    /// half
    #[arg(long)]
    sweep: bool,
    /// Measure for this time, as 10s or 2m [default: 10s, or until the recorded arrivals end]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    duration: Option<Time>,
    /// Ask for this time before measuring; auto waits until rate and latency are steady, up to 30s
    /// [default: 2s, or 0s with recorded arrivals]
    #[arg(long, value_name = "TIME|auto", value_parser = warm_up)]
    warm_up: Option<WarmUp>,
    /// Tell the server this deadline (x-deadline-ms), and count as good what is answered in time
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    deadline: Option<Time>,
    /// Wait for an answer no longer than this
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "10s")]
    timeout: Time,
    /// Arrivals and orders by chance follow from this number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Send the bodies in an order by chance
    #[arg(long)]
    shuffle: bool,
    /// Generate the load on this many threads; one is enough for most servers
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with curves and tables to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    parts.ok_or_else(|| "expected a name, a colon and a value".to_owned())
}

fn some_time(text: &str) -> Result<Time, String> {
    let time: Time = text.parse()?;
    if time.0.is_zero() { Err("expected a time above zero".to_owned()) } else { Ok(time) }
}

fn warm_up(text: &str) -> Result<WarmUp, String> {
    match text.trim() {
        "auto" => Ok(WarmUp::UntilSteady { at_most: LONGEST_WARM_UP }),
        time => {
            let time: Time = time.parse().map_err(|error| format!("{error}, or auto"))?;
            Ok(WarmUp::For(time.0))
        }
    }
}

impl Bench {
    pub(super) fn run(self) -> Result<(), Failure> {
        let asked = self.asked().map_err(Failure::Usage)?;
        let runtime = self.runtime().map_err(Failure::Work)?;
        runtime.block_on(self.measure(&asked)).map_err(Failure::Work)
    }

    /// What is asked, as far as it can be known without asking.
    fn asked(&self) -> Result<Asked> {
        if self.bodies.is_empty() && self.method.is_none() && takes_a_body(self.url.path()) {
            bail!(
                "{} takes a body, and there is none to send; say --body with a file, or a folder of them, as a \
                 .json with {{\"text\": \"...\"}}, a .txt or a .jpg",
                self.url.path()
            );
        }
        let bodies =
            load::bodies(&self.bodies, self.content_type.as_deref()).map_err(|error| anyhow!(error))?;
        let address = self.url.resolve().with_context(|| format!("cannot find the host of {}", self.url))?;
        let ask = Ask {
            method: self.method.clone(),
            headers: self.headers.clone(),
            deadline: self.deadline.map(Duration::from),
        };
        let order = if self.shuffle { Order::Shuffled { seed: self.seed } } else { Order::AsGiven };
        let target = Target::new(&self.url, address, &ask, &bodies).map_err(|error| anyhow!(error))?;
        // A file that cannot be written is found before the measurement, not after it.
        for file in self.json.iter().chain(&self.report) {
            let open = OpenOptions::new().append(true).create(true).open(file);
            open.with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Asked { target: target.ordered(order), loads: self.loads()? })
    }

    fn loads(&self) -> Result<Vec<Load>> {
        let most_connections = match self.connections.as_slice() {
            [] => MOST_CONNECTIONS,
            [most] => *most,
            _ if self.rate.is_empty() && self.arrivals.is_none() && !self.sweep => {
                return Ok(self.connections.iter().copied().map(Load::Closed).collect());
            }
            _ => {
                bail!("--connections is a list; an open loop takes one number, the most connections at once")
            }
        };
        if let Some(file) = &self.arrivals {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let arrivals = Arrivals::from_text(&text)
                .map_err(|error| anyhow!(error).context(format!("cannot use {}", file.display())))?;
            return Ok(vec![Load::Open { arrivals, most_connections }]);
        }
        if self.rate.is_empty() {
            return Ok(vec![Load::Closed(self.connections.first().copied().unwrap_or(CALLERS))]);
        }
        Ok(self.rate.iter().map(|rate| self.poisson(*rate, most_connections)).collect())
    }

    fn poisson(&self, rate: Rate, most_connections: NonZeroUsize) -> Load {
        Load::Open { arrivals: Arrivals::Poisson { rate, seed: self.seed }, most_connections }
    }

    fn runtime(&self) -> Result<Runtime> {
        let mut builder = match self.threads.get() {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.worker_threads(self.threads.get()).thread_name("lepton-load").enable_all();
        builder.build().context("cannot start the threads that generate the load")
    }

    fn plan(&self, target: &Target, load: Load) -> Plan {
        let recorded = matches!(&load, Load::Open { arrivals: Arrivals::Recorded(_), .. });
        let default_warm_up = if recorded { Duration::ZERO } else { Duration::from_secs(2) };
        let default_duration = (!recorded).then_some(Duration::from_secs(10));
        Plan {
            target: target.clone(),
            load,
            warm_up: self.warm_up.unwrap_or(WarmUp::For(default_warm_up)),
            duration: self.duration.map(Duration::from).or(default_duration),
            deadline: self.deadline.map(Duration::from),
            timeout: self.timeout.0,
        }
    }

    async fn measure(&self, asked: &Asked) -> Result<()> {
        let (started, stopped) = (SystemTime::now(), interruption().context("cannot listen for signals")?);
        let mut loads = asked.loads.clone();
        if self.sweep {
            let callers = self.connections.first().copied().unwrap_or(CALLERS);
            let found = measured(&self.plan(&asked.target, Load::Closed(callers)), &stopped).await?;
            let capacity = found.tally.completed.ok as f64 / found.window.as_secs_f64().max(1e-3);
            let most_connections = self.connections.first().copied().unwrap_or(MOST_CONNECTIONS);
            let rates =
                SWEEP.iter().filter_map(|share| Rate::per_second((share * capacity).round().max(1.0)));
            logging::say(&format!(
                "{callers} callers get {capacity:.0} answers of 2xx a second; offering shares of that"
            ));
            loads = if capacity > 0.0 {
                rates.map(|rate| self.poisson(rate, most_connections)).collect()
            } else {
                return self.tell(&asked.target, started, &[found]);
            };
        }
        let mut runs = Vec::with_capacity(loads.len());
        for load in loads {
            if *stopped.borrow() {
                break;
            }
            let run = measured(&self.plan(&asked.target, load), &stopped).await;
            match run {
                Ok(run) => runs.push(run),
                // A server that went away after some runs takes nothing from them.
                Err(error) if !runs.is_empty() => {
                    self.tell(&asked.target, started, &runs)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        self.tell(&asked.target, started, &runs)
    }

    /// Prints and writes what was measured. An error where nothing was answered as it was meant.
    fn tell(&self, target: &Target, started: SystemTime, runs: &[Outcome]) -> Result<()> {
        let command = command_line();
        let report = Report {
            target,
            deadline: self.deadline.map(Duration::from),
            threads: Some(self.threads.get()),
            command: &command,
            started,
            runs,
        };
        io::stdout().write_all(report.table().as_bytes()).context("cannot print the table")?;
        let write = |file: &Path, text: String| {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        self.json.as_deref().map_or(Ok(()), |file| write(file, report.json()))?;
        self.report.as_deref().map_or(Ok(()), |file| write(file, report.html()))?;
        if runs.iter().all(|run| run.tally.ok.count() == 0) {
            bail!("no request was answered with 2xx");
        }
        Ok(())
    }
}

/// What is measured.
struct Asked {
    target: Target,
    loads: Vec<Load>,
}

/// Whether a path is answered only with a body: of this server's, or of the Open Inference Protocol's.
fn takes_a_body(path: &str) -> bool {
    http::takes_a_body(path) || path.split('?').next().is_some_and(|path| path.ends_with("/infer"))
}

/// The words of the command line, as a shell takes them.
fn command_line() -> String {
    let quoted = |word: String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+?".contains(&byte);
        if word.bytes().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let words = std::env::args().skip(1).map(quoted).collect::<Vec<_>>();
    format!("lepton {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        bench: Bench,
    }

    fn bench(words: &[&str]) -> Result<Bench, String> {
        let words = ["bench"].iter().chain(words);
        Words::try_parse_from(words).map(|words| words.bench).map_err(|error| error.to_string())
    }

    fn loads(words: &[&str]) -> Vec<String> {
        let words = [&["http://127.0.0.1:1/"], words].concat();
        bench(&words).unwrap().loads().unwrap().iter().map(|load| format!("{load:?}")).collect()
    }

    #[test]
    fn a_loop_is_closed_unless_arrivals_are_said() {
        assert_eq!(loads(&[]), ["Closed(16)"]);
        assert_eq!(loads(&["--connections", "1,8"]), ["Closed(1)", "Closed(8)"]);
        let open = loads(&["--rate", "10,20.5", "--connections", "7", "--seed", "3"]);
        assert_eq!(open.len(), 2);
        assert!(
            open[1].contains("Rate(20.5), seed: 3") && open[1].contains("most_connections: 7"),
            "{open:?}"
        );
    }

    #[test]
    fn what_cannot_be_is_named_with_what_can() {
        for (words, says) in [
            (&["https://127.0.0.1:1/"][..], "TLS is not spoken"),
            (&["127.0.0.1:1/"], "expected http://HOST:PORT/PATH"),
            (&["http://h", "--rate", "0"], "from 0.001"),
            (&["http://h", "--connections", "0"], "non-zero"),
            (&["http://h", "--duration", "0s"], "above zero"),
            (&["http://h", "--deadline", "fast"], "expected a time"),
            (&["http://h", "--warm-up", "fast"], "or auto"),
            (&["http://h", "--header", "x"], "a colon"),
            (&["http://h", "--rate", "1", "--sweep"], "cannot be used with"),
            (&["http://h", "--content-type", "a/b"], "--body"),
        ] {
            let error = bench(words).err().unwrap_or_else(|| panic!("{words:?} is taken"));
            assert!(error.contains(says), "{words:?}: {error}");
        }
        for (words, says) in [
            (&["http://127.0.0.1:1/v1/text/sentiment?a"][..], "say --body"),
            (&["http://127.0.0.1:1/", "--body", "/nowhere/x"], "cannot read /nowhere/x"),
            (&["http://127.0.0.1:1/", "--arrivals", "/nowhere/x"], "cannot read /nowhere/x"),
            (&["http://127.0.0.1:1/", "--json", "/nowhere/x"], "cannot write /nowhere/x"),
            (&["http://127.0.0.1:1/", "--rate", "1", "--connections", "1,2"], "takes one number"),
            (&["http://127.0.0.1:1/", "--method", "GET IT"], "expected one as GET"),
        ] {
            let error = bench(words).unwrap().asked().err().unwrap_or_else(|| panic!("{words:?} is taken"));
            assert!(format!("{error:#}").contains(says), "{words:?}: {error:#}");
        }
    }

    #[test]
    fn recorded_arrivals_have_their_own_length() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("arrivals");
        fs::write(&file, "0\n1.5\n").unwrap();
        let bench = bench(&["http://127.0.0.1:1/", "--arrivals", file.to_str().unwrap()]).unwrap();
        let asked = bench.asked().unwrap();
        let plan = bench.plan(&asked.target, asked.loads[0].clone());
        assert_eq!((plan.duration, plan.warm_up), (None, WarmUp::For(Duration::ZERO)));
        let plan = bench.plan(&asked.target, Load::Closed(CALLERS));
        assert_eq!(plan.duration, Some(Duration::from_secs(10)));
    }
}
