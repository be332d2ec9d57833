#!/usr/bin/env python3
"""Folders as Hugging Face writes them: does Lepton answer as transformers does?

Builds tiny folders of many families with the libraries themselves: configurations, image processors and tokenizers are
written by their own `save_pretrained` or as older versions wrote them, networks are small random ONNX graphs.
transformers prepares the inputs, ONNX Runtime runs the network, the rules of transformers' pipelines make the scores;
`lepton predict` answers the same pictures and texts, and every score is compared.

    python3 -m venv venv && venv/bin/pip install transformers==4.57.6 onnx onnxruntime pillow
    cargo build && venv/bin/python tests/differential/folders.py target/debug/lepton

Exits with 1 where a folder does not load or a score differs by more than 1e-3.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TOLERANCE = 1e-3
CORPUS = [
    "a warm and funny film", "dull, and long", "The ROOM was small, and dirty!", "good", "really great; but the long wait",
    "the service was awful and the food cold", "I would come back any time", "not bad, not good: just there",
    "wonderful wonderful film", "caf\u00e9 cr\u00e8me", "\u623f\u95f4\u53c8\u5c0f\u53c8\u810f", "3.14 stars, 10/10",
]
TEXTS = CORPUS[:5] + ["unseenword zzz", "good " * 40, CORPUS[9], CORPUS[10]]


def pictures(folder: Path) -> list[Path]:
    """Pictures of several ratios, smooth with some noise, as PNG."""
    random, paths = np.random.default_rng(7), []
    for width, height in [(64, 40), (37, 61), (33, 33), (90, 12), (17, 23), (301, 200), (160, 480)]:
        y, x = np.mgrid[0:height, 0:width]
        waves = [128 + 100 * np.sin(x / (3 + c * 2) + c) * np.cos(y / (5 - c)) for c in range(3)]
        noise = random.normal(0, 12, (height, width, 3))
        levels = np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
        paths.append(folder / f"{width}x{height}.png")
        Image.fromarray(levels).save(paths[-1])
    return paths


# --- networks ---------------------------------------------------------------------------


def model(nodes, inputs, outputs, weights) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


ENDINGS = {"softmax": ("Softmax", {"axis": -1}), "sigmoid": ("Sigmoid", {}), "log": ("LogSoftmax", {"axis": -1})}


def ending(nodes, name, end):
    """Puts a last operator behind `name`, and calls the result `logits`."""
    if end in ENDINGS:
        op, attributes = ENDINGS[end]
        nodes.append(helper.make_node(op, [name], ["logits"], **attributes))
    else:
        nodes.append(helper.make_node("Identity", [name], ["logits"]))


def image_network(size, n=3, *, end=None, nhwc=False, element=TensorProto.FLOAT, name="pixel_values", free=False, seed=0):
    """Two strided convolutions and a matrix: every pixel counts."""
    random = np.random.default_rng(seed)
    height, width = size
    stride = 2 if max(size) < 100 else 8
    grid = [-(-side // stride) for side in size]
    grid = [-(-side // stride) for side in grid]
    weights = {
        "w1": random.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "b1": random.normal(0, 0.1, 8).astype(np.float32),
        "w2": random.normal(0, 0.25, (8, 8, 3, 3)).astype(np.float32),
        "w3": (random.normal(0, 1.2, (8 * grid[0] * grid[1], n)) / np.sqrt(8 * grid[0] * grid[1])).astype(np.float32),
        "b3": random.normal(0, 0.2, n).astype(np.float32),
    }
    nodes, last = [], name
    if element != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["cast"], to=TensorProto.FLOAT))
        weights["scale"] = np.array(1 / 128, np.float32)
        nodes.append(helper.make_node("Mul", ["cast", "scale"], ["scaled"]))
        last = "scaled"
    if nhwc:
        nodes.append(helper.make_node("Transpose", [last], ["planes"], perm=[0, 3, 1, 2]))
        last = "planes"
    strides = {"strides": [stride, stride], "pads": [1, 1, 1, 1]}
    nodes += [
        helper.make_node("Conv", [last, "w1", "b1"], ["c1"], **strides),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], **strides),
        helper.make_node("Tanh", ["c2"], ["t"]),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["g"]),
    ]
    ending(nodes, "g", end)
    shape = ["batch_size", height, width, 3] if nhwc else ["batch_size", 3, height, width]
    if free:
        shape = ["batch_size", "num_channels", "height", "width"]
    inputs = [helper.make_tensor_value_info(name, element, shape)]
    return model(nodes, inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", n])], weights)


def text_network(words, inputs, n=3, *, end=None, long=TensorProto.INT64, length="sequence_length", states=False,
                 free=False, squeezed=False, positions=600, seed=1):
    """Embeddings (of words, types and positions) through a mixing layer and a masked mean."""
    random = np.random.default_rng(seed)
    weights = {
        "words": random.normal(0, 1, (words, 16)).astype(np.float32),
        "w1": random.normal(0, 0.35, (16, 16)).astype(np.float32),
        "w2": random.normal(0, 0.8, (16, n)).astype(np.float32),
        "b2": random.normal(0, 0.2, n).astype(np.float32),
        "two": np.array([2], np.int64), "one": np.array([1], np.int64),
    }
    nodes = [helper.make_node("Gather", ["words", "input_ids"], ["e0"])]
    last = "e0"
    for key, rows in [("token_type_ids", 2), ("position_ids", positions)]:
        if key in inputs:
            weights[key + ".table"] = random.normal(0, 0.7, (rows, 16)).astype(np.float32)
            nodes.append(helper.make_node("Gather", [key + ".table", key], [key + ".e"]))
            nodes.append(helper.make_node("Add", [last, key + ".e"], [key + ".sum"]))
            last = key + ".sum"
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["m"]),
        helper.make_node("MatMul", [last, "w1"], ["h0"]),
        helper.make_node("Tanh", ["h0"], ["h"]),
        helper.make_node("Mul", ["h", "m"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "w2", "b2"], ["g"]),
    ]
    logits = "g"
    if squeezed:
        nodes.append(helper.make_node("Squeeze", ["g", "one"], ["s"]))
        logits = "s"
    ending(nodes, logits, end)
    given = [helper.make_tensor_value_info(name, long, ["batch_size", length]) for name in inputs]
    shape = ["batch_size"] if squeezed else ["batch_size", "num_labels" if free else n]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)]
    if states:
        outputs.insert(0, helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch_size", length, 16]))
    return model(nodes, given, outputs, weights)


# --- what transformers answers ------------------------------------------------------------


def scores_of(logits, config, has_ending):
    """The rules of the pipelines of transformers; a network that ends in probabilities is left alone."""
    logits = np.asarray(logits, np.float64).reshape(-1)
    if config.problem_type == "regression" or has_ending:
        return logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def image_processor(folder: Path, model_type: str):
    """The slow processor that the folder names, by the rules of AutoImageProcessor."""
    written = json.loads((folder / "preprocessor_config.json").read_text())
    name = written.get("image_processor_type") or written.get("feature_extractor_type")
    if name is None:
        from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

        name = IMAGE_PROCESSOR_MAPPING_NAMES[model_type][0]
    name = name.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    return class_of(name).from_pretrained(folder)


MODULES = {
    "ViT": "vit", "DeiT": "deit", "Beit": "beit", "ConvNext": "convnext", "CLIP": "clip", "Siglip": "siglip",
    "EfficientNet": "efficientnet", "MobileNetV1": "mobilenet_v1", "MobileNetV2": "mobilenet_v2",
    "MobileViT": "mobilevit", "Levit": "levit", "PoolFormer": "poolformer", "Pvt": "pvt", "Bit": "bit",
    "Segformer": "segformer", "ChineseCLIP": "chinese_clip",
}


def class_of(name: str):
    module = MODULES[name.removesuffix("ImageProcessor")]
    return getattr(importlib.import_module(f"transformers.models.{module}.image_processing_{module}"), name)


class Case:
    """One folder, and what answers it."""

    def __init__(self, folder: Path, name: str):
        # Each in a folder of models of its own, so that one that is refused spoils no other.
        self.folder, self.name, self.probabilities = folder / name / "m", name, False
        self.folder.mkdir(parents=True)

    def config(self, model_type: str, **keys):
        """As `save_pretrained` of that model's configuration writes it."""
        from transformers import AutoConfig

        AutoConfig.for_model(model_type, **keys).save_pretrained(self.folder)

    def write(self, file: str, content):
        (self.folder / file).write_text(content if isinstance(content, str) else json.dumps(content))

    def network(self, made: onnx.ModelProto, file="model.onnx"):
        last = [node.op_type for node in made.graph.node if "logits" in node.output]
        self.probabilities = last[0] in ("Softmax", "Sigmoid")
        path = self.folder / file
        path.parent.mkdir(exist_ok=True)
        onnx.save(made, path)
        self.path = path

    def expected(self, inputs):
        from transformers import AutoConfig, AutoTokenizer

        text = (self.folder / "config.json").read_text()
        config = AutoConfig.for_model(json.loads(text)["model_type"]).from_dict(json.loads(text))
        session = onnxruntime.InferenceSession(str(self.path))
        names = {port.name: port for port in session.get_inputs()}
        output = [port.name for port in session.get_outputs()].index("logits")
        is_image = isinstance(inputs[0], Path)
        prepare = image_processor(self.folder, config.model_type) if is_image else AutoTokenizer.from_pretrained(self.folder)
        answers = []
        for given in inputs:
            if is_image:
                pixels = np.asarray(prepare(Image.open(given).convert("RGB"), return_tensors="np")["pixel_values"])
                (name, port), = names.items()
                if port.shape[-1] == 3:
                    pixels = pixels.transpose(0, 2, 3, 1)
                feed = {name: pixels.astype(np.uint8 if port.type == "tensor(uint8)" else np.float32)}
            else:
                feed = self.tokens(prepare, given, names, config)
            scores = scores_of(session.run(None, feed)[output][0], config, self.probabilities)
            # Pvt's configuration forgets its labels unless they are ImageNet's.
            names_of = json.loads(text, parse_constant=str).get("id2label") or config.id2label
            label = lambda i: str(names_of.get(str(i), names_of.get(i)))
            answers.append(sorted((label(i), score) for i, score in enumerate(scores)))
        return answers

    def tokens(self, tokenizer, text, names, config):
        port = names["input_ids"]
        fixed = port.shape[1] if isinstance(port.shape[1], int) else None
        padding = {"padding": "max_length", "max_length": fixed} if fixed else {"max_length": self.max_tokens(tokenizer, config)}
        ids = tokenizer(text, truncation=True, return_tensors="np", return_token_type_ids=True, **padding)
        length = ids["input_ids"].shape[1]
        first = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta") else 0
        ids = {**ids, "position_ids": np.arange(first, first + length)[None]}
        element = np.int32 if port.type == "tensor(int32)" else np.int64
        return {name: np.asarray(ids[name]).astype(element) for name in names}

    @staticmethod
    def max_tokens(tokenizer, config):
        first = 2 if config.model_type in ("roberta", "xlm-roberta") else 0
        return min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", 512) - first)


