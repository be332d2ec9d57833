//! What is known of a file before a pixel of it is decoded, and how it is refused.
//!
//! Invariant: a size passes [`admit`], and what its decoding takes passes [`afford`], before a pixel is
//! decoded.

use super::{ImageLimits, Size, orientation::Orientation};
use crate::error::{Amount, MediaError};

/// What a walk over a file's segments or chunks finds, without decoding a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) size: Size,
    pub(super) orientation: Orientation,
}

/// Refuses a size beyond the limits, or one of no pixels.
pub(super) fn admit(size: Size, limits: ImageLimits) -> Result<(), MediaError> {
    let side = size.width.max(size.height);
    if size.pixels() == 0 {
        return Err(MediaError::malformed("the image has no pixels: its header says that a side is 0"));
    }
    if side > limits.side {
        let got = Amount::Exactly(side.into());
        return Err(MediaError::TooLarge { what: "image side in pixels", got, limit: limits.side.into() });
    }
    if size.pixels() > limits.pixels {
        let got = Amount::Exactly(size.pixels());
        return Err(MediaError::TooLarge { what: "image pixels", got, limit: limits.pixels });
    }
    Ok(())
}

/// Refuses a picture whose decoder would take `bytes` of memory, where that is more than allowed.
pub(super) fn afford(bytes: u64, limits: ImageLimits) -> Result<(), MediaError> {
    #[cfg(test)]
    afforded::note(bytes);
    if bytes > limits.memory {
        let got = Amount::Exactly(bytes);
        return Err(MediaError::TooLarge {
            what: "memory to decode the image, in bytes",
            got,
            limit: limits.memory,
        });
    }
    Ok(())
}

/// The file ends before its picture does.
pub(super) fn cut_off(format: &str) -> MediaError {
    MediaError::malformed(format!("the {format} is cut off: its file ends before its picture does"))
}

/// The file contradicts its format. `reason` is a decoder's, so it is cut to one short line, and rid of what
/// Rust writes around values.
pub(super) fn damaged(format: &str, reason: impl std::fmt::Display) -> MediaError {
    let reason = reason.to_string();
    let line: String = plain(reason.lines().next().unwrap_or_default()).chars().take(120).collect();
    MediaError::malformed(format!("the {format} is damaged: {}", line.trim_end_matches(['.', ' '])))
}

/// A text without the names of Rust's types: `ChunkType { type: IHDR, .. }` becomes `IHDR`, and
/// `Format("no header")` becomes `no header`.
fn plain(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let Some(open) = text.find(" { ").or_else(|| text.find("(\"")) else { return text.replace("::", " ") };
    let before = text[..open].trim_end_matches(is_name);
    let (inside, after) = match text[open..].strip_prefix(" { ") {
        Some(fields) => {
            let (fields, after) = fields.split_once('}').unwrap_or((fields, ""));
            let first = fields.split(',').next().unwrap_or_default();
            (first.split_once(": ").map_or(first, |(_, value)| value).trim(), after)
        }
        None => {
            let quoted = &text[open + 2..];
            quoted.split_once("\")").unwrap_or((quoted.trim_end_matches('"'), ""))
        }
    };
    format!("{before}{}{}", inside.replace("\\\"", "\"").replace("::", " "), plain(after))
}

/// What this thread was asked to afford, for tests that hold decoding to it.
#[cfg(test)]
pub(super) mod afforded {
    use std::cell::Cell;

    thread_local! {
        static MOST: Cell<u64> = const { Cell::new(0) };
    }

    pub(in super::super) fn note(bytes: u64) {
        MOST.set(MOST.get().max(bytes));
    }

    /// The most bytes since [`forget`].
    pub(in super::super) fn most() -> u64 {
        MOST.get()
    }

    pub(in super::super) fn forget() {
        MOST.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_rid_of_what_rust_writes_around_values() {
        let crc =
            "CRC error: expected 0x1 have 0x2 while decoding ChunkType { type: IHDR, critical: true } chunk.";
        let text = damaged("PNG", crc).to_string();
        assert_eq!(text, "the PNG is damaged: CRC error: expected 0x1 have 0x2 while decoding IHDR chunk");
        for (reason, want) in [
            ("FormatStatic(\"no \\\"SOI\\\" marker\")", "no \"SOI\" marker"),
            ("Error parsing image. image::Format(\"x\") at 5", "Error parsing image. x at 5"),
            ("cut { open", "open"),
            ("Kind(\"open", "open"),
            ("a::b", "a b"),
            ("nothing at all", "nothing at all"),
        ] {
            assert_eq!(plain(reason), want);
        }
    }
}
