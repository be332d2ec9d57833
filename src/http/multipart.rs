//! `multipart/form-data` (RFC 7578), cut out of a body that has already arrived.
//!
//! Invariant: a part is a slice of the body, never a copy, and no more than `most` parts are found,
//! so that what a body costs is bounded by its own bytes.

use bytes::Bytes;
use memchr::memmem;
use tokio::task::yield_now;

use super::{body::STEP, extract::MediaType, problem::quote};
use crate::error::{Amount, Error};

/// The longest head of one part: a few short lines.
const LONGEST_HEAD: usize = 4096;

/// Which parts a body may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The only name that a part may have: `image`.
    pub(super) field: &'static str,
    /// Their plural, for texts: `images`.
    pub(super) many: &'static str,
    /// How many there may be.
    pub(super) most: usize,
}

/// Cuts the parts out of `body`, in order: at least one, at most `expected.most`.
pub(super) async fn parts(body: &Bytes, boundary: &str, expected: Expected) -> Result<Vec<Bytes>, Error> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut at = first_delimiter(body, &finder).await.ok_or_else(|| {
        Error::malformed("the multipart body does not contain the boundary that its content type names")
    })?;
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            break;
        }
        let head_at = at + line_end(rest)?;
        if parts.len() == expected.most {
            return Err(Error::TooLarge {
                what: expected.many,
                got: Amount::More,
                limit: expected.most as u64,
            });
        }
        let content_at = head_at + read_head(&body[head_at..], parts.len(), expected.field)?;
        let Some(length) = find(&finder, &body[content_at..]).await else {
            return Err(Error::malformed(format!(
                "part {} of the multipart body has no end: the closing boundary is missing",
                parts.len()
            )));
        };
        parts.push(body.slice(content_at..content_at + length));
        at = content_at + length + delimiter.len();
    }
    if parts.is_empty() {
        return Err(Error::invalid(format!(
            "the multipart body has no part; expected 1 to {} named `{}`",
            expected.most, expected.field
        )));
    }
    Ok(parts)
}

/// The place after the first delimiter, which may lack the line break before it.
async fn first_delimiter(body: &[u8], finder: &memmem::Finder<'_>) -> Option<usize> {
    let bare = &finder.needle()[2..];
    if body.starts_with(bare) {
        return Some(bare.len());
    }
    find(finder, body).await.map(|at| at + finder.needle().len())
}

/// Finds the delimiter step by step, so that others get their turn; steps overlap, since it may lie
/// across their border.
async fn find(finder: &memmem::Finder<'_>, body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = body.len().min(at + STEP + finder.needle().len());
        if let Some(found) = finder.find(&body[at..end]) {
            return Some(at + found);
        }
        if end == body.len() {
            return None;
        }
        at += STEP;
        yield_now().await;
    }
}

/// Bytes up to and with the line break that ends a delimiter; spaces may stand before it.
fn line_end(rest: &[u8]) -> Result<usize, Error> {
    let blanks = rest.iter().take(LONGEST_HEAD).take_while(|c| matches!(c, b' ' | b'\t')).count();
    if rest[blanks..].starts_with(b"\r\n") {
        return Ok(blanks + 2);
    }
    Err(Error::malformed("a boundary in the multipart body is followed by neither a line break nor `--`"))
}

