//! Texts to ids: a Hugging Face tokenizer with bounded work, and the lengths that rows are padded to.
//!
//! Invariant: the work for a text is bounded by the model's `max_tokens`, not by the text's length,
//! and reading less of a text never changes the ids that are kept.

mod plain;

use tokenizers::{PostProcessor, TruncationDirection};

use self::plain::{Ids, Plain};
use crate::error::Error;

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

/// Splits texts into the ids of tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The short way, where every part of the tokenizer is known.
    plain: Option<Plain>,
    /// The ids that are put before and behind every text.
    around: [Vec<u32>; 2],
    /// Most tokens of the text itself, without those that are put around it.
    room: usize,
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`. Its own cutting and padding are ignored: texts are
    /// cut at `max_tokens`, counting the special tokens that it puts around them.
    ///
    /// # Errors
    /// A text for the log that says why the file cannot be used.
    pub fn from_json(json: &[u8], max_tokens: usize) -> Result<Self, String> {
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
        Ok(Self { inner, plain, around, room })
    }

    /// How many ids there are: each is below it, unless the file leaves some out.
    pub fn n_words(&self) -> u32 {
        u32::try_from(self.inner.get_vocab_size(true)).unwrap_or(u32::MAX)
    }

    /// Splits a text, without the white space around it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text of no tokens.
    pub fn encode(&self, text: &str) -> Result<Encoded, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::invalid("there is no text: send at least one word"));
        }
        let encoded = match self.encode_plainly(text) {
            Some(encoded) => encoded,
            None => self.encode_by_library(text)?,
        };
        if encoded.ids.is_empty() {
            return Err(Error::invalid(
                "the text holds nothing that the model reads: send at least one word",
            ));
        }
        Ok(encoded)
    }

    /// Takes the short way, where tokenizer and text allow it. No ids where the text holds none.
    fn encode_plainly(&self, text: &str) -> Option<Encoded> {
        let part = beginning(text, (self.room + MARGIN) * MOST_BYTES);
        let Ids { ids, more } = self.plain.as_ref()?.encode(part, self.room)?;
        let truncated = if more || part.len() < text.len() { Truncated::Yes } else { Truncated::No };
        let [before, behind] = &self.around;
        let ids = if ids.is_empty() { ids } else { [before.as_slice(), &ids, behind].concat() };
        Some(Encoded { ids, truncated })
    }

    fn encode_by_library(&self, text: &str) -> Result<Encoded, Error> {
        let (part, mut encoding) = self.encode_enough(text)?;
        if encoding.is_empty() {
            return Ok(Encoded { ids: Vec::new(), truncated: Truncated::No });
        }
        let is_cut = part.len() < text.len() || encoding.len() > self.room;
        encoding.truncate(self.room, 0, TruncationDirection::Right);
        let encoding = self.inner.post_process(encoding, None, true).map_err(|e| fault(&e))?;
        let truncated = if is_cut { Truncated::Yes } else { Truncated::No };
        Ok(Encoded { ids: encoding.get_ids().to_vec(), truncated })
    }

    /// Encodes as little of a text as surely holds every token that is kept. A text that has fewer
    /// in its first [`MOST_BYTES`] for each is no prose, and is read no further.
    fn encode_enough<'a>(&self, text: &'a str) -> Result<(&'a str, tokenizers::Encoding), Error> {
        let enough = self.room + MARGIN;
        let mut bytes_each = FIRST_BYTES;
        loop {
            let part = beginning(text, enough * bytes_each);
            let encoding = self.inner.encode_fast(part, false).map_err(|e| fault(&e))?;
            let is_whole = part.len() == text.len();
            if is_whole || encoding.len() >= enough || bytes_each >= MOST_BYTES {
                return Ok((part, encoding));
            }
            bytes_each *= 4;
        }
    }
}

fn fault(reason: &dyn std::fmt::Display) -> Error {
    Error::Internal(format!("the tokenizer failed: {reason}"))
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

/// The lengths that rows are padded to: rows of one length share a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    lengths: Vec<usize>,
}

impl Buckets {
    /// Makes the shortest table for texts of 1 to `max_tokens` tokens in which at most a quarter of
    /// any padded row is padding.
    pub fn new(max_tokens: usize) -> Self {
        // A row of one token more than the last length is the emptiest: it needs 3/4 of the next.
        let next = |length: &usize| Some((length + 1) * 4 / 3);
        let lengths = std::iter::successors(Some(1), next)
            .take_while(|length| *length < max_tokens)
            .chain([max_tokens])
            .collect();
        Self { lengths }
    }

    /// Every length, ascending.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The length that a row of `tokens` is padded to; the longest for more than it holds.
    pub fn of(&self, tokens: usize) -> usize {
        let at = self.lengths.partition_point(|length| *length < tokens);
        self.lengths.get(at).or(self.lengths.last()).copied().unwrap_or(tokens)
    }
}

#[cfg(test)]
#[path = "../tests/it/fixtures/tokenizers.rs"]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(max_tokens: usize) -> Tokenizer {
        Tokenizer::from_json(fixtures::plain().as_bytes(), max_tokens).unwrap()
    }

    /// The ids of the whole text, however long it is, cut afterwards.
    fn slowly(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let mut ids = tokenizer.inner.encode(text.trim(), false).unwrap().get_ids().to_vec();
        ids.truncate(tokenizer.room);
        ids
    }

    #[test]
    fn words_become_ids_and_unknown_ones_the_unknown_id() {
        let encoded = plain(16).encode("  A very GOOD café, films!\n").unwrap();
        assert_eq!(encoded, Encoded { ids: vec![1, 5, 2, 10, 1, 4, 6, 7], truncated: Truncated::No });
    }

    #[test]
    fn a_text_is_cut_at_max_tokens_and_says_so() {
        let tokenizer = plain(3);
        let cut = tokenizer.encode("good good bad film").unwrap();
        assert_eq!(cut, Encoded { ids: vec![2, 2, 3], truncated: Truncated::Yes });
        let whole = tokenizer.encode("good good bad").unwrap();
        assert_eq!(whole, Encoded { ids: vec![2, 2, 3], truncated: Truncated::No });
    }

    #[test]
    fn special_tokens_stay_around_a_text_that_is_cut() {
        let tokenizer = Tokenizer::from_json(fixtures::bracketed().as_bytes(), 4).unwrap();
        assert_eq!(tokenizer.encode("good").unwrap().ids, [8, 2, 9]);
        let cut = tokenizer.encode("good bad film").unwrap();
        assert_eq!(cut, Encoded { ids: vec![8, 2, 3, 9], truncated: Truncated::Yes });
        assert!(Tokenizer::from_json(fixtures::bracketed().as_bytes(), 2).is_err());
    }

    #[test]
    fn the_files_own_cutting_and_padding_are_ignored() {
        let tokenizer = Tokenizer::from_json(fixtures::padding().as_bytes(), 16).unwrap();
        assert_eq!(tokenizer.encode("good bad film").unwrap().ids, [2, 3, 4]);
    }

    #[test]
    fn a_caller_cannot_write_special_tokens() {
        let ids = plain(16).encode("good [PAD] bad").unwrap().ids;
        assert!(!ids.contains(&0), "{ids:?}");
    }

    #[test]
    fn no_text_is_invalid() {
        for text in ["", " \n\t\u{3000}", "\u{301}\u{301}"] {
            assert!(matches!(plain(8).encode(text), Err(Error::Invalid(_))), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_refused() {
        assert!(Tokenizer::from_json(b"{}", 8).is_err());
        assert!(Tokenizer::from_json(b"", 8).is_err());
    }

    #[test]
    fn only_the_beginning_of_a_huge_text_is_read() {
        let tokenizer = plain(256);
        let enough = 256 + MARGIN;
        let huge = [
            "very good film ".repeat(70_000),
            "good".repeat(260_000),
            "\u{301}".repeat(500_000) + " good",
            "<br />".repeat(170_000) + " good",
            "e\u{301}".repeat(350_000),
        ];
        for text in huge {
            let (part, _) = tokenizer.encode_enough(&text).unwrap();
            assert!(part.len() <= enough * MOST_BYTES);
            match tokenizer.encode(&text) {
                Ok(encoded) => assert_eq!(encoded.truncated, Truncated::Yes),
                Err(error) => assert!(matches!(error, Error::Invalid(_)), "{error}"),
            }
        }
        let prose = "very good film ".repeat(70_000);
        let (part, _) = tokenizer.encode_enough(&prose).unwrap();
        assert!(part.len() <= enough * FIRST_BYTES);
    }

    #[test]
    fn a_beginning_ends_at_white_space_or_else_at_a_character() {
        assert_eq!(beginning("good film", 9), "good film");
        assert_eq!(beginning("good film", 8), "good");
        assert_eq!(beginning("ééé", 3), "é");
    }

    #[test]
    fn buckets_grow_by_a_third() {
        let buckets = Buckets::new(64);
        assert_eq!(buckets.lengths(), [1, 2, 4, 6, 9, 13, 18, 25, 34, 46, 62, 64]);
        assert_eq!((buckets.of(1), buckets.of(5), buckets.of(62), buckets.of(1000)), (1, 6, 62, 64));
        assert_eq!(Buckets::new(1).lengths(), [1]);
    }

    /// Says whether the short way was taken, after holding it to the library's.
    fn both_ways(tokenizer: &Tokenizer, text: &str) -> bool {
        let text = text.trim();
        let Some(found) = tokenizer.encode_plainly(text) else { return false };
        let expected = tokenizer.encode_by_library(text).unwrap();
        assert_eq!(found.ids, expected.ids, "{text:?}");
        // Of a text without a token within reach it does not matter.
        assert!(found.ids.is_empty() || found.truncated == expected.truncated, "{text:?}");
        true
    }

    fn shipped(max_tokens: usize) -> Tokenizer {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/sentiment/tokenizer.json");
        Tokenizer::from_json(&std::fs::read(path).unwrap(), max_tokens).unwrap()
    }

    #[test]
    fn the_short_way_gives_what_the_library_gives() {
        let tokenizers = [shipped(256), shipped(7), plain(16)].into_iter();
        let with_marks = [fixtures::bracketed(), fixtures::bert()];
        let all = tokenizers.chain(with_marks.map(|json| Tokenizer::from_json(json.as_bytes(), 12).unwrap()));
        for tokenizer in all {
            for text in [
                "A gorgeous, witty, seductive movie.",
                "It isn't that she'll DON'T: n't 'tis 'em they've -LRB- sic -RRB- ``so'' <br /><br>and/or\\/ \\*",
                "\u{201c}Good\u{201d} \u{2014} it\u{2019}s a 1990\u{2013}95 film",
                "good\u{0}bad\tfilm\u{b}very\u{7f}good ##s ##good",
                "...!!! ?? 3.14 $5 a_b __ x-y",
                &"antidisestablishmentarianism ".repeat(3),
                &"z".repeat(200),
                &"good ".repeat(400),
                &format!("{}good", "! ".repeat(70_000)),
                &" \n".repeat(100_000),
            ] {
                assert!(both_ways(&tokenizer, text), "{text:.40} takes the long way");
            }
            for text in ["caf\u{e9}", "\u{4e2d}\u{6587}", "\u{ff21}", "e\u{301}"] {
                assert!(!both_ways(&tokenizer, text), "{text} takes the short way");
            }
        }
    }

    #[test]
    fn a_tokenizer_with_an_unknown_part_takes_the_long_way() {
        for (part, other) in [
            ("\"type\":\"Lowercase\"", "\"type\":\"Prepend\",\"prepend\":\"x\""),
            ("\"behavior\":\"Removed\"", "\"behavior\":\"Isolated\""),
            ("\"special\":true", "\"special\":false"),
        ] {
            let json = fixtures::plain();
            assert!(json.contains(part), "{json}");
            let tokenizer = Tokenizer::from_json(json.replace(part, other).as_bytes(), 16).unwrap();
            assert!(tokenizer.plain.is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_plain_text_has_the_same_ids_on_both_ways(
            text in "([ -~]|[\\x00-\\x7f]|n't|'s|<br />|\u{2019}|\u{201c}|\u{2014}|good|films|GOOD){0,80}",
            max_tokens in 1usize..40,
        ) {
            prop_assert!(text.trim().is_empty() || both_ways(&plain(max_tokens), &text));
        }

        #[test]
        fn padding_is_never_more_than_a_quarter(max_tokens in 1usize..9000, share in 0.0..1.0) {
            let buckets = Buckets::new(max_tokens);
            prop_assert!(buckets.lengths().windows(2).all(|pair| pair[0] < pair[1]));
            let tokens = 1 + (share * max_tokens as f64) as usize % max_tokens;
            let length = buckets.of(tokens);
            prop_assert!(length >= tokens && length <= max_tokens);
            prop_assert!((length - tokens) * 4 <= length, "{tokens} tokens in {length}");
        }

        #[test]
        fn reading_less_keeps_the_ids(
            words in prop::collection::vec("good|bad|films|\u{e9}t\u{e9}|[a-z]{1,40}|!|  |\n|<br />", 1..400),
            glue in "| ", max_tokens in 1usize..40,
        ) {
            let text = words.join(&glue);
            let tokenizer = plain(max_tokens);
            // A run of more than MOST_BYTES without a token may end the reading early.
            if let Ok(encoded) = tokenizer.encode(&text) {
                let expected = slowly(&tokenizer, &text);
                prop_assert_eq!(&encoded.ids[..], &expected[..encoded.ids.len()]);
            }
        }
    }
}
