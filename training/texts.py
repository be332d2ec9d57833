"""Tokenised texts in flat arrays: joining, choosing, batching, padding."""

from __future__ import annotations

from typing import Iterable, NamedTuple

import numpy as np

PAD, UNKNOWN = 0, 1


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

    def cut(self, longest: int) -> "Texts":
        """The beginnings of all texts, of so many tokens at most."""
        return self._replace(lengths=np.minimum(self.lengths, longest))


def of_rows(rows: list[np.ndarray], targets: list[float]) -> Texts:
    """Texts out of the ids of each."""
    lengths = np.array([len(row) for row in rows], np.int64)
    return Texts(np.concatenate(rows), np.cumsum(lengths) - lengths, lengths, np.array(targets, np.float32))


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
