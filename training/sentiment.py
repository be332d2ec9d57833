"""Train, export and describe `models/sentiment`, a reader of English opinions with two answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

import common
import corpus
from corpus import MAX_TOKENS, PAD, UNKNOWN, Corpus, Mix, Texts

LABELS = ["negative", "positive"]
WIDTH = 128    # of a token's vector
STATE = 128    # of the recurrence
HIDDEN = 64
EPOCHS = 6     # of the first stage
BATCH_TOKENS = 4096
GOLDEN_TEXTS = [
    "Good.",
    "I loved every minute of it!",
    "Not bad at all, but I would not watch it again.",
    "The waiter was rude, the soup was cold & the bill was wrong... never again!!!",
    "It is n't the worst of the year -LRB- that prize is taken -RRB- , but it comes close .",
    "Café “Zoë” won’t disappoint: naïve décor, 10/10 crème brûlée 😀",
    "what a waste of two hours",
    "A quiet, patient and deeply moving film about two brothers who hardly speak.",
    "UNBELIEVABLY DULL; even the explosions seemed tired.",
    "We bought this for our daughter, who had asked for nothing else since the spring, and at first everything "
    "looked right: the box was sturdy, the manual was clear, and the thing itself felt solid in the hand. Then the "
    "small troubles began. The battery lasted an hour, the charger grew so hot that we were afraid to leave it alone, "
    "and the screen lost its left side within a week. The shop answered politely and did nothing. The maker did not "
    "answer at all. In the end we paid for the repair ourselves, and two days later it was dead again. I wish that I "
    "could say that we were unlucky, but our neighbours have the same story to tell. Keep your money.",
]


# --- network --------------------------------------------------------------------------


class SentimentNet(nn.Module):
    """One forward GRU, pooled over the real tokens: ids [n, length] to logits [n, 2].

    Rows are right-padded with 0. The recurrence reads forwards, so no state of a real token has
    seen padding, and the pooling leaves padding out: a row's answer depends on that row alone.
    """

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.vectors = nn.Embedding.from_pretrained(vectors, freeze=False)
        self.recurrence = nn.GRU(WIDTH, STATE)
        self.hidden = nn.Linear(2 * STATE + WIDTH, HIDDEN)
        self.head = nn.Linear(HIDDEN, len(LABELS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        ids = ids.t()
        real = (ids != PAD).float().unsqueeze(2)
        words = F.dropout(self.vectors(ids), 0.25, self.training)
        states, _ = self.recurrence(words, torch.zeros(1, ids.size(1), STATE))
        count = real.sum(0).clamp(min=1)
        pooled = torch.cat([
            (states * real).sum(0) / count,
            (states * real + (real - 1)).amax(0),  # a state is never below -1
            (words * real).sum(0) / count,
        ], 1)
        pooled = F.relu(self.hidden(F.dropout(pooled, 0.4, self.training)))
        return self.head(F.dropout(pooled, 0.2, self.training))


def word_vectors(texts: list[Texts], size: int, seed: int) -> torch.Tensor:
    """Vectors from counts: the smoothed positive PMI of neighbours, factored by a truncated SVD."""
    counts = np.zeros(size * size, np.float32)
    for part in texts:
        ids = part.ids.astype(np.int64)
        owner = np.repeat(np.arange(len(part.lengths)), part.lengths)
        for distance in range(1, 7):
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
    left, strength, _ = torch.svd_lowrank(matrix, WIDTH + 32, niter=3)
    vectors = left[:, :WIDTH] * strength[:WIDTH].sqrt()
    return vectors * (0.25 / vectors.std())


# --- recipe ---------------------------------------------------------------------------


class Stage(NamedTuple):
    """A part of the training: what it reads, how often, and its highest learning rate."""

    mix: Mix
    epochs: int
    rate: float


def stages(epochs: int) -> list[Stage]:
    """Everything first, then mostly short texts, so that the many long reviews do not have the last word."""
    return [
        Stage(Mix(phrases=1, sentences=0, neutral=0.25, yelp=0.5, heads=0.5, pieces=2), epochs, 2e-3),
        Stage(Mix(phrases=1, sentences=1, neutral=0.25, yelp=0.1, heads=0.1, pieces=0.3), (epochs + 1) // 2, 7e-4),
    ]


def train(model: SentimentNet, stage: Stage, found: Corpus, seed: int, clock: common.Clock) -> SentimentNet:
    """Run one stage on soft targets and return the averaged weights."""
    average = common.Average(model, 0.998)
    random, drawer = np.random.default_rng(seed), corpus.Drawer(found)
    optimiser = torch.optim.Adam(model.parameters())
    for epoch in range(stage.epochs):
        texts = drawer.draw(stage.mix, random)
        groups = corpus.batches(texts, BATCH_TOKENS, random)
        total = 0.0
        for k, group in enumerate(groups):
            share = common.cosine(epoch * len(groups) + k, stage.epochs * len(groups), 200)
            for parameters in optimiser.param_groups:
                parameters["lr"] = stage.rate * share
            ids = torch.from_numpy(corpus.pad(texts, group))
            ids[(torch.rand(ids.shape) < 0.04) & (ids != PAD)] = UNKNOWN
            positive = torch.from_numpy(texts.targets[group])
            loss = common.soft_cross_entropy(model(ids), torch.stack([1 - positive, positive], 1))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            average.update(model)
            total += loss.item()
        right = {name: common.accuracy(*answers(average.model, part)) for name, part in found.measured.items()}
        clock.log(f"epoch {epoch + 1}/{stage.epochs}: {len(groups)} batches, loss {total / len(groups):.3f}, "
                  + ", ".join(f"{name} {share:.4f}" for name, share in right.items()))
    return average.model.train()


@torch.no_grad()
def answers(model: SentimentNet, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of every text, cut as the server cuts."""
    model.eval()
    texts = texts._replace(lengths=np.minimum(texts.lengths, MAX_TOKENS))
    logits = np.zeros((len(texts.lengths), len(LABELS)), np.float32)
    for group in np.array_split(np.argsort(texts.lengths), len(logits) // 64 + 1):
        logits[group] = model(torch.from_numpy(corpus.pad(texts, group))).numpy()
    return logits, (texts.targets > 0.5).astype(int)


def golden(model: SentimentNet, tokenizer: Tokenizer) -> dict:
    """Sentences with their token ids and the logits that torch gives for each alone."""
    cases = []
    for text in GOLDEN_TEXTS:
        ids = tokenizer.encode(text).ids[:MAX_TOKENS]
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0]
        cases.append({"text": text, "ids": ids, "logits": [round(float(v), 7) for v in logits]})
    return {"input": "ids", "tolerance": 1e-3, "cases": cases}


