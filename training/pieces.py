"""What an epoch of the sentiment recipe reads: whole texts, and runs of sentences out of long ones."""

from __future__ import annotations

from typing import Mapping

import numpy as np

from texts import Texts, join
from tokens import Corpus

# How far a label is believed where it is the star of a review and not what somebody said of the text.
DOUBT = {"yelp": 0.05, "imdb": 0.03, "shopping": 0.05, "weibo": 0.08}
SENTENCES = (1, 1, 1, 2, 2, 3, 5, 8)  # of a run, drawn evenly
LONG_PHRASE = 10                      # tokens
SHORTEST_RUN = 4                      # tokens

# Shares of each set: 0.5 is half of it, 2 is all of it twice. Beside the names of the learnt sets,
# "long phrases" are the SST phrases of ten tokens or more, and "NAME pieces" runs of sentences.
Mix = Mapping[str, float]


class Drawer:
    """Draws the texts of an epoch."""

    def __init__(self, corpus: Corpus) -> None:
        named = corpus.learnt
        self._parts = join(named.values())
        borders = np.cumsum([0, *(len(part.starts) for part in named.values())])
        self._rows = {name: np.arange(a, b) for name, a, b in zip(named, borders, borders[1:])}
        phrases = self._rows["phrases"]
        self._rows["long phrases"] = phrases[self._parts.lengths[phrases] >= LONG_PHRASE]
        ends = [corpus.vocabulary.tokenizer.token_to_id(mark) for mark in ".!?\u3002"]
        self._after_sentence = np.flatnonzero(np.isin(self._parts.ids, ends)) + 1

    def draw(self, mix: Mix, longest: int, random: np.random.Generator) -> Texts:
        """The texts of one epoch, in no order, cut after `longest` tokens."""
        columns = []
        for name, share in mix.items():
            of = name.removesuffix(" pieces")
            chosen = self._some(self._rows[of], share, random)
            texts = self._parts.only(chosen)
            if of != name:
                texts = self._runs(texts, random)
            elif of in DOUBT:
                texts = texts._replace(targets=np.clip(texts.targets, DOUBT[of], 1 - DOUBT[of]))
            columns.append(texts[1:])
        return Texts(self._parts.ids, *(np.concatenate(column) for column in zip(*columns))).cut(longest)

    def _some(self, rows: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
        whole, rest = divmod(share, 1)
        return np.concatenate([*[rows] * int(whole), random.choice(rows, int(len(rows) * rest), replace=False)])

    def _runs(self, texts: Texts, random: np.random.Generator) -> Texts:
        """One run of sentences from each text; the shorter, the less its label is believed."""
        borders, ends = self._after_sentence, texts.starts + texts.lengths
        first = np.searchsorted(borders, texts.starts, "right")
        last = np.searchsorted(borders, ends, "left")
        pick = first + (random.random(len(ends)) * (last - first + 1)).astype(int) - 1
        begins = np.where(pick < first, texts.starts, borders[np.clip(pick, 0, len(borders) - 1)])
        until = np.minimum(pick + random.choice(SENTENCES, len(ends)), len(borders) - 1)
        stops = np.minimum(np.where(until < last, borders[until], ends), ends)
        lengths = stops - begins
        doubt = 0.03 + 0.25 * np.exp(-lengths / 40)
        targets = np.where(texts.targets > 0.5, 1 - doubt, doubt).astype(np.float32)
        return Texts(texts.ids, begins, lengths, targets).only(lengths >= SHORTEST_RUN)
