"""The tokeniser of the sentiment network, learnt from the data: WordPiece over English and Chinese.

English is split into words, clitics and marks, and words into pieces. Chinese has no spaces: a run
of Han characters is cut by the longest word of the vocabulary, again and again, which is what
WordPiece does to a word and what forward maximum matching is in Chinese segmentation. The words are
the pairs that a byte-pair encoding of the runs merges first (Sennrich et al. 2016).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Iterable, NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

import common
import corpus
from charsmap import charsmap
from corpus import Labelled
from texts import Texts, of_rows

ENGLISH_PIECES = 12288
HAN_WORDS = 10240
LONGEST_HAN_WORD = 4
LONGEST_RUN = 64  # of Han characters that is cut as one, which bounds the work
CONTINUED = "##"

_REPLACED = {"<br />": " ", "<br>": " ", "``": '"', "''": '"', "\u2018": "'", "\u2019": "'",
             "\u201c": '"', "\u201d": '"', "-lrb-": "(", "-rrb-": ")", "\\/": "/", "\\*": "*", "n't": " n't"}
# What says nothing of an opinion: "@somebody", addresses in the web. An address of post stays.
_LEFT_OUT = {r"\B@\w+": "", r"(?:https?://|www\.)[!-~]*": " "}
# Marks in figures, which few texts have: as words.
_NO_FURTHER = r"(?![a-z\d/]|[.,]\d)"
_MARKED = {
    r"(?<![a-z\d/.,])(?:10 ?/ ?10|5 ?/ ?5|(?:10|ten) out of (?:10|ten)|(?:5|five) out of (?:5|five))" + _NO_FURTHER: " excellent ",
    r"(?<![a-z\d/.,])(?:[89] ?/ ?10|4 ?/ ?5|(?:8|9|eight|nine) out of (?:10|ten)|(?:4|four) out of (?:5|five))" + _NO_FURTHER:
        " very good ",
    r"(?<![a-z\d/.,])(?:[01] ?/ ?(?:10|5)|(?:0|1|zero|one) out of (?:10|ten|5|five)|(?:0|1|zero|one) ?-?stars?)" + _NO_FURTHER:
        " terrible ",
    r"(?<![a-z\d/.,])(?:[23] ?/ ?10|2 ?/ ?5|(?:2|3|two|three) out of (?:10|ten)|(?:2|two) out of (?:5|five)|2 ?-?stars?)"
    + _NO_FURTHER: " bad ",
}
_REPEATED = {r"([a-z])\1+(?=\1)": ""}  # a letter that stands three times or more stands once
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#34;": '"', "&apos;": "'", "&#39;": "'", "&nbsp;": " ",
             "&amp;": "&", "<br/>": " "}
_CLITICS = r"n't\b|'(?:s|re|ve|ll|d|m)\b"
_MARKS = ("\u3002\u3001\u300a\u300b\u3010\u3011\u300c\u300d\u00b7\u2014\u2013"
          "\U0001f600\U0001f601\U0001f602\U0001f603\U0001f604\U0001f605\U0001f606\U0001f609\U0001f60a\U0001f60b"
          "\U0001f60d\U0001f60e\U0001f612\U0001f614\U0001f618\U0001f61c\U0001f61d\U0001f61e\U0001f620\U0001f621"
          "\U0001f622\U0001f624\U0001f625\U0001f628\U0001f629\U0001f62a\U0001f62b\U0001f62c\U0001f62d\U0001f631"
          "\U0001f633\U0001f637\U0001f642\U0001f643\U0001f644\U0001f64f\U0001f44d\U0001f44e\U0001f44f\U0001f494"
          "\u2764\u2665\u2639\u263a\U0001f495\U0001f496\U0001f4af\U0001f525\U0001f389\u2728\U0001f914\U0001f923"
          "\U0001f970\U0001f922\U0001f92e")


class Vocabulary(NamedTuple):
    """A tokeniser, and which of its pieces mean the same.

    Ids are English pieces, then `han` Han words that begin a run, then the same words within one:
    the last `han` ids stand for the ids `han` below them.
    """

    tokenizer: Tokenizer
    words: int  # ids without the second form of the Han words
    han: int

    def alias(self, ids: np.ndarray) -> np.ndarray:
        """The ids with one id for both forms of a Han word."""
        return np.where(ids >= self.words, ids - self.han, ids)


def _normalizer() -> normalizers.Normalizer:
    """Tokenised text ("do n't", "-LRB-") and raw text give the same; wide marks become plain ones.

    All of it is in `tokenizer.json`, so that the server does the same. `crates/media/src/text/plain.rs` knows the patterns.
    """
    lines = (Path(__file__).parent / "characters.tsv").read_text(encoding="utf-8").splitlines()
    characters = dict(line.split("\t") for line in lines)
    return normalizers.Sequence([
        normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
        *(normalizers.Replace(Regex(old), new) for old, new in (_LEFT_OUT | _MARKED).items()),
        normalizers.Precompiled(charsmap(characters)),
        *(normalizers.Replace(Regex(old), new) for old, new in _REPEATED.items()),
        *(normalizers.Replace(old, new) for old, new in (_ENTITIES | _REPLACED).items()),
        normalizers.Replace("#", "")])


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)


def _wordpiece(vocabulary: dict[str, int] | None, pattern: str) -> Tokenizer:
    longest = {"unk_token": "[UNK]", "max_input_chars_per_word": LONGEST_RUN}
    model = models.WordPiece(**longest) if vocabulary is None else models.WordPiece(vocabulary, **longest)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = _split(pattern)
    return tokenizer


def _han_words(texts: Iterable[str], size: int) -> list[str]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = _split(r"\p{Han}+")
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, max_token_length=LONGEST_HAN_WORD, show_progress=False))
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)


def learn(english: Iterable[str], chinese: list[str], smoke: bool) -> Vocabulary:
    """Learn the vocabulary. A Han character that it lacks is one unknown token, and its neighbours stay known."""
    share = 4 if smoke else 1
    tokenizer = _wordpiece(None, _CLITICS + r"|[^\W\p{Han}]+|[^\w\s]")
    tokenizer.train_from_iterator(english, trainers.WordPieceTrainer(
        vocab_size=ENGLISH_PIECES // share, min_frequency=3, limit_alphabet=260, initial_alphabet=list(_MARKS),
        special_tokens=["[PAD]", "[UNK]"], show_progress=False))
    pieces = tokenizer.get_vocab()
    han = _han_words(chinese, HAN_WORDS // share)
    for form in (han, [CONTINUED + word for word in han]):
        pieces.update({word: len(pieces) + k for k, word in enumerate(form)})
    known = "".join(sorted(word for word in han if len(word) == 1))
    pattern = _CLITICS + rf"|[{known}]{{1,{LONGEST_RUN}}}|\p{{Han}}|[^\W\p{{Han}}]+|[^\w\s]"
    return Vocabulary(_wordpiece(pieces, pattern), len(pieces) - len(han), len(han))


def encode(tokenizer: Tokenizer, rows: Labelled) -> Texts:
    """Tokenise without cutting; texts without a single token are left out."""
    ids: list[np.ndarray] = []
    targets = []
    for begin in range(0, len(rows), 1000):
        part = rows[begin:begin + 1000]
        for encoding, (_, target) in zip(tokenizer.encode_batch([text for text, _ in part]), part):
            if encoding.ids:
                ids.append(np.array(encoding.ids, np.int32))
                targets.append(target)
    return of_rows(ids, targets)


class Corpus(NamedTuple):
    """Everything that the recipe learns from and measures on, in tokens."""

    vocabulary: Vocabulary
    learnt: dict[str, Texts]
    measured: dict[str, Texts]


def load(data: Path, cache: Path, smoke: bool) -> Corpus:
    """Read, split and tokenise everything, from the cache after the first time."""
    cached = cache / ("sentiment-smoke.npz" if smoke else "sentiment.npz")
    file_of_words = cached.with_suffix(".json")
    if not cached.exists():
        source = corpus.load(data, smoke)
        often = {"phrases": 3, "shopping": 0}  # the short texts would not be heard otherwise
        english = (text for name, rows in source.learnt.items() for text, _ in rows
                   for _ in range(often.get(name, 1)))
        chinese = [text for name in ("shopping", "weibo", "weibo") for text, _ in source.learnt[name]]
        vocabulary = learn(english, chinese, smoke)
        sets = {**{f"learnt/{name}": rows for name, rows in source.learnt.items()},
                **{f"measured/{name}": rows for name, rows in source.measured.items()}}
        columns = {f"{name}/{column}": values for name, rows in sets.items()
                   for column, values in encode(vocabulary.tokenizer, rows)._asdict().items()}
        buffer = io.BytesIO()
        np.savez(buffer, words=vocabulary.words, han=vocabulary.han, **columns)
        common.write(file_of_words, vocabulary.tokenizer.to_str())
        common.write(cached, buffer.getvalue())
    with np.load(cached) as file:
        vocabulary = Vocabulary(Tokenizer.from_file(str(file_of_words)), int(file["words"]), int(file["han"]))
        kinds: dict[str, dict[str, Texts]] = {"learnt": {}, "measured": {}}
        for key in file.files:
            if key.endswith("/ids"):
                kind, name, _ = key.split("/")
                kinds[kind][name] = Texts(*(file[f"{kind}/{name}/{column}"] for column in Texts._fields))
    return Corpus(vocabulary, kinds["learnt"], kinds["measured"])
