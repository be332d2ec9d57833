//! The origins whose browser pages may call the server.
//!
//! Invariant: an origin is held as browsers send it (RFC 6454, section 6.2), so that comparing bytes is
//! comparing origins.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeSeq};

/// The origins whose pages may call the server: none, a list, or every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Written `"*"`.
    Any,
    /// Written `["https://app.example.com", "http://localhost:3000"]`; empty for none.
    These(Vec<String>),
}

const ANY: &str = "*";

/// What stands for no origin where there is no list. An empty text does, too.
const NO_ORIGIN: &str = "none";

/// What a page has that was opened from a file or in a sandbox.
const OPAQUE: &str = "null";

const EXPECTED: &str = "origins as browsers send them, such as \"https://app.example.com\" or \
    \"http://localhost:3000\" (no path, no slash at the end), or \"*\" for every page";

impl Origins {
    /// No page of another origin.
    pub const NONE: Self = Self::These(Vec::new());

    /// Returns whether pages of an origin, as a browser sends it, may call.
    pub fn allows(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::These(origins) => origins.iter().any(|allowed| allowed.as_bytes() == origin),
        }
    }

    fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let words: Vec<&str> = words.into_iter().collect();
        if words == [ANY] {
            return Ok(Self::Any);
        }
        words.into_iter().map(origin).collect::<Result<_, _>>().map(Self::These)
    }
}

/// Reads one origin, in the form that browsers send: lower case, and without the scheme's own port.
fn origin(text: &str) -> Result<String, String> {
    let wrong = || Err(format!("{text:?} is not an origin; expected {EXPECTED}"));
    if text == OPAQUE {
        return Ok(text.to_owned());
    }
    let text = text.to_ascii_lowercase();
    let Some((scheme, authority)) = text.split_once("://") else { return wrong() };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    let is_authority = authority.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c));
    if !is_scheme || !is_authority || authority.is_empty() {
        return wrong();
    }
    // Behind the brackets of an IPv6 address only.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return wrong();
    }
    Ok(match (scheme, port) {
        ("http", Some("80")) | ("https", Some("443")) => format!("{scheme}://{host}"),
        _ => text,
    })
}

/// As an environment variable has them: separated by commas.
impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::These(origins) if origins.is_empty() => f.write_str(NO_ORIGIN),
            Self::These(origins) => f.write_str(&origins.join(", ")),
        }
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == NO_ORIGIN {
            return Ok(Self::NONE);
        }
        Self::of(text.split(',').map(str::trim).filter(|word| !word.is_empty()))
    }
}

impl Serialize for Origins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str(ANY),
            Self::These(origins) => {
                let mut list = serializer.serialize_seq(Some(origins.len()))?;
                origins.iter().try_for_each(|origin| list.serialize_element(origin))?;
                list.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Origins;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of {EXPECTED}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Origins, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Origins, A::Error> {
                let mut words: Vec<String> = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Origins::of(words.iter().map(|word| word.trim())).map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Origins, String> {
        #[derive(Deserialize)]
        struct File {
            cors: Origins,
        }
        toml::from_str::<File>(&format!("cors = {text}"))
            .map(|file| file.cors)
            .map_err(|e| e.message().to_owned())
    }

    #[test]
    fn origins_are_held_as_browsers_send_them() {
        let these = |origins: &[&str]| Origins::These(origins.iter().map(|o| (*o).to_owned()).collect());
        assert_eq!(read("[]"), Ok(Origins::NONE));
        assert_eq!(read("'*'"), Ok(Origins::Any));
        assert_eq!(read("['*']"), Ok(Origins::Any));
        assert_eq!(["", "none"].map(str::parse), [Ok(Origins::NONE), Ok(Origins::NONE)]);
        let read =
            read("['HTTPS://App.Example.com:443', 'http://localhost:3000', 'http://[::1]:80', 'null']")
                .unwrap();
        let want = these(&["https://app.example.com", "http://localhost:3000", "http://[::1]", "null"]);
        assert_eq!(read, want);
        assert_eq!(read.to_string().parse(), Ok(want));
        assert!(read.allows(b"http://localhost:3000") && Origins::Any.allows(b"http://a"));
        for other in ["http://localhost", "https://app.example.com:8443", "http://app.example.com", ""] {
            assert!(!read.allows(other.as_bytes()) && !Origins::NONE.allows(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/page",
            "https://*.example.com",
            "https://",
            "https://:80",
            "https://a:port",
            "https://user@a",
            "https://bücher.example",
            "http://a, *",
        ] {
            let error = text.parse::<Origins>().unwrap_err();
            assert!(error.contains("is not an origin; expected origins as browsers send them"), "{error}");
        }
        assert!(read("5").unwrap_err().contains("expected a list of origins"));
    }
}
