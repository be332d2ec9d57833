"""Train networks of several shapes on the same short budget and write `face_frontier.json`, which the card shows.

The budget is a small part of the recipe's: it ranks shapes, it does not say how good they become. A shape that the
file holds already is not trained again, so that the script can be stopped at any time. What each shape costs in
tract is measured last, all of them in turns, each time that the script runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import common
import timing
from classifier import FaceNet, Shape, fold, mega_flop
from face import first_round, predict, train, vote_loss
from faces import SIDE, load

EPOCHS = 6
SHAPES = [
    Shape(),
    Shape((32, 96, 160), (1, 1, 2)),
    Shape((32, 64, 128), (1, 1, 2)),
    Shape((32, 64, 128), (1, 1, 1)),
    Shape((32, 96, 160), (1, 2, 2)),
]
# Not trained: they show what else there is for the price.
COSTS_ONLY = [
    Shape((32, 64, 128), (1, 2, 3), 128),
    Shape((48, 96, 192), (1, 1, 1)),
    Shape((32, 64, 128, 256), (1, 1, 1, 1)),
]


def name(shape: Shape) -> str:
    """Channels of the stages and blocks in each."""
    return f"{'-'.join(map(str, shape.widths))}, {'-'.join(map(str, shape.blocks))}"


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0], "face", EPOCHS)
    out = Path(__file__).with_name("face_frontier.json")
    faces, valid = load(options.data, options.cache)
    clock = common.Clock()
    found = json.loads(out.read_text()) if out.exists() else {"epochs": options.epochs, "rows": {}}
    if found["epochs"] != options.epochs:
        raise SystemExit(f"{out} holds a budget of {found['epochs']} epochs")
    for shape in SHAPES:
        row = found["rows"].setdefault(name(shape), {})
        if "accuracy" in row:
            continue
        common.start(options.seed, options.threads)
        model = train(FaceNet(shape), faces, valid, first_round(options.epochs), clock, None)
        logits = predict(fold(model), valid)
        row |= {"valid_loss": round(vote_loss(logits, valid), 4),
                "accuracy": round(common.accuracy(logits, valid.labels), 4)}
        common.write_json(out, found)
    models = {name(shape): fold(FaceNet(shape)) for shape in SHAPES + COSTS_ONLY}
    networks = [common.export(model, torch.zeros(2, 1, SIDE, SIDE), "image", {0: "batch"}) for model in models.values()]
    found["form"], costs = timing.costs(networks, np.zeros((1, 1, SIDE, SIDE), np.float32))
    for (key, model), cost in zip(models.items(), costs):
        found["rows"].setdefault(key, {}).update(
            mega_flop=round(mega_flop(model)), parameters=sum(p.numel() for p in model.parameters()), **cost._asdict())
    common.write_json(out, found)


if __name__ == "__main__":
    main()
