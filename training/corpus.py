"""What the sentiment recipe learns from and measures on: English and Chinese texts, read and split."""

from __future__ import annotations

import csv
import lzma
import math
import re
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

import common
import statements

HELD_BACK = 0.05        # share of the reviews of each set that is kept for measuring
HELD_BACK_WEIBO = 0.10  # a small set
SMOKE_STEP = 12         # of so many texts a smoke run reads one
SST_TARGETS = {0: 0.03, 1: 0.11, 2: 0.5, 3: 0.89, 4: 0.97}  # chance of "positive" for each of the five grades
LEXICON_SLOPE = 1.3     # what a mean rating of -4 to 4 adds to the log-odds of "positive"

Labelled = list[tuple[str, float]]


class Source(NamedTuple):
    """The sets of one run. Targets are chances of "positive", NaN where nobody said."""

    learnt: dict[str, Labelled]
    measured: dict[str, Labelled]


# --- reading --------------------------------------------------------------------------


def _table(path: Path, **dialect) -> Iterator[dict[str, str]]:
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, **dialect)


def _tabbed(path: Path) -> Iterator[dict[str, str]]:
    return _table(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def imdb(data: Path) -> Labelled:
    """Labelled reviews of films."""
    return [(row["text"], float(row["label"])) for row in _tabbed(data / "imdb-train.tsv.xz")]


def imdb_unlabelled(data: Path) -> Labelled:
    """Reviews of films without a label."""
    with lzma.open(data / "imdb-unsup.txt.xz", "rt", encoding="utf-8") as file:
        return [(line.strip(), math.nan) for line in file]


def yelp(data: Path) -> Labelled:
    """Short English sentences about places, with weak labels."""
    return [(row["text"], float(row["label"])) for row in _tabbed(data / "yelp-sentences.tsv.xz")]


def lexicon(data: Path) -> Labelled:
    """English words and emoticons with the mean of what ten people said of each."""
    rows = (line.split("\t") for line in (data / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines())
    return [(row[0], 1 / (1 + math.exp(-LEXICON_SLOPE * float(row[1])))) for row in rows]


def shopping(data: Path) -> Labelled:
    """Chinese reviews of things, books and hotels."""
    path = data / "zh-online-shopping-10-cats.csv.xz"
    return [(row["review"].strip("\ufeff"), float(row["label"])) for row in _table(path)]


def weibo(data: Path) -> Labelled:
    """Chinese microblogs: `id,label,text`, where the text may hold commas."""
    lines = (data / "zh-weibo2018-train.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split(",", 2) for line in lines)
    return [(row[2].strip(" \u200b"), float(row[1])) for row in rows if len(row) == 3 and row[1] in "01"]


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


def sentences(text: str) -> list[str]:
    """The sentences of an English text."""
    return re.split(r"(?<=[.!?])\s+", text)


# --- splitting ------------------------------------------------------------------------


def _fold(text: str) -> bytes:
    """What makes two texts the same for the split: letters and digits only."""
    return re.sub(r"\W+", " ", text.lower()).strip().encode()


def split(rows: Labelled, held_back: float = HELD_BACK) -> tuple[Labelled, Labelled]:
    """Texts to learn from and held-back ones, by a hash of the text, without duplicates."""
    learn, held, seen = [], [], set()
    for text, target in rows:
        folded = _fold(text)
        if folded and folded not in seen:
            seen.add(folded)
            (held if common.hash_share(folded) < held_back else learn).append((text, target))
    return learn, held


def microblogs(data: Path, smoke: bool) -> tuple[Labelled, Labelled]:
    """The microblogs to learn from and the held-back ones; with `smoke` a small part of them."""
    return split(weibo(data)[::SMOKE_STEP if smoke else 1], HELD_BACK_WEIBO)


def load(data: Path, smoke: bool) -> Source:
    """Read and split everything; with `smoke` a small part of each set."""
    step, most = (SMOKE_STEP, 2000) if smoke else (1, None)
    phrases, neutral = sst_training(data)
    reviews, reviews_held = split(imdb(data)[::step])
    sentences, sentences_held = split(yelp(data)[::step])
    things, things_held = split(shopping(data)[::step])
    blogs, blogs_held = microblogs(data, smoke)
    learnt = {"phrases": phrases, "neutral": neutral, "lexicon": lexicon(data), "yelp": sentences,
              "imdb": reviews, "imdb unlabelled": imdb_unlabelled(data), "statements": statements.texts(),
              "shopping": things, "weibo": blogs}
    measured = {"SST-2 dev": sst_sentences(data / "sst-dev.trees.txt"), "IMDB held back": reviews_held,
                "Yelp held back": sentences_held, "Weibo held back": blogs_held,
                "Chinese shopping held back": things_held}
    return Source({name: rows[:most] for name, rows in learnt.items()},
                  {name: rows[:most and 300] for name, rows in measured.items()})
