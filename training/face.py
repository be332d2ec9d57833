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
from classifier import FaceNet, Shape, fold, mega_flop, round_weights
from faces import LABELS, SIDE, Faces, View, augment, load, look, mix, mixed, normalise, photographed
from tutors import Public

EPOCHS = 80           # of the first round
TURNS = 2             # after the first round: a tutor learns from the network, then the network from both
TUTOR_EPOCHS = 10
ADVISED_EPOCHS = 30   # of the network, in each turn
CALM_STRENGTH = 0.5
TUTOR_TRUST = 0.4  # share of a tutor's target that the network has, the votes the rest
TRUST = 0.7        # share of the network's target that it and its tutor have
GROWTHS = (1.0, 0.95, 1.05)  # of the looks at a face that advice is the mean of
MEASURED = 10_240  # faces that batch norms are measured on
SOME = 256     # faces that show the public tutor what its maps look like
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
    opinion: float = 0.0  # share of the target that the network's own earlier answers have at the end
    strength: float = CALM_STRENGTH  # of the calm views
    tuned: bool = False  # goes on from trained weights: in small steps of AdamW
    batch: int = 128

    def side(self, done: float) -> int:
        """How large faces are after this share of the steps."""
        return next((small for share, small in self.growth if done < share), SIDE)


def first_round(epochs: int) -> Round:
    """From nothing, on small faces to begin with, by votes alone."""
    return Round("first", epochs, 0.1, ((0.5, 32), (0.75, 40)), 0.8375, 0.25, opinion=0.4)


def tutor_round(turn: int, epochs: int) -> Round:
    """The tutor, from weights that know faces."""
    return Round(f"tutor_{turn}", epochs, 5e-4, ((0.4, 40),), 0.5, 0.3, strength=0.4, tuned=True, batch=64)


def advised_round(turn: int, epochs: int) -> Round:
    """On from the round before, by what network and tutor think and the votes."""
    return Round(f"turn_{turn}", epochs, 0.05, (), 0.2, 0.1)


