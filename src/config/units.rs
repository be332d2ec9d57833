//! Sizes, times and counts as people write them.
//!
//! Invariant: what is printed reads back as the same value.

use std::{fmt, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// A number of bytes, written as `16MiB`, `64KiB`, `1GiB` or a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SIZE_EXPECTED: &str = "a size such as \"16MiB\", \"64KiB\" or a number of bytes";

impl ByteSize {
    /// Makes a size of `n` mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &SIZES)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.trim().parse().ok();
        plain.or_else(|| read(text, &SIZES)).map(Self).ok_or_else(|| format!("expected {SIZE_EXPECTED}"))
    }
}

/// A length of time, written as `10s`, `250ms`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const TIME_EXPECTED: &str = "a time such as \"10s\", \"250ms\", \"5m\" or \"1h\"";

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 { f.write_str("0s") } else { print(f, ms, &TIMES) }
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = read(text, &TIMES).ok_or_else(|| format!("expected {TIME_EXPECTED}"))?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl From<Duration> for Time {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// How many worker threads: a number, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// As many as the cores that this process may really use.
    Auto,
    Exactly(usize),
}

const WORKERS_EXPECTED: &str = "\"auto\" or a number of threads";

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(n) => write!(f, "{n}"),
        }
    }
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Exactly).map_err(|_| format!("expected {WORKERS_EXPECTED}")),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

const FORMAT_EXPECTED: &str = "\"text\" or \"json\"";

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected {FORMAT_EXPECTED}")),
        }
    }
}

/// Whether lines of log about requests name who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPeer {
    /// The address and port at the other end of the connection.
    Address,
    None,
}

const PEER_EXPECTED: &str = "\"address\" or \"none\"";

impl fmt::Display for LogPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address",
            Self::None => "none",
        })
    }
}

impl FromStr for LogPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "address" => Ok(Self::Address),
            "none" => Ok(Self::None),
            _ => Err(format!("expected {PEER_EXPECTED}")),
        }
    }
}

/// What a server does that starts with a model that does not load, in no version that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Serves the others, and is not ready.
    Unready,
    /// Serves the others, and is ready.
    Ready,
    /// Ends with exit code 1, also where an older version would load.
    Exit,
}

const ON_FAILURE_EXPECTED: &str = "\"unready\", \"ready\" or \"exit\"";

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unready => "unready",
            Self::Ready => "ready",
            Self::Exit => "exit",
        })
    }
}

impl FromStr for OnFailure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "unready" => Ok(Self::Unready),
            "ready" => Ok(Self::Ready),
            "exit" => Ok(Self::Exit),
            _ => Err(format!("expected {ON_FAILURE_EXPECTED}")),
        }
    }
}

/// Writes `n` in the largest unit that divides it.
fn print(f: &mut fmt::Formatter<'_>, n: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (unit, size) = units.iter().find(|(_, size)| n != 0 && n.is_multiple_of(*size)).unwrap_or(&("B", 1));
    write!(f, "{}{unit}", n / size)
}

/// Reads a whole number and a unit; `None` where it is neither, or too large.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

/// Takes a value from a string or a whole number of a TOML file, through its `FromStr`.
struct Written<T> {
    expected: &'static str,
    read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.read)(&number.to_string()).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }
}

macro_rules! as_written {
    ($($type:ty, $expected:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Written { expected: $expected, read: <$type>::from_str })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}

as_written! {
    ByteSize, SIZE_EXPECTED;
    Time, TIME_EXPECTED;
    Workers, WORKERS_EXPECTED;
    LogFormat, FORMAT_EXPECTED;
    LogPeer, PEER_EXPECTED;
    OnFailure, ON_FAILURE_EXPECTED;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in
            [("16MiB", 16 << 20), ("64 KiB", 64 << 10), (" 1GiB ", 1 << 30), ("7B", 7), ("0", 0)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text:?}");
        }
        for bad in ["", "MiB", "1MB", "1.5MiB", "-1", "1 2", "99999999999GiB", "٣MiB"] {
            let error = bad.parse::<ByteSize>().unwrap_err();
            assert!(error.contains("\"16MiB\""), "{bad:?}: {error}");
        }
    }

    #[test]
    fn times_read_as_people_write_them() {
        for (text, ms) in [("10s", 10_000), ("250ms", 250), ("5m", 300_000), ("1 h", 3_600_000), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(Time(Duration::from_millis(ms))), "{text:?}");
        }
        for bad in ["", "10", "s", "10sec", "1.5s", "-1s", "99999999999999999999s"] {
            assert!(bad.parse::<Time>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn workers_are_a_number_or_auto() {
        assert_eq!("auto".parse(), Ok(Workers::Auto));
        assert_eq!("4".parse(), Ok(Workers::Exactly(4)));
        assert!("all".parse::<Workers>().unwrap_err().contains("\"auto\""));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(n in any::<u64>(), ms in any::<u32>(), shift in 0u32..40) {
            for bytes in [n, n >> shift << shift, 1 << shift] {
                prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            }
            let time = Time(Duration::from_millis(ms.into()));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
