"""Train detectors of several shapes on the same short budget and write `detector_frontier.json`, which the card shows.

The budget is a small part of the recipe's: it ranks shapes, it does not say how good they become. A shape that the
file holds already is not trained again, so that the script can be stopped at any time. What each shape costs in
tract is measured last, all of them in turns, each time that the script runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import boxes
import common
import timing
from detector import train
from finder import FaceDetector, Network, export, fold, giga_flop
from photos import load

STEPS = 300
SIDE, HEIGHT, WIDTH = 320, 256, 320
SHAPES = {
    "shipped": {},
    "half as wide": {"fine": 16, "widths": (24, 48, 64), "head": 24},
    "no residual blocks": {"blocks": (0, 0, 0)},
    "one block more at strides 8 and 16": {"blocks": (2, 2, 2)},
}


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0], "face-detector", 1)
    out = Path(__file__).with_name("detector_frontier.json")
    clock = common.Clock()
    photos = load(options.data, options.data.parent / "models", options.cache, 60 if options.smoke else None)
    found = json.loads(out.read_text()) if out.exists() else {"steps": STEPS, "rows": {}}
    truth = [photo.boxes for photo in photos.development]
    for name, shape in SHAPES.items():
        row = found["rows"].setdefault(name, {})
        if "average_precision" in row:
            continue
        common.start(options.seed, options.threads)
        model = fold(train(photos, STEPS, options.seed, None, clock, FaceDetector(**shape)))
        network = Network(export(model))
        row["average_precision"] = round(
            boxes.average_precision([network.find(photo.pixels, SIDE) for photo in photos.development], truth), 3)
        clock.log(f"{name}: {row}")
        common.write_json(out, found)
    models = {name: fold(FaceDetector(**shape)) for name, shape in SHAPES.items()}
    picture = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    found["form"], costs = timing.costs([export(model) for model in models.values()], picture)
    for (name, model), cost in zip(models.items(), costs):
        found["rows"][name].update(giga_flop=round(giga_flop(model, HEIGHT, WIDTH), 2),
                                   parameters=sum(p.numel() for p in model.parameters()), **cost._asdict())
    common.write_json(out, found)


if __name__ == "__main__":
    main()
