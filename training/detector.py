"""Train, export and describe `models/face-detector`, which finds faces in photographs."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from string import Template
from typing import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import boxes
import common
import matching
from photos import DEVELOPMENT_SHARE, Photo, Photos, load
from scenes import Scenes

MEAN, STD = 0.5, 0.25
LONG_SIDES = (320, 640)
CHANNELS = 15
EPOCHS, STEPS_PER_EPOCH = 36, 250
PEAK_RATE, WEIGHT_DECAY = 2e-3, 0.05
THRESHOLD = 0.5
LOWEST = 0.02  # candidates below that score are not looked at when measuring
GOLDEN_CASES, GOLDEN_HEIGHT, GOLDEN_WIDTH = 2, 64, 96
GOLDEN_FORMULA = "pixel(c, x, y, i) = (x * 7 + y * 13 + c * 31 + i * 29) % 256, image = (pixel / 255 - 0.5) / 0.25"


# --- network --------------------------------------------------------------------------


class Layer(nn.Module):
    """A convolution with its batch norm."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride, (side - stride + 1) // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = Layer(channels, channels), Layer(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Stage(nn.Module):
    """Half the resolution, then residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.down = Layer(inputs, outputs, 3, 2)
        self.blocks = nn.Sequential(*(Block(outputs) for _ in range(blocks)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(F.relu(self.down(x)))


class Head(nn.Module):
    """What a stride says of each of its cells."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.hidden = Layer(inputs, width)
        self.out = nn.Conv2d(width, CHANNELS, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)
        # Most cells have no face; a middling one is three cells wide, its centre in the middle of its cell.
        self.out.bias.data[0] = -4.6
        self.out.bias.data[3:5] = 1.0
        self.out.bias.data[[1, 2, *range(5, CHANNELS)]] = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.hidden(x)))


class FaceDetector(nn.Module):
    """Plain dense convolutions down to stride 32 and back up: [n, 3, h, w] to maps [n, 15, h/s, w/s]."""

    def __init__(self, stem: int = 16, fine: int = 32, widths: Sequence[int] = (48, 96, 128),
                 blocks: Sequence[int] = (1, 1, 2), head: int = 48) -> None:
        super().__init__()
        self.stem = Layer(3, stem, 4, 2)
        self.fine = Layer(stem, fine, 3, 2)
        self.stages = nn.ModuleList(Stage(*sizes) for sizes in zip((fine, *widths), widths, blocks))
        self.lift_coarse = Layer(widths[2], widths[1], 1)
        self.lift_middle = Layer(widths[1], widths[0], 1)
        self.heads = nn.ModuleList(Head(width, head) for width in widths)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = F.relu(self.fine(F.relu(self.stem(x))))
        fine, middle, coarse = self.stages[0](x), None, None
        middle = self.stages[1](fine)
        coarse = self.stages[2](middle)
        middle = F.relu(middle + F.interpolate(self.lift_coarse(coarse), scale_factor=2.0, mode="nearest"))
        fine = F.relu(fine + F.interpolate(self.lift_middle(middle), scale_factor=2.0, mode="nearest"))
        return tuple(head(x) for head, x in zip(self.heads, (fine, middle, coarse)))


def fold(model: FaceDetector) -> FaceDetector:
    """The same function with every batch norm folded into its convolution, in place."""
    model.eval()
    for layer in model.modules():
        if isinstance(layer, Layer):
            layer.conv, layer.norm = fuse_conv_bn_eval(layer.conv, layer.norm), nn.Identity()
    return model


