//! Configuration: what the user wrote ([`Options`], all optional) and what the program needs
//! ([`Config`], complete and valid).
//!
//! Invariant: a [`Config`] from [`load`] has passed [`Config::check`], so that no other room checks
//! a setting again. Flags override the environment, which overrides the file, which overrides the
//! defaults. Paths are relative to the working directory, wherever they were written.

mod environment;
mod memory;
mod origins;
mod settings;
mod units;

use std::{ffi::OsString, fs, io, path::Path, time::Duration};

use thiserror::Error;

pub use self::{
    environment::{CONFIG_VARIABLE, help},
    memory::{Lowered, Serving, TooLittle},
    origins::Origins,
    settings::{
        Config, LimitsConfig, LimitsSection, LogConfig, LogSection, ModelsConfig, ModelsSection, Options,
        PoolConfig, PoolSection, SETTINGS, ServerConfig, ServerSection, Setting,
    },
    units::{ByteSize, LogFormat, LogPeer, OnFailure, Time, Workers},
};

/// The file that is read where none is named, if it exists.
pub const DEFAULT_FILE: &str = "config.toml";

/// Why there is no configuration. For the person who wrote it.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {file}: {reason}")]
    File { file: String, reason: io::Error },
    /// `reason` has its line, a caret below it, and what is allowed.
    #[error("in the configuration {file}: {reason}")]
    Toml { file: String, reason: String },
    #[error("the environment variable {name} is {text:?}: {reason}")]
    Variable { name: String, text: String, reason: String },
    #[error("there is no setting {name} for the environment to override; the nearest is {nearest}")]
    UnknownVariable { name: String, nearest: String },
    #[error("{key} is {value}; allowed is {allowed}")]
    Value { key: &'static str, value: String, allowed: String },
}

/// Layers flags over the environment over the file over the defaults, and checks the result.
///
/// A `file` that is named must exist; without one, [`DEFAULT_FILE`] is read if it exists.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: Options,
) -> Result<Config, ConfigError> {
    let written = match file {
        Some(file) => Options::from_file(file)?,
        None if Path::new(DEFAULT_FILE).exists() => Options::from_file(Path::new(DEFAULT_FILE))?,
        None => Options::default(),
    };
    written.overlaid_by(Options::from_environment(environment)?).overlaid_by(flags).resolve()
}

impl Options {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|reason| ConfigError::File { file: file.clone(), reason })?;
        Self::from_toml(&file, &text)
    }

    /// Reads the text of a TOML file; errors call it `file`.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Toml {
            file: file.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })
    }

    /// Fills what nobody said with the defaults, and checks the whole.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let config = self.filled();
        config.check()?;
        Ok(config)
    }
}

