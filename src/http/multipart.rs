//! `multipart/form-data` (RFC 7578), cut out of a body that has already arrived.
//!
//! Invariant: a part is a slice of the body, never a copy, and no more than `most` parts are found,
//! so that what a body costs is bounded by its own bytes.
//!
//! The parser is our own, since multer (which axum uses) copies every part, and its parser of heads
//! refuses the folded lines and the bare line feeds that mail libraries write.

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
    /// The name that a part should have: `image`. Its plural serves as well, and either with the `[]` that
    /// libraries add to the names of lists.
    pub(super) field: &'static str,
    /// Their plural, for texts: `images`.
    pub(super) many: &'static str,
    /// How many there may be.
    pub(super) most: usize,
}

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) content: Bytes,
    pub(super) encoding: Encoding,
}

/// How a part's content is written (`Content-Transfer-Encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Plain,
    /// In base64, as mail libraries write attachments.
    Base64,
}

/// Cuts the parts out of `body`, in order: at least one, at most `expected.most`.
pub(super) async fn parts(body: &Bytes, boundary: &str, expected: Expected) -> Result<Vec<Part>, Error> {
    let bare = format!("--{boundary}");
    let mut at = first_delimiter(body, bare.as_bytes()).await.ok_or_else(|| {
        Error::malformed("the multipart body does not contain the boundary that its content type names")
    })?;
    let lines = LineBreak::after(&body[at..]);
    let delimiter = format!("{}{bare}", lines.text());
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            break;
        }
        let head_at = at + line_end(rest, lines)?;
        if parts.len() == expected.most {
            return Err(Error::TooLarge {
                what: expected.many,
                got: Amount::More,
                limit: expected.most as u64,
            });
        }
        let head = &body[head_at..];
        let Head { length, encoding } = read_head(head, lines, parts.len(), expected)?;
        let content_at = head_at + length;
        let Some(length) = find(&finder, &body[content_at..]).await else {
            return Err(Error::malformed(format!(
                "part {} of the multipart body has no end: the closing boundary is missing",
                parts.len()
            )));
        };
        parts.push(Part { content: body.slice(content_at..content_at + length), encoding });
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

/// How the lines of a body end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineBreak {
    /// As the standard has it.
    CrLf,
    /// As mail libraries and shell scripts have it.
    Lf,
}

impl LineBreak {
    /// Reads what ends the line of the first delimiter.
    fn after(delimiter: &[u8]) -> Self {
        let blanks = blanks(delimiter);
        if delimiter[blanks..].starts_with(b"\n") { Self::Lf } else { Self::CrLf }
    }

    fn text(self) -> &'static str {
        match self {
            Self::CrLf => "\r\n",
            Self::Lf => "\n",
        }
    }
}

/// Finds the place after the first delimiter, which begins the body or a line.
async fn first_delimiter(body: &[u8], bare: &[u8]) -> Option<usize> {
    if body.starts_with(bare) {
        return Some(bare.len());
    }
    let line = [b"\n", bare].concat();
    find(&memmem::Finder::new(&line), body).await.map(|at| at + line.len())
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

/// Counts the bytes up to and with the line break that ends a delimiter; spaces may stand before it.
fn line_end(rest: &[u8], lines: LineBreak) -> Result<usize, Error> {
    let blanks = blanks(rest);
    if rest[blanks..].starts_with(lines.text().as_bytes()) {
        return Ok(blanks + lines.text().len());
    }
    Err(Error::malformed("a boundary in the multipart body is followed by neither a line break nor `--`"))
}

fn blanks(rest: &[u8]) -> usize {
    rest.iter().take(LONGEST_HEAD).take_while(|c| matches!(c, b' ' | b'\t')).count()
}

/// What the head of a part says.
struct Head {
    /// Bytes up to the content.
    length: usize,
    encoding: Encoding,
}

/// Reads and checks the head of part `idx`.
fn read_head(rest: &[u8], lines: LineBreak, idx: usize, expected: Expected) -> Result<Head, Error> {
    let head = &rest[..rest.len().min(LONGEST_HEAD)];
    let (line, empty) = (lines.text(), lines.text().repeat(2));
    let Some(end) = memmem::find(head, empty.as_bytes()) else {
        return Err(Error::malformed(format!(
            "the head of part {idx} of the multipart body does not end within {LONGEST_HEAD} bytes"
        )));
    };
    // A line that begins with a blank goes on with the one before it (RFC 5322, section 2.2.3).
    let text = String::from_utf8_lossy(&head[..end]);
    let text = text.replace(&format!("{line} "), " ").replace(&format!("{line}\t"), " ");
    let value = |name: &str| {
        let mut fields = text.split(line).filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let field = expected.field;
    let disposition = value("content-disposition").map(MediaType::parse);
    match disposition.as_ref().and_then(|disposition| disposition.parameter("name")) {
        Some(name) if [field, expected.many].contains(&name.strip_suffix("[]").unwrap_or(name)) => {}
        Some(name) => {
            return Err(Error::malformed(format!(
                "part {idx} of the multipart body is named `{}`; allowed is `{field}`",
                quote(name)
            )));
        }
        None => {
            return Err(Error::malformed(format!(
                "part {idx} of the multipart body has no name; expected `content-disposition: form-data; name=\"{field}\"`"
            )));
        }
    }
    let encoding = match value("content-transfer-encoding").map(str::to_ascii_lowercase).as_deref() {
        None | Some("binary" | "8bit" | "7bit") => Encoding::Plain,
        Some("base64") => Encoding::Base64,
        Some(other) => {
            let got = format!("the content-transfer-encoding `{}` of part {idx}", quote(other));
            return Err(Error::Unsupported { got, allowed: "allowed are binary and base64" });
        }
    };
    Ok(Head { length: end + empty.len(), encoding })
}

#[cfg(test)]
mod tests;