def check_rows(network: bytes, model: SentimentNet, texts: Texts) -> float:
    """Hold ONNX Runtime to torch on mixed batches, and each row to its answer alone."""
    texts = texts._replace(lengths=np.minimum(texts.lengths, MAX_TOKENS))
    worst = 0.0
    for size in (1, 7, 32):
        rows = corpus.pad(texts, np.arange(size))
        with torch.no_grad():
            expected = np.concatenate([model(torch.from_numpy(corpus.pad(texts, np.array([k])))).numpy()
                                       for k in range(size)])
        worst = max(worst, common.check_close(network, "ids", rows, expected))
    return worst


def shipped_tokenizer(tokenizer: Tokenizer) -> str:
    """The tokenizer's file: it neither pads nor cuts, the server does."""
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n"


def finish(model: SentimentNet, found: Corpus, options: argparse.Namespace, clock: common.Clock) -> None:
    """Export, check, calibrate, measure and write the model's folder."""
    model.eval()
    model.vectors.weight.data = model.vectors.weight.data.half().float()
    network = common.export(model, torch.ones(2, 9, dtype=torch.int64), "ids", {0: "batch", 1: "length"},
                            store_half=["vectors.weight"])
    worst = max(check_rows(network, model, texts) for texts in found.measured.values())
    clock.log(f"ONNX Runtime and torch differ by {worst:.1e} at most; {len(network)} bytes")

    fitting, judging, domains = [], {}, []
    for name, texts in found.measured.items():
        logits, labels = answers(model, texts)
        fitted = np.array([common.hash_share(texts.row(k).tobytes()) < 0.5 for k in range(len(labels))])
        fitting.append((logits[fitted], labels[fitted]))
        judging[name] = logits[~fitted], labels[~fitted], common.accuracy(logits, labels), len(labels)
    temperature = common.fit_temperature(fitting)
    for name, (logits, labels, right, size) in judging.items():
        domains.append((name, size, right, common.calibration_error(logits, labels, 1.0),
                        common.calibration_error(logits, labels, temperature)))
    here = Path(__file__).parent
    facts = {
        "domains": common.table(["texts", "number", "accuracy", "ECE before", "ECE after"], domains),
        "accuracy": f"{domains[0][2]:.4f}", "temperature": temperature,
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "vocabulary": f"{found.tokenizer.get_vocab_size():,}",
        "token_flop": f"{2 * 3 * STATE * (WIDTH + STATE) / 1e6:.2f}",
        "phrases": f"{len(found.phrases.starts):,}", "neutral": f"{len(found.neutral.starts):,}",
        "reviews": f"{len(found.reviews.starts):,}", "unlabelled": f"{len(found.unlabelled.starts):,}",
        "sentences": f"{len(found.sentences.starts):,}",
        "epochs": " + ".join(str(stage.epochs) for stage in stages(options.epochs)),
        "seed": options.seed, "threads": options.threads,
        "minutes": f"{clock.minutes():.0f}", "worst": f"{worst:.0e}",
    }
    common.write(options.out / "1" / "model.onnx", network)
    common.write(options.out / "labels.txt", "\n".join(LABELS) + "\n")
    common.write(options.out / "tokenizer.json", shipped_tokenizer(found.tokenizer))
    common.write_json(options.out / "golden.json", golden(model, found.tokenizer))
    common.write(options.out / "model.toml", Template((here / "sentiment.toml").read_text()).substitute(facts))
    common.write(options.out / "MODEL_CARD.md", Template((here / "sentiment.md").read_text()).substitute(facts))
    clock.log(f"accuracy {facts['accuracy']}, temperature {temperature}, written to {options.out}")


def main() -> None:
    options = common.arguments(__doc__, "sentiment", EPOCHS)
    common.start(options.seed, options.threads)
    clock = common.Clock()
    found = corpus.load(options.data, options.cache, options.smoke)
    clock.log(f"{len(found.phrases.starts)} SST phrases, {len(found.sentences.starts)} Yelp sentences, "
              f"{len(found.reviews.starts)} and {len(found.unlabelled.starts)} IMDB reviews")
    vectors = word_vectors([found.phrases, found.sentences, found.reviews, found.unlabelled],
                           found.tokenizer.get_vocab_size(), options.seed)
    clock.log("word vectors are ready")

    model = SentimentNet(vectors)
    for number, stage in enumerate(stages(options.epochs)):
        model = train(model, stage, found, options.seed + number, clock)
    finish(model, found, options, clock)


if __name__ == "__main__":
    main()
