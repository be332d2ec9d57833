//! Settings from environment variables, named after their keys: `LEPTON_SERVER_LISTEN` is
//! `server.listen`.
//!
//! Invariant: a variable that begins with `LEPTON_` is a setting, one of the links that Kubernetes
//! makes for a service of that name, or an error; none is ignored because of a typo.

use std::{ffi::OsString, fmt::Write};

use crate::config::{Config, ConfigError, Options, SETTINGS, Setting, settings::PREFIX};

/// The variable that names the configuration file. The command line reads it.
pub const CONFIG_VARIABLE: &str = "LEPTON_CONFIG";

impl Options {
    /// Reads the variables that are settings. An empty variable says nothing.
    pub fn from_environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut options = Self::default();
        for (name, text) in variables {
            let (name, text) = (name.to_string_lossy(), text.to_string_lossy());
            if !name.starts_with(PREFIX) || name == CONFIG_VARIABLE || is_service_link(&name) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) else {
                return Err(ConfigError::UnknownVariable {
                    nearest: nearest(&name),
                    name: name.into_owned(),
                });
            };
            if text.is_empty() {
                continue;
            }
            if let Some(Err(reason)) = options.set(setting.key, &text) {
                return Err(ConfigError::Variable {
                    name: name.into_owned(),
                    text: text.into_owned(),
                    reason,
                });
            }
        }
        Ok(options)
    }
}

/// Lists every variable with its meaning and default, for `--help`.
pub fn help() -> String {
    let mut help = String::from(
        "Settings, by the environment variable that overrides them (the file says `listen` below `[server]`):\n",
    );
    for (setting, default) in Options::from(Config::default()).values() {
        let Setting { help: meaning, .. } = setting;
        let default = default.unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(help, "\n  {}\n         {} [default: {default}]", setting.variable(), meaning.trim());
    }
    help
}

/// Says whether Kubernetes sets this variable in every pod beside a service called `lepton` or
/// `lepton-something`: `LEPTON_SERVICE_HOST`, `LEPTON_PORT_8080_TCP_ADDR`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// The known variable that is fewest edits away.
fn nearest(name: &str) -> String {
    let known = SETTINGS.iter().map(Setting::variable).chain([CONFIG_VARIABLE.to_owned()]);
    known.min_by_key(|known| edits(name, known)).unwrap_or_default()
}

/// Counts the letters to insert, delete or replace on the way from `a` to `b` (Levenshtein 1966).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Options, ConfigError> {
        Options::from_environment(variables.iter().map(|(name, text)| (name.into(), text.into())))
    }

    #[test]
    fn every_setting_has_a_variable_that_takes_its_default() {
        let default = Options::from(Config::default());
        let variables: Vec<(OsString, OsString)> = default
            .values()
            .into_iter()
            .map(|(setting, value)| (setting.variable().into(), value.unwrap().into()))
            .collect();
        assert_eq!(variables.len(), SETTINGS.len());
        assert_eq!(Options::from_environment(variables).unwrap(), default);
    }

    #[test]
    fn a_bad_value_is_named_with_its_variable_and_what_is_expected() {
        let error = read(&[("LEPTON_POOL_WORKERS", "many")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the environment variable LEPTON_POOL_WORKERS is \"many\": expected auto or a number of threads"
        );
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_the_nearest() {
        let error = read(&[("LEPTON_SERVER_LISEN", "x")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no setting LEPTON_SERVER_LISEN for the environment to override; the nearest is \
             LEPTON_SERVER_LISTEN"
        );
        assert!(read(&[("LEPTON_", "")]).is_err());
    }

    #[test]
    fn what_is_not_meant_for_a_setting_is_left_alone() {
        let variables = [
            ("PATH", "/bin"),
            ("LEPTON_CONFIG", "/etc/lepton.toml"),
            ("LEPTON_SERVICE_HOST", "10.0.0.1"),
            ("LEPTON_SERVICE_PORT_HTTP", "80"),
            ("LEPTON_PORT", "tcp://10.0.0.1:80"),
            ("LEPTON_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("LEPTON_GPU_FREE_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("LEPTON_LOG_FILTER", ""),
        ];
        assert_eq!(read(&variables).unwrap(), Options::default());
        assert!(SETTINGS.iter().all(|setting| !is_service_link(&setting.variable())));
    }

    #[test]
    fn help_names_every_variable_and_its_default() {
        let help = help();
        for setting in SETTINGS {
            assert!(help.contains(&setting.variable()), "{}", setting.key);
            assert!(help.contains(setting.help.trim()), "{}", setting.key);
        }
        assert!(help.contains("[default: 127.0.0.1:8080]"));
    }

    proptest! {
        #[test]
        fn edits_are_a_distance(a in "[A-C]{0,6}", b in "[A-C]{0,6}", c in "[A-C]{0,6}") {
            prop_assert_eq!(edits(&a, &b), edits(&b, &a));
            prop_assert_eq!(edits(&a, &b) == 0, a == b);
            prop_assert!(edits(&a, &c) <= edits(&a, &b) + edits(&b, &c));
        }
    }
}
