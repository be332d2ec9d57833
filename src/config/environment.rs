//! Settings from environment variables, named after their keys: `LEPTON_SERVER_LISTEN` is
//! `server.listen`.
//!
//! Invariant: a variable that begins with `LEPTON_` is a setting, one of the links that Kubernetes
//! makes for a service of that name, value included, or an error; none is ignored because of a typo.

use std::{ffi::OsString, fmt::Write, net::IpAddr};

use strsim::levenshtein;

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
            if !name.starts_with(PREFIX) || name == CONFIG_VARIABLE || is_service_link(&name, &text) {
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

/// Returns whether Kubernetes sets this variable to this value in every pod beside a service called `lepton` or
/// `lepton-something`: `LEPTON_SERVICE_HOST=10.0.0.1`, `LEPTON_PORT_8080_TCP=tcp://10.0.0.1:8080`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = || value.parse::<IpAddr>().is_ok();
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let is_protocol = |text: &str| matches!(text, "tcp" | "udp" | "sctp");
    let is_link = || {
        let parts =
            value.split_once("://").and_then(|(protocol, rest)| Some((protocol, rest.rsplit_once(':')?)));
        parts.is_some_and(|(protocol, (_, port))| is_protocol(protocol) && is_port(port))
    };
    if name.ends_with("_SERVICE_HOST") {
        return is_address();
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    if name.ends_with("_PORT") && is_link() {
        return true;
    }
    // LEPTON_PORT_8080_TCP, and the same with _PROTO, _PORT and _ADDR behind it.
    let Some((_, port)) = name.split_once("_PORT_") else { return false };
    let mut words = port.split('_');
    let is_named = words.next().is_some_and(is_port)
        && words.next().is_some_and(|word| is_protocol(&word.to_lowercase()));
    is_named
        && match (words.next(), words.next()) {
            (None, _) => is_link(),
            (Some("PROTO"), None) => is_protocol(value),
            (Some("PORT"), None) => is_port(value),
            (Some("ADDR"), None) => is_address(),
            _ => false,
        }
}

/// What other servers call the address that they listen on.
const ADDRESS: [&str; 5] = ["PORT", "HOST", "ADDR", "ADDRESS", "BIND"];

/// The known variable that was most likely meant: the one that is fewest edits away with or without its section.
fn nearest(name: &str) -> String {
    let wanted = name.strip_prefix(PREFIX).unwrap_or(name);
    if wanted.rsplit('_').next().is_some_and(|word| ADDRESS.contains(&word)) {
        return "LEPTON_SERVER_LISTEN".to_owned();
    }
    let away = |known: &String| {
        let known = known.strip_prefix(PREFIX).unwrap_or(known);
        let short = known.split_once('_').map_or(known, |(_, name)| name);
        // A section alone is nearest to its first setting.
        let is_section = known.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('_'));
        if is_section { 0 } else { levenshtein(wanted, known).min(levenshtein(wanted, short)) }
    };
    let known = SETTINGS.iter().map(Setting::variable).chain([CONFIG_VARIABLE.to_owned()]);
    known.min_by_key(away).unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
        for (wrong, meant) in [
            ("LEPTON_LISTEN", "LEPTON_SERVER_LISTEN"),
            ("LEPTON_WORKERS", "LEPTON_POOL_WORKERS"),
            ("LEPTON_MODELS", "LEPTON_MODELS_DIR"),
            ("LEPTON_LOG_FILTERS", "LEPTON_LOG_FILTER"),
            ("LEPTON_PORT", "LEPTON_SERVER_LISTEN"),
            ("LEPTON_SERVER_HOST", "LEPTON_SERVER_LISTEN"),
            ("LEPTON_CONFG", "LEPTON_CONFIG"),
        ] {
            let error = read(&[(wrong, "x")]).unwrap_err().to_string();
            assert!(error.ends_with(&format!("the nearest is {meant}")), "{wrong}: {error}");
        }
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
            ("LEPTON_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("LEPTON_PORT_80_TCP_PROTO", "tcp"),
            ("LEPTON_PORT_80_TCP_PORT", "80"),
            ("LEPTON_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("LEPTON_V6_PORT_53_UDP", "udp://[fd00::1]:53"),
            ("LEPTON_GPU_FREE_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("LEPTON_LOG_FILTER", ""),
        ];
        assert_eq!(read(&variables).unwrap(), Options::default());
    }

    #[test]
    fn a_link_of_kubernetes_with_another_value_is_a_setting_that_does_not_exist() {
        for (name, value) in [
            ("LEPTON_PORT", "18460"),
            ("LEPTON_SERVER_PORT", "1"),
            ("LEPTON_SERVICE_HOST", "localhost"),
            ("LEPTON_SERVICE_PORT", "http"),
            ("LEPTON_PORT_80_TCP", "80"),
            ("LEPTON_PORT_80_TCP_NAME", "tcp"),
            ("LEPTON_PORT_HTTP", "80"),
            ("LEPTON_POOL_PORT_WORKERS", "3"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(matches!(&error, ConfigError::UnknownVariable { .. }), "{name}={value}: {error}");
        }
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
}
