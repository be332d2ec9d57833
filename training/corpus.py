"""Texts for the sentiment recipe: reading, splitting, tokenising, drawing the pieces of an epoch."""

from __future__ import annotations

import csv
import io
import lzma
import re
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

import common

VOCABULARY = 12288
MAX_TOKENS = 256
PAD, UNKNOWN = 0, 1
HELD_BACK = 0.05  # share of IMDB and of Yelp kept for measuring
SST_TARGETS = {0: 0.03, 1: 0.11, 2: 0.5, 3: 0.89, 4: 0.97}  # chance of "positive" for each of the five grades


class Texts(NamedTuple):
    """Tokenised texts, one after the other: text k is `ids[starts[k]:starts[k] + lengths[k]]`."""

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray  # chance that the text is positive; NaN if nobody said

    def only(self, chosen: np.ndarray) -> "Texts":
        """The chosen texts over the same ids."""
        return Texts(self.ids, self.starts[chosen], self.lengths[chosen], self.targets[chosen])

    def row(self, k: int) -> np.ndarray:
        """The ids of one text."""
        return self.ids[self.starts[k]:self.starts[k] + self.lengths[k]]


def join(parts: Iterable[Texts]) -> Texts:
    """All texts of all parts as one."""
    ids, starts, lengths, targets, offset = [], [], [], [], 0
    for part in parts:
        ids.append(part.ids)
        starts.append(part.starts + offset)
        lengths.append(part.lengths)
        targets.append(part.targets)
        offset += len(part.ids)
    return Texts(*(np.concatenate(column) for column in (ids, starts, lengths, targets)))


# --- reading --------------------------------------------------------------------------

Labelled = list[tuple[str, float]]


def _table(path: Path) -> Iterator[dict[str, str]]:
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _fold(text: str) -> bytes:
    """What makes two texts the same for the split: letters and digits only."""
    return re.sub(r"\W+", " ", text.lower()).strip().encode()


def split(rows: Labelled) -> tuple[Labelled, Labelled]:
    """Texts to learn from and held-back ones, by a hash of the text, without duplicates."""
    learn, held, seen = [], [], set()
    for text, target in rows:
        folded = _fold(text)
        if folded and folded not in seen:
            seen.add(folded)
            (held if common.hash_share(folded) < HELD_BACK else learn).append((text, target))
    return learn, held


def imdb(data: Path) -> Labelled:
    """Labelled reviews."""
    return [(row["text"], float(row["label"])) for row in _table(data / "imdb-train.tsv.xz")]


def imdb_unlabelled(data: Path) -> Labelled:
    """Reviews without a label."""
    with lzma.open(data / "imdb-unsup.txt.xz", "rt", encoding="utf-8") as file:
        return [(line.strip(), float("nan")) for line in file]


def yelp(data: Path) -> Labelled:
    """Short sentences with weak labels."""
    return [(row["text"], float(row["label"])) for row in _table(data / "yelp-sentences.tsv.xz")]


