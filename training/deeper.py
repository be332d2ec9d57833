"""Makes a deeper face network begin as the same function as a trained one (Chen et al. 2016, "Net2Net").

Blocks that the trained network lacks are put at the end of their stage and add nothing at first. Its
convolutions have their batch norms folded in: each norm is opened again from what the faces give there.
"""

from __future__ import annotations

from typing import Iterator, Sequence

import onnx
import torch
from torch import nn


def _places(counts: Sequence[int], before: Sequence[int]) -> Iterator[int | None]:
    """For each block of the deeper network, its number in the trained one, or nothing where it is new."""
    number = 0
    for count, known in zip(counts, before, strict=True):
        for block in range(count):
            if block < known:
                yield number
                number += 1
            else:
                yield None


@torch.no_grad()
def begin_as(model: nn.Module, network: bytes, before: Sequence[int], faces: torch.Tensor) -> None:
    """Give `model` the weights of an exported network that has `before` blocks in its stages.

    In evaluation `model` then answers as that network does; `faces` [n, 1, side, side] are what its
    batch norms are measured on.
    """
    known = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
             for tensor in onnx.load_from_string(network).graph.initializer}
    owners = [(model, "", ["stem"])]
    for block, place in zip(model.blocks, _places(model.shape.blocks, before), strict=True):
        if place is None:
            block.second_norm.weight.zero_()  # the block is its shortcut
        else:
            owners.append((block, f"blocks.{place}.", ["first", "second", "shortcut"]))
    opened = []
    for owner, prefix, names in owners:
        for name in names:
            if f"{prefix}{name}.weight" in known:
                getattr(owner, name).weight.copy_(known[f"{prefix}{name}.weight"])
                norm = getattr(owner, f"{name}_norm")
                opened.append(norm.register_forward_pre_hook(_opener(known[f"{prefix}{name}.bias"])))
    model.head.weight.copy_(known["head.weight"])
    model.head.bias.copy_(known["head.bias"])
    model.eval()
    model(faces)
    for hook in opened:
        hook.remove()


def _opener(bias: torch.Tensor):
    """Sets a norm, before it runs, to the measured mean and variance, and to add `bias` and nothing else."""

    def open_norm(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(bias + mean)

    return open_norm
