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

/// Decodes base64 (RFC 4648, section 4), or a `data:...;base64,` URL (RFC 2397) of it. White space is
/// refused like any other character, with its position.
pub fn decode(text: &[u8]) -> Result<Bytes, Error> {
    let skipped = data_url_prefix(text)?;
    match BASE64.decode(&text[skipped..]) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(Error::malformed(describe(&error, skipped))),
    }
}

/// The longest `data:` prefix that is looked for: media types are short.
const LONGEST_PREFIX: usize = 256;

/// Bytes before the base64 of a `data:` URL; 0 where `text` is none.
pub(super) fn data_url_prefix(text: &[u8]) -> Result<usize, Error> {
    if !text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"data:")) {
        return Ok(0);
    }
    let head = &text[..text.len().min(LONGEST_PREFIX)];
    match head.iter().position(|c| *c == b',') {
        Some(comma) if head[..comma].to_ascii_lowercase().ends_with(b";base64") => Ok(comma + 1),
        _ => Err(Error::malformed("the data: URL is not of the form data:image/jpeg;base64,...")),
    }
}

fn describe(error: &DecodeError, skipped: usize) -> String {
    match error {
        DecodeError::InvalidByte(at, byte) => {
            let found = match byte {
                0x21..=0x7e => format!("`{}`", char::from(*byte)),
                b' ' | b'\t' | b'\r' | b'\n' => "white space".to_owned(),
                byte => format!("the byte 0x{byte:02x}"),
            };
            let at = at + skipped;
            format!("the base64 has {found} at position {at}; allowed are A-Z a-z 0-9 + / and = at the end")
        }
        DecodeError::InvalidLength(length) => {
            format!("the base64 is cut short: {length} characters do not make whole bytes")
        }
        DecodeError::InvalidLastSymbol { offset, .. } => {
            format!(
                "the base64 is cut short: its last character, at position {}, carries bits too many",
                offset + skipped
            )
        }
        DecodeError::InvalidPadding => "the base64 ends in the wrong number of =".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
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
    }

    #[test]
    fn what_is_not_base64_is_refused_with_its_position() {
        insta::assert_snapshot!(refusal("QUJD\nQUJD"), @"the base64 has white space at position 4; allowed are A-Z a-z 0-9 + / and = at the end");
        insta::assert_snapshot!(refusal("QU-D"), @"the base64 has `-` at position 2; allowed are A-Z a-z 0-9 + / and = at the end");
        insta::assert_snapshot!(refusal("data:image/png;base64,QU\u{e9}D"), @"the base64 has the byte 0xc3 at position 24; allowed are A-Z a-z 0-9 + / and = at the end");
        insta::assert_snapshot!(refusal("QUJDQ"), @"the base64 is cut short: 5 characters do not make whole bytes");
        insta::assert_snapshot!(refusal("QUJDQR=="), @"the base64 is cut short: its last character, at position 5, carries bits too many");
        insta::assert_snapshot!(refusal("data:image/png,QUJD"), @"the data: URL is not of the form data:image/jpeg;base64,...");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(BASE64_STANDARD.encode(&bytes).as_bytes()).unwrap(), bytes.clone());
            prop_assert_eq!(decode(BASE64_STANDARD_NO_PAD.encode(&bytes).as_bytes()).unwrap(), bytes);
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&text);
        }
    }
}