# --- the folders --------------------------------------------------------------------------


def image_cases(root: Path):
    """Every known processor as its class writes it, then files as older versions wrote them, then networks."""
    labels = {"id2label": {0: "cat", 1: "dog", 2: "tank"}, "label2id": {"cat": 0, "dog": 1, "tank": 2}}
    square = lambda side: {"height": side, "width": side}
    short = lambda side: {"shortest_edge": side}
    saved = [
        ("vit", "vit", "ViT", dict(size=square(16)), 16),
        ("swin", "swin", "ViT", dict(size=square(16), resample=3), 16),
        ("deit", "deit", "DeiT", dict(size=square(20), crop_size=square(16)), 16),
        ("beit", "beit", "Beit", dict(size=square(19), crop_size=square(16)), 16),
        ("beit-uncut", "beit", "Beit", dict(size=square(16), do_center_crop=False), 16),
        ("convnext", "convnext", "ConvNext", dict(size=short(24)), 24),
        ("convnext-384", "convnextv2", "ConvNext", dict(), 384),
        ("resnet", "resnet", "ConvNext", dict(size=short(16), crop_pct=0.95, resample=3), 16),
        ("regnet", "regnet", "ConvNext", dict(size=short(17), image_mean=[0.4, 0.5, 0.6]), 17),
        ("clip", "clip", "CLIP", dict(size=short(16), crop_size=square(16)), 16),
        ("clip-padded", "clip", "CLIP", dict(size=short(15), crop_size=square(22)), 22),
        ("siglip", "siglip", "Siglip", dict(size=square(16)), 16),
        ("efficientnet", "efficientnet", "EfficientNet", dict(size=square(20)), 20),
        ("efficientnet-offset", "efficientnet", "EfficientNet",
         dict(size=square(20), crop_size=square(16), do_center_crop=True, resample=3, rescale_offset=True,
              rescale_factor=1 / 127.5, include_top=False), 16),
        ("efficientnet-top", "efficientnet", "EfficientNet", dict(size=square(20), resample=2, do_normalize=False), 20),
        ("mobilenet-v1", "mobilenet_v1", "MobileNetV1", dict(size=short(20), crop_size=square(16)), 16),
        ("mobilenet-v2", "mobilenet_v2", "MobileNetV2", dict(size=short(18), crop_size=square(16)), 16),
        ("mobilevit", "mobilevit", "MobileViT", dict(size=short(18), crop_size=square(16)), 16),
        ("mobilevit-rgb", "mobilevitv2", "MobileViT", dict(size=short(18), crop_size=square(16), do_flip_channel_order=False), 16),
        ("levit", "levit", "Levit", dict(size=short(16), crop_size=square(16)), 16),
        ("poolformer", "poolformer", "PoolFormer", dict(size=short(16), crop_size=square(16)), 16),
        ("pvt", "pvt", "Pvt", dict(size=square(16)), 16),
        ("dinov2", "dinov2", "Bit", dict(size=short(18), crop_size=square(16)), 16),
        ("segformer", "segformer", "Segformer", dict(size=square(16)), 16),
        ("vit-lanczos", "vit", "ViT", dict(size=square(16), resample=1), 16),
        ("vit-box", "vit", "ViT", dict(size=square(16), resample=4), 16),
        ("vit-hamming", "vit", "ViT", dict(size=square(16), resample=5), 16),
        ("vit-wide", "vit", "ViT", dict(size={"height": 12, "width": 20}), (12, 20)),
        ("vit-upscaled", "vit", "ViT", dict(size=square(96), resample=3), 96),
        ("clip-upscaled", "clip", "CLIP", dict(size=short(96), crop_size=square(96)), 96),
        ("vit-raw", "vit", "ViT", dict(size=square(16), do_rescale=False, image_mean=[120, 110, 100], image_std=[60] * 3), 16),
        ("vit-plain", "vit", "ViT", dict(size=square(16), do_normalize=False), 16),
        ("clip-unscaled", "clip", "CLIP", dict(do_resize=False, crop_size=square(32)), 32),
    ]
    for seed, (name, model_type, stem, keys, side) in enumerate(saved):
        case = Case(root, name)
        case.config(model_type, **labels)
        if model_type == "pvt":
            case.write("config.json", dict(labels, model_type="pvt"))
        class_of(stem + "ImageProcessor")(**keys).save_pretrained(case.folder)
        case.network(image_network(side if isinstance(side, tuple) else (side, side), seed=seed))
        yield case
    older = {"do_resize": True, "do_normalize": True, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    written = [
        ("old-clip", "clip", dict(older, feature_extractor_type="CLIPFeatureExtractor", size=16, crop_size=16,
                                  do_center_crop=True, resample=3)),
        ("old-convnext", "convnext", dict(older, feature_extractor_type="ConvNextFeatureExtractor", size=16)),
        ("old-convnext-pct", "convnext", dict(older, feature_extractor_type="ConvNextFeatureExtractor", size=16,
                                              crop_pct=0.9, resample=3)),
        ("old-mobilevit", "mobilevit", {"feature_extractor_type": "MobileViTFeatureExtractor", "do_resize": True,
                                        "size": 18, "do_center_crop": True, "crop_size": 16, "resample": 2,
                                        "do_flip_channel_order": True}),
        ("old-deit", "deit", dict(older, feature_extractor_type="DeiTFeatureExtractor", size=20, crop_size=16,
                                  do_center_crop=True, resample=3)),
        ("old-vit", "vit", dict(older, feature_extractor_type="ViTFeatureExtractor", size=16, resample=2)),
        ("unnamed-resnet", "resnet", dict(older, size=16)),
        ("unnamed-swin", "swin", dict(older, size=16, image_mean=0.5, image_std=0.5)),
        ("only-a-type", "vit", {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}),
    ]
    for seed, (name, model_type, keys) in enumerate(written, 100):
        case = Case(root, name)
        case.config(model_type, **labels)
        case.write("preprocessor_config.json", keys)
        case.network(image_network((16, 16), seed=seed))
        yield case
    plain = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    raw = dict(plain, do_rescale=False, do_normalize=False)
    networks = [
        ("nhwc", plain, labels, dict(nhwc=True)),
        ("bytes", raw, labels, dict(element=TensorProto.UINT8)),
        ("bytes-nhwc", raw, labels, dict(element=TensorProto.UINT8, nhwc=True)),
        ("other-name", plain, labels, dict(name="input")),
        ("free-sides", plain, labels, dict(free=True)),
        ("softmax-inside", plain, labels, dict(end="softmax")),
        ("log-softmax-inside", plain, labels, dict(end="log")),
        ("several", plain, dict(labels, problem_type="multi_label_classification"), {}),
        ("several-inside", plain, dict(labels, problem_type="multi_label_classification"), dict(end="sigmoid")),
        ("one-label", plain, dict(id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}), dict(n=1)),
        ("two-labels", plain, {}, dict(n=2)),
        ("cranes", plain, dict(id2label={0: "crane", 1: "tank", 2: "crane"}, label2id={"crane": 2, "tank": 1}), {}),
    ]
    for seed, (name, processor, keys, network) in enumerate(networks, 200):
        case = Case(root, "vit-" + name)
        case.config("vit", **keys)
        case.write("preprocessor_config.json", processor)
        case.network(image_network((16, 16), seed=seed, **network))
        yield case


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special))
    return [word for word, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]


