"""Writes the reference networks: ONNX files with seeded random weights, made by numpy and onnx alone.

`python networks.py FOLDER` writes each network as FOLDER/NAME.onnx and FOLDER/networks.json, which says
of each what goes in and how much arithmetic a row is (two FLOP a product). The same seed gives the same
bytes. Weights are scaled as He et al. 2015 (arXiv:1502.01852) have it, and the last convolution of a
residual block by a half on top, so that activations neither die nor blow up.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
# What all four engines read; onnx would write the newest it knows.
IR_VERSION = 8
BATCH = "batch"


@dataclasses.dataclass
class Network:
    """What a measurement has to know of a file."""

    name: str
    # The shape of a row, where a name stands for an extent that the caller chooses.
    row: list
    dtype: str
    # Below this are the numbers of a row of i64; rows of f32 are drawn from -1..1.
    vocabulary: int
    # Of a row; of a token where the length is free.
    flop: int
    # `network`, `convolution` or `overhead`.
    kind: str


class Graph:
    """A graph in the making. Methods that add an operator answer the name of its output."""

    def __init__(self, name):
        self.name = name
        self.random = np.random.default_rng(zlib.crc32(name.encode()))
        self.nodes, self.weights, self.flop = [], [], 0

    def node(self, operator, inputs, n_outputs=1, **attributes):
        prefix = f"{operator.lower()}_{len(self.nodes)}"
        outputs = [prefix if i == 0 else f"{prefix}_{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0] if n_outputs == 1 else outputs

    def weight(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, shape, deviation):
        return self.weight(self.random.normal(0.0, deviation, shape).astype(np.float32))

    def uniform(self, shape, limit):
        return self.weight(self.random.uniform(-limit, limit, shape).astype(np.float32))

    def longs(self, *values):
        return self.weight(np.array(values, np.int64))

    def relu(self, x):
        return self.node("Relu", [x])

    def conv(self, picture, n_outputs, kernel, stride=1, gain=1.0):
        """A convolution with bias of a picture (name, channels, side), padded as wide as keeps its side."""
        x, n_inputs, side = picture
        padding = kernel // 2 if stride < kernel and kernel % 2 else 0
        fan_in = n_inputs * kernel * kernel
        weights = self.normal([n_outputs, n_inputs, kernel, kernel], gain * math.sqrt(2.0 / fan_in))
        bias = self.normal([n_outputs], 0.05)
        y = self.node(
            "Conv", [x, weights, bias], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4
        )
        side = (side + 2 * padding - kernel) // stride + 1
        self.flop += 2 * side * side * n_outputs * fan_in
        return y, n_outputs, side

    def block(self, picture, n_outputs, stride):
        """Two convolutions of 3x3 and what goes past them: He et al. 2015 (arXiv:1512.03385), figure 2."""
        past = picture if stride == 1 else self.conv(picture, n_outputs, 1, stride)
        x, channels, side = self.conv(picture, n_outputs, 3, stride)
        x, channels, side = self.conv((self.relu(x), channels, side), n_outputs, 3, gain=0.5)
        return self.relu(self.node("Add", [x, past[0]])), channels, side

    def gemm(self, x, n_inputs, n_outputs):
        self.flop += 2 * n_inputs * n_outputs
        weights = self.normal([n_outputs, n_inputs], math.sqrt(1.0 / n_inputs))
        return self.node("Gemm", [x, weights, self.normal([n_outputs], 0.05)], transB=1)

    def save(self, folder, x, y, kind, vocabulary=0):
        """Writes the file; `x` and `y` are the name, element type and shape of a row of each end."""
        name, dtype, row = x
        elements = {"f32": TensorProto.FLOAT, "i64": TensorProto.INT64}
        self.nodes.append(helper.make_node("Identity", [y[0]], ["out"]))
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(name, elements[dtype], [BATCH, *row])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [BATCH, *y[1]])],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="lepton"
        )
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, folder / f"{self.name}.onnx")
        return Network(self.name, row, dtype, vocabulary, self.flop, kind)


def unshuffled(graph, x, channels, side, factor):
    """Space to depth as exporters write it: squares of pixels become channels."""
    small = side // factor
    x = graph.node("Reshape", [x, graph.longs(0, channels, small, factor, small, factor)])
    x = graph.node("Transpose", [x], perm=[0, 1, 3, 5, 2, 4])
    channels *= factor * factor
    return graph.node("Reshape", [x, graph.longs(0, channels, small, small)]), channels, small


def residual(folder, name, side, stages, stem, n_answers=8):
    """A residual network: a stem that makes 4x4 pixels one, and stages of (channels, blocks)."""
    graph = Graph(name)
    picture = ("image", 3, side)
    if stem == "stride":
        picture = graph.conv(picture, stages[0][0], 4, 4)
    else:
        picture = graph.conv(unshuffled(graph, *picture, 4), stages[0][0], 1)
    picture = graph.relu(picture[0]), *picture[1:]
    for stage, (channels, n_blocks) in enumerate(stages):
        for block in range(n_blocks):
            picture = graph.block(picture, channels, 2 if stage > 0 and block == 0 else 1)
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [picture[0]])])
    logits = graph.gemm(pooled, picture[1], n_answers)
    return graph.save(folder, ("image", "f32", [3, side, side]), (logits, [n_answers]), "network")


def recurrent(folder, name, cell, n_directions=2, words=16_384, width=128, hidden=128, n_answers=2):
    """Words to vectors, one recurrent layer from a state of zeros, the mean of its states, and a head."""
    graph = Graph(name)
    vectors = graph.normal([words, width], 1.0)
    x = graph.node("Gather", [vectors, graph.node("Transpose", ["ids"], perm=[1, 0])])
    # tract asks for an initial state where the number of rows is not known beforehand.
    n_rows = graph.node("Gather", [graph.node("Shape", ["ids"]), graph.longs(0)])
    shape = graph.node("Concat", [graph.longs(n_directions), n_rows, graph.longs(hidden)], axis=0)
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    start = graph.node("ConstantOfShape", [shape], value=zero)
    n_gates = {"GRU": 3, "LSTM": 4}[cell]
    limit = 1.0 / math.sqrt(hidden)
    weights = [
        graph.uniform([n_directions, n_gates * hidden, width], limit),
        graph.uniform([n_directions, n_gates * hidden, hidden], limit),
        graph.uniform([n_directions, 2 * n_gates * hidden], limit),
    ]
    attributes = {"hidden_size": hidden, "direction": "bidirectional" if n_directions == 2 else "forward"}
    if cell == "GRU":
        states = graph.node(cell, [x, *weights, "", start], 2, linear_before_reset=1, **attributes)[0]
    else:
        states = graph.node(cell, [x, *weights, "", start, start], 3, **attributes)[0]
    token = 2 * n_directions * n_gates * hidden * (width + hidden)
    mean = graph.node("ReduceMean", [states], axes=[0], keepdims=0)
    mean = graph.node("Reshape", [graph.node("Transpose", [mean], perm=[1, 0, 2]), graph.longs(0, -1)])
    logits = graph.gemm(mean, n_directions * hidden, n_answers)
    # Exact where a row is long enough that its head does not count.
    graph.flop = token
    return graph.save(folder, ("ids", "i64", ["length"]), (logits, [n_answers]), "network", words)


def convolutions(folder, channels, side, kernel=3, n_layers=6):
    """Equal convolutions in a row, each with bias and ReLU, and a pool, so that nothing else weighs."""
    graph = Graph(f"conv{kernel}x{kernel}-{channels}-{side}x{side}")
    picture = ("image", channels, side)
    for _ in range(n_layers):
        x, *rest = graph.conv(picture, channels, kernel)
        picture = graph.relu(x), *rest
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [picture[0]])])
    return graph.save(folder, ("image", "f32", [channels, side, side]), (pooled, [channels]), "convolution")


def stem(folder, channels=64, side=112):
    """A convolution of 4x4 in steps of 4 over three colours, and a pool."""
    graph = Graph(f"conv4x4-stride4-3-{channels}-{side}x{side}")
    x = graph.relu(graph.conv(("image", 3, side), channels, 4, 4)[0])
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
    return graph.save(folder, ("image", "f32", [3, side, side]), (pooled, [channels]), "convolution")


def nothing(folder):
    """One operator on sixteen numbers: what a call costs in itself."""
    graph = Graph("nothing")
    y = graph.relu("x")
    return graph.save(folder, ("x", "f32", [16]), (y, [16]), "overhead")


def write(folder):
    """Writes every network into `folder` and answers what there is to know of each."""
    folder.mkdir(parents=True, exist_ok=True)
    networks = [
        residual(folder, "residual-64-tiny", 64, [(32, 1), (64, 2), (128, 1)], "stride"),
        residual(folder, "residual-64-tiny-unshuffled", 64, [(32, 1), (64, 2), (128, 1)], "unshuffle"),
        residual(folder, "residual-112-small", 112, [(32, 2), (64, 1), (128, 1)], "stride"),
        residual(folder, "residual-112", 112, [(64, 2), (128, 2), (256, 2)], "stride"),
        recurrent(folder, "gru-two-way", "GRU"),
        recurrent(folder, "lstm-two-way", "LSTM"),
        recurrent(folder, "lstm", "LSTM", n_directions=1),
        *(convolutions(folder, *shape) for shape in [(16, 56), (32, 56), (48, 28), (64, 28), (96, 14)]),
        *(convolutions(folder, *shape) for shape in [(128, 14), (256, 7), (64, 28, 1), (256, 14, 1)]),
        stem(folder),
        nothing(folder),
    ]
    listed = [dataclasses.asdict(network) for network in networks]
    (folder / "networks.json").write_text(json.dumps(listed, indent=1) + "\n")
    return networks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    for network in write(parser.parse_args().folder):
        print(f"{network.name}: {network.dtype} {network.row}, {network.flop / 1e6:.1f} MFLOP")


if __name__ == "__main__":
    main()
