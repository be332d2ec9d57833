"""Train networks of several shapes on the same short budget and write `sentiment_frontier.json`, which the card shows.

The budget is a small part of the recipe's, without its language model and its teacher: it ranks shapes, it does not
say how good they become. What each shape costs in tract is measured last, all of them in turns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import common
import sentiment
import timing
import tokens
from reader import SHIPPED, SentimentNet, Shape, answers

SHAPES = [Shape("none", 128), Shape("gru", 96), SHIPPED, Shape("gru", 128), Shape("gru", 160), Shape("gru", 256),
          Shape("lstm", 160)]
BUDGET = sentiment.Stage("brief", {"phrases": 1, "imdb pieces": 0.3, "shopping": 0.3, "weibo": 1}, 1, 2e-3)
ROWS, TOKENS = 8, 32


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0], "sentiment", sentiment.EPOCHS)
    common.start(options.seed, options.threads)
    clock = common.Clock()
    found = tokens.load(options.data, options.cache, options.smoke)
    first = SentimentNet(found.vocabulary)
    sentiment.word_vectors(first, found, options.seed)
    clock.log("word vectors are ready")
    rows, networks = [], []
    for shape in SHAPES:
        common.start(options.seed, options.threads)
        model = SentimentNet(found.vocabulary, shape)
        model.vectors.load_state_dict(first.vectors.state_dict())
        model = sentiment.train(model, BUDGET, found, options.seed, clock).eval()
        right = {name: round(common.accuracy(*answers(model, texts)), 4) for name, texts in found.measured.items()}
        rows.append({**shape._asdict(), "parameters": sum(p.numel() for p in model.parameters()), "right": right})
        networks.append(sentiment.exported(model))
    batch = np.random.default_rng(options.seed).integers(2, found.vocabulary.words, (ROWS, TOKENS), np.int64)
    form, costs = timing.costs(networks, batch)
    for row, cost in zip(rows, costs):
        row |= cost._asdict()
    common.write_json(Path(__file__).with_name("sentiment_frontier.json"), {"form": form, "rows": rows})


if __name__ == "__main__":
    main()
