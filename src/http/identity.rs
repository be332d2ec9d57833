//! Which request is which: request ids, and the trace of the caller.
//!
//! Invariant: an id is short and made of plain characters, so that it is safe in headers, in JSON
//! and in log lines without quoting.

use std::{
    fmt::{self, Display, Formatter},
    hash::{BuildHasher, Hasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries a request's id, both ways.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header that names the trace which a request belongs to.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The most characters of an id that a caller chose.
const LONGEST_ID: usize = 128;

/// Characters of the part of our ids that all of a process share, its dash included, and of the rest.
const PREFIX: usize = 17;
const LONGEST_COUNT: usize = 16;

/// A request's id: the caller's where it is sane, else one of ours.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Id);

#[derive(Debug, Clone)]
enum Id {
    Callers(HeaderValue),
    /// In place, for every request has one.
    Ours {
        text: [u8; PREFIX + LONGEST_COUNT],
        length: usize,
    },
}

impl RequestId {
    /// The caller's own id: 1 to 128 of `A-Z a-z 0-9 . _ : -`; anything else is replaced by ours.
    pub(super) fn of_caller(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(&REQUEST_ID)?;
        let plain = |c: &u8| c.is_ascii_alphanumeric() || b"._:-".contains(c);
        let sane = (1..=LONGEST_ID).contains(&value.len()) && value.as_bytes().iter().all(plain);
        sane.then(|| Self(Id::Callers(value.clone())))
    }

    /// The id as text.
    pub(super) fn as_str(&self) -> &str {
        // Both kinds are visible ASCII only.
        match &self.0 {
            Id::Callers(value) => value.to_str().unwrap_or_default(),
            Id::Ours { text, length } => str::from_utf8(&text[..*length]).unwrap_or_default(),
        }
    }

    /// The id as a header's value.
    pub(super) fn to_header(&self) -> HeaderValue {
        match &self.0 {
            Id::Callers(value) => value.clone(),
            // Hexadecimal digits and a dash are always a header's value.
            Id::Ours { text, length } => {
                HeaderValue::from_bytes(&text[..*length]).unwrap_or(HeaderValue::from_static("unknown"))
            }
        }
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Display for RequestId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes ids that no other process makes: a random prefix per process, then a counter.
#[derive(Debug)]
pub(super) struct RequestIds {
    /// The text of every id up to its count.
    prefix: [u8; PREFIX + LONGEST_COUNT],
    next: AtomicU64,
}

impl RequestIds {
    /// Draws the prefix.
    pub(super) fn new() -> Self {
        // The standard library seeds each hasher from the system's randomness, which is all that is
        // needed here: ids must differ, not be secret.
        let drawn = RandomState::new().build_hasher().finish();
        let mut prefix = [b'-'; PREFIX + LONGEST_COUNT];
        write_hex(drawn, &mut prefix[..PREFIX - 1]);
        Self { prefix, next: AtomicU64::new(1) }
    }

    /// Makes the next id.
    pub(super) fn make(&self) -> RequestId {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let n_digits = (u64::BITS - n.leading_zeros()).div_ceil(4).max(1) as usize;
        let (mut text, length) = (self.prefix, PREFIX + n_digits);
        write_hex(n, &mut text[PREFIX..length]);
        RequestId(Id::Ours { text, length })
    }
}

/// Fills `digits` with the lowest hexadecimal digits of a number.
fn write_hex(n: u64, digits: &mut [u8]) {
    for (idx, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(n >> (4 * idx)) as usize & 0xf];
    }
}

/// The trace that a caller's `traceparent` names (W3C Trace Context, section 3.2): 32 hexadecimal
/// digits. `None` where the header is absent or not valid, as the standard asks.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let mut fields = text.splitn(5, '-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = hex(fields.next()?, 32)?;
    let parent_id = hex(fields.next()?, 16)?;
    hex(fields.next()?, 2)?;
    let more = fields.next().is_some();
    let zero = |id: &str| id.bytes().all(|c| c == b'0');
    let invalid = version == "ff" || (version == "00" && more) || zero(trace_id) || zero(parent_id);
    (!invalid).then_some(trace_id)
}

fn hex(text: &str, length: usize) -> Option<&str> {
    let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    (text.len() == length && text.bytes().all(digit)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: impl TryInto<HeaderName, Error: std::fmt::Debug>, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.try_into().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    #[test]
    fn a_sane_id_of_the_caller_is_kept() {
        let longest = "a".repeat(128);
        for sane in ["abc-123", "A.b_c:d", longest.as_str()] {
            assert_eq!(RequestId::of_caller(&headers(&REQUEST_ID, sane)).unwrap().as_str(), sane);
        }
        let too_long = "a".repeat(129);
        for odd in ["", "a b", "a\"b", "é", "<script>", too_long.as_str()] {
            assert_eq!(RequestId::of_caller(&headers(&REQUEST_ID, odd)), None, "{odd}");
        }
    }

    #[test]
    fn ids_of_ours_differ_within_and_between_processes() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        let ids = [one.make(), one.make(), other.make()];
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[0], ids[2]);
        assert_eq!(RequestId::of_caller(&headers(&REQUEST_ID, ids[0].as_str())), Some(ids[0].clone()));
    }

    #[test]
    fn a_valid_traceparent_names_its_trace() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = "00f067aa0ba902b7";
        for valid in [format!("00-{trace}-{parent}-01"), format!("cc-{trace}-{parent}-01-later-fields")] {
            assert_eq!(trace_id(&headers("traceparent", &valid)), Some(trace), "{valid}");
        }
        for invalid in [
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            "é".to_owned(),
        ] {
            assert_eq!(trace_id(&headers("traceparent", &invalid)), None, "{invalid}");
        }
    }
}