impl Config {
    /// Writes every setting as a TOML file would.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&Options::from(self.clone()))
    }

    /// Refuses what no server could work with, naming the key, the value and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { server, limits, pool, models, log } = self;
        between("server.max_connections", server.max_connections, 1, 1_000_000)?;
        between("server.io_threads", server.io_threads, 1, MAX_THREADS)?;
        for (key, time) in [
            ("server.header_timeout", server.header_timeout),
            ("server.body_timeout", server.body_timeout),
            ("pool.deadline", pool.deadline),
            ("pool.max_deadline", pool.max_deadline),
        ] {
            between(key, Time(time), Time(Duration::from_millis(1)), Time(DAY))?;
        }
        for (key, time) in [
            ("server.grace", server.grace),
            ("server.drain", server.drain),
            ("models.load_timeout", models.load_timeout),
        ] {
            between(key, Time(time), Time(Duration::ZERO), Time(DAY))?;
        }
        between("server.body_rate", server.body_rate, ByteSize(0), ByteSize::mib(1024))?;
        between("limits.body", limits.body, ByteSize(1), ByteSize::mib(4096))?;
        between("limits.text", limits.text, ByteSize(1), limits.body)?;
        between("limits.image_pixels", limits.image_pixels, 1, 1 << 30)?;
        between("limits.image_side", limits.image_side, 1, 65_535)?;
        at_least("limits.image_memory", limits.image_memory, ByteSize(1 << 16))?;
        between("limits.items", limits.items, 1, pool.queue_rows)?;
        // The reader of JSON recurses once a level.
        between("limits.json_depth", limits.json_depth, 4, 128)?;
        if let Workers::Exactly(workers) = pool.workers {
            between("pool.workers", workers, 1, MAX_THREADS)?;
        }
        between("pool.queue_rows", pool.queue_rows, 1, 10_000_000)?;
        if limits.body > pool.queue_bytes {
            let queue_bytes = pool.queue_bytes;
            let allowed =
                format!("at most pool.queue_bytes, which is {queue_bytes}: lower the one or raise the other");
            return Err(ConfigError::Value { key: "limits.body", value: limits.body.to_string(), allowed });
        }
        between("pool.deadline", Time(pool.deadline), Time(Duration::ZERO), Time(pool.max_deadline))?;
        at_least("models.load_memory", models.load_memory, ByteSize::mib(16))?;
        check_filter(&log.filter)?;
        if models.dir.as_os_str().is_empty() {
            return Err(ConfigError::Value {
                key: "models.dir",
                value: "empty".to_owned(),
                allowed: "a folder, \".\" for the working directory".to_owned(),
            });
        }
        Ok(())
    }
}

const MAX_THREADS: usize = 1024;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn between<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), ConfigError> {
    if least <= value && value <= most {
        return Ok(());
    }
    Err(ConfigError::Value { key, value: value.to_string(), allowed: format!("{least} to {most}") })
}

fn at_least(key: &'static str, value: ByteSize, least: ByteSize) -> Result<(), ConfigError> {
    if value >= least {
        return Ok(());
    }
    Err(ConfigError::Value { key, value: value.to_string(), allowed: format!("{least} or more") })
}

