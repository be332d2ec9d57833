//! Text for headers and bodies, written straight into one buffer: the formatting machinery takes ten
//! times as long, and every request has some of it.
//!
//! Invariant: JSON that is written here is byte for byte what serde would write.

use serde::Serialize;

/// Appends a whole number in decimal digits.
pub(crate) fn push_number(text: &mut Vec<u8>, n: u64) {
    push_digits(text, n, 1);
}

/// Appends a whole number in at least `least` decimal digits.
pub(crate) fn push_digits(text: &mut Vec<u8>, mut n: u64, least: usize) {
    // As many as the largest number has.
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while n > 0 || digits.len() - first < least {
        first -= 1;
        digits[first] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    text.extend_from_slice(&digits[first..]);
}

/// Appends a text in quotes as JSON.
pub(crate) fn push_text(json: &mut Vec<u8>, text: &str) {
    // Without a way out of the loop it takes many bytes at once.
    let is_plain = text.bytes().fold(true, |plain, c| plain & (c >= 0x20) & (c != b'"') & (c != b'\\'));
    if !is_plain {
        push_json(json, text);
        return;
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

/// Appends a value as JSON.
pub(crate) fn push_json(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Numbers and texts always serialise, and a vector takes all that is written.
    let _written = serde_json::to_writer(json, value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_have_their_own_digits(n: u64) {
            let mut text = Vec::new();
            push_number(&mut text, n);
            prop_assert_eq!(text, n.to_string().into_bytes());
        }

        #[test]
        fn few_digits_are_filled_up(n in 0u64..5000) {
            let mut text = Vec::new();
            push_digits(&mut text, n, 3);
            prop_assert_eq!(text, format!("{n:03}").into_bytes());
        }

        #[test]
        fn any_text_is_written_as_serde_writes_it(text in ".{0,40}|[\"\\\\\u{0}-\u{20}]{0,9}") {
            let mut json = Vec::new();
            push_text(&mut json, &text);
            prop_assert_eq!(json, serde_json::to_vec(&text).unwrap());
        }
    }
}
