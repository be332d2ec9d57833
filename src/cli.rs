//! The commands: serve, predict, check, bench, health. Each arm is a few lines here and a file below.
//!
//! Invariant: answers and what was asked for go to standard output, everything else to standard
//! error; the exit code is 0, 1 where the work failed, or 2 where the words or settings were wrong.

mod bench;
mod catalog;
mod check;
mod fit;
mod health;
mod logging;
mod predict;
mod rehearsal;
mod serve;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    config::{
        self, CONFIG_VARIABLE, Config, LogSection, ModelsSection, Options, PoolSection, ServerSection,
        Workers,
    },
    cores,
    manifest::ModelName,
    metrics::Metrics,
    pipelines::{self, Pipelines},
    pool::{Declared, ModelPool, PoolOptions},
    repository::Repository,
    tasks::{Descriptor, TaskOptions},
};

/// Serves neural networks over HTTP from CPU cores.
#[derive(Debug, Parser)]
#[command(
    name = "lepton",
    version,
    max_term_width = 100,
    long_about = "\
Serves neural networks over HTTP from CPU cores: photographs and texts in, answers and their price out.

Without a command it serves: the models below ./models, on http://127.0.0.1:8080.",
    after_help = "\
Examples:
  lepton                                          serve the models below ./models
  lepton --listen 0.0.0.0:8080 --models /models   the same for other machines, from another folder
  lepton check                                    print the settings, load and measure every model
  lepton predict face photo.jpg                   answer one photograph without a server
  echo 'what a day' | lepton predict sentiment -  answer texts from standard input, one a line
  lepton bench --body photo.jpg --sweep http://127.0.0.1:8080/v1/vision/classify

  curl -H 'content-type: image/jpeg' --data-binary @photo.jpg \\
       http://127.0.0.1:8080/v1/vision/classify
  curl -d '{\"text\": \"what a day\"}' -H 'content-type: application/json' \\
       http://127.0.0.1:8080/v1/text/sentiment"
)]
pub struct Cli {
    #[command(flatten)]
    settings: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Settings that every command takes, or has hidden where they change nothing.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct Flags {
    /// Read settings from this file [default: config.toml, if there is one]
    #[arg(long, short, global = true, value_name = "FILE", env = CONFIG_VARIABLE, hide_env_values = true)]
    config: Option<PathBuf>,
    /// Find models in this folder, one folder each [default: models]
    #[arg(long, short, global = true, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Listen on this address and port; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, short, global = true, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Run networks on this many threads; auto takes the cores that this process may really use
    /// [default: auto]
    #[arg(long, short, global = true, value_name = "N|auto")]
    workers: Option<Workers>,
    /// Log this: error, warn, info, debug, trace, or levels by module as in info,lepton::pool=debug
    /// [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models over HTTP (the default)
    ///
    /// Listens at once, so that /healthz answers while the models load, and prints one line when
    /// every model has answered its warm-up. SIGTERM, SIGINT or SIGHUP stops it: what was accepted is still
    /// answered. A second one exits at once, with code 130.
    Serve,
    /// Answer files without a server
    ///
    /// The files take the way that requests take, without HTTP, and one line of JSON is printed for
    /// each answer, in the order of the files: the answer, and what it cost. A model of images takes
    /// a picture per file: JPEG, PNG, WebP, GIF, BMP or TIFF. A model of texts takes a text per line;
    /// empty lines are skipped. The code is 1 where an input was not answered; its line then says why.
    Predict(predict::Predict),
    /// Check the settings and the models, and measure both
    ///
    /// Prints the settings as they hold after file, environment and flags, in the form of
    /// config.toml, then loads every model and prints what it takes and gives, how long it took to
    /// load, and how long the network takes per row on one core. The code is 1 where a model does
    /// not load.
    Check,
    /// Load a server, this or any other that speaks HTTP, and measure it
    ///
    /// Without --rate and the like the loop is closed: so many callers ask again as soon as they are
    /// answered, as wrk does. With --rate, --arrivals or --sweep it is open: requests arrive whatever the
    /// server does, and latency counts from when a request was meant to be sent, so that a server which
    /// stalls cannot hide it. Bodies are held in memory. SIGINT ends early and tells what was
    /// measured until then. The code is 1 where nothing was answered with 2xx.
    Bench(Box<bench::Bench>),
    /// Ask a running server whether it is ready
    ///
    /// For health checks of containers without a shell: the code is 0 where the server says that it
    /// is ready, else 1.
    Health(health::Health),
    /// Load one model for another process
    #[command(hide = true)]
    Rehearse(rehearsal::Rehearse),
}

/// Settings that change nothing of what a command does: its help leaves them out.
const WITHOUT_EFFECT: [(&str, &[&str]); 3] = [
    ("predict", &["listen"]),
    ("health", &["models", "workers"]),
    ("bench", &["listen", "models", "workers"]),
];

/// Why the program ends without having done what was asked.
#[derive(Debug)]
pub enum Failure {
    /// What was asked cannot be: bad settings.
    Usage(anyhow::Error),
    /// It was tried, and failed.
    Work(anyhow::Error),
}

impl Failure {
    /// The exit code that tells which it was.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Work(_) => ExitCode::from(1),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Usage(error) | Self::Work(error)) = self;
        write!(f, "error: {error:#}")
    }
}