/// Refuses a filter that would turn the log off by mistake: a lone word that is no level is a module to the library,
/// of which everything is logged, and nothing of the others.
fn check_filter(filter: &str) -> Result<(), ConfigError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in filter.split(',').map(str::trim) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        // A directive with a span has a syntax of its own.
        if !part.contains(['[', '{']) && !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            let allowed = format!(
                "a level ({}), or levels by module such as info,lepton::pool=debug",
                LEVELS.join(", ")
            );
            return Err(ConfigError::Value { key: "log.filter", value: format!("{filter:?}"), allowed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        Options::from_toml("config.toml", text).unwrap()
    }

    fn refused(text: &str) -> String {
        options(text).resolve().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_read_back_as_written() {
        let config = Config::default();
        config.check().unwrap();
        let text = config.to_toml().unwrap();
        assert_eq!(options(&text).resolve().unwrap(), config, "{text}");
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some.toml");
        fs::write(&file, "[pool]\nworkers = 2\nqueue_rows = 512\ndeadline = '2s'\n").unwrap();
        let variables = [("LEPTON_POOL_WORKERS", "3"), ("LEPTON_POOL_QUEUE_ROWS", "600"), ("HOME", "/")];
        let flags = options("[pool]\nworkers = 4");
        let config = load(Some(&file), variables.map(|(k, v)| (k.into(), v.into())), flags).unwrap();
        assert_eq!(config.pool.workers, Workers::Exactly(4));
        assert_eq!(config.pool.queue_rows, 600);
        assert_eq!(config.pool.deadline, Duration::from_secs(2));
        assert_eq!(config.pool.max_deadline, Config::default().pool.max_deadline);
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(Some(&dir.path().join("none.toml")), [], Options::default()).unwrap_err();
        assert!(matches!(error, ConfigError::File { .. }), "{error}");
    }

    #[test]
    fn an_unknown_key_is_an_error_at_its_line_with_what_is_allowed() {
        let error =
            Options::from_toml("my.toml", "[server]\nlisten = '127.0.0.1:1'\nlisen = 'x'\n").unwrap_err();
        insta::assert_snapshot!(error, @r"
        in the configuration my.toml: TOML parse error at line 3, column 1
          |
        3 | lisen = 'x'
          | ^^^^^
        unknown field `lisen`, expected one of `listen`, `max_connections`, `io_threads`, `header_timeout`, `body_timeout`, `body_rate`, `grace`, `drain`, `cors`
        ");
        let error = Options::from_toml("my.toml", "[serve]\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `serve`, expected one of `server`"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_form_is_an_error_at_its_line_with_what_is_expected() {
        for (text, expected) in [
            ("[limits]\nbody = '16 monkeys'", "expected a size such as \"16MiB\""),
            ("[limits]\nbody = -1", "expected a size such as \"16MiB\""),
            ("[server]\ngrace = 5", "expected a time such as \"10s\""),
            ("[pool]\nworkers = 'all'", "expected \"auto\" or a number of threads"),
            ("[pool]\nworkers = -1", "expected \"auto\" or a number of threads"),
            ("[log]\nformat = 'xml'", "expected \"text\" or \"json\""),
            ("[models]\nvision = '../face'", "cannot be a model's name"),
            ("[server]\nlisten = 'localhost'", "invalid socket address"),
            ("[server]\ncors = ['example.com']", "\"example.com\" is not an origin; expected origins as"),
        ] {
            let error = Options::from_toml("my.toml", text).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_filter_of_the_log_is_levels_for_all_or_for_modules() {
        for filter in
            ["warn", "INFO", "off", "info, lepton::pool=debug", "lepton[request]=trace", "a=info,b=off"]
        {
            options(&format!("[log]\nfilter = {filter:?}")).resolve().unwrap();
        }
    }

    #[test]
    fn what_no_server_could_work_with_is_refused_with_key_value_and_allowed() {
        for (text, expected) in [
            ("[pool]\nworkers = 0", "pool.workers is 0; allowed is 1 to 1024"),
            ("[server]\nio_threads = 0", "server.io_threads is 0; allowed is 1 to 1024"),
            ("[server]\nmax_connections = 0", "server.max_connections is 0; allowed is 1 to 1000000"),
            ("[server]\nheader_timeout = '0s'", "server.header_timeout is 0s; allowed is 1ms to 24h"),
            ("[server]\ndrain = '25h'", "server.drain is 25h; allowed is 0s to 24h"),
            ("[pool]\nmax_deadline = '5s'", "pool.deadline is 10s; allowed is 0s to 5s"),
            (
                "[pool]\nqueue_bytes = '1MiB'",
                "limits.body is 16MiB; allowed is at most pool.queue_bytes, which is 1MiB: lower the one or raise the other",
            ),
            (
                "[limits]\nbody = '100MiB'",
                "limits.body is 100MiB; allowed is at most pool.queue_bytes, which is 64MiB",
            ),
            ("[limits]\nimage_memory = '1KiB'", "limits.image_memory is 1KiB; allowed is 64KiB or more"),
            (
                "[log]\nfilter = 'verbose'",
                "log.filter is \"verbose\"; allowed is a level (off, error, warn, info, debug, trace), or levels by module",
            ),
            (
                "[log]\nfilter = 'info,lepton::pool'",
                "log.filter is \"info,lepton::pool\"; allowed is a level",
            ),
            ("[log]\nfilter = 'lepton=loud'", "log.filter is \"lepton=loud\"; allowed is a level"),
            ("[log]\nfilter = ''", "log.filter is \"\"; allowed is a level"),
            ("[limits]\nitems = 5000", "limits.items is 5000; allowed is 1 to 4096"),
            ("[limits]\ntext = '17MiB'", "limits.text is 17MiB; allowed is 1B to 16MiB"),
            ("[limits]\njson_depth = 100000", "limits.json_depth is 100000; allowed is 4 to 128"),
            ("[models]\ndir = ''", "models.dir is empty; allowed is a folder"),
        ] {
            assert!(refused(text).starts_with(expected), "{text}: {}", refused(text));
        }
    }
}
