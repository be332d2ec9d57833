"""Train, export and describe `models/sentiment`, a reader of English and Chinese opinions with two answers."""

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
import language
import microblogs
import teacher
import tokens
from pieces import Drawer, Mix
from reader import HIDDEN, LABELS, MAX_TOKENS, SHIPPED, WIDTH, SentimentNet, answers, each
from texts import PAD, UNKNOWN, Texts, batches, pad
from tokens import Corpus

EPOCHS = 3           # of the first stage
LAST_EPOCHS = 2      # of the second
OTHERS_EPOCHS = 3    # of the third
PASSES = 1.3         # of the language model over all texts
BATCH_TOKENS = 6144
LONGEST = 512        # tokens of a text that is learnt from
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
    "很好。",
    "房间又小又脏，服务员态度极差，再也不会来了！",
    "物流很快，包装完好，手机用起来非常流畅，五星好评👍",
    "一点也不难吃，就是等得太久。",
    "這本書寫得真好，我一口氣讀完了。",
    "这个 app 的 UI 很 nice，但是 bug 太多，经常闪退[怒]",
    "龘靐齉爩",
    "@anonymous Good morning! https://t.co/Ab3dEf9x #love",
    "5/5, sooooo good &amp; cheap",
    "1 star 😡",
    "We bought this for our daughter, who had asked for nothing else since the spring, and at first everything "
    "looked right: the box was sturdy, the manual was clear, and the thing itself felt solid in the hand. Then the "
    "small troubles began. The battery lasted an hour, the charger grew so hot that we were afraid to leave it alone, "
    "and the screen lost its left side within a week. The shop answered politely and did nothing. The maker did not "
    "answer at all. In the end we paid for the repair ourselves, and two days later it was dead again. I wish that I "
    "could say that we were unlucky, but our neighbours have the same story to tell. Keep your money. " * 4,
]


# --- recipe ---------------------------------------------------------------------------


class Stage(NamedTuple):
    """A part of the training: what it reads, how often, and its highest learning rate."""

    name: str
    mix: Mix
    epochs: int
    rate: float


def stages(epochs: int) -> list[Stage]:
    """Everything first, then mostly short texts, so that the many long reviews do not have the last word."""
    return [
        Stage("all", {"phrases": 1, "neutral": 0.25, "lexicon": 1, "taught": 0.5, "yelp": 0.3, "imdb": 0.25,
                      "imdb pieces": 1, "shopping": 0.7, "shopping pieces": 0.3, "weibo": 1}, epochs, 2e-3),
        Stage("short", {"phrases": 1, "long phrases": 1, "neutral": 0.25, "lexicon": 0.5, "taught": 0.7, "yelp": 0.1,
                        "imdb": 0.15, "imdb pieces": 0.3, "shopping": 0.3, "weibo": 1}, min(epochs, LAST_EPOCHS), 5e-4),
    ]


OTHERS: Mix = {"judged microblogs": 2, "joined microblogs": 0.7, "talk": 1, "marked": 1, "statements": 1.5,
               "weighed phrases": 1, "taught": 0.3, "lexicon": 0.5, "remembered": 1}
REMEMBERED: Mix = {"phrases": 0.75, "yelp": 0.4, "imdb": 0.35, "shopping": 0.7}


def third_stage(epochs: int) -> Stage:
    """Microblogs and talk with their teachers' opinions, statements, and texts of the first kinds as they are read already."""
    return Stage("others", OTHERS, min(epochs, OTHERS_EPOCHS), 5e-4)


def remembered(model: SentimentNet, found: Corpus, seed: int) -> Texts:
    """Texts of the other kinds with what the network answers to them, so that it goes on to answer so.

    Li and Hoiem 2017, "Learning without Forgetting".
    """
    texts = Drawer(found).draw(REMEMBERED, LONGEST, np.random.default_rng(seed))
    return texts._replace(targets=common.softmax(each(model.eval(), texts))[:, 1].astype(np.float32))