def giga_flop(model: nn.Module, height: int, width: int) -> float:
    """Thousand millions of floating-point operations (two per multiply-add) for one picture."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * layer.weight.numel() * output[0, 0].numel()

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return total / 1e9


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels [n, h, w, 3] of 0..255 as the network wants them: [n, 3, h, w]."""
    return ((pixels.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)


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
            group["lr"] = PEAK_RATE * common.cosine(step, steps, min(300, steps // 8 + 1))
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
                buffer = io.BytesIO()
                torch.save({"step": step + 1, "minutes": clock.minutes(), "model": model.state_dict(), "average": average.model.state_dict(),
                            "optimiser": optimiser.state_dict()}, buffer)
                common.write(checkpoint, buffer.getvalue())
    return average.model.to(memory_format=torch.contiguous_format)


def batches(scenes: Scenes, numbers: range) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches by number, made ahead by one process beside this one."""
    loader = torch.utils.data.DataLoader(scenes, batch_size=None, sampler=numbers, num_workers=1, prefetch_factor=4)
    yield from loader


# --- measuring ------------------------------------------------------------------------


class Network:
    """The exported network, as the server uses it: ONNX Runtime on one thread."""

    def __init__(self, network: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def maps(self, image: np.ndarray) -> list[np.ndarray]:
        """The maps of all strides for a normalised picture [1, 3, h, w]."""
        return self._session.run([f"stride_{stride}" for stride in boxes.STRIDES], {"image": image})

    def find(self, pixels: np.ndarray, side: int, lowest: float = LOWEST) -> boxes.Found:
        """Faces in pixels of the picture [h, w, 3], seen with `side` as its longer side."""
        seen, across, down = boxes.letterbox(Image.fromarray(pixels), side)
        image = boxes.padded((seen.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
        maps = self.maps(np.ascontiguousarray(image))
        return boxes.scaled(boxes.suppress(boxes.decode([part[0] for part in maps], lowest)), 1 / across, 1 / down)

    def milliseconds(self, height: int, width: int, runs: int = 30) -> float:
        """Median time of one picture."""
        image, times = np.zeros((1, 3, height, width), np.float32), []
        for _ in range(runs):
            began = time.perf_counter()
            self.maps(image)
            times.append(time.perf_counter() - began)
        return float(np.median(times) * 1e3)


def export(model: FaceDetector) -> bytes:
    """The network as ONNX with free height and width, checked."""
    names = [f"stride_{stride}" for stride in boxes.STRIDES]
    axes = {"image": {0: "batch", 2: "height", 3: "width"}, **{name: {0: "batch"} for name in names}}
    target = io.BytesIO()
    torch.onnx.export(model, (torch.zeros(1, 3, 64, 96),), target, dynamo=False, opset_version=common.OPSET,
                      input_names=["image"], output_names=names, dynamic_axes=axes)
    network = onnx.load_from_string(target.getvalue())
    del network.graph.value_info[:]
    for output, stride in zip(network.graph.output, boxes.STRIDES):
        for axis, name in ((2, "height"), (3, "width")):
            output.type.tensor_type.shape.dim[axis].dim_param = f"{name} / {stride}"
    onnx.checker.check_model(network, full_check=True)
    return network.SerializeToString()


# --- recipe ---------------------------------------------------------------------------


def calibrate(model: FaceDetector, judged: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Fold the line into the heads that turns logits into the chance of being right; its factor and offset.

    The loss asks for the overlap, not for the chance, so the raw scores are too low.
    """
    logits = torch.from_numpy(np.concatenate([one for one, _ in judged]))
    right = torch.from_numpy(np.concatenate([one for _, one in judged]).astype(np.float64))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        solver.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * line[0] + line[1], right)
        value.backward()
        return value

    solver.step(cost)
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


def counts(network: Network, folder: Path, threshold: float) -> list[tuple]:
    """Rows of the card: photographs nobody trained on, faces in them, and faces found at each side."""
    rows = []
    if not (folder / "manifest.json").exists():
        return rows
    for entry in json.loads((folder / "manifest.json").read_text()):
        pixels = np.asarray(Image.open(folder / entry["file"]).convert("RGB"))
        row = [Path(entry["file"]).stem.replace("_", " "), entry["faces"]]
        for side in LONG_SIDES:
            scores = network.find(pixels, side).scores
            sure, unsure = scores[scores >= threshold], scores[scores < threshold]
            row += [len(sure), f"{sure.min():.2f}" if len(sure) else "-", f"{unsure.max():.2f}" if len(unsure) else "-"]
        rows.append(tuple(row))
    return rows


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
    checkpoint = None if options.smoke else options.cache / f"detector-{options.seed}-{steps}.pt"
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
        answered = logits >= np.log(THRESHOLD / (1 - THRESHOLD))
        at[side] = boxes.average_precision(mine, truth)
        rows.append((side, at[side], boxes.average_precision(theirs, truth),
                     float(right[answered].mean()) if answered.any() else 0.0, float(right[answered].sum() / max(1, faces))))
    table = common.table(["long side", "average precision", "of YuNet-n", f"precision at {THRESHOLD}",
                          f"share found at {THRESHOLD}"], rows)
    seen = counts(network, beside / "photos", THRESHOLD)
    wrong = [sum(row[1] != row[2 + 3 * i] for row in seen) for i in range(len(LONG_SIDES))]
    photographs = common.table(["photograph", "faces", *(text for side in LONG_SIDES for text in (
        f"found at {side}", "least sure", "surest not answered"))], seen)
    print(table, photographs, sep="\n\n", flush=True)
    here = Path(__file__).parent
    facts = {
        "measured": table, "photographs": photographs, "wrong": " and ".join(map(str, wrong)),
        "ece_before": f"{before:.3f}", "ece_after": f"{after:.3f}", "factor": factor, "offset": offset,
        "flop_small": f"{giga_flop(model, 256, 320):.2f}", "flop_large": f"{giga_flop(model, 480, 640):.2f}",
        "time_small": f"{network.milliseconds(256, 320):.1f}", "time_large": f"{network.milliseconds(480, 640):.1f}",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "drawn": len(photos.drawn), "portraits": f"{len(photos.portraits):,}", "development": len(photos.development),
        "ignored": sum(int((photo.kinds < 0).sum()) for photo in photos.drawn), "cells": matching.CELLS_PER_FACE,
        "faces": faces, "wide": f"{photos.shift.wide:.2f}", "high": f"{photos.shift.high:.2f}",
        "down": f"{photos.shift.down:.2f}", "threshold": THRESHOLD, "overlap": boxes.OVERLAP,
        "steps": f"{steps:,}", "seed": options.seed, "threads": options.threads,
        "minutes": f"{clock.minutes():.0f}", "worst": f"{worst:.0e}",
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
