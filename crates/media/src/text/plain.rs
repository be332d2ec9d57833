//! The short way for plain texts: ids without the offsets, spans and copies that the library keeps for
//! each character of a text.
//!
//! Invariant: it gives the ids that the library gives, or nothing. It is made only for a tokenizer of
//! which it knows every part, and takes only texts of characters that no Unicode rule changes.

use std::{borrow::Cow, collections::HashMap};

use regex::Regex;
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, normalizers::Precompiled, utils::SysRegex};

/// A tokenizer whose parts are all known: normalisers, a split into words, WordPiece (Schuster and
/// Nakajima 2012: the longest piece of the vocabulary that a word begins with, again and again).
pub(super) struct Plain {
    steps: Vec<Step>,
    split: Split,
    pieces: Pieces,
}

/// The ids of a text's first tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) ids: Vec<u32>,
    /// Whether there are more.
    pub(super) more: bool,
}

/// What a normaliser does to characters that no Unicode rule changes.
enum Step {
    Lowercase,
    Replace {
        from: String,
        to: String,
    },
    /// Replaces what a pattern matches, where the text may have any of it.
    ReplacePattern {
        needs: Needs,
        pattern: SysRegex,
        to: String,
    },
    /// Drops control characters and makes white space a space, as BERT does.
    Clean,
}

/// What a text surely has if a pattern matches in it: much cheaper to look for than the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Byte(u8),
    /// One lower-case letter three times.
    Triple,
    /// What addresses in the web begin with.
    Address,
    /// What stands between the figures of a rating, or behind them.
    Rating,
}

/// The patterns that the shipped tokenizers replace (`training/tokens.py`).
const KNOWN: [(&str, Needs); 7] = [
    (r"\B@\w+", Needs::Byte(b'@')),
    (r"(?:https?://|www\.)[!-~]*", Needs::Address),
    (
        r"(?<![a-z\d/.,])(?:10 ?/ ?10|5 ?/ ?5|(?:10|ten) out of (?:10|ten)|(?:5|five) out of (?:5|five))(?![a-z\d/]|[.,]\d)",
        Needs::Rating,
    ),
    (
        r"(?<![a-z\d/.,])(?:[89] ?/ ?10|4 ?/ ?5|(?:8|9|eight|nine) out of (?:10|ten)|(?:4|four) out of (?:5|five))(?![a-z\d/]|[.,]\d)",
        Needs::Rating,
    ),
    (
        r"(?<![a-z\d/.,])(?:[01] ?/ ?(?:10|5)|(?:0|1|zero|one) out of (?:10|ten|5|five)|(?:0|1|zero|one) ?-?stars?)(?![a-z\d/]|[.,]\d)",
        Needs::Rating,
    ),
    (
        r"(?<![a-z\d/.,])(?:[23] ?/ ?10|2 ?/ ?5|(?:2|3|two|three) out of (?:10|ten)|(?:2|two) out of (?:5|five)|2 ?-?stars?)(?![a-z\d/]|[.,]\d)",
        Needs::Rating,
    ),
    (r"([a-z])\1+(?=\1)", Needs::Triple),
];

/// How a text is split into words.
enum Split {
    /// What the pattern matches.
    Matches(Regex),
    /// What white space and punctuation are between, and each mark of punctuation.
    Bert,
}

impl Plain {
    /// Reads a `tokenizer.json`; nothing where a part of it is not known.
    pub(super) fn of(json: &[u8]) -> Option<Self> {
        let file: Value = serde_json::from_slice(json).ok()?;
        // Special tokens are never looked for in callers' texts; others would have to be.
        let added = file.get("added_tokens")?.as_array()?;
        if !added.iter().all(|token| token.get("special") == Some(&Value::Bool(true))) {
            return None;
        }
        let mut steps = Vec::new();
        normaliser(&file["normalizer"], &mut steps)?;
        Some(Self { steps, split: split(&file["pre_tokenizer"])?, pieces: Pieces::of(&file["model"])? })
    }

    /// The ids of the first `most` tokens; nothing where a character is not plain.
    pub(super) fn encode(&self, text: &str, most: usize) -> Option<Ids> {
        if !text.is_ascii() && !text.chars().all(is_plain) {
            return None;
        }
        let mut text = Cow::Borrowed(text);
        for step in &self.steps {
            step.apply(&mut text);
        }
        let mut ids = Vec::with_capacity(most.min(text.len() / 2 + 1));
        match &self.split {
            Split::Matches(pattern) => {
                let words = pattern.find_iter(&text).map(|found| found.as_str());
                self.pieces.push_all(words, most, &mut ids);
            }
            Split::Bert => self.pieces.push_all(bert_words(&text), most, &mut ids),
        }
        let more = ids.len() > most;
        ids.truncate(most);
        Some(Ids { ids, more })
    }
}

