//! Texts to ids: a Hugging Face tokenizer with bounded work, and the lengths that rows are padded to.
//!
//! Invariant: the work for a text is bounded by the model's `max_tokens`, not by the text's length,
//! and reading less of a text never changes the ids that are kept.

mod buckets;
mod language;
mod languages;
mod plain;
mod truncation;
pub mod wordpiece;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PostProcessor, PreTokenizedString,
    PreTokenizer,
};

use self::plain::{Ids, Plain};
pub use self::{
    buckets::Buckets, language::Supported, languages::Language, truncation::TruncationSide,
    wordpiece::WordPieceSpec,
};
use crate::error::MediaError;

/// Bytes read for each token that may be kept: at first, and at most. English takes 4 to 5.
const FIRST_BYTES: usize = 16;
const MOST_BYTES: usize = 256;

/// Tokens that a part of a text must hold beyond those that are kept: where a part ends, its last
/// tokens may differ from those of the whole text.
const MARGIN: usize = 16;

/// Whether a text was longer than its model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncated {
    No,
    Yes,
}

/// A text as its model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// At least one id, at most the tokenizer's `max_tokens`.
    pub ids: Vec<u32>,
    pub truncated: Truncated,
}

/// How much of a text is kept, and which end of it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Most tokens, the special ones that the tokenizer adds among them.
    pub max_tokens: usize,
    pub side: TruncationSide,
}

/// What a tokenizer makes of white space around a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outer {
    /// Nothing: it may be skipped before any work.
    Nothing,
    /// Tokens, or other tokens beside it.
    Tokens,
}

