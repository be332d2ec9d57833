"""The network that reads expressions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import common
from faces import LABELS, SIDE


class Shape(NamedTuple):
    """Channels of each stage, each at half the side of the one before, and the residual blocks in it.

    Blocks of a stage after its second are narrower inside.
    """

    widths: tuple[int, ...] = (32, 96, 160)
    blocks: tuple[int, ...] = (1, 1, 3)
    inside: int = 96


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inside, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(inside)
        self.second = nn.Conv2d(inside, outputs, 3, 1, 1, bias=False)
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

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        inputs = shape.widths[0]
        self.stem = nn.Conv2d(1, inputs, 4, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(inputs)
        self.blocks = nn.Sequential()
        for stage, (width, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            for block in range(count):
                inside = width if block < 2 else shape.inside
                self.blocks.append(Block(inputs, inside, width, 2 if stage > 0 and block == 0 else 1))
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


@torch.no_grad()
def round_weights(model: FaceNet) -> FaceNet:
    """Weights of convolutions become exact in bf16, in place: a server that multiplies in bf16 rounds inputs only."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.copy_(layer.weight.bfloat16())
    return model


def mega_flop(model: FaceNet) -> float:
    """Millions of floating-point operations (two per multiply-add) for one image."""
    return common.flop(model, torch.zeros(1, 1, SIDE, SIDE)) / 1e6
