"""Train, export and describe `models/face-detector`, which finds faces in photographs."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import boxes
import common
import matching
from finder import CHANNELS, LOWEST, FaceDetector, Network, export, fold, giga_flop, normalise
from photos import DEVELOPMENT_SHARE, Photo, Photos, load
from scenes import Scenes

LONG_SIDES = (320, 640)
EPOCHS, STEPS_PER_EPOCH = 20, 250
PEAK_RATE, WEIGHT_DECAY = 2e-3, 0.05
LEVEL_SHARE = 0.45
THRESHOLDS = {320: 0.35, 640: 0.5}  # surer faces are answered, by the long side
GOLDEN_CASES, GOLDEN_HEIGHT, GOLDEN_WIDTH = 2, 64, 96
GOLDEN_FORMULA = "pixel(c, x, y, i) = (x * 7 + y * 13 + c * 31 + i * 29) % 256, image = (pixel / 255 - 0.5) / 0.25"


# --- training -------------------------------------------------------------------------


def train(photos: Photos, steps: int, seed: int, checkpoint: Path | None, clock: common.Clock,
          model: FaceDetector | None = None, every: int = STEPS_PER_EPOCH) -> FaceDetector:
    """Train on made-up scenes and return the averaged weights; a checkpoint is gone on from."""
    model = (model or FaceDetector()).to(memory_format=torch.channels_last)
    average = common.Average(model, 0.999)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": WEIGHT_DECAY},
                                   {"params": plain, "weight_decay": 0.0}], lr=PEAK_RATE)
    first = 0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint)
        first = state["step"]
        clock.resume(state["minutes"])
        model.load_state_dict(state["model"])
        average.resume(state["average"], first)
        optimiser.load_state_dict(state["optimiser"])
        clock.log(f"goes on from step {first}")
    totals: dict[str, float] = {}
    for step, batch in zip(range(first, steps), batches(Scenes(photos, seed), range(first, steps))):
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * rate(step, steps)
        pixels, *faces = batch
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            maps = model(normalise(pixels).contiguous(memory_format=torch.channels_last))
        loss, parts = matching.loss(maps, matching.Truth(*faces))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        average.update(model)
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + value
        if (step + 1) % every == 0 or step + 1 == steps:
            seen = (step % every) + 1
            clock.log(f"step {step + 1}/{steps}: " + ", ".join(f"{k} {v / seen:.3f}" for k, v in totals.items()))
            totals = {}
            if checkpoint is not None:
                common.save(checkpoint, {"step": step + 1, "minutes": clock.minutes(), "model": model.state_dict(),
                                         "average": average.model.state_dict(), "optimiser": optimiser.state_dict()})
    return average.model.to(memory_format=torch.contiguous_format)


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, level, then half a cosine to zero.

    While it is level, a run that was stopped may go on with more epochs or fewer.
    """
    level = int(LEVEL_SHARE * steps)
    warmup = min(300, steps // 8 + 1)
    return common.cosine(step, steps, warmup) if step < warmup else common.cosine(max(0, step - level), steps - level, 0)


def batches(scenes: Scenes, numbers: range) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches by number, made ahead by one process beside this one."""
    loader = torch.utils.data.DataLoader(scenes, batch_size=None, sampler=numbers, num_workers=1, prefetch_factor=4)
    yield from loader


# --- recipe ---------------------------------------------------------------------------


def calibrate(model: FaceDetector, judged: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Fold the line into the heads that turns logits into the chance of being right; its factor and offset.

    The loss asks for the overlap, not for the chance, so the raw scores are too low.
    """
    logits = torch.from_numpy(np.concatenate([one for one, _ in judged]))
    right = torch.from_numpy(np.concatenate([one for _, one in judged]).astype(np.float64))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    common.minimise(line, lambda: F.binary_cross_entropy_with_logits(logits * line[0] + line[1], right))
    factor, offset = (round(value, 4) for value in line.tolist())
    with torch.no_grad():
        for head in model.heads:
            head.out.weight[0] *= factor
            head.out.bias[0] = head.out.bias[0] * factor + offset
    return factor, offset


def judge(found: Sequence[boxes.Found], photos: Sequence[Photo]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the faces found, and which of them are right; those too small to count are left out."""
    verdicts = np.concatenate([boxes.match(one, photo.boxes) for one, photo in zip(found, photos)])
    scores = np.concatenate([one.scores for one in found]).clip(1e-9, 1 - 1e-9)
    counted = verdicts >= 0
    return np.log(scores / (1 - scores))[counted], verdicts[counted] == 1


def calibration_error(logits: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of scores for being right, in bins of equal width."""
    scores = 1 / (1 + np.exp(-logits))
    bins = np.minimum((scores * common.CALIBRATION_BINS).astype(int), common.CALIBRATION_BINS - 1)
    return float(sum((bins == b).mean() * abs(scores[bins == b].mean() - right[bins == b].mean())
                     for b in np.unique(bins)))


def counts(network: Network, folder: Path) -> list[tuple]:
    """Rows of the card: photographs nobody trained on, faces in them, and faces found at each side."""
    rows = []
    if not (folder / "manifest.json").exists():
        return rows
    for entry in json.loads((folder / "manifest.json").read_text()):
        pixels = np.asarray(Image.open(folder / entry["file"]).convert("RGB"))
        row = [Path(entry["file"]).stem.replace("_", " "), entry["faces"]]
        for side in LONG_SIDES:
            scores = network.find(pixels, side).scores
            sure, unsure = scores[scores >= THRESHOLDS[side]], scores[scores < THRESHOLDS[side]]
            row += [len(sure), f"{sure.min():.2f}" if len(sure) else "-", f"{unsure.max():.2f}" if len(unsure) else "-"]
        rows.append(tuple(row))
    return rows


def frontier(here: Path) -> tuple[int, str, str]:
    """What `detector_frontier.py` found of shapes: the steps that each had, the kernels that were timed, and a table."""
    found = json.loads((here / "detector_frontier.json").read_text())
    head = ["shape", "GFLOP", "parameters", "tract, us", "served, us", "average precision"]
    rows = [(name, row["giga_flop"], f"{row['parameters']:,}", row["tract"], row["served"], row["average_precision"])
            for name, row in sorted(found["rows"].items(), key=lambda pair: pair[1]["giga_flop"])]
    return found["steps"], found["form"], common.table(head, rows)


def golden(network: FaceDetector) -> str:
    """Inputs drawn by a formula, with the maps that torch gives for them; one map on a line."""
    channel, y, x = np.mgrid[:3, :GOLDEN_HEIGHT, :GOLDEN_WIDTH]
    lines = []
    for i in range(GOLDEN_CASES):
        pixels = ((x * 7 + y * 13 + channel * 31 + i * 29) % 256).astype(np.uint8)
        with torch.no_grad():
            maps = network(normalise(torch.from_numpy(pixels.transpose(1, 2, 0).copy())[None]))
        named = {f"stride_{stride}": [round(float(value), 5) for value in part.flatten()]
                 for stride, part in zip(boxes.STRIDES, maps)}
        lines.append(f'  {{"i": {i},\n' + ",\n".join(f'   "{name}": {json.dumps(values)}'
                                                      for name, values in named.items()) + "}")
    shapes = {f"stride_{s}": [1, CHANNELS, GOLDEN_HEIGHT // s, GOLDEN_WIDTH // s] for s in boxes.STRIDES}
    head = {"input": "image", "shape": [1, 3, GOLDEN_HEIGHT, GOLDEN_WIDTH], "formula": GOLDEN_FORMULA,
            "tolerance": 1e-3, "outputs": shapes}
    body = ",\n".join(f' "{key}": {json.dumps(value)}' for key, value in head.items())
    return "{\n" + body + ',\n "cases": [\n' + ",\n".join(lines) + "\n ]\n}\n"


def main() -> None:
    options = common.arguments(__doc__, "face-detector", EPOCHS)
    common.start(options.seed, options.threads)
    clock = common.Clock()
    beside = options.data.parent
    photos = load(options.data, beside / "models", options.cache, 60 if options.smoke else None)
    clock.log(f"{len(photos.drawn)} photographs with drawn boxes and {len(photos.portraits)} portraits to train on, "
              f"{len(photos.development)} to measure on")
    steps = 20 if options.smoke else options.epochs * STEPS_PER_EPOCH
    checkpoint = None if options.smoke else options.cache / f"detector-{options.seed}.pt"
    model = fold(train(photos, steps, options.seed, checkpoint, clock))

    half = [photo for photo in photos.development if photo.share < DEVELOPMENT_SHARE / 2]
    other = [photo for photo in photos.development if photo.share >= DEVELOPMENT_SHARE / 2]

    def judged(network: Network, part: Sequence[Photo]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [judge([network.find(photo.pixels, side) for photo in part], part) for side in LONG_SIDES]

    raw = Network(export(model))
    before = np.mean([calibration_error(*one) for one in judged(raw, other)])
    factor, offset = calibrate(model, judged(raw, half))
    content = export(model)
    network = Network(content)
    after = np.mean([calibration_error(*one) for one in judged(network, other)])

    image = normalise(torch.from_numpy(np.random.default_rng(options.seed).integers(0, 256, (2, 96, 160, 3))))
    with torch.no_grad():
        worst = max(float(np.abs(ours - theirs.numpy()).max())
                    for ours, theirs in zip(network.maps(image.numpy()), model(image)))
    if not worst <= 1e-3:
        raise ValueError(f"ONNX Runtime differs from torch by {worst:.2e}")
    clock.log(f"ONNX Runtime and torch differ by {worst:.1e} at most; {len(content)} bytes")

    teacher = boxes.Teacher(beside / "models" / "yunet", options.threads)
    truth = [photo.boxes for photo in photos.development]
    rows, at = [], {}
    for side in LONG_SIDES:
        mine = [network.find(photo.pixels, side) for photo in photos.development]
        theirs = [teacher.find(Image.fromarray(photo.pixels), side, LOWEST) for photo in photos.development]
        logits, right = judge(mine, photos.development)
        faces = sum(int((boxes.sides(one) >= boxes.SMALLEST).sum()) for one in truth)
        threshold = THRESHOLDS[side]
        answered = logits >= np.log(threshold / (1 - threshold))
        at[side] = boxes.average_precision(mine, truth)
        rows.append((side, at[side], boxes.average_precision(theirs, truth), threshold,
                     float(right[answered].mean()) if answered.any() else 0.0, float(right[answered].sum() / max(1, faces))))
    table = common.table(["long side", "average precision", "of YuNet-n", "threshold", "precision there",
                          "share found there"], rows)
    seen = counts(network, beside / "photos")
    wrong = [sum(row[1] != row[2 + 3 * i] for row in seen) for i in range(len(LONG_SIDES))]
    photographs = common.table(["photograph", "faces", *(text for side in LONG_SIDES for text in (
        f"found at {side}", "least sure", "surest not answered"))], seen)
    print(table, photographs, sep="\n\n", flush=True)
    here = Path(__file__).parent
    frontier_steps, form, frontier_table = frontier(here)
    facts = {
        "frontier_steps": frontier_steps, "form": form, "frontier": frontier_table,
        "measured": table, "photographs": photographs, "wrong": " and ".join(map(str, wrong)),
        "ece_before": f"{before:.3f}", "ece_after": f"{after:.3f}", "factor": factor, "offset": offset,
        "flop_small": f"{giga_flop(model, 256, 320):.2f}", "flop_large": f"{giga_flop(model, 480, 640):.2f}",
        "time_small": f"{network.milliseconds(256, 320):.1f}", "time_large": f"{network.milliseconds(480, 640):.1f}",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "drawn": len(photos.drawn), "portraits": f"{len(photos.portraits):,}", "development": len(photos.development),
        "empty": len(photos.empty),
        "ignored": sum(int((photo.kinds < 0).sum()) for photo in photos.drawn), "cells": matching.CELLS_PER_FACE,
        "faces": faces, "wide": f"{photos.shift.wide:.2f}", "high": f"{photos.shift.high:.2f}",
        "down": f"{photos.shift.down:.2f}", "thresholds": list(THRESHOLDS.values()), "overlap": boxes.OVERLAP,
        "steps": f"{steps:,}", "seed": options.seed, "worst": f"{worst:.0e}",
    }
    common.write(options.out / "1" / "model.onnx", content)
    common.write(options.out / "labels.txt", "face\n")
    common.write(options.out / "golden.json", golden(model))
    common.write(options.out / "model.toml", Template((here / "detector.toml").read_text()).substitute(facts))
    common.write(options.out / "MODEL_CARD.md", Template((here / "detector.md").read_text()).substitute(facts))
    if checkpoint is not None:
        checkpoint.unlink()
    clock.log(f"AP {', '.join(f'{at[side]:.3f} at {side}' for side in LONG_SIDES)}, written to {options.out}")


if __name__ == "__main__":
    main()