/// Prints why the program failed, if it did, has the last lines of its log written, and gives its exit code.
pub fn end(done: Result<(), Failure>) -> ExitCode {
    let code = done.map_or_else(
        |failure| {
            logging::say(&failure.to_string());
            failure.code()
        },
        |()| ExitCode::SUCCESS,
    );
    logging::finish();
    code
}

impl Cli {
    /// Reads the command line. Where it is wrong, or asks for help, prints so and exits.
    pub fn from_command_line() -> Self {
        let matches = Self::with_settings().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// The command line, with every setting in its long help.
    fn with_settings() -> clap::Command {
        let mut command = Self::command();
        for (name, flags) in WITHOUT_EFFECT {
            let hide = |id: &&str| {
                command.get_arguments().find(|flag| flag.get_id() == id).map(|it| it.clone().hide(true))
            };
            let hidden: Vec<_> = flags.iter().filter_map(hide).collect();
            command = command.mut_subcommand(name, |subcommand| subcommand.args(hidden));
        }
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        command.after_long_help(format!("{examples}\n\n{}", config::help()))
    }

    /// Does what was asked. `started` is when the process started.
    pub fn run(self, started: Instant) -> Result<(), Failure> {
        let Self { settings, command } = self;
        let opened = logging::open().context("cannot start the thread that writes the log");
        opened.map_err(Failure::Work)?;
        if let Some(Command::Rehearse(rehearse)) = command {
            // Its settings come from the process that asks.
            return rehearse.run().map_err(Failure::Work);
        }
        let config = settings.resolve().map_err(Failure::Usage)?;
        logging::start(&config.log).map_err(Failure::Usage)?;
        let command = command.unwrap_or(Command::Serve);
        let asks_others = matches!(command, Command::Health(_) | Command::Bench(_));
        let config = if asks_others { config } else { fit::into_memory(config).map_err(Failure::Usage)? };
        let done = match command {
            Command::Serve => serve::serve(config, started),
            Command::Predict(predict) => predict.run(&config),
            Command::Check => check::check(&config),
            Command::Health(health) => health.run(&config),
            Command::Bench(bench) => return bench.run(),
            Command::Rehearse(rehearse) => rehearse.run(),
        };
        done.map_err(Failure::Work)
    }
}

impl Flags {
    fn resolve(self) -> Result<Config> {
        let flags = Options {
            server: ServerSection { listen: self.listen, ..ServerSection::default() },
            pool: PoolSection { workers: self.workers, ..PoolSection::default() },
            models: ModelsSection { dir: self.models, ..ModelsSection::default() },
            log: LogSection { filter: self.log, ..LogSection::default() },
            ..Options::default()
        };
        // An empty variable says nothing, here as everywhere.
        let file = self.config.filter(|file| !file.as_os_str().is_empty());
        Ok(config::load(file.as_deref(), std::env::vars_os(), flags)?)
    }
}

fn workers(config: &Config) -> usize {
    match config.pool.workers {
        Workers::Auto => cores::usable(),
        Workers::Exactly(workers) => workers,
    }
}

/// The folder of models, of which nothing is loaded yet.
fn repository(config: &Config) -> Repository {
    Repository::new(&config.models.dir, TaskOptions::from(&config.limits))
}

/// Finds the pipelines in the folder of models, and holds them to the models that were found.
fn find_pipelines(
    config: &Config,
    task: impl Fn(&ModelName) -> Option<Option<&'static Descriptor>>,
) -> Result<Pipelines> {
    Ok(Pipelines::new(pipelines::scan(&config.models.dir)?, task)?)
}

/// Starts the worker threads, which load what was found.
fn start_pool(config: &Config, models: Vec<Declared>, metrics: &Metrics) -> Result<ModelPool> {
    let options = PoolOptions {
        workers: workers(config),
        queue_rows: config.pool.queue_rows,
        queue_bytes: usize::try_from(config.pool.queue_bytes.0).unwrap_or(usize::MAX),
    };
    ModelPool::start(&options, models, metrics).context("cannot start the worker threads")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::with_settings().debug_assert();
    }

