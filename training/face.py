"""Train, export and describe `models/face`, a classifier of facial expressions on FER+."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import common

LABELS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
SIDE = 48
MEAN, STD = 0.5, 0.25
EPOCHS = 24
SMALL_SIDE, SMALL_SHARE = 32, 0.6  # the first part of the steps sees small faces: less than half the work
BATCH = 128
PEAK_RATE = 0.1
WEIGHT_DECAY = 5e-4
GOLDEN_CASES = 4
GOLDEN_FORMULA = "pixel(x, y, i) = (x * 7 + y * 13 + i * 29) % 256, image = (pixel / 255 - 0.5) / 0.25"


# --- data -----------------------------------------------------------------------------


class Faces(NamedTuple):
    """Faces of one split: pixels [n, 48, 48] uint8, shares of the votes [n, 8], shares by hash."""

    pixels: np.ndarray
    votes: np.ndarray
    hashes: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The expression with the most votes."""
        return self.votes.argmax(1)

    def only(self, chosen: np.ndarray) -> "Faces":
        """The chosen rows."""
        return Faces(*(column[chosen] for column in self))


def read(archive: Path) -> Faces:
    """Read one FER+ split by the published protocol.

    Faces whose majority is "unknown" or "not a face" are dropped. Of the others the votes for
    the eight expressions count, without single votes where more than one agree on something.
    """
    pixels, votes, hashes = [], [], []
    with tarfile.open(archive) as bundle:
        files = {Path(member.name).name: member for member in bundle.getmembers() if member.isfile()}
        rows = csv.DictReader(io.TextIOWrapper(bundle.extractfile(files["labels.csv"]), encoding="utf-8"))
        for row in sorted(rows, key=lambda row: row["Image name"]):
            counts = np.array([int(row[label]) for label in (*LABELS, "unknown", "NF")], np.float32)
            if row["Image name"] not in files or counts.argmax() >= len(LABELS):
                continue
            counts = counts[: len(LABELS)]
            if counts.max() > 1:
                counts[counts <= 1] = 0
            image = np.asarray(Image.open(bundle.extractfile(files[row["Image name"]])).convert("L"))
            pixels.append(image)
            votes.append(counts / counts.sum())
            hashes.append(common.hash_share(image.tobytes()))
    return Faces(np.stack(pixels), np.stack(votes), np.array(hashes))


