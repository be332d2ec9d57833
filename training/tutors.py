"""A public network for telling faces apart, tuned to expressions: too dear to ship, it teaches the one that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from faces import LABELS, MEAN, SIDE, STD

TUTOR_SIDE = 80  # of a face of 48 pixels; smaller ones, early in the training, in proportion
STRIDE = 16  # of the last map
PUBLIC_MEAN, PUBLIC_STD = 0.449, 0.226  # of grey pictures: the means over the three channels it was trained on


class Normed(nn.Module):
    """A convolution and a batch norm that does nothing as long as it is not trained."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int, groups: int) -> None:
        super().__init__()
        outputs, inputs, side, _ = weight.shape
        self.conv = nn.Conv2d(inputs * groups, outputs, side, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        with torch.no_grad():
            self.conv.weight.copy_(torch.from_numpy(weight))
            self.norm.weight.fill_((1 + self.norm.eps) ** 0.5)
            self.norm.bias.copy_(torch.from_numpy(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))

    def measure(self, _conv: nn.Module, _inputs: tuple, y: torch.Tensor) -> None:
        """Take mean and variance from the convolution's output; the function stays."""
        variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        self.norm.bias += mean
        self.norm.weight.copy_((variance + self.norm.eps).sqrt())
        self.norm.running_mean.copy_(mean)
        self.norm.running_var.copy_(variance)


class Public(nn.Module):
    """MobileFaceNet (Chen et al. 2018) up to its last map, with a head for expressions: [n, 1, 48, 48] to [n, 8].

    Its file has batch norms folded into convolutions, without which it would not learn: new ones do nothing at
    first but hold mean and variance of some faces.
    """

    def __init__(self, network: Path, some: torch.Tensor) -> None:
        super().__init__()
        graph = onnx.load(network).graph
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.steps: list[tuple[str, str, list[str]]] = []
        self.layers = nn.ModuleDict()
        channels = 0
        for node in graph.node:
            if node.op_type == "Conv":
                weight, bias = (weights[name].copy() for name in node.input[1:])
                known = {attribute.name: attribute for attribute in node.attribute}
                if weight.shape[2] == 7:  # makes an embedding of the last map
                    break
                self.layers[str(len(self.steps))] = Normed(weight, bias, known["strides"].ints[0],
                                                           known["pads"].ints[0], known["group"].i)
                channels = len(bias)
            if node.op_type in ("Conv", "Clip", "Relu", "Add"):
                self.steps.append((node.op_type, node.output[0], list(node.input)))
        self.input = graph.input[0].name
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(channels, len(LABELS))
        hooks = [layer.conv.register_forward_hook(layer.measure) for layer in self.layers.values()]
        with torch.no_grad():
            self.eval()(some)
        for hook in hooks:
            hook.remove()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x * STD + MEAN - PUBLIC_MEAN) / PUBLIC_STD
        side = TUTOR_SIDE * x.shape[-1] // SIDE // STRIDE * STRIDE
        x = F.interpolate(x, (side, side), mode="bilinear").expand(-1, 3, -1, -1)
        values = {self.input: x.contiguous(memory_format=torch.channels_last)}
        for at, (kind, result, names) in enumerate(self.steps):
            x = values[names[0]]
            values[result] = (self.layers[str(at)](x) if kind == "Conv" else x + values[names[1]] if kind == "Add"
                              else F.relu6(x) if kind == "Clip" else F.relu(x))
        return self.head(self.drop(values[self.steps[-1][1]].mean((2, 3))))