def word_vectors(model: SentimentNet, found: Corpus, seed: int) -> dict[str, Texts]:
    """Give the network word vectors from counts, each language apart; answers the texts with one id a word."""
    alias = found.vocabulary.alias
    aliased = {name: texts._replace(ids=alias(texts.ids)) for name, texts in found.learnt.items()}
    nn.init.normal_(model.vectors.weight, std=0.1)
    for sets in (("phrases", "yelp", "imdb", "imdb unlabelled"), ("shopping", "weibo")):
        used, vectors = language.word_vectors([aliased[name] for name in sets], WIDTH, seed)
        fresh = used if "phrases" in sets else used[used >= model.words - model.han]  # the Han words
        model.vectors.weight.data[fresh] = vectors[np.searchsorted(used, fresh)]
    return aliased


def begin(model: SentimentNet, found: Corpus, options: argparse.Namespace, clock: common.Clock) -> None:
    """Give the network word vectors, and teach it to guess the next word."""
    aliased = word_vectors(model, found, options.seed)
    clock.log("word vectors are ready")
    sentences = aliased["phrases"].only(aliased["phrases"].lengths >= 15)
    stream = np.concatenate([*(aliased[name].ids for name in ("imdb unlabelled", "imdb", "yelp", "shopping", "weibo")),
                             *(sentences.row(k) for k in range(len(sentences.lengths)))])
    passes = PASSES / 20 if options.smoke else PASSES
    language.pretrain(model.vectors, model.recurrence, stream, passes, options.seed, clock)


def train(model: SentimentNet, stage: Stage, found: Corpus, seed: int, clock: common.Clock) -> SentimentNet:
    """Run one stage on soft targets and return the averaged weights."""
    average = common.Average(model, 0.998)
    torch.manual_seed(seed)
    random, drawer = np.random.default_rng(seed), Drawer(found)
    optimiser = torch.optim.Adam(model.train().parameters(), betas=(0.9, 0.98))
    for epoch in range(stage.epochs):
        texts = drawer.draw(stage.mix, LONGEST, random)
        groups = batches(texts, BATCH_TOKENS, random)
        total = 0.0
        for k, group in enumerate(groups):
            share = common.cosine(epoch * len(groups) + k, stage.epochs * len(groups), 200)
            for parameters in optimiser.param_groups:
                parameters["lr"] = stage.rate * share
            ids = torch.from_numpy(pad(texts, group))
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
        clock.log(f"{stage.name}, epoch {epoch + 1}/{stage.epochs}: {len(groups)} batches, "
                  f"loss {total / len(groups):.3f}, "
                  + ", ".join(f"{name} {share:.4f}" for name, share in right.items()))
    return average.model.train()


def read_others(model: SentimentNet, found: Corpus, judged: teacher.Judged, blogs: microblogs.Judged,
                options: argparse.Namespace, clock: common.Clock) -> SentimentNet:
    """The third stage."""
    plan = third_stage(options.epochs)
    encoded = {name: tokens.encode(found.vocabulary.tokenizer, rows) for name, rows in (
        ("judged microblogs", blogs.microblogs), ("joined microblogs", blogs.joined), ("talk", judged.talk),
        ("marked", judged.marked), ("weighed phrases", judged.phrases))}
    found = found._replace(learnt={**found.learnt, **encoded, "remembered": remembered(model, found, options.seed)})
    return train(model, plan, found, options.seed + 2, clock)


