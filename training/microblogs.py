"""The teacher of Chinese microblogs: a linear model of words, of characters and of pairs of characters.

Microblogs with labels are few, and what tells their side is often one character or a pair of them, which the
network's tokens hide: those are words, and a run of characters is cut into others each time. The teacher counts
all three. Its features are weighted by their log-count ratios before a logistic regression (Wang and Manning 2012,
"Baselines and Bigrams: Simple, Good Sentiment and Topic Classification"). What it says of a text comes from a
teacher that has not learnt from the microblog which the text is a part of. Nothing of it ships.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple, Sequence

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

import common
from corpus import Labelled

FOLDS = 5
STRENGTH = 16.0   # inverse of the penalty on the regression's weights
DOUBT = 0.04      # how far a label is not believed
TRUST = 0.7       # share of a microblog's target that the teacher has; the label has the rest
JOINED = 100_000  # texts made of parts of microblogs
SHORTEST = 4      # characters of such a text
CLAUSES = (1, 1, 2, 2, 3, 4, 6)  # of a part, drawn evenly

_HAN = re.compile(r"[\u3400-\u9fff]")
_CLAUSE = re.compile(r"[^。！？!?，,；;～~…\s]+[。！？!?，,；;～~…\s]*")


class Teacher:
    """Texts to the log-odds of "positive"."""

    def __init__(self, rows: Labelled, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._counts = TfidfVectorizer(min_df=2, sublinear_tf=True, analyzer=self._features)
        found = self._counts.fit_transform([text for text, _ in rows])
        positive = np.array([target > 0.5 for _, target in rows])
        shares = [1 + np.asarray(found[side].sum(0)).ravel() for side in (positive, ~positive)]
        self._ratios = sparse.diags(np.log(shares[0] / shares[0].sum()) - np.log(shares[1] / shares[1].sum()))
        self._model = LogisticRegression(C=STRENGTH, max_iter=300).fit(found @ self._ratios, positive)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return self._model.decision_function(self._counts.transform(texts) @ self._ratios)

    def _features(self, text: str) -> list[str]:
        plain = unicodedata.normalize("NFKC", text).lower()
        pairs = (plain[k:k + 2] for k in range(len(plain) - 1) if _HAN.match(plain, k) and _HAN.match(plain, k + 1))
        words = (str(number) for number in self._tokenizer.encode(text).ids)
        return [*words, *(f"character {character}" for character in _HAN.findall(plain)),
                *(f"pair {pair}" for pair in pairs)]


class Judged(NamedTuple):
    """Microblogs, and texts made of parts of them, with the teacher's opinions for targets; how good it is."""

    microblogs: Labelled
    joined: Labelled
    accuracy: float  # on microblogs that were held back


def _part(text: str, random: np.random.Generator) -> str:
    clauses = _CLAUSE.findall(text) or [text]
    begin = int(random.integers(len(clauses)))
    return "".join(clauses[begin:begin + int(random.choice(CLAUSES))])


def _joined(texts: Sequence[str], number: int, random: np.random.Generator) -> list[str]:
    """A part of one text, or one part after another."""
    found = []
    for first, second in random.integers(0, len(texts), (number, 2)):
        text = _part(texts[first], random)
        if random.random() < 0.6:
            text += ("，" if random.random() < 0.3 else "") + _part(texts[second], random)
        if len(text) >= SHORTEST:
            found.append(text)
    return found


def judge(rows: Labelled, held_back: Labelled, tokenizer: Tokenizer, seed: int, smoke: bool) -> Judged:
    """Teach it, and ask it."""
    random = np.random.default_rng(seed)
    fold = np.array([int(common.hash_share(f"fold {text}".encode()) * FOLDS) for text, _ in rows])
    labels = np.array([target for _, target in rows])
    odds, parts = np.zeros(len(rows)), []
    for k in range(FOLDS):
        teacher = Teacher([row for row, other in zip(rows, fold) if other != k], tokenizer)
        own = [rows[place][0] for place in np.flatnonzero(fold == k)]
        odds[fold == k] = teacher(own)
        texts = _joined(own, (JOINED // 50 if smoke else JOINED) // FOLDS, random)
        parts.extend(zip(texts, teacher(texts)))
    # How sharp its answers are, found on microblogs that it had not learnt from.
    logits = np.stack([np.zeros(len(rows)), odds], 1)
    temperature = common.fit_temperature(logits, (labels > 0.5).astype(int))
    targets = (1 - TRUST) * (DOUBT + (1 - 2 * DOUBT) * labels) + TRUST * expit(odds / temperature)
    texts, right = zip(*held_back)
    accuracy = ((Teacher(rows, tokenizer)(texts) > 0) == (np.array(right) > 0.5)).mean()
    return Judged([(text, float(target)) for (text, _), target in zip(rows, targets)],
                  [(text, float(expit(odds / temperature))) for text, odds in parts], float(accuracy))
