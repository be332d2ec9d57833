//! Decodes images that came as text. Part of a task's preparing, so that a worker pays for it.

use base64::{
    DecodeError, Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;

use crate::error::Error;

/// Padding may be missing, as many encoders leave it out.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64, or a `data:...;base64,` URL of it (RFC 2397), as encoders write it: in the usual or the
/// URL-safe alphabet (RFC 4648, sections 4 and 5), with padding or without, and in lines (MIME, RFC 2045).
///
/// # Errors
/// [`Error::Malformed`] with the position of what is not base64, and for blanks that may have been a `+`.
pub fn decode(text: &[u8]) -> Result<Bytes, Error> {
    let written = Written::of(text)?;
    if let Ok(bytes) = BASE64.decode(written.text) {
        return Ok(bytes.into());
    }
    written.check_blanks()?;
    let plain: Vec<u8> = written.characters().map(|(_, c)| c).collect();
    match BASE64.decode(plain) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(Error::malformed(written.describe(&error))),
    }
}

/// The longest `data:` prefix that is looked for: media types are short.
const LONGEST_PREFIX: usize = 256;

/// Base64 as somebody wrote it.
struct Written<'a> {
    text: &'a [u8],
    /// Bytes that stand before it.
    skipped: usize,
    escapes: Escapes,
}

/// Whether `%2B` stands for a character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    /// As in a URL.
    Percent,
}

impl<'a> Written<'a> {
    fn of(text: &'a [u8]) -> Result<Self, Error> {
        let start = text.len() - text.trim_ascii_start().len();
        let (skipped, escapes) = match data_url_prefix(&text[start..])? {
            0 => (start, Escapes::None),
            prefix => (start + prefix, Escapes::Percent),
        };
        Ok(Self { text: &text[skipped..], skipped, escapes })
    }

    /// The characters of the usual alphabet, each with the position that it was written at. White space is
    /// left out.
    fn characters(&self) -> impl Iterator<Item = (usize, u8)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while self.text.get(at)?.is_ascii_whitespace() {
                at += 1;
            }
            let from = at;
            let escaped = (self.escapes == Escapes::Percent).then(|| percent(&self.text[at..])).flatten();
            at += if escaped.is_some() { 3 } else { 1 };
            let c = match escaped.unwrap_or(self.text[from]) {
                b'-' => b'+',
                b'_' => b'/',
                c => c,
            };
            Some((from, c))
        })
    }

    /// Refuses blanks inside a line that may have been a `+` once, which forms and URLs turn into a blank:
    /// to leave them out would give other bytes. Where there is a `+`, or where the blanks part groups of one
    /// length, they have not.
    fn check_blanks(&self) -> Result<(), Error> {
        let is_inside = |at: usize| {
            let beside = |c: Option<&u8>| c.is_some_and(|c| !c.is_ascii_whitespace());
            self.text[at] == b' ' && at > 0 && beside(self.text.get(at - 1)) && beside(self.text.get(at + 1))
        };
        let Some(at) = (0..self.text.len()).find(|at| is_inside(*at)) else { return Ok(()) };
        let groups = self.text.split(u8::is_ascii_whitespace).map(<[u8]>::len).filter(|length| *length > 0);
        let lengths: Vec<usize> = groups.collect();
        let is_even = lengths.iter().all(|length| length % 4 == 0)
            && lengths.windows(2).all(|pair| pair[0] >= pair[1])
            && lengths[..lengths.len() - 1].windows(2).all(|pair| pair[0] == pair[1]);
        if is_even || self.characters().any(|(_, c)| c == b'+') {
            return Ok(());
        }
        Err(Error::malformed(format!(
            "the base64 has a blank at position {} and no +; a + that a form or a URL turned into a blank has to \
             be sent as %2B",
            at + self.skipped
        )))
    }

    fn describe(&self, error: &DecodeError) -> String {
        let origin = |at: usize| {
            let found = self.characters().nth(at);
            found.map_or(self.text.len(), |(at, _)| at) + self.skipped
        };
        match error {
            DecodeError::InvalidByte(at, byte) => {
                let found = match byte {
                    0x21..=0x7e => format!("`{}`", char::from(*byte)),
                    byte => format!("the byte 0x{byte:02x}"),
                };
                let at = origin(*at);
                format!(
                    "the base64 has {found} at position {at}; allowed are A-Z a-z 0-9 + / - _ and = at the end"
                )
            }
            DecodeError::InvalidLength(length) => {
                format!("the base64 is cut short: {length} characters do not make whole bytes")
            }
            DecodeError::InvalidLastSymbol { offset, .. } => {
                format!(
                    "the base64 is cut short: its last character, at position {}, carries bits too many",
                    origin(*offset)
                )
            }
            DecodeError::InvalidPadding => "the base64 ends in the wrong number of =".to_owned(),
        }
    }
}

