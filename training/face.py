"""Train, export and describe `models/face`, a classifier of facial expressions on FER+."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from string import Template
from typing import Mapping, NamedTuple, Sequence

import numpy as np
import torch
from torch import nn

import common
from classifier import FaceNet, Shape, fold, mega_flop
from faces import LABELS, MEAN, SIDE, STD, Faces, View, augment, load, look, mix, mixed, normalise
from tutors import Public

EPOCHS = 80          # of the first round
PUBLIC_EPOCHS = 7    # of the public tutor
LESSON_EPOCHS = 50   # of the second round
CALM_STRENGTH = 0.5
OPINION = 0.4  # share of the target that the network's own earlier answers have at the end of the first round
TRUST = 0.7    # share of the target that the tutors have in the second, the votes the rest
LESSONS = 12   # views of each face that the tutors look at
CALM_LESSONS = 8  # of them weaker and not blended
SOME = 256     # faces that show the public tutor what its maps look like
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
    tuned: bool = False  # goes on from trained weights: in small steps of AdamW

    def side(self, done: float) -> int:
        """How large faces are after this share of the steps."""
        return next((small for share, small in self.growth if done < share), SIDE)


def first_round(epochs: int) -> Round:
    """From nothing, on small faces to begin with, by votes alone."""
    return Round("first", epochs, 0.1, ((0.5, 32), (0.75, 40)), 0.8375, 0.25)


def public_round(epochs: int) -> Round:
    """The public tutor, from weights that know faces, by votes alone."""
    return Round("public", epochs, 7e-4, (), 0.75, 0.3, tuned=True)


def second_round(epochs: int) -> Round:
    """On from the first round, by what the tutors think and the votes."""
    return Round("second", epochs, 0.05, (), 0.3, 0.1)


class Votes:
    """Views drawn anew for each batch, with the shares of votes; for who has no tutor."""

    def __init__(self, faces: Faces) -> None:
        self.pixels, self.votes = torch.from_numpy(faces.pixels), torch.from_numpy(faces.votes)
        # Ten votes are a rough measure: what was answered to other views of the same face smooths them.
        self.opinions = self.votes.clone()

    def batch(self, chosen: torch.Tensor, _epoch: int, side: int, done: float, calm: bool
              ) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the chosen faces in pixels of `side`, and what is to be answered."""
        x = augment(self.pixels[chosen], side, CALM_STRENGTH if calm else 1.0)
        target = self.votes[chosen].lerp(self.opinions[chosen], OPINION * done)
        return (x, target) if calm else mix(x, target)

    def hear(self, chosen: torch.Tensor, logits: torch.Tensor) -> None:
        """Remember the answers to the faces of a batch that were not blended with others."""
        plain = slice(mixed(len(chosen)), None)
        self.opinions[chosen[plain]] = self.opinions[chosen[plain]].lerp(logits[plain].softmax(1), 0.4)


def calm_of(views: int) -> int:
    """How many of so many views, the last ones, are weaker and not blended."""
    return views * CALM_LESSONS // LESSONS


class Lessons(NamedTuple):
    """Views that tutors looked at: `pixels` [views, n, 48, 48] uint8, what they and the voters say [views, n, 8]."""

    pixels: torch.Tensor
    targets: torch.Tensor
    opinions: torch.Tensor = torch.empty(0)

    def batch(self, chosen: torch.Tensor, epoch: int, _side: int, _done: float, calm: bool
              ) -> tuple[torch.Tensor, torch.Tensor]:
        """This epoch's view of the chosen faces, as large as the tutors saw it, some of them mirrored."""
        views, calm_views = len(self.pixels), calm_of(len(self.pixels))
        view = views - calm_views + epoch % calm_views if calm else epoch % (views - calm_views)
        x = normalise(self.pixels[view][chosen])
        return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x, x.flip(3)), self.targets[view][chosen].float()

    def hear(self, _chosen: torch.Tensor, _logits: torch.Tensor) -> None:
        """What is learnt from tutors does not depend on earlier answers."""