/// Checks the head of part `idx`; gives the bytes up to its content.
fn read_head(rest: &[u8], idx: usize, field: &str) -> Result<usize, Error> {
    let head = &rest[..rest.len().min(LONGEST_HEAD)];
    let Some(end) = memmem::find(head, b"\r\n\r\n") else {
        return Err(Error::malformed(format!(
            "the head of part {idx} of the multipart body does not end within {LONGEST_HEAD} bytes"
        )));
    };
    let text = String::from_utf8_lossy(&head[..end]);
    let disposition = text
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))
        .and_then(|(_, value)| MediaType::parse(value))
        .filter(|disposition| disposition.essence == "form-data");
    match disposition.as_ref().and_then(|disposition| disposition.parameter("name")) {
        Some(name) if name == field => Ok(end + 4),
        Some(name) => Err(Error::malformed(format!(
            "part {idx} of the multipart body is named `{}`; allowed is `{field}`",
            quote(name)
        ))),
        None => Err(Error::malformed(format!(
            "part {idx} of the multipart body has no name; expected `content-disposition: form-data; name=\"{field}\"`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGES: Expected = Expected { field: "image", many: "images", most: 3 };

    fn part(name: &str, content: &[u8]) -> Vec<u8> {
        let mut part =
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a;b.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n")
                .into_bytes();
        part.extend_from_slice(content);
        part.extend_from_slice(b"\r\n");
        part
    }

    fn form(contents: &[&[u8]]) -> Bytes {
        let mut body: Vec<u8> = contents.iter().flat_map(|content| part("image", content)).collect();
        body.extend_from_slice(b"--XX--\r\n");
        body.into()
    }

    fn cut(body: &Bytes) -> Result<Vec<Bytes>, Error> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(parts(body, "XX", IMAGES))
    }

    fn refusal(body: impl Into<Bytes>) -> String {
        match cut(&body.into()) {
            Err(Error::Malformed(text)) => text.into_owned(),
            other => panic!("expected a malformed body, found {other:?}"),
        }
    }

    #[test]
    fn parts_are_slices_of_the_body() {
        let body = form(&[b"one", b"", b"\r\n--X three\r\n"]);
        let parts = cut(&body).unwrap();
        assert_eq!(parts, [&b"one"[..], b"", b"\r\n--X three\r\n"]);
        assert!(body.as_ptr_range().contains(&parts[0].as_ptr()));
    }

    #[test]
    fn a_preamble_and_an_epilogue_are_skipped() {
        let mut body = b"not for us\r\n".to_vec();
        body.extend_from_slice(&form(&[b"one"]));
        body.extend_from_slice(b"nor this");
        assert_eq!(cut(&body.into()).unwrap(), [&b"one"[..]]);
    }

    #[test]
    fn what_is_not_a_form_is_refused() {
        insta::assert_snapshot!(refusal("--YY\r\n"), @"the multipart body does not contain the boundary that its content type names");
        insta::assert_snapshot!(refusal("--XXjunk\r\n"), @"a boundary in the multipart body is followed by neither a line break nor `--`");
        insta::assert_snapshot!(refusal("--XX\r\nContent-Disposition: form-data"), @"the head of part 0 of the multipart body does not end within 4096 bytes");
        insta::assert_snapshot!(refusal("--XX\r\nContent-Type: image/png\r\n\r\nabc\r\n--XX--"), @r#"part 0 of the multipart body has no name; expected `content-disposition: form-data; name="image"`"#);
        insta::assert_snapshot!(refusal([part("image", b"a"), part("file", b"b")].concat()), @"part 1 of the multipart body is named `file`; allowed is `image`");
        let open = form(&[b"one", b"two"]);
        insta::assert_snapshot!(refusal(open.slice(..open.len() - 12)), @"part 1 of the multipart body has no end: the closing boundary is missing");
    }

    #[test]
    fn a_form_without_parts_is_invalid() {
        let error = cut(&Bytes::from_static(b"--XX--\r\n")).unwrap_err();
        assert_eq!(error, Error::invalid("the multipart body has no part; expected 1 to 3 named `image`"));
    }

    #[test]
    fn a_delimiter_across_two_steps_is_found() {
        for length in STEP - 60..STEP + 10 {
            let content = vec![b'\r'; length];
            assert!(cut(&form(&[&content, b"next"])).unwrap() == [&content[..], b"next"], "{length}");
        }
    }

    #[test]
    fn a_part_too_many_is_too_large() {
        let error = cut(&form(&[b"a".as_slice(); 10_000])).unwrap_err();
        assert_eq!(error, Error::TooLarge { what: "images", got: Amount::More, limit: 3 });
    }

    proptest! {
        #[test]
        fn contents_come_back_as_they_were(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..4)) {
            let slices: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            prop_assume!(slices.iter().all(|content| memmem::find(content, b"--XX").is_none()));
            prop_assert_eq!(cut(&form(&slices)).unwrap(), contents);
        }

        #[test]
        fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), 0..100), at in 0usize..200) {
            let whole = form(&[b"one", b"two"]);
            let _ = cut(&whole.slice(..at.min(whole.len())));
            let _ = cut(&[b"--XX".to_vec(), tail].concat().into());
        }
    }
}