/// Bytes before the base64 of a `data:` URL; 0 where `text` is none.
pub(super) fn data_url_prefix(text: &[u8]) -> Result<usize, Error> {
    if !text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"data:")) {
        return Ok(0);
    }
    let head = &text[..text.len().min(LONGEST_PREFIX)];
    match head.iter().position(|c| *c == b',') {
        Some(comma) if head[..comma].trim_ascii_end().to_ascii_lowercase().ends_with(b";base64") => {
            Ok(comma + 1)
        }
        _ => Err(Error::malformed("the data: URL is not of the form data:image/jpeg;base64,...")),
    }
}

/// The byte that `%` and two hexadecimal digits stand for.
fn percent(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = *text else { return None };
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        match decode(text.as_bytes()) {
            Err(Error::Malformed(text)) => text.into_owned(),
            other => panic!("expected malformed base64, found {other:?}"),
        }
    }

    #[test]
    fn a_data_url_is_decoded_like_what_it_holds() {
        assert_eq!(decode(b"QUJD").unwrap(), "ABC");
        assert_eq!(decode(b"data:image/png;base64,QUJD").unwrap(), "ABC");
        assert_eq!(decode(b"DATA:;BASE64,QUI").unwrap(), "AB");
        assert_eq!(decode(b"\n data:image/png;charset=utf-8;base64, QUI%3D\n").unwrap(), "AB");
        assert_eq!(decode(b"data:;base64,%2B%2f-_").unwrap(), [0xfb, 0xff, 0xbf].as_slice());
    }

    #[test]
    fn what_is_not_base64_is_refused_with_its_position() {
        insta::assert_snapshot!(refusal("QU.D"), @"the base64 has `.` at position 2; allowed are A-Z a-z 0-9 + / - _ and = at the end");
        insta::assert_snapshot!(refusal("QUJD\r\nQU.D"), @"the base64 has `.` at position 8; allowed are A-Z a-z 0-9 + / - _ and = at the end");
        insta::assert_snapshot!(refusal("data:image/png;base64,QU\u{e9}D"), @"the base64 has the byte 0xc3 at position 24; allowed are A-Z a-z 0-9 + / - _ and = at the end");
        insta::assert_snapshot!(refusal("QUI=QUJD"), @"the base64 has `=` at position 3; allowed are A-Z a-z 0-9 + / - _ and = at the end");
        insta::assert_snapshot!(refusal("QU%3D"), @"the base64 has `%` at position 2; allowed are A-Z a-z 0-9 + / - _ and = at the end");
        insta::assert_snapshot!(refusal("QUJDQ"), @"the base64 is cut short: 5 characters do not make whole bytes");
        insta::assert_snapshot!(refusal("QUJD\nQR=="), @"the base64 is cut short: its last character, at position 6, carries bits too many");
        insta::assert_snapshot!(refusal("data:image/png,QUJD"), @"the data: URL is not of the form data:image/jpeg;base64,...");
    }

    #[test]
    fn a_blank_that_was_a_plus_is_not_left_out() {
        let bytes: Vec<u8> = (0..=255).rev().collect();
        let text = BASE64_STANDARD.encode(&bytes);
        assert!(text.contains('+'));
        insta::assert_snapshot!(refusal(&text.replace('+', " ")), @"the base64 has a blank at position 8 and no +; a + that a form or a URL turned into a blank has to be sent as %2B");
        let in_fours: Vec<&str> =
            (0..text.len()).step_by(4).map(|at| &text[at..text.len().min(at + 4)]).collect();
        assert_eq!(decode(in_fours.join(" ").as_bytes()).unwrap(), bytes);
    }

    /// Text in lines of that many characters.
    fn in_lines(text: &str, length: usize, line_break: &str) -> String {
        let lines: Vec<&str> =
            (0..text.len()).step_by(length).map(|at| &text[at..text.len().min(at + length)]).collect();
        lines.join(line_break) + line_break
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_however_they_were_written(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 1usize..80) {
            for engine in [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD] {
                let text = engine.encode(&bytes);
                prop_assert_eq!(decode(text.as_bytes()).unwrap(), bytes.clone());
                for line_break in ["\n", "\r\n", "\r\n\t", " \n    "] {
                    let lines = in_lines(&text, length, line_break);
                    prop_assert_eq!(decode(lines.as_bytes()).unwrap(), bytes.clone());
                    let url = format!("data:image/jpeg;base64,{lines}").replace('+', "%2B").replace('=', "%3d");
                    prop_assert_eq!(decode(url.as_bytes()).unwrap(), bytes.clone());
                }
            }
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&text);
            let _ = decode(&[b"data:;base64,", text.as_slice()].concat());
        }
    }
}
