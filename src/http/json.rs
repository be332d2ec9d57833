//! The two JSON forms of a request: `{"image": ..}` or `{"images": [..]}`, and the same for texts.
//!
//! Invariant: no step holds the thread for longer than [`STEP`] bytes take. This is why the scanner
//! is our own: a parser that runs to its end would stop every other request for as long as the body
//! is large, and an attacker can make each byte of it dear. Strings without escapes are slices of the
//! body, never copies; what is inside them is decoded on the workers.

use std::fmt::{self, Arguments, Display, Formatter};

use bytes::Bytes;
use memchr::memchr2;
use tokio::task::yield_now;

use super::{body::STEP, problem::quote};
use crate::error::{Amount, Error};

/// The two fields that a body may have, one of them at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    /// Takes one string: `image`.
    pub(super) one: &'static str,
    /// Takes a list of strings: `images`.
    pub(super) many: &'static str,
    /// What each string is: `a base64 string`.
    pub(super) what: &'static str,
    pub(super) breaks: Breaks,
}

/// What line breaks and tabs in a string are that nobody escaped, which JSON does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaks {
    /// A mistake.
    Refused,
    /// Part of the string: base64 comes in lines, and is put into JSON by shell scripts as it comes.
    Kept,
}

/// U+FEFF in UTF-8, which Windows programs put first. RFC 8259, section 8.1, lets readers pass it over.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Names the encoding of a text that is in UTF-16 or UTF-32, by its mark or by the zeros beside its first
/// character, which is ASCII in JSON.
pub(super) fn wide_encoding(text: &[u8]) -> Option<&'static str> {
    match *text {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [a, b, c, d, ..] => match [a, b, c, d].map(|byte| byte == 0) {
            [true, true, true, false] | [false, true, true, true] => Some("UTF-32"),
            [true, false, true, false] | [false, true, false, true] => Some("UTF-16"),
            _ => None,
        },
        _ => None,
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { one, many, what, .. } = self;
        write!(f, "{{\"{one}\": {what}}} or {{\"{many}\": [{what}, ..]}}")
    }
}

/// How much JSON a body may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonLimits {
    /// Arrays and objects inside one another.
    pub(super) depth: usize,
    /// Strings in the list.
    pub(super) items: usize,
}

/// Reads the strings of a body, their escapes resolved: at least one, at most `limits.items`. A byte order
/// mark before the object is passed over. What is not JSON is [`Error::Malformed`]; JSON that says something else is [`Error::Invalid`], refused
/// where it starts to. Whether a string is UTF-8 is for its reader to check.
pub(super) async fn strings(body: &Bytes, fields: Fields, limits: JsonLimits) -> Result<Vec<Bytes>, Error> {
    if let Some(encoding) = wide_encoding(body) {
        return Err(Error::malformed(format!("the body is in {encoding}; expected JSON in UTF-8")));
    }
    let at = if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let mut scanner = Scanner { body, at, rested_at: at, fields, limits };
    let strings = scanner.object().await?;
    scanner.blanks().await;
    match scanner.peek() {
        None => Ok(strings),
        Some(_) => Err(scanner.malformed("something follows the object")),
    }
}

struct Scanner<'b> {
    body: &'b Bytes,
    at: usize,
    /// Where the thread was last given to others.
    rested_at: usize,
    fields: Fields,
    limits: JsonLimits,
}

