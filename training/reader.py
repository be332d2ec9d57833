"""The sentiment network and what it answers."""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import tokens
from texts import PAD, Texts, pad

LABELS = ["negative", "positive"]
MAX_TOKENS = 2048  # that the server reads of a text
WIDTH = 128        # of a token's vector
HIDDEN = 64


class Shape(NamedTuple):
    """The recurrence: "gru", "lstm", or "none" for a network that does not know the order of words."""

    cell: str
    state: int


SHIPPED = Shape("gru", 112)


class SentimentNet(nn.Module):
    """One forward recurrence, pooled over the real tokens: ids [n, length] to logits [n, 2].

    Rows are right-padded with 0. The recurrence reads forwards, so no state of a real token has
    seen padding, and the pooling leaves padding out: a row's answer depends on that row alone.
    Ids from `words` on are second forms of the `han` ids below it (`tokens.Vocabulary`).

    The logits are multiplied by exp(`sharpness` . `clues`), which is fitted when all else is learnt: how far an
    answer is to be believed depends on how much was read and in which language. That is temperature scaling (Guo
    et al. 2017) with a temperature for each row (Tomani et al. 2022, "Parameterized Temperature Scaling").
    """

    def __init__(self, vocabulary: tokens.Vocabulary, shape: Shape = SHIPPED) -> None:
        super().__init__()
        self.words, self.han, self.shape = vocabulary.words, vocabulary.han, shape
        self.vectors = nn.Embedding(self.words, WIDTH)
        if shape.cell != "none":
            self.recurrence = {"gru": nn.GRU, "lstm": nn.LSTM}[shape.cell](WIDTH, shape.state)
        self.hidden = nn.Linear(2 * shape.state + WIDTH, HIDDEN)
        self.head = nn.Linear(HIDDEN, len(LABELS))
        self.register_buffer("sharpness", torch.zeros(3))

    def clues(self, ids: torch.Tensor) -> torch.Tensor:
        """One, a third of the logarithm of the tokens, and the share of Han words among them: [n, length] to [n, 3]."""
        count = (ids != PAD).float().sum(1).clamp(min=1)
        han = (ids >= self.words - self.han).float().sum(1)
        return torch.stack([torch.ones_like(count), count.log() / 3, han / count], 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        sharp = (self.clues(ids) * self.sharpness).sum(1, keepdim=True).exp()
        ids = torch.where(ids >= self.words, ids - self.han, ids).t()
        real = (ids != PAD).float().unsqueeze(2)
        words = F.dropout(self.vectors(ids), 0.25, self.training)
        states = self._states(words)
        count = real.sum(0).clamp(min=1)
        pooled = torch.cat([
            (states * real).sum(0) / count,
            (states * real + (real - 1)).amax(0),  # a state is never below -1: padding is never the largest
            (words * real).sum(0) / count,
        ], 1)
        pooled = F.relu(self.hidden(F.dropout(pooled, 0.4, self.training)))
        return self.head(F.dropout(pooled, 0.2, self.training)) * sharp

    def _states(self, words: torch.Tensor) -> torch.Tensor:
        # The first state is said, not left out: engines build it for any number of rows.
        first = torch.zeros(1, words.size(1), self.shape.state)
        if self.shape.cell == "none":
            return words.tanh()
        return self.recurrence(words, first if self.shape.cell == "gru" else (first, first))[0]


@torch.no_grad()
def each(function: Callable[[torch.Tensor], torch.Tensor], texts: Texts) -> np.ndarray:
    """What a function of padded ids makes of every text, cut as the server cuts."""
    texts = texts.cut(MAX_TOKENS)
    groups = np.array_split(np.argsort(texts.lengths), len(texts.lengths) // 64 + 1)
    rows = np.concatenate([function(torch.from_numpy(pad(texts, group))).numpy() for group in groups])
    return rows[np.argsort(np.concatenate(groups))]


def answers(model: nn.Module, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of every text."""
    return each(model.eval(), texts), (texts.targets > 0.5).astype(int)
