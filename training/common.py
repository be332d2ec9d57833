"""What both recipes share: seeds, hash splits, averaging, calibration, export, cards."""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import math
import os
import random
import tarfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

import sources

REPOSITORY = sources.REPOSITORY
OPSET = 17
CALIBRATION_BINS = 15


# --- command line and reproducibility -------------------------------------------------


def arguments(description: str, model: str, epochs: int, switches: Mapping[str, str] | None = None
              ) -> argparse.Namespace:
    """Parse the flags that every recipe takes and switches of its own; nothing is created.

    Ends the program with the list of the files that are missing, if any are.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=sources.DEFAULT,
                        help="folder of the data sets (default: ../shared/data beside the repository)")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "training" / ".cache",
                        help="folder for what is slow to prepare; git ignores the default")
    parser.add_argument("--out", type=Path,
                        help=f"folder to write (default: models/{model}; with --smoke a folder in the cache)")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true",
                        help="run every step on little data in under two minutes; the result is no good")
    for switch, meaning in (switches or {}).items():
        parser.add_argument(switch, action="store_true", help=meaning)
    options = parser.parse_args()
    if options.out is None:
        options.out = options.cache / f"smoke-{model}" if options.smoke else REPOSITORY / "models" / model
    if options.smoke:
        options.epochs = 1
    sources.require(options.data, model)
    return options


def start(seed: int, threads: int) -> None:
    """Fix every seed and the number of threads that torch and the tokenisers may use."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def hash_share(content: bytes) -> float:
    """A number in [0, 1) that depends on the content alone, so equal items never part."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64


def pictures(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every JPEG file in an archive: one compressed stream, read once and forwards."""
    with tarfile.open(archive, "r|xz") as bundle:
        for member in bundle:
            if member.name.endswith(".jpg"):
                yield member.name, bundle.extractfile(member).read()


class Clock:
    """Wall-clock time since the recipe began, earlier parts of a stopped run included, the pause between them not."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def resume(self, minutes: float) -> None:
        """Count what an earlier part of the run took."""
        self._began = time.monotonic() - minutes * 60

    def minutes(self) -> float:
        return (time.monotonic() - self._began) / 60

    def log(self, message: str) -> None:
        print(f"[{self.minutes():6.1f} min] {message}", flush=True)


# --- training -------------------------------------------------------------------------


class Average:
    """Exponential moving average of a network's weights and buffers, with a warm-up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self._decay = decay
        self.steps = 0

    def resume(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from the average of a run that had made so many steps."""
        self.model.load_state_dict(state)
        self.steps = steps

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        keep = min(self._decay, self.steps / (self.steps + 10))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - keep)
            else:
                mine.copy_(theirs)


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy against a distribution over the classes."""
    return -(target * logits.log_softmax(1)).sum(1).mean()


# --- measuring ------------------------------------------------------------------------


def flop(model: nn.Module, x: torch.Tensor) -> int:
    """Floating-point operations (two per multiply-add) of the convolutions for one input."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * layer.weight.numel() * output[0, 0].numel()

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return total


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label."""
    return float((logits.argmax(1) == labels).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def calibration_error(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Expected calibration error: |confidence - accuracy| over equal bins, weighted by size."""
    chances = softmax(logits / temperature)
    confidence, right = chances.max(1), chances.argmax(1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = 0.0
    for chosen in (bins == b for b in range(CALIBRATION_BINS)):
        if chosen.any():
            error += chosen.mean() * abs(confidence[chosen].mean() - right[chosen].mean())
    return float(error)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least log loss."""

    def loss(temperature: float) -> float:
        return -np.log(softmax(logits / temperature)[np.arange(len(labels)), labels] + 1e-12).mean()

    candidates = np.exp(np.linspace(math.log(0.25), math.log(4.0), 1109))
    return round(float(min(candidates, key=loss)), 4)


def calibration_noise(logits: np.ndarray, seed: int) -> float:
    """The calibration error that chance alone leads one to expect: labels are drawn as the answers say, 200 times."""
    random = np.random.default_rng(seed)
    edges = softmax(logits).cumsum(1)
    return float(np.mean([calibration_error(logits, (random.random((len(edges), 1)) > edges).sum(1), 1.0)
                          for _ in range(200)]))


def minimise(parameters: torch.Tensor, cost: Callable[[], torch.Tensor]) -> None:
    """Find the parameters with the least cost, in place (L-BFGS)."""
    solver = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def evaluate() -> torch.Tensor:
        solver.zero_grad()
        value = cost()
        value.backward()
        return value

    solver.step(evaluate)


# --- writing --------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to fill that then replaces `path` in one step: a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    yield temporary
    os.replace(temporary, path)


def write(path: Path, content: str | bytes) -> None:
    """Replace a file in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Keep the state of a run, as `torch.load` reads it."""
    with replacing(path) as temporary:
        torch.save(dict(state), temporary)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with one case per line where lists are long."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def export(model: nn.Module, example: torch.Tensor, name: str, axes: Mapping[int, str],
           store_half: Sequence[str] = ()) -> bytes:
    """Export a network of one input to ONNX and return the file's bytes, checked.

    Initializers named in `store_half` must feed a Gather each: they are stored as f16 and the
    gathered rows are cast to f32. Their values must be exact in f16 already.
    """
    target = io.BytesIO()
    torch.onnx.export(model, (example,), target, dynamo=False, opset_version=OPSET,
                      input_names=[name], output_names=["logits"],
                      dynamic_axes={name: dict(axes), "logits": {0: axes[0]}})
    network = onnx.load_from_string(target.getvalue())
    for tensor in store_half:
        _store_half(network.graph, tensor)
    del network.graph.value_info[:]
    onnx.checker.check_model(network, full_check=True)
    return network.SerializeToString()


def _store_half(graph: onnx.GraphProto, name: str) -> None:
    """Turn `Gather(f32 table)` into `Cast(Gather(f16 table))`."""
    table = next(t for t in graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(table)
    half = values.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), values):
        raise ValueError(f"{name} is not exact in f16")
    table.CopyFrom(onnx.numpy_helper.from_array(half, name))
    for position, node in enumerate(graph.node):
        if node.op_type == "Gather" and node.input[0] == name:
            result = node.output[0]
            node.output[0] = f"{result}_half"
            cast = onnx.helper.make_node("Cast", [node.output[0]], [result], to=onnx.TensorProto.FLOAT)
            graph.node.insert(position + 1, cast)
            return
    raise ValueError(f"no Gather reads {name}")


def run_onnx(network: bytes, name: str, rows: np.ndarray) -> np.ndarray:
    """The answer of ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {name: rows})[0]


def check_close(network: bytes, name: str, rows: np.ndarray, expected: np.ndarray, limit: float = 1e-4) -> float:
    """Largest difference between ONNX Runtime and torch; more than `limit` is an error."""
    worst = float(np.abs(run_onnx(network, name, rows) - expected).max())
    if not worst <= limit:
        raise ValueError(f"ONNX Runtime differs from torch by {worst:.2e}, more than {limit:.0e}")
    return worst


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with three digits."""
    lines = [head, ["---"] * len(head), *rows]
    text = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in text)
