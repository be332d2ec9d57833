"""Train, export and describe `models/face`, a classifier of facial expressions on FER+."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import common
from faces import LABELS, SIDE, Faces, View, augment, load, look, mix, mixed, normalise

EPOCHS = 80
GROWTH = ((0.5, 32), (0.75, 40))  # until this share of the steps faces are so small: less than half the work
CALM = 0.8375  # from this share of the steps on views are weaker and not blended: nearer to what will be asked
CALM_STRENGTH = 0.5
OPINION = 0.4  # share of the target that the network's own earlier answers have in the end
BATCH = 128
PEAK_RATE = 0.1
WEIGHT_DECAY = 5e-4
VIEWS = {
    "as it is": View(), "square 1.1 times as large": View(growth=1.1), "square 1.2 times as large": View(growth=1.2),
    "square 0.85 times as large": View(growth=0.85), "moved by a tenth of the side": View(right=0.1),
    "tilted by 10 degrees": View(degrees=10), "tilted by 20 degrees": View(degrees=20),
    "24 pixels enlarged to 48": View(pixels=24),
}
GOLDEN_CASES = 4
GOLDEN_FORMULA = "pixel(x, y, i) = (x * 7 + y * 13 + i * 29) % 256, image = (pixel / 255 - 0.5) / 0.25"


# --- network --------------------------------------------------------------------------


class Shape(NamedTuple):
    """Channels of each stage, each at half the side of the one before, and the residual blocks in it."""

    widths: tuple[int, ...] = (32, 96, 160)
    blocks: tuple[int, ...] = (1, 1, 2)
    side: int = SIDE


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
    """A small residual network of plain dense convolutions: [n, 1, side, side] to [n, 8]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        inputs = shape.widths[0]
        self.stem = nn.Conv2d(1, inputs, 4, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(inputs)
        self.blocks = nn.Sequential()
        for stage, (width, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            for block in range(count):
                self.blocks.append(Block(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(inputs, len(LABELS))

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


def mega_flop(model: FaceNet) -> float:
    """Millions of floating-point operations (two per multiply-add) for one image."""
    side = model.shape.side
    return common.flop(model, torch.zeros(1, 1, side, side)) / 1e6


# --- recipe ---------------------------------------------------------------------------


class Run:
    """Everything that changes while a network is trained, so that a run can stop and go on."""

    def __init__(self, shape: Shape, votes: torch.Tensor) -> None:
        # Ten votes are a rough measure: what was answered to other views of the same face smooths them.
        self.opinions = votes.clone()
        self.model = FaceNet(shape).to(memory_format=torch.channels_last)
        self.average = common.Average(self.model, 0.998)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.SGD([{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain}],
                                         lr=PEAK_RATE, momentum=0.9, nesterov=True)
        self.epoch = 0

    def hear(self, chosen: torch.Tensor, logits: torch.Tensor) -> None:
        """Remember the answers to the faces of a batch that were not blended with others."""
        plain = slice(mixed(len(chosen)), None)
        self.opinions[chosen[plain]] = self.opinions[chosen[plain]].lerp(logits[plain].softmax(1), 0.4)

    def save(self, path: Path, clock: common.Clock) -> None:
        """Keep the state after a whole epoch."""
        common.save(path, {"epoch": self.epoch, "minutes": clock.minutes(), "model": self.model.state_dict(),
                           "steps": self.average.steps, "average": self.average.model.state_dict(),
                           "optimiser": self.optimiser.state_dict(), "opinions": self.opinions,
                           "random": torch.get_rng_state()})

    def restore(self, path: Path, clock: common.Clock) -> None:
        """Go back to where `save` was."""
        state = torch.load(path)
        clock.resume(state["minutes"])
        self.epoch, self.average.steps, self.opinions = state["epoch"], state["steps"], state["opinions"]
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])


def face_side(done: float, side: int) -> int:
    """How large faces are after this share of the steps: small ones first."""
    for share, small in GROWTH:
        if done < share:
            return small * side // SIDE // 8 * 8
    return side


def train(faces: Faces, valid: Faces, epochs: int, shape: Shape, clock: common.Clock,
          kept: Path | None, until: int) -> tuple[FaceNet, int]:
    """Train on the distribution of votes and return the averaged weights with the epochs behind them.

    With `kept` the run goes on from the epoch that this file holds, and leaves each epoch there.
    It ends after the epoch `until`, wherever the learning rate is then.
    """
    pixels, votes = torch.from_numpy(faces.pixels), torch.from_numpy(faces.votes)
    run = Run(shape, votes)
    if kept is not None and kept.exists():
        run.restore(kept, clock)
        clock.log(f"going on after epoch {run.epoch}")
    per_epoch = len(pixels) // BATCH
    steps = epochs * per_epoch
    while run.epoch < until:
        order = torch.randperm(len(pixels))[:per_epoch * BATCH]
        losses = []
        for step, chosen in enumerate(order.split(BATCH), run.epoch * per_epoch):
            for group in run.optimiser.param_groups:
                group["lr"] = PEAK_RATE * common.cosine(step, steps, min(400, steps // 8 + 1))
            done = step / steps
            calm = done >= CALM
            x = augment(pixels[chosen], face_side(done, shape.side), CALM_STRENGTH if calm else 1.0)
            target = votes[chosen].lerp(run.opinions[chosen], OPINION * done)
            if not calm:
                x, target = mix(x, target)
            # Convolutions in bf16 take the matrix units of the processor where it has them.
            with torch.autocast("cpu", torch.bfloat16):
                logits = run.model(x.contiguous(memory_format=torch.channels_last))
            loss = common.soft_cross_entropy(logits.float(), target)
            run.optimiser.zero_grad()
            loss.backward()
            run.optimiser.step()
            run.average.update(run.model)
            run.hear(chosen, logits.detach().float())
            losses.append(loss.item())
        run.epoch += 1
        logits = predict(run.average.model, valid)
        clock.log(f"epoch {run.epoch}/{epochs}: loss {np.mean(losses):.4f}, valid {vote_loss(logits, valid):.4f}, "
                  f"{common.accuracy(logits, valid.labels):.4f}")
        if kept is not None:
            run.save(kept, clock)
    return run.average.model.to(memory_format=torch.contiguous_format), run.epoch


@torch.no_grad()
def predict(model: FaceNet, faces: Faces) -> np.ndarray:
    """Logits of every face."""
    model.eval()
    side = (model.shape.side, model.shape.side)
    parts = (normalise(part) for part in torch.from_numpy(faces.pixels).split(256))
    return np.concatenate([model(x if x.shape[2:] == side else F.interpolate(x, side, mode="bilinear")).numpy()
                           for x in parts])


def vote_loss(logits: np.ndarray, faces: Faces) -> float:
    """Mean cross-entropy of the answers against the shares of votes."""
    return float(common.soft_cross_entropy(torch.from_numpy(logits), torch.from_numpy(faces.votes)))


def stages(shape: Shape) -> str:
    """The stages in words."""
    sides = (shape.side // 2 ** (stage + 1) for stage in range(len(shape.widths)))
    return ", ".join(f"{count} of {width} channels at {side}x{side}"
                     for count, width, side in zip(shape.blocks, shape.widths, sides))


def frontier(here: Path) -> tuple[int, str, str]:
    """What `face_frontier.py` found of shapes: the epochs that each had, the kernels that were timed, and a table."""
    found = json.loads((here / "face_frontier.json").read_text())
    head = ["channels, blocks", "MFLOP", "parameters", "tract, us", "served, us", "loss", "accuracy"]
    rows = [(name, row["mega_flop"], f"{row['parameters']:,}", row["tract"], row["served"],
             *(row.get(key, "not trained") for key in ("valid_loss", "accuracy")))
            for name, row in sorted(found["rows"].items(), key=lambda pair: pair[1]["mega_flop"])]
    return found["epochs"], found["form"], common.table(head, rows)


def margin(here: Path) -> tuple[str, str]:
    """What `face_margin.py` found of crops: the growth of a detector's square by either padding, and a table."""
    found = json.loads((here / "face_margin.json").read_text())
    head = ["crops", "faces found", "growth: median, 10 %, 90 %", "width to height", "moved right", "moved down"]
    rows = [(name, row["found"], ", ".join(map(str, row["growth"])), row["wide_to_high"][0], row["right"][0],
             row["down"][0])
            for name, row in found["edge"].items() if isinstance(row, dict)]
    return f"{found['edge']['growth']} and {found['reflect']['growth']}", common.table(head, rows)


def golden(model: FaceNet) -> dict:
    """Inputs drawn by a formula, with the logits that torch gives for them."""
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([(x * 7 + y * 13 + i * 29) % 256 for i in range(GOLDEN_CASES)]).astype(np.uint8)
    with torch.no_grad():
        logits = model(normalise(torch.from_numpy(pixels))).numpy()
    cases = [{"i": i, "logits": [round(float(v), 7) for v in row]} for i, row in enumerate(logits)]
    return {"input": "image", "shape": [1, 1, SIDE, SIDE], "formula": GOLDEN_FORMULA, "tolerance": 1e-3, "cases": cases}


def main() -> None:
    options = common.arguments(__doc__, "face", EPOCHS, {
        "--early": "train no further: write what the last whole epoch of a stopped run left"})
    common.start(options.seed, options.threads)
    clock = common.Clock()
    here = Path(__file__).parent
    frontier_epochs, form, frontier_table = frontier(here)
    growth, margin_table = margin(here)
    faces, valid = load(options.data, options.cache)
    if options.smoke:
        faces, valid = faces.only(np.arange(2048)), valid.only(np.arange(512))
    clock.log(f"{len(faces.pixels)} faces to train on, {len(valid.pixels)} to measure on")

    kept = options.cache / f"face-{options.epochs}-{options.seed}.pt"
    until = 0 if options.early else options.epochs
    model, done = train(faces, valid, options.epochs, Shape(), clock, None if options.smoke else kept, until)
    model = fold(model)
    logits, labels = predict(model, valid), valid.labels
    fitted = valid.hashes < 0.5
    temperature = common.fit_temperature(logits[fitted], labels[fitted])

    network = common.export(model, torch.zeros(2, 1, SIDE, SIDE), "image", {0: "batch"})
    rows = normalise(torch.from_numpy(valid.pixels[:64])).numpy()
    worst = common.check_close(network, "image", rows, logits[:64])
    clock.log(f"ONNX Runtime and torch differ by {worst:.1e} at most; {len(network)} bytes")

    measured = logits[~fitted], labels[~fitted]
    correct = logits.argmax(1) == labels
    of_class = [correct[labels == k] for k in range(len(LABELS))]
    per_class = [(label, len(rows), float(rows.mean()) if len(rows) else "none")
                 for label, rows in zip(LABELS, of_class)]
    views = [(name, common.accuracy(predict(model, valid._replace(pixels=look(valid.pixels, view))), labels))
             for name, view in VIEWS.items()]
    facts = {
        "accuracy": f"{correct.mean():.4f}",
        "classes": common.table(["expression", "faces", "share recognised"], per_class),
        "ece_before": f"{common.calibration_error(*measured, 1.0):.4f}",
        "ece_after": f"{common.calibration_error(*measured, temperature):.4f}",
        "temperature": temperature,
        "mega_flop": f"{mega_flop(model):.0f}",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "train": f"{len(faces.pixels):,}", "valid": f"{len(valid.pixels):,}",
        "views": common.table(["crop", "share recognised"], views),
        "first": model.shape.widths[0], "stages": stages(model.shape), "opinion": OPINION,
        "calm": f"{100 * (1 - CALM):.0f} %",
        "frontier_epochs": frontier_epochs, "frontier": frontier_table, "form": form, "growth": growth, "margin": margin_table,
        "epochs": done if done == options.epochs else f"{done} of {options.epochs}",
        "seed": options.seed, "threads": options.threads,
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