/// Characters that stay as they are under every normal form, are no accents, and have no case but
/// ASCII's: ASCII, curved quotation marks and dashes.
fn is_plain(c: char) -> bool {
    c.is_ascii() || matches!(c, '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' | '\u{2013}' | '\u{2014}')
}

fn normaliser(spec: &Value, steps: &mut Vec<Step>) -> Option<()> {
    if spec.is_null() {
        return Some(());
    }
    match spec.get("type")?.as_str()? {
        "Sequence" => {
            for spec in spec.get("normalizers")?.as_array()? {
                normaliser(spec, steps)?;
            }
        }
        "NFC" | "NFD" | "NFKC" | "NFKD" | "StripAccents" => {}
        "Lowercase" => steps.push(Step::Lowercase),
        "Replace" => {
            let pattern = spec.get("pattern")?;
            let to = spec.get("content")?.as_str()?.to_owned();
            if !to.chars().all(is_plain) {
                return None;
            }
            steps.push(match pattern.get("String").and_then(Value::as_str) {
                Some("") => return None,
                Some(from) => Step::Replace { from: from.to_owned(), to },
                None => {
                    let pattern = pattern.get("Regex")?.as_str()?;
                    let known = KNOWN.iter().find(|(known, _)| *known == pattern);
                    let needs = known.map_or(Needs::Nothing, |(_, needs)| *needs);
                    Step::ReplacePattern { needs, pattern: SysRegex::new(pattern).ok()?, to }
                }
            });
        }
        // It may replace other characters, but a plain text has none of them.
        "Precompiled" => {
            // The library's own reader borrows from the text.
            let table: Precompiled = serde_json::from_str(&spec.to_string()).ok()?;
            let plain: String = ('\0'..='\u{2fff}').filter(|c| is_plain(*c)).chain(['\r', '\n']).collect();
            let mut normalized = NormalizedString::from(plain.as_str());
            table.normalize(&mut normalized).ok()?;
            if normalized.get() != plain {
                return None;
            }
        }
        "BertNormalizer" => {
            let is = |key: &str| spec.get(key)?.as_bool();
            if is("clean_text")? {
                steps.push(Step::Clean);
            }
            if is("lowercase")? {
                steps.push(Step::Lowercase);
            }
        }
        _ => return None,
    }
    Some(())
}

fn split(spec: &Value) -> Option<Split> {
    match spec.get("type")?.as_str()? {
        "BertPreTokenizer" => Some(Split::Bert),
        "Split" => {
            let kept = spec.get("invert") == Some(&Value::Bool(true))
                && spec.get("behavior")?.as_str()? == "Removed";
            // Where the pattern needs more than a regular language, the library's engine is needed.
            let pattern = spec.get("pattern")?.get("Regex")?.as_str()?;
            if !kept || !is_common(pattern) {
                return None;
            }
            let pattern = Regex::new(pattern).ok()?;
            let never_empty = pattern.find_iter("a b-c 1").all(|found| !found.is_empty());
            (never_empty && !pattern.is_match("")).then_some(Split::Matches(pattern))
        }
        _ => None,
    }
}

/// Tells whether a pattern means the same to `regex` as to the library's engine, Oniguruma, in a plain text:
/// literals, `\w`, `\d`, `\s`, `\b` and their opposites, general categories and scripts, groups, sets without
/// sets inside, and repeats. Much else is allowed in both and means something else.
fn is_common(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    let (mut in_set, mut before) = (false, ' ');
    while let Some(c) = chars.next() {
        let fits = match c {
            '\\' => match chars.next() {
                Some('w' | 'W' | 'd' | 'D' | 's' | 'S') => true,
                Some('b' | 'B') => !in_set,
                Some('p' | 'P') if chars.next_if_eq(&'{').is_some() => {
                    let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                    matches!(name.as_bytes(), [b'L' | b'M' | b'N' | b'P' | b'S' | b'Z'])
                        || matches!(
                            name.as_str(),
                            "Han" | "Lu" | "Ll" | "Lt" | "Lm" | "Lo" | "Nd" | "Nl" | "No"
                        )
                }
                Some(escaped) => escaped.is_ascii_punctuation(),
                None => false,
            },
            '[' => !std::mem::replace(&mut in_set, true),
            ']' => std::mem::replace(&mut in_set, false) && before != '[',
            // Operations on sets in one of the two.
            '&' | '~' | '-' if in_set => before != c,
            '^' => in_set && before == '[',
            '$' => in_set,
            '(' if !in_set => chars.next_if_eq(&'?').is_none() || chars.next_if_eq(&':').is_some(),
            // Possessive or reluctant in one of the two, a repeat of a repeat in the other.
            '+' | '?' | '*' if !in_set => !matches!(before, '+' | '?' | '*' | '}'),
            '{' if !in_set => chars.peek().is_some_and(char::is_ascii_digit),
            _ => true,
        };
        if !fits {
            return false;
        }
        // What was escaped is no operator.
        before = if c == '\\' { ' ' } else { c };
    }
    true
}