impl Scanner<'_> {
    async fn object(&mut self) -> Result<Vec<Bytes>, Error> {
        self.blanks().await;
        self.open(b'{', format_args!("the body"))?;
        self.blanks().await;
        if self.peek() == Some(b'}') {
            return Err(Error::invalid(format!("the object is empty; expected {}", self.fields)));
        }
        let Fields { one, many, what, breaks: _ } = self.fields;
        let name = self.name().await?;
        let strings = if name == one.as_bytes() {
            self.open(b'"', format_args!("`{one}`"))?;
            vec![self.string().await?]
        } else if name == many.as_bytes() {
            self.list(many, what).await?
        } else {
            return Err(self.unknown_field(&name));
        };
        self.blanks().await;
        match self.next() {
            Some(b'}') => Ok(strings),
            Some(b',') => {
                self.blanks().await;
                let again = self.name().await?;
                Err(self.second_field(&name, &again))
            }
            _ => Err(self.malformed("a field is followed by neither , nor }")),
        }
    }

    /// Reads a field's name and the colon after it.
    async fn name(&mut self) -> Result<Bytes, Error> {
        if self.next() != Some(b'"') {
            return Err(self.malformed("no field's name in quotes"));
        }
        let name = self.string().await?;
        self.blanks().await;
        if self.next() != Some(b':') {
            return Err(self.malformed("no colon after a field's name"));
        }
        self.blanks().await;
        Ok(name)
    }

    async fn list(&mut self, name: &str, what: &str) -> Result<Vec<Bytes>, Error> {
        self.open(b'[', format_args!("`{name}`"))?;
        self.blanks().await;
        let most = self.limits.items;
        if self.peek() == Some(b']') {
            return Err(Error::invalid(format!(
                "`{name}` is empty; expected 1 to {most} items, each {what}"
            )));
        }
        let mut strings = Vec::new();
        loop {
            if strings.len() == most {
                let limit = most as u64;
                return Err(Error::TooLarge { what: self.fields.many, got: Amount::More, limit });
            }
            self.open(b'"', format_args!("item {} of `{name}`", strings.len()))?;
            strings.push(self.string().await?);
            self.blanks().await;
            match self.next() {
                Some(b']') => return Ok(strings),
                Some(b',') => self.blanks().await,
                _ => return Err(self.malformed("an item is followed by neither , nor ]")),
            }
        }
    }

    /// Reads a string whose opening quote has been read.
    async fn string(&mut self) -> Result<Bytes, Error> {
        let start = self.at;
        // Stays empty while the string has no escape.
        let mut resolved = Vec::new();
        let mut kept_to = start;
        loop {
            self.rest().await;
            let window = &self.body[self.at..self.body.len().min(self.at + STEP)];
            let found = memchr2(b'"', b'\\', window);
            let plain = &window[..found.unwrap_or(window.len())];
            let is_kept = |c: u8| self.fields.breaks == Breaks::Kept && matches!(c, b'\t' | b'\n' | b'\r');
            if let Some(control) = plain.iter().position(|c| *c < 0x20 && !is_kept(*c)) {
                self.at += control;
                return Err(self.malformed("a control character in a string; it has to be escaped"));
            }
            self.at += plain.len();
            match self.next() {
                None => return Err(self.malformed("a string has no closing quote")),
                Some(b'"') if kept_to == start => return Ok(self.body.slice(start..self.at - 1)),
                Some(b'"') => {
                    resolved.extend_from_slice(&self.body[kept_to..self.at - 1]);
                    return Ok(resolved.into());
                }
                Some(b'\\') => {
                    resolved.extend_from_slice(&self.body[kept_to..self.at - 1]);
                    let c = self.escape()?;
                    resolved.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    kept_to = self.at;
                }
                // The window ended before the string did.
                Some(_) => self.at -= 1,
            }
        }
    }

    /// Reads an escape whose backslash has been read (RFC 8259, section 7).
    fn escape(&mut self) -> Result<char, Error> {
        match self.next() {
            Some(c @ (b'"' | b'\\' | b'/')) => Ok(char::from(c)),
            Some(b'b') => Ok('\u{8}'),
            Some(b'f') => Ok('\u{c}'),
            Some(b'n') => Ok('\n'),
            Some(b'r') => Ok('\r'),
            Some(b't') => Ok('\t'),
            Some(b'u') => self.unicode_escape(),
            _ => Err(self.malformed(r#"an unknown escape; allowed are \" \\ \/ \b \f \n \r \t \u"#)),
        }
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let unit = self.hex_unit()?;
        let code = match unit {
            // The first half of a surrogate pair: only the two together are a character.
            0xd800..0xdc00 if self.body[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let low = self.hex_unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400);
                low.map(|low| 0x10000 + ((unit - 0xd800) << 10) + low)
            }
            unit => Some(unit),
        };
        code.and_then(char::from_u32).ok_or_else(|| self.malformed(r"half of a surrogate pair after \u"))
    }

    fn hex_unit(&mut self) -> Result<u32, Error> {
        let digits = self.body.get(self.at..self.at + 4);
        let unit = digits.and_then(|digits| {
            digits.iter().try_fold(0, |unit, c| Some(unit * 16 + char::from(*c).to_digit(16)?))
        });
        self.at = self.body.len().min(self.at + 4);
        unit.ok_or_else(|| self.malformed(r"no four hexadecimal digits after \u"))
    }

    async fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
            self.rest().await;
        }
    }

    /// Lets others have the thread once a step is done.
    async fn rest(&mut self) {
        if self.at - self.rested_at >= STEP {
            self.rested_at = self.at;
            yield_now().await;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Reads `byte`, the first of `what`, which is written only where that refuses another value.
    fn open(&mut self, byte: u8, what: Arguments<'_>) -> Result<(), Error> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        let found = match self.peek() {
            Some(b'"') => "a string",
            Some(b'[') => "a list",
            Some(b'{') => "an object",
            Some(b'-' | b'0'..=b'9') => "a number",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            Some(_) => return Err(self.malformed("no value starts like this")),
            None => return Err(self.malformed("it ends too early")),
        };
        check_depth(&self.body[..self.body.len().min(self.at + STEP)], self.limits.depth)?;
        Err(Error::invalid(format!("{what} is {found}; expected {}", self.fields)))
    }

    fn malformed(&self, what: &str) -> Error {
        Error::malformed(format!(
            "the body is not JSON: {what}, at byte {}; expected {}",
            self.at, self.fields
        ))
    }

    fn unknown_field(&self, name: &[u8]) -> Error {
        let Fields { one, many, .. } = self.fields;
        let name = quote(&String::from_utf8_lossy(&name[..name.len().min(STEP)]));
        Error::invalid(format!("unknown field `{name}`; allowed are `{one}` and `{many}`"))
    }

    fn second_field(&self, first: &[u8], second: &[u8]) -> Error {
        let Fields { one, many, .. } = self.fields;
        if second == first {
            let name = String::from_utf8_lossy(first);
            Error::invalid(format!("the field `{name}` is given twice; once is allowed"))
        } else if [one.as_bytes(), many.as_bytes()].contains(&second) {
            Error::invalid(format!("`{one}` and `{many}` are both given; one of them is allowed"))
        } else {
            self.unknown_field(second)
        }
    }
}

/// Refuses nesting deeper than `limit` by counting brackets outside strings. The scanner itself never
/// goes deeper than its own two levels; this gives such bodies their own text.
fn check_depth(body: &[u8], limit: usize) -> Result<(), Error> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at += string_length(&body[at..]),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return Err(Error::malformed(format!(
                "the JSON nests deeper than the {limit} arrays and objects allowed"
            )));
        }
    }
    Ok(())
}

/// Bytes up to and with the closing quote, or all of them where there is none.
fn string_length(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', &rest[at..]) {
        at += found;
        if rest[at] == b'"' {
            return at + 1;
        }
        at = rest.len().min(at + 2);
    }
    rest.len()
}

#[cfg(test)]
mod tests;