class Run:
    """Everything that changes while a network is trained, so that a run can stop and go on."""

    def __init__(self, model: nn.Module, plan: Round) -> None:
        self.model = model.train().to(memory_format=torch.channels_last)
        self.average = common.Average(self.model, 0.998)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        if plan.tuned:
            self.optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05},
                                                {"params": plain, "weight_decay": 0.0}], lr=plan.rate)
        else:
            self.optimiser = torch.optim.SGD([{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain}],
                                             lr=plan.rate, momentum=0.9, nesterov=True)
        self.epoch = 0

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

    def save(self, path: Path, source: Votes | Lessons, clock: common.Clock) -> None:
        """Keep the state after a whole epoch."""
        common.save(path, {"epoch": self.epoch, "minutes": clock.minutes(), "model": self.model.state_dict(),
                           "steps": self.average.steps, "average": self.average.model.state_dict(),
                           "optimiser": self.optimiser.state_dict(), "opinions": source.opinions,
                           "random": torch.get_rng_state()})

    def restore(self, path: Path, source: Votes | Lessons, clock: common.Clock) -> None:
        """Go back to where `save` was."""
        state = torch.load(path)
        clock.resume(state["minutes"])
        self.epoch = state["epoch"]
        source.opinions.copy_(state["opinions"])
        self.model.load_state_dict(state["model"])
        self.average.resume(state["average"], state["steps"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])