def bpe(folder: Path):
    """The two files of a byte-level vocabulary, as RoBERTa's tokenizer reads them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet))
    folder.mkdir(exist_ok=True)
    tokenizer.model.save(str(folder))
    return str(folder / "vocab.json"), str(folder / "merges.txt")


def text_cases(root: Path, scratch: Path):
    from transformers import BertTokenizerFast, DistilBertTokenizerFast, RobertaTokenizerFast

    labels = {"id2label": {0: "negative", 1: "neutral", 2: "positive"}, "label2id": {"negative": 0, "neutral": 1, "positive": 2}}
    words = wordpiece()
    (scratch / "vocab.txt").write_text("\n".join(words) + "\n")
    bert, two, three = ["input_ids", "attention_mask"], ["input_ids", "attention_mask"], ["input_ids", "attention_mask", "token_type_ids"]
    limit = {"max_position_embeddings": 64}
    several = dict(labels, problem_type="multi_label_classification", architectures=["BertForSequenceClassification"])
    one = dict(id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0})
    made = [
        ("bert", "bert", labels, three, {}),
        ("bert-positions", "bert", labels, [*three, "position_ids"], {}),
        ("distilbert", "distilbert", labels, two, {}),
        ("electra", "electra", labels, three, {}),
        ("mobilebert", "mobilebert", labels, three, {}),
        ("two-labels", "distilbert", {}, two, dict(n=2)),
        ("one-label", "distilbert", one, two, dict(n=1)),
        ("regression", "bert", dict(one, problem_type="regression"), three, dict(n=1)),
        ("regression-squeezed", "bert", dict(one, problem_type="regression"), three, dict(n=1, squeezed=True)),
        ("several", "bert", several, three, {}),
        ("several-inside", "bert", several, three, dict(end="sigmoid")),
        ("softmax-inside", "bert", labels, three, dict(end="softmax")),
        ("log-softmax-inside", "bert", labels, three, dict(end="log")),
        ("states-first", "distilbert", labels, two, dict(states=True)),
        ("free-labels", "distilbert", labels, two, dict(free=True)),
        ("int32", "bert", labels, three, dict(long=TensorProto.INT32)),
        ("fixed-length", "bert", labels, three, dict(length=32)),
        ("cranes", "bert", dict(id2label={0: "x", 1: "y", 2: "x"}, label2id={"x": 2, "y": 1}), three, {}),
    ]
    for seed, (name, model_type, keys, inputs, network) in enumerate(made, 300):
        case = Case(root, "text-" + name)
        case.config(model_type, **keys, **limit)
        kind = DistilBertTokenizerFast if model_type == "distilbert" else BertTokenizerFast
        kind(str(scratch / "vocab.txt"), model_max_length=64).save_pretrained(case.folder)
        case.network(text_network(len(words), inputs, seed=seed, **network))
        yield case

    for name, keys in [("lower", {}), ("cased", {"do_lower_case": False}), ("accents", {"strip_accents": False})]:
        case = Case(root, "text-vocabulary-" + name)
        case.config("bert", **labels, **limit)
        case.write("vocab.txt", "\n".join(words) + "\n")
        if keys:
            case.write("tokenizer_config.json", dict(keys, tokenizer_class="BertTokenizer", model_max_length=64))
        case.network(text_network(len(words), three, seed=400))
        yield case

    case = Case(root, "text-nan")
    case.config("bert", **labels, **limit)
    text = (case.folder / "config.json").read_text()
    case.write("config.json", text.replace("{", '{"classifier_dropout": NaN, "x": [-Infinity, Infinity],', 1))
    BertTokenizerFast(str(scratch / "vocab.txt"), model_max_length=64).save_pretrained(case.folder)
    case.network(text_network(len(words), three, seed=401))
    yield case

    case = Case(root, "text-quantised")
    case.config("bert", **labels, **limit)
    BertTokenizerFast(str(scratch / "vocab.txt"), model_max_length=64).save_pretrained(case.folder)
    onnx.save(text_network(len(words), three, seed=402), scratch / "plain.onnx")
    from onnxruntime.quantization import quantize_dynamic

    (case.folder / "onnx").mkdir()
    quantize_dynamic(scratch / "plain.onnx", case.folder / "onnx/model_quantized.onnx")
    case.network(onnx.load(case.folder / "onnx/model_quantized.onnx"), "onnx/model_quantized.onnx")
    yield case

    vocabulary, merges = bpe(scratch / "bpe")
    tokenizer = RobertaTokenizerFast(vocabulary, merges, model_max_length=62)
    for name, inputs in [("roberta", two), ("roberta-positions", [*two, "position_ids"])]:
        case = Case(root, "text-" + name)
        case.config("roberta", **labels, max_position_embeddings=64, vocab_size=len(tokenizer))
        tokenizer.save_pretrained(case.folder)
        case.network(text_network(len(tokenizer), inputs, seed=403, positions=64))
        yield case


# --- the comparison -----------------------------------------------------------------------


def answers(lepton: str, case: Case, inputs, scratch: Path):
    """Each input's scores by `lepton predict`, in the same order, or why there are none."""
    files = inputs
    if not isinstance(inputs[0], Path):
        (scratch / "texts.txt").write_text("".join(text + "\n" for text in inputs))
        files = [scratch / "texts.txt"]
    command = [lepton, "predict", "--models", str(case.folder.parent), "m", *map(str, files)]
    # Elsewhere, so that no configuration of this repository is read.
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=scratch)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if len(lines) != len(inputs):
        return done.stderr.strip().splitlines()[-1:]
    found = [line["faces"][0] if "faces" in line else line for line in lines]
    errors = [line["error"] for line in found if "error" in line]
    return errors or [sorted((score["label"], score["score"]) for score in line["scores"]) for line in found]


