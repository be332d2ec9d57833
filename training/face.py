"""Train, export and describe `models/face`, a classifier of facial expressions on FER+."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import common
from classifier import FaceNet, Shape, fold, mega_flop
from faces import LABELS, SIDE, Faces, View, augment, load, look, mix, mixed, normalise

EPOCHS = 80          # of the first round
AGAIN_EPOCHS = 24    # of the second
CALM_STRENGTH = 0.5
OPINION = 0.4  # share of the target that the network's own earlier answers have at the end of the first round
TRUST = 0.7    # share of the target that the network of the first round has in the second
BATCH = 128
STEEPEST = 2.0  # norm of a gradient
WEIGHT_DECAY = 5e-4
VIEWS = {
    "as it is": View(), "square 1.1 times as large": View(growth=1.1), "square 1.2 times as large": View(growth=1.2),
    "square 0.85 times as large": View(growth=0.85), "moved by a tenth of the side": View(right=0.1),
    "tilted by 10 degrees": View(degrees=10), "tilted by 20 degrees": View(degrees=20),
    "24 pixels enlarged to 48": View(pixels=24),
}
GOLDEN_CASES = 4
GOLDEN_FORMULA = "pixel(x, y, i) = (x * 7 + y * 13 + i * 29) % 256, image = (pixel / 255 - 0.5) / 0.25"


# --- recipe ---------------------------------------------------------------------------


class Round(NamedTuple):
    """One pass of the learning rate from its peak to nothing."""

    name: str
    epochs: int
    rate: float
    growth: tuple[tuple[float, int], ...]  # until this share of the steps faces are so small: less than half the work
    calm: float  # from this share of the steps on views are weaker and not blended: nearer to what will be asked
    drop: float

    def side(self, done: float, side: int) -> int:
        """How large faces are after this share of the steps."""
        small = next((small for share, small in self.growth if done < share), SIDE)
        return small * side // SIDE // 8 * 8


def first_round(epochs: int) -> Round:
    """From nothing, on small faces to begin with."""
    return Round("first", epochs, 0.1, ((0.5, 32), (0.75, 40)), 0.8375, 0.25)


def second_round(epochs: int) -> Round:
    """On from the first round, which is the tutor now."""
    return Round("second", min(epochs, AGAIN_EPOCHS), 0.03, (), 0.8, 0.1)


class Run:
    """Everything that changes while a network is trained, so that a run can stop and go on."""

    def __init__(self, model: FaceNet, votes: torch.Tensor, rate: float) -> None:
        # Ten votes are a rough measure: what was answered to other views of the same face smooths them.
        self.opinions = votes.clone()
        self.model = model.train().to(memory_format=torch.channels_last)
        self.average = common.Average(self.model, 0.998)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.SGD([{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain}],
                                         lr=rate, momentum=0.9, nesterov=True)
        self.epoch = 0

    def hear(self, chosen: torch.Tensor, logits: torch.Tensor) -> None:
        """Remember the answers to the faces of a batch that were not blended with others."""
        plain = slice(mixed(len(chosen)), None)
        self.opinions[chosen[plain]] = self.opinions[chosen[plain]].lerp(logits[plain].softmax(1), 0.4)

    def learn(self, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
        """One step: the answers before it, and their loss."""
        logits = answers(self.model, x)
        loss = common.soft_cross_entropy(logits, target)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), STEEPEST)
        self.optimiser.step()
        self.average.update(self.model)
        return logits.detach(), loss.item()

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
        self.epoch, self.opinions = state["epoch"], state["opinions"]
        self.model.load_state_dict(state["model"])
        self.average.resume(state["average"], state["steps"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])


def answers(model: FaceNet, x: torch.Tensor) -> torch.Tensor:
    """Logits, by convolutions in bf16: they take the matrix units of the processor where it has them."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(x.contiguous(memory_format=torch.channels_last)).float()


@torch.no_grad()
def advice(tutor: FaceNet, x: torch.Tensor) -> torch.Tensor:
    """What a trained network thinks of faces, each seen as it is and mirrored."""
    return (answers(tutor, x).softmax(1) + answers(tutor, x.flip(3)).softmax(1)) / 2