impl Needs {
    fn met(self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let has = |part: &[u8]| memchr::memmem::find(bytes, part).is_some();
        match self {
            Self::Nothing => true,
            Self::Byte(byte) => memchr::memchr(byte, bytes).is_some(),
            Self::Triple => bytes
                .windows(3)
                .any(|three| three[0] == three[1] && three[1] == three[2] && three[0].is_ascii_lowercase()),
            Self::Address => has(b"://") || has(b"www."),
            Self::Rating => memchr::memchr(b'/', bytes).is_some() || has(b"star") || has(b" out of "),
        }
    }
}

impl Step {
    fn apply(&self, text: &mut Cow<'_, str>) {
        match self {
            Self::Lowercase => {
                if text.bytes().any(|c| c.is_ascii_uppercase()) {
                    text.to_mut().make_ascii_lowercase();
                }
            }
            Self::Replace { from, to } => {
                if memchr::memmem::find(text.as_bytes(), from.as_bytes()).is_some() {
                    *text = Cow::Owned(text.replace(from.as_str(), to));
                }
            }
            Self::ReplacePattern { needs, pattern, to } => {
                if needs.met(text) {
                    let (mut replaced, mut end) = (String::new(), 0);
                    for (start, stop) in pattern.find_iter(text) {
                        replaced.push_str(&text[end..start]);
                        replaced.push_str(to);
                        end = stop;
                    }
                    if end > 0 || !replaced.is_empty() {
                        replaced.push_str(&text[end..]);
                        *text = Cow::Owned(replaced);
                    }
                }
            }
            Self::Clean => {
                let is_kept = |c: char| !c.is_ascii_control() || matches!(c, '\t' | '\n' | '\r');
                if text.bytes().any(|c| c.is_ascii_control()) {
                    let clean = text.chars().filter(|c| is_kept(*c));
                    *text = Cow::Owned(clean.map(|c| if c.is_whitespace() { ' ' } else { c }).collect());
                }
            }
        }
    }
}

/// Words between white space and punctuation, and each mark of punctuation.
fn bert_words(text: &str) -> impl Iterator<Item = &str> {
    let is_mark = |c: char| c.is_ascii_punctuation() || !c.is_ascii();
    text.split_whitespace().flat_map(move |run| {
        run.split_inclusive(is_mark).flat_map(move |part| {
            let mark = part.char_indices().next_back().filter(|(_, c)| is_mark(*c)).map(|(at, _)| at);
            let (word, mark) = part.split_at(mark.unwrap_or(part.len()));
            [word, mark].into_iter().filter(|word| !word.is_empty())
        })
    })
}

/// A vocabulary of WordPiece.
struct Pieces {
    /// By what a word begins with, and by what it goes on with.
    first: HashMap<Box<str>, u32>,
    further: HashMap<Box<str>, u32>,
    unknown: u32,
    /// Bytes of the longest piece.
    longest: usize,
    /// Longer words are unknown.
    most_chars: usize,
}

impl Pieces {
    fn of(model: &Value) -> Option<Self> {
        if model.get("type")?.as_str()? != "WordPiece" {
            return None;
        }
        let prefix = model.get("continuing_subword_prefix")?.as_str()?;
        let mut first: HashMap<Box<str>, u32> = HashMap::new();
        for (piece, id) in model.get("vocab")?.as_object()? {
            first.insert(Box::from(piece.as_str()), u32::try_from(id.as_u64()?).ok()?);
        }
        let goes_on = first.iter().filter_map(|(piece, id)| Some((piece.strip_prefix(prefix)?, id)));
        Some(Self {
            further: goes_on.map(|(rest, id)| (Box::from(rest), *id)).collect(),
            unknown: *first.get(model.get("unk_token")?.as_str()?)?,
            longest: first.keys().map(|piece| piece.len()).max()?,
            most_chars: usize::try_from(model.get("max_input_chars_per_word")?.as_u64()?).ok()?,
            first,
        })
    }

    /// Pushes the ids of words until there are more than `most`.
    fn push_all<'t>(&self, words: impl Iterator<Item = &'t str>, most: usize, ids: &mut Vec<u32>) {
        for word in words {
            self.push(word, ids);
            if ids.len() > most {
                return;
            }
        }
    }

    fn push(&self, word: &str, ids: &mut Vec<u32>) {
        let n_before = ids.len();
        if word.len() > self.most_chars && word.chars().count() > self.most_chars {
            ids.push(self.unknown);
            return;
        }
        let (mut rest, mut pieces) = (word, &self.first);
        while !rest.is_empty() {
            let mut end = rest.floor_char_boundary(self.longest);
            let found = loop {
                match pieces.get(&rest[..end]) {
                    Some(id) => break Some(*id),
                    None if end == 0 => break None,
                    None => end = rest.floor_char_boundary(end - 1),
                }
            };
            let Some(id) = found.filter(|_| end > 0) else {
                ids.truncate(n_before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            (rest, pieces) = (&rest[end..], &self.further);
        }
    }
}