def trained(found: Corpus, judged: teacher.Judged, blogs: microblogs.Judged, options: argparse.Namespace,
            clock: common.Clock) -> SentimentNet:
    """Run every stage, or those that an earlier run with the same flags did not finish."""
    model = SentimentNet(found.vocabulary)

    def stage(name: str, run) -> None:
        nonlocal model
        kept = options.cache / f"sentiment-{name}-{options.epochs}-{options.seed}{'-smoke' * options.smoke}.pt"
        if kept.exists():
            state = torch.load(kept)
            model.load_state_dict(state["weights"])
            clock.resume(state["minutes"])
            return
        model = run(model) or model
        common.save(kept, {"weights": model.state_dict(), "minutes": clock.minutes()})

    stage("language", lambda model: begin(model, found, options, clock))
    found.learnt["taught"] = tokens.encode(found.vocabulary.tokenizer, judged.texts)
    for number, plan in enumerate(stages(options.epochs)):
        stage(plan.name, lambda model: train(model, plan, found, options.seed + number, clock))
    stage("others", lambda model: read_others(model, found, judged, blogs, options, clock))
    return model


# --- what is written ------------------------------------------------------------------


def exported(model: SentimentNet) -> bytes:
    """The ONNX file of a network, whose vectors become exact in f16 and are stored so."""
    model.vectors.weight.data = model.vectors.weight.data.half().float()
    return common.export(model, torch.ones(2, 9, dtype=torch.int64), "ids", {0: "batch", 1: "length"},
                         store_half=["vectors.weight"])


def golden(model: SentimentNet, tokenizer: Tokenizer) -> dict:
    """Texts with their token ids and the logits that torch gives for each alone."""
    cases = []
    for text in GOLDEN_TEXTS:
        ids = tokenizer.encode(text).ids[:MAX_TOKENS]
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0]
        cases.append({"text": text, "ids": ids, "logits": [round(float(v), 7) for v in logits]})
    return {"input": "ids", "tolerance": 1e-3, "cases": cases}


def check_rows(network: bytes, model: SentimentNet, texts: Texts) -> float:
    """Hold ONNX Runtime to torch on mixed batches, and each row to its answer alone."""
    texts = texts.cut(MAX_TOKENS)
    worst = 0.0
    for size in (1, 7, 32):
        rows = pad(texts, np.arange(size))
        with torch.no_grad():
            expected = np.concatenate([model(torch.from_numpy(pad(texts, np.array([k])))).numpy()
                                       for k in range(size)])
        worst = max(worst, common.check_close(network, "ids", rows, expected))
    return worst


def calibrate(model: SentimentNet, found: Corpus, seed: int) -> list[tuple]:
    """Fit how sharp the answers are on one half of each measured set, each weighing the same, in place.

    Answers a row of the card for each set: its size and accuracy, and for the other half the calibration errors
    before and after, and what chance alone would make of the latter.
    """
    fitting, judging = [], {}
    for name, texts in found.measured.items():
        (logits, labels), clues = answers(model, texts), each(model.clues, texts)
        fitted = np.array([common.hash_share(texts.row(k).tobytes()) < 0.5 for k in range(len(labels))])
        fitting.append([torch.from_numpy(part[fitted]) for part in (logits, clues, labels)])
        judging[name] = fitted, logits, labels
    sharpness = torch.zeros_like(model.sharpness, requires_grad=True)
    common.minimise(sharpness, lambda: sum(
        F.cross_entropy(logits * (clues @ sharpness).exp().unsqueeze(1), labels) for logits, clues, labels in fitting))
    model.sharpness.copy_(sharpness.detach())
    rows = []
    for name, (fitted, before, labels) in judging.items():
        after = answers(model, found.measured[name])[0]
        errors = [common.calibration_error(logits[~fitted], labels[~fitted], 1.0) for logits in (before, after)]
        rows.append((name, len(labels), common.accuracy(after, labels), *errors,
                     common.calibration_noise(after[~fitted], seed)))
    return rows


def frontier(here: Path) -> tuple[str, str]:
    """What `sentiment_frontier.py` found of shapes: the kernels that were timed, and a table."""
    found = json.loads((here / "sentiment_frontier.json").read_text())
    rows = found["rows"]
    head = ["recurrence", "state", "parameters", "tract, us", "served, us", *rows[0]["right"]]
    return found["form"], common.table(head, [
        (row["cell"], row["state"], f"{row['parameters']:,}", row["tract"], row["served"], *row["right"].values())
        for row in rows])