class Views:
    """Views of faces drawn anew for each batch, with the shares of votes that are to be answered."""

    def __init__(self, faces: Faces) -> None:
        self.pixels, self.votes = torch.from_numpy(faces.pixels), torch.from_numpy(faces.votes)
        # Ten votes are a rough measure: what was answered to other views of the same face smooths them.
        self.opinions = self.votes.clone()

    def batch(self, chosen: torch.Tensor, plan: Round, done: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the chosen faces after this share of the steps, and what is to be answered."""
        calm = done >= plan.calm
        x = augment(self.pixels[chosen], plan.side(done), plan.strength if calm else 1.0)
        target = self.votes[chosen].lerp(self.opinions[chosen], plan.opinion * done)
        return (x, target) if calm else mix(x, target)

    def hear(self, chosen: torch.Tensor, logits: torch.Tensor) -> None:
        """Remember the answers to the faces of a batch that were not blended with others."""
        plain = slice(mixed(len(chosen)), None)
        self.opinions[chosen[plain]] = self.opinions[chosen[plain]].lerp(logits[plain].softmax(1), 0.4)


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

    def save(self, path: Path, source: Views, clock: common.Clock) -> None:
        """Keep the state after a whole epoch."""
        common.save(path, {"epoch": self.epoch, "minutes": clock.minutes(), "model": self.model.state_dict(),
                           "steps": self.average.steps, "average": self.average.model.state_dict(),
                           "optimiser": self.optimiser.state_dict(), "opinions": source.opinions,
                           "random": torch.get_rng_state()})

    def restore(self, path: Path, source: Views, clock: common.Clock) -> None:
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


def train(model: nn.Module, faces: Faces, valid: Faces, plan: Round, clock: common.Clock, kept: Path | None
          ) -> nn.Module:
    """Train a network for one round and return the averaged weights.

    With `kept` the run goes on from the epoch that this file holds, and leaves each epoch there.
    """
    model.drop.p = plan.drop
    run, source, n = Run(model, plan), Views(faces), len(faces.pixels)
    if kept is not None and kept.exists():
        run.restore(kept, source, clock)
        clock.log(f"going on after epoch {run.epoch} of {plan.name}")
    per_epoch = n // plan.batch
    steps = plan.epochs * per_epoch
    while run.epoch < plan.epochs:
        order = torch.randperm(n)[:per_epoch * plan.batch]
        losses = []
        for step, chosen in enumerate(order.split(plan.batch), run.epoch * per_epoch):
            for group in run.optimiser.param_groups:
                group["lr"] = plan.rate * common.cosine(step, steps, min(400, steps // 8 + 1))
            done = step / steps
            logits, loss = run.learn(*source.batch(chosen, plan, done))
            if done < plan.calm:
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
def advised(faces: Faces, tutors: Sequence[nn.Module], trust: float) -> Faces:
    """The same faces, with so much of what tutors answer to looks at each mixed into the votes.

    A look shows the face or its mirror image, as it is or a little nearer or farther: better advice than a look at a
    view that was moved, darkened and erased.
    """
    looks = [normalise(torch.from_numpy(look(faces.pixels, View(growth=growth)))) for growth in GROWTHS]
    advice = []
    for tutor in tutors:
        tutor.eval().to(memory_format=torch.channels_last)
        for x in (side for x in looks for side in (x, x.flip(3))):
            advice.append(torch.cat([answers(tutor, part).softmax(1) for part in x.split(128)]))
    return faces._replace(votes=(1 - trust) * faces.votes + trust * torch.stack(advice).mean(0).numpy())


@torch.no_grad()
def mean(before: FaceNet, after: FaceNet, faces: Faces) -> FaceNet:
    """The mean of two networks' weights, with batch norms measured anew (Wortsman et al. 2022, "Model soups")."""
    state = before.state_dict()
    network = FaceNet(after.shape)
    network.load_state_dict({name: (state[name] + value) / 2 if value.is_floating_point() else value
                             for name, value in after.state_dict().items()})
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # plain means over all batches
    network.train()
    for part in torch.from_numpy(faces.pixels[:MEASURED]).split(512):
        network(augment(part, SIDE, tutor_round(1, 1).strength))
    return network


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


def trained(faces: Faces, strangers: Faces, valid: Faces, options: argparse.Namespace, clock: common.Clock
            ) -> tuple[FaceNet, dict[str, str]]:
    """The network that learnt from its tutors, and what each of those recognises.

    What an earlier run with the same flags has done already is not done again.
    """
    recognised = {}

    def taught(network: nn.Module, lessons: Faces, plan: Round) -> nn.Module:
        if options.smoke:
            plan, kept = plan._replace(epochs=1), None
        else:
            kept = options.cache / f"face-{plan.name}-{options.epochs}-{options.seed}.pt"
        network = train(network, lessons, valid, plan, clock, kept)
        recognised[plan.name] = f"{common.accuracy(predict(network, valid), valid.labels):.4f}"
        return network

    some = augment(torch.from_numpy(faces.pixels[:SOME]), SIDE, CALM_STRENGTH)
    network = taught(FaceNet(Shape()), faces, first_round(options.epochs))
    for turn in range(1, TURNS + 1):
        tutor = Public(options.data.parent / "models" / "mobilefacenet" / "mobilefacenet.onnx", some)
        tutor = taught(tutor, advised(faces, [network], TUTOR_TRUST), tutor_round(turn, TUTOR_EPOCHS))
        lessons = advised(faces, [network, tutor], TRUST).joined(advised(strangers, [network, tutor], 1))
        before, network = network, taught(copy.deepcopy(network), lessons, advised_round(turn, ADVISED_EPOCHS))
    return mean(before, network, faces), recognised


def finish(model: FaceNet, recognised: Mapping[str, str], faces: Faces, strangers: Faces, valid: Faces,
           options: argparse.Namespace, clock: common.Clock) -> None:
    """Calibrate, export, check, measure, and write the whole folder."""
    here = Path(__file__).parent
    frontier_epochs, form, frontier_table = frontier(here)
    growth, margin_table = margin(here)
    model = round_weights(fold(model))
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
        "train": f"{len(faces.pixels):,}", "strangers": f"{len(strangers.pixels):,}",
        "valid": f"{len(valid.pixels):,}",
        "views": common.table(["crop", "share recognised"], views),
        "first": model.shape.widths[0], "stages": stages(model.shape), "opinion": first_round(1).opinion,
        "calm": "{:.0f}, {:.0f} and {:.0f}".format(*(100 * (1 - plan.calm) for plan in (
            first_round(1), tutor_round(1, 1), advised_round(1, 1)))),
        "trust": TRUST, "tutor_trust": TUTOR_TRUST, "tutor_strength": tutor_round(1, 1).strength,
        "frontier_epochs": frontier_epochs, "frontier": frontier_table, "form": form,
        "growth": growth, "margin": margin_table,
        "epochs": options.epochs, "tutor_epochs": TUTOR_EPOCHS, "advised_epochs": ADVISED_EPOCHS, "turns": TURNS,
        "inside": model.shape.inside,
        **{f"{name}_recognised": share for name, share in recognised.items()},
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
    strangers = photographed(options.data, options.cache)
    if options.smoke:
        faces, strangers, valid = (part.only(np.arange(rows))
                                   for part, rows in ((faces, 384), (strangers, 64), (valid, 256)))
    clock.log(f"{len(faces.pixels)} faces and {len(strangers.pixels)} without votes to train on, "
              f"{len(valid.pixels)} to measure on")
    finish(*trained(faces, strangers, valid, options, clock), faces, strangers, valid, options, clock)


if __name__ == "__main__":
    main()