def sst_phrases(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Every node of every tree: its text, its grade 0..4 and whether it is a whole sentence."""
    for line in path.read_text(encoding="utf-8").splitlines():
        stack: list[tuple[int, list[str]]] = []
        for piece in re.findall(r"\(\d|\)|[^\s()]+", line):
            if piece[0] == "(" and len(piece) == 2:
                stack.append((int(piece[1]), []))
            elif piece == ")":
                grade, words = stack.pop()
                yield " ".join(words), grade, not stack
                if stack:
                    stack[-1][1].extend(words)
            else:
                stack[-1][1].append(piece)


def sst_sentences(path: Path) -> Labelled:
    """The SST-2 sentences: whole trees that are not neutral."""
    return [(text, float(grade > 2)) for text, grade, whole in sst_phrases(path) if whole and grade != 2]


def sst_training(data: Path) -> tuple[Labelled, Labelled]:
    """Unique phrases of the training trees with soft targets: those of one side, neutral ones."""
    barred = {text for text, _, whole in sst_phrases(data / "sst-dev.trees.txt") if whole}
    grades: dict[str, list[float]] = {}
    for text, grade, _ in sst_phrases(data / "sst-train.trees.txt"):
        if text not in barred:
            grades.setdefault(text, []).append(SST_TARGETS[grade])
    means = [(text, float(np.mean(values))) for text, values in grades.items()]
    return [row for row in means if abs(row[1] - 0.5) > 0.1], [row for row in means if abs(row[1] - 0.5) <= 0.1]


# --- tokens ---------------------------------------------------------------------------


def build_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn the vocabulary. Tokenised text ("do n't", "-LRB-") and raw text give the same tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=64))
    replaced = {"<br />": " ", "<br>": " ", "``": '"', "''": '"', "\u2018": "'", "\u2019": "'",
                "\u201c": '"', "\u201d": '"', "-lrb-": "(", "-rrb-": ")", "\\/": "/", "\\*": "*", "n't": " n't"}
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
        *(normalizers.Replace(old, new) for old, new in replaced.items())])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"n't\b|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]"), behavior="removed", invert=True)
    trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=3, limit_alphabet=200,
                                        special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


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
    lengths = np.array([len(row) for row in ids], np.int64)
    return Texts(np.concatenate(ids), np.cumsum(lengths) - lengths, lengths, np.array(targets, np.float32))


class Corpus(NamedTuple):
    """Everything that the recipe learns from and measures on."""

    tokenizer: Tokenizer
    phrases: Texts        # SST, one side
    neutral: Texts        # SST, neither
    reviews: Texts        # IMDB
    unlabelled: Texts     # IMDB
    sentences: Texts      # Yelp
    measured: dict[str, Texts]


def load(data: Path, cache: Path, smoke: bool) -> Corpus:
    """Read, split and tokenise everything, from the cache after the first time."""
    cached = cache / ("sentiment-smoke.npz" if smoke else "sentiment.npz")
    names = ("phrases", "neutral", "reviews", "unlabelled", "sentences",
             "SST-2 dev", "IMDB held back", "Yelp held back")
    vocabulary = cached.with_suffix(".json")
    if not cached.exists():
        most = 2000 if smoke else None
        phrases, neutral = sst_training(data)
        reviews, reviews_held = split(imdb(data)[:: 12 if smoke else 1])
        sentences, sentences_held = split(yelp(data))
        rows = [part[:most] for part in (phrases, neutral, reviews, imdb_unlabelled(data), sentences)]
        rows += [sst_sentences(data / "sst-dev.trees.txt"), reviews_held, sentences_held]
        words = [text for part, times in zip(rows[:5], (3, 1, 1, 1, 1)) for text, _ in part for _ in range(times)]
        tokenizer = build_tokenizer(words, VOCABULARY // 4 if smoke else VOCABULARY)
        columns = [column for part in rows for column in encode(tokenizer, part)]
        buffer = io.BytesIO()
        np.savez(buffer, *columns)
        common.write(vocabulary, tokenizer.to_str())
        common.write(cached, buffer.getvalue())
    with np.load(cached) as file:
        columns = [file[key] for key in file.files]
    texts = {name: Texts(*columns[4 * k:4 * k + 4]) for k, name in enumerate(names)}
    return Corpus(Tokenizer.from_file(str(vocabulary)), *(texts[name] for name in names[:5]),
                  {name: texts[name] for name in names[5:]})


# --- an epoch -------------------------------------------------------------------------


class Mix(NamedTuple):
    """What an epoch reads, as shares of each set: 0.5 is half of it, 2 is all of it twice."""

    phrases: float    # SST phrases of one side
    sentences: float  # those of ten tokens or more, once more
    neutral: float    # SST phrases of neither side
    yelp: float
    heads: float      # IMDB reviews from their beginning
    pieces: float     # runs of sentences out of IMDB reviews


class Drawer:
    """Draws the texts of an epoch: SST phrases, Yelp sentences, pieces and heads of IMDB reviews."""

    def __init__(self, corpus: Corpus) -> None:
        self._parts = join([corpus.phrases, corpus.neutral, corpus.sentences, corpus.reviews])
        sizes = [len(part.starts) for part in (corpus.phrases, corpus.neutral, corpus.sentences, corpus.reviews)]
        borders = np.cumsum([0, *sizes])
        self._phrases, self._neutral, self._yelp, self._reviews = (
            np.arange(a, b) for a, b in zip(borders, borders[1:]))
        self._sentences = self._phrases[self._parts.lengths[self._phrases] >= 10]
        ends = [corpus.tokenizer.token_to_id(mark) for mark in ".!?"]
        self._after_sentence = np.flatnonzero(np.isin(self._parts.ids, ends)) + 1

    def draw(self, mix: Mix, random: np.random.Generator) -> Texts:
        """The texts of one epoch, in no order, none longer than the server allows."""

        def some(rows: np.ndarray, share: float) -> np.ndarray:
            whole, rest = divmod(share, 1)
            return np.concatenate([*[rows] * int(whole), random.choice(rows, int(len(rows) * rest), replace=False)])

        texts = self._parts.only(np.concatenate([
            some(self._phrases, mix.phrases), some(self._sentences, mix.sentences),
            some(self._neutral, mix.neutral), some(self._yelp, mix.yelp)]))
        weak = np.isin(texts.targets, (0, 1))  # weak labels are never quite believed
        texts = texts._replace(targets=np.where(weak, np.clip(texts.targets, 0.06, 0.94), texts.targets))
        heads = self._parts.only(some(self._reviews, mix.heads))
        heads = heads._replace(targets=np.clip(heads.targets, 0.03, 0.97))
        pieces = self._pieces(some(self._reviews, mix.pieces), random)
        starts, lengths, targets = (np.concatenate(column) for column in zip(texts[1:], heads[1:], pieces[1:]))
        return Texts(self._parts.ids, starts, np.minimum(lengths, MAX_TOKENS), targets)

    def _pieces(self, chosen: np.ndarray, random: np.random.Generator) -> Texts:
        """One run of sentences from each chosen review; the shorter, the less its label is believed."""
        reviews, borders = self._parts.only(chosen), self._after_sentence
        ends = reviews.starts + reviews.lengths
        first = np.searchsorted(borders, reviews.starts, "right")
        last = np.searchsorted(borders, ends, "left")
        pick = first + (random.random(len(chosen)) * (last - first + 1)).astype(int) - 1
        begins = np.where(pick < first, reviews.starts, borders[np.clip(pick, 0, len(borders) - 1)])
        until = np.minimum(pick + random.choice([1, 1, 1, 2, 2, 3, 5, 8], len(chosen)), len(borders) - 1)
        stops = np.minimum(np.where(until < last, borders[until], ends), ends)
        lengths = stops - begins
        doubt = 0.03 + 0.25 * np.exp(-lengths / 40)
        targets = np.where(reviews.targets > 0.5, 1 - doubt, doubt).astype(np.float32)
        return Texts(reviews.ids, begins, lengths, targets).only(lengths >= 4)


def batches(texts: Texts, tokens: int, random: np.random.Generator) -> list[np.ndarray]:
    """Rows of like length together, so that hardly anything is padding; batches in no order."""
    order = np.argsort(texts.lengths + random.random(len(texts.lengths)) * (2 + texts.lengths / 8))
    groups, group, longest = [], [], 0
    for k in order:
        longest = max(longest, int(texts.lengths[k]))
        if group and longest * (len(group) + 1) > tokens:
            groups.append(np.array(group))
            group, longest = [], int(texts.lengths[k])
        group.append(k)
    groups.append(np.array(group))
    return [groups[k] for k in random.permutation(len(groups))]


def pad(texts: Texts, chosen: np.ndarray) -> np.ndarray:
    """The chosen rows as one right-padded int64 array."""
    lengths = texts.lengths[chosen]
    columns = np.arange(lengths.max())
    places = np.minimum(texts.starts[chosen][:, None] + columns, len(texts.ids) - 1)
    return np.where(columns < lengths[:, None], texts.ids[places], PAD).astype(np.int64)
