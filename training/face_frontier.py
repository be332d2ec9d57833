"""Train networks of several shapes on the same short budget and write `face_frontier.json`, which the card shows.

The budget is a small part of the recipe's: it ranks shapes, it does not say how good they become.
What each costs is measured first. A shape that the file holds already is not measured or trained again,
so that the script can be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import common
from face import FaceNet, Shape, fold, mega_flop, predict, train, vote_loss
from faces import load

# Widths of the stages, blocks in each, side of the faces.
SHAPES = [
    Shape((32, 96, 160), (1, 1, 2)),
    Shape((32, 64, 128), (1, 1, 2)),
    Shape((32, 64, 128), (1, 2, 3)),
    Shape((48, 96, 192), (1, 1, 1)),
    Shape((32, 64, 128), (1, 1, 1)),
    Shape((32, 64, 128, 256), (1, 1, 1, 1)),
    Shape((32, 64, 128), (1, 1, 2), 64),
]


def microseconds(network: bytes, shape: Shape) -> float:
    """ONNX Runtime's time for one face on one thread: the fastest of many, which other work disturbs least."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    face = {"image": np.zeros((1, 1, shape.side, shape.side), np.float32)}
    times = []
    for _ in range(500):
        began = time.perf_counter()
        session.run(None, face)
        times.append(time.perf_counter() - began)
    return min(times) * 1e6


def cost(shape: Shape) -> dict:
    """What a network of this shape costs, trained or not."""
    model = fold(FaceNet(shape))
    network = common.export(model, torch.zeros(2, 1, shape.side, shape.side), "image", {0: "batch"})
    return {**shape._asdict(), "mega_flop": round(mega_flop(model), 1),
            "parameters": sum(p.numel() for p in model.parameters()),
            "microseconds": round(microseconds(network, shape))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=common.REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=common.REPOSITORY / "training" / ".cache")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("face_frontier.json"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    faces, valid = load(options.data, options.cache)
    found = json.loads(options.out.read_text()) if options.out.exists() else {"epochs": options.epochs, "rows": []}
    if found["epochs"] != options.epochs:
        parser.error(f"{options.out} holds a budget of {found['epochs']} epochs")
    known = {(*row["widths"], *row["blocks"], row["side"]): row for row in found["rows"]}
    common.start(options.seed, options.threads)
    for shape in SHAPES:
        if (*shape.widths, *shape.blocks, shape.side) not in known:
            found["rows"].append(cost(shape))
            common.write_json(options.out, found)
    for row in found["rows"]:
        if "accuracy" in row:
            continue
        shape, clock = Shape(tuple(row["widths"]), tuple(row["blocks"]), row["side"]), common.Clock()
        common.start(options.seed, options.threads)
        model, _ = train(faces, valid, options.epochs, shape, clock, None, options.epochs)
        logits = predict(fold(model), valid)
        row |= {"valid_loss": round(vote_loss(logits, valid), 4),
                "accuracy": round(common.accuracy(logits, valid.labels), 4)}
        clock.log(str(row))
        common.write_json(options.out, found)


if __name__ == "__main__":
    main()