def load(data: Path, cache: Path) -> tuple[Faces, Faces]:
    """Both splits, from the cache after the first time; no face of valid is in train."""
    cached = cache / "ferplus.npz"
    if not cached.exists():
        train, valid = read(data / "ferplus-train.tar.xz"), read(data / "ferplus-valid.tar.xz")
        buffer = io.BytesIO()
        np.savez(buffer, *train, *valid)
        common.write(cached, buffer.getvalue())
    with np.load(cached) as columns:
        arrays = [columns[key] for key in columns.files]
    train, valid = Faces(*arrays[:3]), Faces(*arrays[3:])
    return train.only(~np.isin(train.hashes, valid.hashes)), valid


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Grey values 0..255 as the network wants them: [n, 1, 48, 48]."""
    return ((pixels.float() / 255 - MEAN) / STD).unsqueeze(1)


def augment(x: torch.Tensor) -> torch.Tensor:
    """Random views of a batch [n, 1, 48, 48] with values 0..1."""
    n = len(x)

    def between(low: float, high: float) -> torch.Tensor:
        return torch.rand(n) * (high - low) + low

    angle, size, aspect = between(-0.22, 0.22), torch.exp(between(-0.22, 0.15)), torch.exp(between(-0.08, 0.08))
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    matrix = torch.stack([torch.stack([cos * aspect * flip, -sin, between(-0.16, 0.16)], 1),
                          torch.stack([sin * flip, cos / aspect, between(-0.16, 0.16)], 1)], 1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

    # Small and blurred faces: down and up again, one size for a part of the batch.
    part = torch.rand(n) < 0.3
    side = int(torch.randint(16, 40, ()))
    if part.any():
        small = F.interpolate(x[part], (side, side), mode="bilinear", antialias=True)
        x[part] = F.interpolate(small, (SIDE, SIDE), mode="bilinear")

    shape = (n, 1, 1, 1)
    centre = x.mean((2, 3), keepdim=True)
    x = (x - centre) * torch.exp(between(-0.5, 0.4)).view(shape) + centre + between(-0.18, 0.18).view(shape)
    x = x.clamp_(0, 1)

    # Erase a rectangle in some.
    rows, columns = torch.arange(SIDE).view(1, SIDE, 1), torch.arange(SIDE).view(1, 1, SIDE)
    top, left, high, wide = (torch.randint(0, limit, (n, 1, 1)) for limit in (SIDE, SIDE, 18, 18))
    hole = (rows >= top) & (rows < top + high) & (columns >= left) & (columns < left + wide)
    hole &= torch.rand(n, 1, 1) < 0.3
    return torch.where(hole.unsqueeze(1), torch.rand(shape), x)


# --- network --------------------------------------------------------------------------


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut, self.shortcut_norm = nn.Identity(), nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut_norm(self.shortcut(x)))


class FaceNet(nn.Module):
    """A small residual network of plain dense convolutions: [n, 1, 48, 48] to [n, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 4, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(
            Block(32, 32, 1),
            Block(32, 64, 2),
            Block(64, 128, 2),
            Block(128, 128, 1),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(128, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        return self.head(self.drop(self.pool(x).flatten(1)))


def fold(model: FaceNet) -> FaceNet:
    """The same function with every batch norm folded into its convolution, in place."""
    model.eval()
    owners = [(model, ["stem"]), *((block, ["first", "second", "shortcut"]) for block in model.blocks)]
    for owner, names in owners:
        for name in names:
            norm = getattr(owner, f"{name}_norm")
            if isinstance(norm, nn.BatchNorm2d):
                setattr(owner, name, fuse_conv_bn_eval(getattr(owner, name), norm))
                setattr(owner, f"{name}_norm", nn.Identity())
    return model


def mega_flop(model: nn.Module) -> float:
    """Millions of floating-point operations (two per multiply-add) for one image."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * layer.weight.numel() * output[0, 0].numel()

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        model(torch.zeros(1, 1, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    return total / 1e6


# --- recipe ---------------------------------------------------------------------------


def train(faces: Faces, valid: Faces, epochs: int, clock: common.Clock) -> FaceNet:
    """Train on the distribution of votes and return the averaged weights."""
    model = FaceNet().to(memory_format=torch.channels_last)
    average = common.Average(model, 0.998)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.SGD([{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain}],
                                lr=PEAK_RATE, momentum=0.9, nesterov=True)
    pixels, votes = torch.from_numpy(faces.pixels), torch.from_numpy(faces.votes)
    per_epoch = len(pixels) // BATCH
    steps = max(1, epochs * per_epoch)
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(pixels))
        chosen = order[(step % per_epoch) * BATCH:][:BATCH]
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * common.cosine(step, steps, min(400, steps // 8 + 1))
        x = (augment(pixels[chosen].float().unsqueeze(1) / 255) - MEAN) / STD
        if step < SMALL_SHARE * steps:
            x = F.interpolate(x, (SMALL_SIDE, SMALL_SIDE), mode="bilinear", antialias=True)
        logits = model(x.contiguous(memory_format=torch.channels_last))
        loss = common.soft_cross_entropy(logits, votes[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(model)
        model.train()
        if (step + 1) % per_epoch == 0 or step + 1 == steps:
            right = common.accuracy(predict(average.model, valid), valid.labels)
            clock.log(f"epoch {(step + 1) / per_epoch:.0f}/{epochs}: loss {loss.item():.3f}, valid {right:.4f}")
    return average.model.to(memory_format=torch.contiguous_format)


@torch.no_grad()
def predict(model: FaceNet, faces: Faces) -> np.ndarray:
    """Logits of every face."""
    model.eval()
    return np.concatenate([model(normalise(part)).numpy() for part in torch.from_numpy(faces.pixels).split(256)])


def golden(model: FaceNet) -> dict:
    """Inputs drawn by a formula, with the logits that torch gives for them."""
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([(x * 7 + y * 13 + i * 29) % 256 for i in range(GOLDEN_CASES)]).astype(np.uint8)
    with torch.no_grad():
        logits = model(normalise(torch.from_numpy(pixels))).numpy()
    cases = [{"i": i, "logits": [round(float(v), 7) for v in row]} for i, row in enumerate(logits)]
    return {"input": "image", "shape": [1, 1, SIDE, SIDE], "formula": GOLDEN_FORMULA, "tolerance": 1e-3, "cases": cases}


def main() -> None:
    options = common.arguments(__doc__, "face", EPOCHS)
    common.start(options.seed, options.threads)
    clock = common.Clock()
    faces, valid = load(options.data, options.cache)
    if options.smoke:
        faces, valid = faces.only(np.arange(2048)), valid.only(np.arange(512))
    clock.log(f"{len(faces.pixels)} faces to train on, {len(valid.pixels)} to measure on")

    model = fold(train(faces, valid, options.epochs, clock))
    logits, labels = predict(model, valid), valid.labels
    fitted = valid.hashes < 0.5
    temperature = common.fit_temperature([(logits[fitted], labels[fitted])])

    network = common.export(model, torch.zeros(2, 1, SIDE, SIDE), "image", {0: "batch"})
    rows = normalise(torch.from_numpy(valid.pixels[:64])).numpy()
    worst = common.check_close(network, "image", rows, logits[:64])
    clock.log(f"ONNX Runtime and torch differ by {worst:.1e} at most; {len(network)} bytes")

    measured = logits[~fitted], labels[~fitted]
    correct = logits.argmax(1) == labels
    of_class = [correct[labels == k] for k in range(len(LABELS))]
    per_class = [(label, len(rows), float(rows.mean()) if len(rows) else "none")
                 for label, rows in zip(LABELS, of_class)]
    here = Path(__file__).parent
    facts = {
        "accuracy": f"{correct.mean():.4f}",
        "classes": common.table(["expression", "faces", "share recognised"], per_class),
        "ece_before": f"{common.calibration_error(*measured, 1.0):.4f}",
        "ece_after": f"{common.calibration_error(*measured, temperature):.4f}",
        "temperature": temperature,
        "mega_flop": f"{mega_flop(model):.0f}",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "train": f"{len(faces.pixels):,}", "valid": f"{len(valid.pixels):,}",
        "epochs": options.epochs, "seed": options.seed, "threads": options.threads,
        "minutes": f"{clock.minutes():.0f}", "worst": f"{worst:.0e}",
    }
    common.write(options.out / "1" / "model.onnx", network)
    common.write(options.out / "labels.txt", "\n".join(LABELS) + "\n")
    common.write_json(options.out / "golden.json", golden(model))
    common.write(options.out / "model.toml", Template((here / "face.toml").read_text()).substitute(facts))
    common.write(options.out / "MODEL_CARD.md", Template((here / "face.md").read_text()).substitute(facts))
    clock.log(f"accuracy {facts['accuracy']}, temperature {temperature}, "
              f"ECE {facts['ece_before']} -> {facts['ece_after']}, written to {options.out}")


if __name__ == "__main__":
    main()