def train(model: FaceNet, tutor: FaceNet | None, faces: Faces, valid: Faces, plan: Round, clock: common.Clock,
          kept: Path | None) -> FaceNet:
    """Train a network for one round on the distribution of votes and return the averaged weights.

    With a `tutor` the target is mostly what this thinks of the very view that the network learns from
    ("Born Again Neural Networks", Furlanello et al. 2018). With `kept` the run goes on from the epoch that
    this file holds, and leaves each epoch there.
    """
    pixels, votes = torch.from_numpy(faces.pixels), torch.from_numpy(faces.votes)
    model.drop.p = plan.drop
    run = Run(model, votes, plan.rate)
    if kept is not None and kept.exists():
        run.restore(kept, clock)
        clock.log(f"going on after epoch {run.epoch} of the {plan.name} round")
    per_epoch = len(pixels) // BATCH
    steps = plan.epochs * per_epoch
    while run.epoch < plan.epochs:
        order = torch.randperm(len(pixels))[:per_epoch * BATCH]
        losses = []
        for step, chosen in enumerate(order.split(BATCH), run.epoch * per_epoch):
            for group in run.optimiser.param_groups:
                group["lr"] = plan.rate * common.cosine(step, steps, min(400, steps // 8 + 1))
            done = step / steps
            calm = done >= plan.calm
            x = augment(pixels[chosen], plan.side(done, model.shape.side), CALM_STRENGTH if calm else 1.0)
            target = votes[chosen]
            if tutor is None:
                target = target.lerp(run.opinions[chosen], OPINION * done)
            if not calm:
                x, target = mix(x, target)
            if tutor is not None:
                target = target.lerp(advice(tutor, x), TRUST)
            logits, loss = run.learn(x, target)
            if tutor is None:
                run.hear(chosen, logits)
            losses.append(loss)
        run.epoch += 1
        logits = predict(run.average.model, valid)
        clock.log(f"{plan.name} round, epoch {run.epoch}/{plan.epochs}: loss {np.mean(losses):.4f}, "
                  f"valid {vote_loss(logits, valid):.4f}, {common.accuracy(logits, valid.labels):.4f}")
        if kept is not None:
            run.save(kept, clock)
    return run.average.model.to(memory_format=torch.contiguous_format)


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


def trained(faces: Faces, valid: Faces, options: argparse.Namespace, clock: common.Clock) -> FaceNet:
    """Both rounds, or what an earlier run with the same flags left of them to do."""
    model, tutor = FaceNet(Shape()), None
    for plan in (first_round(options.epochs), second_round(options.epochs)):
        kept = options.cache / f"face-{plan.name}-{options.epochs}-{options.seed}.pt"
        model = train(model, tutor, faces, valid, plan, clock, None if options.smoke else kept)
        tutor = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
    return model


def finish(model: FaceNet, faces: Faces, valid: Faces, options: argparse.Namespace, clock: common.Clock) -> None:
    """Calibrate, export, check, measure, and write the whole folder."""
    here = Path(__file__).parent
    frontier_epochs, form, frontier_table = frontier(here)
    growth, margin_table = margin(here)
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
        "calm": " and ".join(f"{100 * (1 - plan.calm):.0f} %" for plan in (first_round(1), second_round(1))),
        "trust": TRUST,
        "frontier_epochs": frontier_epochs, "frontier": frontier_table, "form": form, "growth": growth, "margin": margin_table,
        "epochs": " + ".join(str(plan(options.epochs).epochs) for plan in (first_round, second_round)),
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


def main() -> None:
    options = common.arguments(__doc__, "face", EPOCHS)
    common.start(options.seed, options.threads)
    clock = common.Clock()
    faces, valid = load(options.data, options.cache)
    if options.smoke:
        faces, valid = faces.only(np.arange(2048)), valid.only(np.arange(512))
    clock.log(f"{len(faces.pixels)} faces to train on, {len(valid.pixels)} to measure on")
    finish(trained(faces, valid, options, clock), faces, valid, options, clock)


if __name__ == "__main__":
    main()
