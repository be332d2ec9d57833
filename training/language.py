"""What the sentiment network learns from texts without labels: word vectors, then the next word.

Sources: vectors from counts by Levy, Goldberg and Dagan 2015; a language model as the beginning of a
classifier by Dai and Le 2015 ("Semi-supervised Sequence Learning") and Howard and Ruder 2018.
"""

from __future__ import annotations

from typing import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import common
from texts import Texts

NEIGHBOURS = 6        # tokens on either side that count as such
WINDOW = 48           # tokens that the language model reads at once
WINDOWS = 128         # of them in a batch
DRAWN = 640           # words that the right next word is told apart from
RATE = 2e-3
DROPPED = 0.1


def word_vectors(sets: Iterable[Texts], width: int, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Vectors from counts: the smoothed positive PMI of neighbours, factored by a truncated SVD.

    Answers the ids that occur, ascending, and a vector for each.
    """
    sets = list(sets)
    used = np.unique(np.concatenate([texts.ids for texts in sets]))
    size = len(used)
    counts = np.zeros(size * size, np.float32)
    for texts in sets:
        ids = np.searchsorted(used, texts.ids)
        owner = np.repeat(np.arange(len(texts.lengths)), texts.lengths)
        for distance in range(1, NEIGHBOURS + 1):
            same = owner[:-distance] == owner[distance:]
            pairs, times = np.unique(ids[:-distance][same] * size + ids[distance:][same], return_counts=True)
            counts[pairs] += times / distance
    matrix = torch.from_numpy(counts).view(size, size)
    matrix += matrix.t().clone()
    once = matrix.sum(1).clamp(min=1)
    smoothed = once**0.75
    matrix.div_(once.unsqueeze(1)).div_((smoothed / smoothed.sum()).unsqueeze(0))
    matrix.clamp_(min=1).log_()
    torch.manual_seed(seed)
    left, strength, _ = torch.svd_lowrank(matrix, width + 32, niter=3)
    vectors = left[:, :width] * strength[:width].sqrt()
    return used, vectors * (0.25 / vectors.std())


class NextWord(nn.Module):
    """Guesses each next word by a recurrence's state: sampled softmax (Jean et al. 2015) over shared vectors."""

    def __init__(self, vectors: nn.Embedding, recurrence: nn.GRU, chances: torch.Tensor) -> None:
        super().__init__()
        self.vectors, self.recurrence = vectors, recurrence
        self.guess = nn.Linear(recurrence.hidden_size, vectors.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(vectors.num_embeddings))
        self.register_buffer("chances", chances)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The mean loss over a window of ids [windows, tokens]."""
        read, right = ids[:, :-1], ids[:, 1:].reshape(-1)
        states, _ = self.recurrence(F.dropout(self.vectors(read), DROPPED, self.training).transpose(0, 1))
        states = states.transpose(0, 1).reshape(-1, self.recurrence.hidden_size)
        guessed = self.guess(F.dropout(states, DROPPED, self.training))
        drawn = torch.multinomial(self.chances, DRAWN, replacement=True)
        shift = (DRAWN * self.chances).log()
        match = (guessed * self.vectors(right)).sum(1) + self.bias[right] - shift[right]
        others = torch.addmm(self.bias[drawn] - shift[drawn], guessed, self.vectors(drawn).t())
        others = others.masked_fill(drawn.unsqueeze(0) == right.unsqueeze(1), -1e4)
        return (torch.logsumexp(torch.cat([match.unsqueeze(1), others], 1), 1) - match).mean()


def pretrain(vectors: nn.Embedding, recurrence: nn.GRU, stream: np.ndarray, passes: float, seed: int,
             clock: common.Clock) -> None:
    """Teach `vectors` and `recurrence` to guess the next word of `stream`, read so many times."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    ids = torch.from_numpy(stream.astype(np.int64))
    once = torch.bincount(ids, minlength=vectors.num_embeddings).float() ** 0.75
    model = NextWord(vectors, recurrence, once.clamp(min=1e-3) / once.clamp(min=1e-3).sum()).train()
    optimiser = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    steps = max(1, int(passes * len(ids) / (WINDOW * WINDOWS)))
    waiting: list[int] = []
    total = 0.0
    for step in range(steps):
        if len(waiting) < WINDOWS:
            begin = int(random.integers(0, WINDOW))
            waiting = list(random.permutation((len(ids) - begin - 1) // WINDOW) * WINDOW + begin)
        starts = torch.tensor([waiting.pop() for _ in range(min(WINDOWS, len(waiting)))])
        for parameters in optimiser.param_groups:
            parameters["lr"] = RATE * common.cosine(step, steps, min(300, steps // 4 + 1))
        loss = model(ids[starts.unsqueeze(1) + torch.arange(WINDOW + 1)])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        total += loss.item()
        if (step + 1) % 500 == 0:
            clock.log(f"next word, step {step + 1}/{steps}: loss {total / 500:.3f}")
            total = 0.0