def formula(width: int, height: int) -> Image.Image:
    """The picture that the unit test draws by the same formula."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return Image.fromarray(((x * 7 + y * 13 + c * 37 + x * y % 31 * 5) % 256).astype(np.uint8))


def write_golden(scratch: Path, file: Path) -> int:
    """A line for each processor's file: what it says, and some of the numbers that it makes of two pictures."""
    lines = []
    for case in image_cases(scratch):
        if case.name.startswith("vit-") and not json.loads((case.folder / "preprocessor_config.json").read_text()).get("resample"):
            continue
        config = json.loads((case.folder / "config.json").read_text())
        processor, made = image_processor(case.folder, config["model_type"]), []
        for size in [(64, 40), (37, 61)]:
            pixels = np.asarray(processor(formula(*size), return_tensors="np")["pixel_values"])[0]
            flat = pixels.astype(np.float32).ravel()
            step = max(1, flat.size // 23)
            made.append({"size": size, "shape": pixels.shape, "step": step, "numbers": [round(float(n), 6) for n in flat[::step]]})
        written = json.loads((case.folder / "preprocessor_config.json").read_text())
        lines.append(json.dumps({"name": case.name, "model_type": config["model_type"], "processor": written, "made": made}))
    file.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lepton", nargs="?", type=Path, help="the program to compare")
    parser.add_argument("--golden", type=Path, help="a file that the processors' own numbers are written to, for a unit test")
    parser.add_argument("--keep", type=Path, help="an empty folder that the models are kept in")
    parser.add_argument("--only", default="", help="folders whose names hold this")
    arguments = parser.parse_args()
    if arguments.golden:
        with tempfile.TemporaryDirectory() as temporary:
            return write_golden(Path(temporary), arguments.golden)
    lepton = str(arguments.lepton.resolve())
    n, n_loaded, n_right = 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        root = arguments.keep or scratch / "models"
        shown = pictures(scratch)
        cases = [(case, shown) for case in image_cases(root)] + [(case, TEXTS) for case in text_cases(root, scratch)]
        for case, inputs in cases:
            if arguments.only not in case.name:
                continue
            n += 1
            got, wanted = answers(lepton, case, inputs, scratch), case.expected(inputs)
            if not got or isinstance(got[0], str):
                print(f"{case.name:28} does not load: {' '.join(got)}")
                continue
            n_loaded += 1
            pairs = [(a, b) for one, other in zip(got, wanted) for a, b in zip(one, other)]
            worst = max(abs(a[1] - b[1]) for a, b in pairs)
            same = all(a[0] == b[0] for a, b in pairs) and all(len(a) == len(b) for a, b in zip(got, wanted))
            right = same and worst <= TOLERANCE
            n_right += right
            print(f"{case.name:28} {'right' if right else 'WRONG'}, scores differ by at most {worst:.1e}{'' if same else ', labels differ'}")
    print(f"{n_loaded} of {n} folders load, {n_right} answer as transformers does")
    return 0 if n_right == n else 1


if __name__ == "__main__":
    sys.exit(main())