/// Splits texts into the ids of tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The short way, where every part of the tokenizer is known.
    plain: Option<Plain>,
    outer: Outer,
    /// The ids that are put before and behind every text.
    around: [Vec<u32>; 2],
    /// Most tokens of the text itself, without those that are put around it.
    room: usize,
    side: TruncationSide,
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`. Its own cutting and padding are ignored: texts are
    /// cut as `limit` says, counting the special tokens that it puts around them.
    ///
    /// # Errors
    /// A text for the log that says why the file cannot be used.
    pub fn from_json(json: &[u8], limit: Limit) -> Result<Self, String> {
        // The library panics about some files instead of refusing them.
        catch_unwind(|| Self::read(json, limit))
            .unwrap_or_else(|_| Err("the library that reads tokenizers cannot read it".to_owned()))
    }

    fn read(json: &[u8], limit: Limit) -> Result<Self, String> {
        let Limit { max_tokens, side } = limit;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        // A caller who writes "[PAD]" means these characters, not the network's padding.
        inner.set_encode_special_tokens(true);
        let n_added = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let room = max_tokens.checked_sub(n_added).filter(|room| *room > 0).ok_or_else(|| {
            format!("max_tokens is {max_tokens}, but the tokenizer itself adds {n_added} to each text")
        })?;
        let probe = inner.encode_fast("a", true).map_err(|e| format!("it cannot encode a text: {e}"))?;
        let special = probe.get_special_tokens_mask();
        let n_before = special.iter().take_while(|special| **special == 1).count();
        let n_behind = special.iter().rev().take_while(|special| **special == 1).count();
        let ids = probe.get_ids();
        let around =
            [ids[..n_before].to_vec(), ids[ids.len() - n_behind.min(ids.len() - n_before)..].to_vec()];
        let plain = Plain::of(json).filter(|_| n_before + n_behind == n_added);
        let outer = outer(&inner).map_err(|e| format!("it cannot encode a text: {e}"))?;
        Ok(Self { inner, plain, outer, around, room, side })
    }

    /// How many ids there are: each is below it, unless the file leaves some out.
    pub fn n_words(&self) -> u32 {
        u32::try_from(self.inner.get_vocab_size(true)).unwrap_or(u32::MAX)
    }

    /// The fewest tokens that a text has: one of its own, and those that are put around it.
    pub fn shortest(&self) -> usize {
        self.around.iter().map(Vec::len).sum::<usize>() + 1
    }

    /// Splits a text, white space around it included, as far as the tokenizer reads it.
    ///
    /// # Errors
    /// [`MediaError::Invalid`] for a text of no tokens, and for one that a pattern of the tokenizer cannot split
    /// within the steps that it may take.
    pub fn encode(&self, text: &str) -> Result<Encoded, MediaError> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(MediaError::invalid("there is no text: send at least one word"));
        }
        let text = if self.outer == Outer::Nothing { trimmed } else { text };
        // The library panics where the engine of its patterns gives up (10 million steps back in one match).
        let encoded = catch_unwind(AssertUnwindSafe(|| match self.encode_plainly(text) {
            Some(encoded) => Ok(encoded),
            None => self.encode_by_library(text),
        }));
        let encoded = encoded.unwrap_or_else(|_| {
            Err(MediaError::invalid(
                "a pattern of the model's tokenizer takes too many steps on this text: send it in parts",
            ))
        })?;
        if encoded.ids.is_empty() {
            return Err(MediaError::invalid(
                "the text holds nothing that the model reads: send at least one word",
            ));
        }
        Ok(encoded)
    }

    /// Takes the short way, where tokenizer and text allow it. No ids where the text holds none.
    fn encode_plainly(&self, text: &str) -> Option<Encoded> {
        let plain = self.plain.as_ref().filter(|_| self.side == TruncationSide::Right)?;
        let part = beginning(text, (self.room + MARGIN) * MOST_BYTES);
        let Ids { ids, more } = plain.encode(part, self.room)?;
        let truncated = if more || part.len() < text.len() { Truncated::Yes } else { Truncated::No };
        let [before, behind] = &self.around;
        let ids = if ids.is_empty() { ids } else { [before.as_slice(), &ids, behind].concat() };
        Some(Encoded { ids, truncated })
    }

    fn encode_by_library(&self, text: &str) -> Result<Encoded, MediaError> {
        let (part, mut encoding) = self.encode_enough(text)?;
        if encoding.is_empty() {
            return Ok(Encoded { ids: Vec::new(), truncated: Truncated::No });
        }
        let is_cut = part.len() < text.len() || encoding.len() > self.room;
        encoding.truncate(
            self.room,
            0,
            match self.side {
                TruncationSide::Right => tokenizers::TruncationDirection::Right,
                TruncationSide::Left => tokenizers::TruncationDirection::Left,
            },
        );
        let encoding = self.inner.post_process(encoding, None, true).map_err(|e| fault(&e))?;
        let truncated = if is_cut { Truncated::Yes } else { Truncated::No };
        Ok(Encoded { ids: encoding.get_ids().to_vec(), truncated })
    }

    /// Encodes as little of a text as surely holds every token that is kept. A text that has fewer
    /// in [`MOST_BYTES`] for each is no prose, and is read no further.
    fn encode_enough<'a>(&self, text: &'a str) -> Result<(&'a str, tokenizers::Encoding), MediaError> {
        let enough = self.room + MARGIN;
        let encode = |part: &str| self.inner.encode_fast(part, false).map_err(|e| fault(&e));
        if self.side == TruncationSide::Left {
            // How a text is split may depend on all that stands before: as much is read as ever is.
            let part = ending(text, enough * MOST_BYTES);
            return Ok((part, encode(part)?));
        }
        let mut bytes_each = FIRST_BYTES;
        loop {
            let part = beginning(text, enough * bytes_each);
            let encoding = encode(part)?;
            let is_whole = part.len() == text.len();
            if is_whole || encoding.len() >= enough || bytes_each >= MOST_BYTES {
                return Ok((part, encoding));
            }
            bytes_each *= 4;
        }
    }
}

/// Finds out what a tokenizer makes of each character of white space before and behind a text: the model
/// sees no more than the pieces that the text was split into.
fn outer(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<Outer> {
    let pieces = |text: &str| -> tokenizers::Result<Vec<String>> {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = tokenizer.get_normalizer() {
            normalizer.normalize(&mut normalized)?;
        }
        let mut split = PreTokenizedString::from(normalized);
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut split)?;
        }
        let pieces = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(pieces.into_iter().map(|(piece, ..)| piece.to_owned()).filter(|piece| !piece.is_empty()).collect())
    };
    let inner = pieces("a b")?;
    for space in (0..=0x3000).filter_map(char::from_u32).filter(|c| c.is_whitespace()) {
        if pieces(&format!("{space}{space}a b{space}"))? != inner {
            return Ok(Outer::Tokens);
        }
    }
    Ok(Outer::Nothing)
}

fn fault(reason: &dyn std::fmt::Display) -> MediaError {
    MediaError::Internal(format!("the tokenizer failed: {reason}"))
}

/// At most `most` bytes of a text, up to white space if there is any, or else up to a character.
fn beginning(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let part = &text[..text.floor_char_boundary(most)];
    match part.rfind(char::is_whitespace) {
        Some(end) if end > 0 => &part[..end],
        _ => part,
    }
}

/// At most the last `most` bytes of a text, from white space on if there is any, or else from a character.
fn ending(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let part = &text[text.ceil_char_boundary(text.len() - most)..];
    part.find(char::is_whitespace).map_or(part, |start| &part[start..])
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