def finish(model: SentimentNet, found: Corpus, judged: teacher.Judged, blogs: microblogs.Judged,
           options: argparse.Namespace, clock: common.Clock) -> None:
    """Export, check, calibrate, measure and write the model's folder."""
    domains = calibrate(model.eval(), found, options.seed)
    network = exported(model)
    worst = max(check_rows(network, model, texts) for texts in found.measured.values())
    clock.log(f"ONNX Runtime and torch differ by {worst:.1e} at most; {len(network)} bytes")

    here, vocabulary = Path(__file__).parent, found.vocabulary
    form, frontier_table = frontier(here)
    number = {name.replace(" ", "_"): f"{len(texts.starts):,}" for name, texts in found.learnt.items()}
    facts = {
        **number,
        "domains": common.table(["texts", "number", "accuracy", "ECE before", "ECE after", "ECE by chance"], domains),
        "accuracy": f"{domains[0][2]:.4f}", "sharpness": ", ".join(f"{value:.3f}" for value in model.sharpness), "max_tokens": MAX_TOKENS,
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "vectors": f"{vocabulary.words:,}", "han": f"{vocabulary.han:,}", "width": WIDTH, "state": SHIPPED.state, "hidden": HIDDEN,
        "token_flop": f"{2 * 3 * SHIPPED.state * (WIDTH + SHIPPED.state) / 1e6:.2f}",
        "epochs": " + ".join(str(stage.epochs) for stage in stages(options.epochs)), "passes": PASSES,
        "others_epochs": third_stage(options.epochs).epochs, "blogs_right": f"{100 * blogs.accuracy:.1f} %",
        "joined": f"{len(blogs.joined):,}", "talk": f"{len(judged.talk):,}", "marked": f"{len(judged.marked):,}",
        "weighed": f"{len(judged.phrases):,}", "trust": microblogs.TRUST,
        "teacher": ", ".join(f"{100 * right:.1f} % of {name}" for name, right in judged.accuracy.items()),
        "frontier": frontier_table, "form": form,
        "seed": options.seed, "threads": options.threads,
        "minutes": f"{clock.minutes():.0f}", "worst": f"{worst:.0e}",
    }
    common.write(options.out / "1" / "model.onnx", network)
    common.write(options.out / "labels.txt", "\n".join(LABELS) + "\n")
    # The tokenizer neither pads nor cuts, the server does.
    compact = json.dumps(json.loads(vocabulary.tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    common.write(options.out / "tokenizer.json", compact + "\n")
    common.write_json(options.out / "golden.json", golden(model, vocabulary.tokenizer))
    common.write(options.out / "model.toml", Template((here / "sentiment.toml").read_text()).substitute(facts))
    common.write(options.out / "MODEL_CARD.md", Template((here / "sentiment.md").read_text()).substitute(facts))
    clock.log(f"accuracy {facts['accuracy']}, sharpness {facts['sharpness']}, written to {options.out}")


def main() -> None:
    options = common.arguments(__doc__, "sentiment", EPOCHS)
    common.start(options.seed, options.threads)
    clock = common.Clock()
    found = tokens.load(options.data, options.cache, options.smoke)
    clock.log(", ".join(f"{len(texts.starts)} {name}" for name, texts in found.learnt.items()))
    judged = teacher.judge(options, clock)
    blogs = microblogs.judge(*corpus.microblogs(options.data, options.smoke), found.vocabulary.tokenizer,
                             options.seed, options.smoke)
    clock.log(f"the teacher of microblogs recognises {blogs.accuracy:.4f} of those held back")
    finish(trained(found, judged, blogs, options, clock), found, judged, blogs, options, clock)


if __name__ == "__main__":
    main()
