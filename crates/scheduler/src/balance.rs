//! How latency and CPU time are weighed against each other.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How long a row may linger for others, so that rows share a run and each costs less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Never: a free worker takes what there is.
    #[default]
    Fast,
    /// At most for as long as the row would have run alone.
    Balanced,
    /// At most for a quarter of the row's deadline.
    Cheap,
}

impl Balance {
    /// Every balance, the fastest first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Cheap];

    /// The name that manifests and callers write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Cheap => "cheap",
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Balance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|balance| balance.name() == text);
        found.ok_or_else(|| "allowed are fast, balanced and cheap".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_reads_back_as_it_is_written() {
        for balance in Balance::ALL {
            assert_eq!(balance.to_string().parse(), Ok(balance));
            let json = serde_json::to_string(&balance).unwrap();
            assert_eq!(json, format!("\"{balance}\""));
        }
        assert!("Fast".parse::<Balance>().is_err());
    }
}