def answers(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits, by convolutions in bf16: they take the matrix units of the processor where it has them."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(x.contiguous(memory_format=torch.channels_last)).float()


def train(model: nn.Module, source: Votes | Lessons, n: int, valid: Faces, plan: Round, clock: common.Clock,
          kept: Path | None) -> nn.Module:
    """Train a network for one round on n faces and return the averaged weights.

    With `kept` the run goes on from the epoch that this file holds, and leaves each epoch there.
    """
    model.drop.p = plan.drop
    run = Run(model, plan)
    if kept is not None and kept.exists():
        run.restore(kept, source, clock)
        clock.log(f"going on after epoch {run.epoch} of {plan.name}")
    per_epoch = n // BATCH
    steps = plan.epochs * per_epoch
    while run.epoch < plan.epochs:
        order = torch.randperm(n)[:per_epoch * BATCH]
        losses = []
        for step, chosen in enumerate(order.split(BATCH), run.epoch * per_epoch):
            for group in run.optimiser.param_groups:
                group["lr"] = plan.rate * common.cosine(step, steps, min(400, steps // 8 + 1))
            done = step / steps
            calm = done >= plan.calm
            x, target = source.batch(chosen, run.epoch, plan.side(done), done, calm)
            logits, loss = run.learn(x, target)
            if not calm:
                source.hear(chosen, logits)
            losses.append(loss)
        run.epoch += 1
        logits = predict(run.average.model, valid)
        clock.log(f"{plan.name}, epoch {run.epoch}/{plan.epochs}: loss {np.mean(losses):.4f}, "
                  f"valid {vote_loss(logits, valid):.4f}, {common.accuracy(logits, valid.labels):.4f}")
        if kept is not None:
            run.save(kept, source, clock)
    return run.average.model.to(memory_format=torch.contiguous_format)


@torch.no_grad()
def draw_lessons(tutors: Sequence[nn.Module], faces: Faces, views: int, clock: common.Clock, kept: Path | None
                 ) -> Lessons:
    """Views of every face, as a network without tutors would learn from, and what the tutors think of each.

    The tutors look at the very pixels that are learnt from, and much longer is learnt from them than from votes
    ("Knowledge distillation: A good teacher is patient and consistent", Beyer et al. 2022).
    """
    if kept is not None and kept.exists():
        return Lessons(**torch.load(kept))
    n = len(faces.pixels)
    lessons = Lessons(torch.empty(views, n, SIDE, SIDE, dtype=torch.uint8),
                      torch.empty(views, n, len(LABELS), dtype=torch.float16))
    source = Votes(faces)
    for view in range(views):
        for chosen in torch.randperm(n).split(BATCH):
            x, votes = source.batch(chosen, 0, SIDE, 0.0, view >= views - calm_of(views))
            pixels = (x.squeeze(1) * STD + MEAN).mul_(255).round_().clamp_(0, 255).byte()
            x = normalise(pixels)
            advice = torch.stack([answers(tutor, x).softmax(1) for tutor in tutors]).mean(0)
            lessons.pixels[view, chosen] = pixels
            lessons.targets[view, chosen] = votes.lerp(advice, TRUST).half()
        clock.log(f"lessons: {view + 1} of {views} views")
    if kept is not None:
        common.save(kept, lessons._asdict())
    return lessons


@torch.no_grad()
def predict(model: nn.Module, faces: Faces) -> np.ndarray:
    """Logits of every face."""
    model.eval()
    return np.concatenate([model(normalise(part)).numpy() for part in torch.from_numpy(faces.pixels).split(256)])


def vote_loss(logits: np.ndarray, faces: Faces) -> float:
    """Mean cross-entropy of the answers against the shares of votes."""
    return float(common.soft_cross_entropy(torch.from_numpy(logits), torch.from_numpy(faces.votes)))


def stages(shape: Shape) -> str:
    """The stages in words."""
    sides = (SIDE // 2 ** (stage + 1) for stage in range(len(shape.widths)))
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


def trained(faces: Faces, valid: Faces, options: argparse.Namespace, clock: common.Clock
            ) -> tuple[FaceNet, dict[str, str]]:
    """The network that learnt from its tutors, and what each of those recognises.

    What an earlier run with the same flags has done already is not done again.
    """

    def kept(name: str) -> Path | None:
        return None if options.smoke else options.cache / f"face-{name}-{options.epochs}-{options.seed}.pt"

    n = len(faces.pixels)
    some = augment(torch.from_numpy(faces.pixels[:SOME]), SIDE, CALM_STRENGTH)
    public = Public(options.data.parent / "models" / "mobilefacenet" / "mobilefacenet.onnx", some)
    tutors, recognised = [], {}
    for network, plan in ((FaceNet(Shape()), first_round(options.epochs)),
                          (public, public_round(1 if options.smoke else PUBLIC_EPOCHS))):
        tutors.append(train(network, Votes(faces), n, valid, plan, clock, kept(plan.name)))
        recognised[plan.name] = f"{common.accuracy(predict(tutors[-1], valid), valid.labels):.4f}"
    lessons = draw_lessons(tutors, faces, 4 if options.smoke else LESSONS, clock, kept("lessons"))
    plan = second_round(1 if options.smoke else LESSON_EPOCHS)
    return train(copy.deepcopy(tutors[0]), lessons, n, valid, plan, clock, kept(plan.name)), recognised


def finish(model: FaceNet, tutors: Mapping[str, str], faces: Faces, valid: Faces, options: argparse.Namespace,
           clock: common.Clock) -> None:
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
        "calm": "{:.0f}, {:.0f} and {:.0f}".format(*(100 * (1 - plan(1).calm) for plan in (
            first_round, public_round, second_round))),
        "trust": TRUST,
        "frontier_epochs": frontier_epochs, "frontier": frontier_table, "form": form,
        "growth": growth, "margin": margin_table,
        "epochs": options.epochs, "public_epochs": PUBLIC_EPOCHS, "lesson_epochs": LESSON_EPOCHS,
        "lessons": LESSONS, "inside": model.shape.inside,
        **{f"{name}_recognised": share for name, share in tutors.items()},
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
        faces, valid = faces.only(np.arange(1024)), valid.only(np.arange(256))
    clock.log(f"{len(faces.pixels)} faces to train on, {len(valid.pixels)} to measure on")
    finish(*trained(faces, valid, options, clock), faces, valid, options, clock)


if __name__ == "__main__":
    main()
