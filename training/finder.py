"""The network that finds faces: its layers, its export, and the export at work."""

from __future__ import annotations

import io
import time
from typing import Sequence

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

MEAN, STD = 0.5, 0.25
CHANNELS = 15
LOWEST = 0.002  # candidates below that score are not looked at when measuring


# --- layers ---------------------------------------------------------------------------


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
    return common.flop(model, torch.zeros(1, 3, height, width)) / 1e9


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels [n, h, w, 3] of 0..255 as the network wants them: [n, 3, h, w]."""
    return ((pixels.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)


# --- export ---------------------------------------------------------------------------


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