    #[test]
    fn serving_is_the_default_and_flags_go_before_or_after_the_command() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["lepton"], words].concat());
        assert!(parse(&[]).unwrap().command.is_none());
        for words in [&["--workers", "3", "check"], &["check", "--workers", "3"]] {
            let cli = parse(words).unwrap();
            assert!(matches!(cli.command, Some(Command::Check)));
            assert_eq!(cli.settings.workers, Some(Workers::Exactly(3)));
        }
        assert!(parse(&["--workers", "many"]).unwrap_err().to_string().contains("\"auto\" or a number"));
        assert!(parse(&["predict", "face"]).is_err(), "a file is required");
    }

    #[test]
    fn long_help_lists_every_setting_and_examples() {
        let help = Cli::with_settings().render_long_help().to_string();
        assert!(
            help.contains("LEPTON_SERVER_LISTEN") && help.contains("lepton predict face photo.jpg"),
            "{help}"
        );
        let short = Cli::with_settings().render_help().to_string();
        assert!(!short.contains("LEPTON_SERVER_LISTEN"), "{short}");
    }

    #[test]
    fn help_of_a_command_has_its_own_options_first_and_no_setting_without_effect() {
        let help_of = |name: &str| {
            let mut command = Cli::with_settings();
            command.build();
            command.find_subcommand_mut(name).unwrap().render_help().to_string()
        };
        for (name, hidden) in WITHOUT_EFFECT {
            let help = help_of(name);
            assert!(hidden.iter().all(|flag| !help.contains(&format!("--{flag} "))), "{help}");
            let (own, settings) = help.split_once("\nSettings:\n").unwrap();
            assert!(settings.contains("--config") && settings.contains("--log"), "{help}");
            assert!(!own.contains("--config"), "{help}");
        }
        assert!(help_of("bench").contains("--sweep") && help_of("check").contains("--models"));
        // A hidden flag is still read, so that a script may name it for every command.
        let read = Cli::with_settings().try_get_matches_from(["lepton", "health", "--models", "m"]).unwrap();
        assert_eq!(Cli::from_arg_matches(&read).unwrap().settings.models, Some("m".into()));
    }

    #[test]
    fn the_error_chain_reads_from_the_outside_in() {
        let error = anyhow::anyhow!("permission denied").context("cannot listen on 127.0.0.1:80");
        let failure = Failure::Work(error);
        assert_eq!(failure.to_string(), "error: cannot listen on 127.0.0.1:80: permission denied");
        assert_eq!(failure.code(), ExitCode::from(1));
    }
}
