"""Boxes of faces in numpy: the letterbox, candidates, suppression, matching and average precision.

A box is (left, top, right, bottom) in pixels. Nothing here knows a network's weights: what the
server does after the network is done here in the same way, so that figures compare.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
import onnxruntime
from PIL import Image

STRIDES = (8, 16, 32)
MULTIPLE = 32
LARGEST_ENLARGEMENT = 2.0
OVERLAP = 0.45
MATCH = 0.5
SMALLEST = 16.0  # pixels of the original: smaller faces neither count nor cost


class Found(NamedTuple):
    """Faces of one picture, the surest first: boxes [n, 4], scores [n], landmarks [n, 5, 2]."""

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray

    def only(self, chosen: np.ndarray) -> "Found":
        """The chosen rows."""
        return Found(*(column[chosen] for column in self))


# --- pictures -------------------------------------------------------------------------


def letterbox(picture: Image.Image, side: int) -> tuple[np.ndarray, float, float]:
    """Pixels [h, w, 3] with `side` as the longer side, and how many of them an original pixel became.

    The picture is never enlarged more than twice. Padding is the caller's, after normalisation.
    """
    scale = min(side / max(picture.size), LARGEST_ENLARGEMENT)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    pixels = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    return pixels, width / picture.size[0], height / picture.size[1]


def padded(values: np.ndarray) -> np.ndarray:
    """Values [h, w, c] with zeros on the right and below, up to whole cells of the coarsest stride."""
    high, wide = (-length % MULTIPLE for length in values.shape[:2])
    return np.pad(values, ((0, high), (0, wide), (0, 0)))


# --- candidates -----------------------------------------------------------------------


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of one with every box of the other."""
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    opposite = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9)


def suppress(found: Found, overlap: float = OVERLAP) -> Found:
    """Drop every face that lies on a surer one, greedily."""
    found = found.only(np.argsort(-found.scores, kind="stable"))
    crossing = overlaps(found.boxes, found.boxes) > overlap
    dropped = np.zeros(len(found.scores), bool)
    for row in range(len(dropped)):
        if not dropped[row]:
            dropped[row + 1:] |= crossing[row, row + 1:]
    return found.only(~dropped)


def decode(maps: Sequence[np.ndarray], lowest: float, most: int = 1000) -> Found:
    """Candidates of one picture from maps [15, h, w], one for each stride, in network pixels.

    Channels: logit; centre in cells from the cell's corner; log of the size in strides; landmarks.
    """
    columns: list[list[np.ndarray]] = [[], [], []]
    for stride, values in zip(STRIDES, maps):
        scores = 1 / (1 + np.exp(-values[0].astype(np.float64)))
        y, x = np.nonzero(scores >= lowest)
        values = values[:, y, x].astype(np.float64)
        centre = np.stack([x + values[1], y + values[2]], 1) * stride
        half = np.exp(np.clip(values[3:5], -6, 6)).T * stride / 2
        columns[0].append(np.concatenate([centre - half, centre + half], 1))
        columns[1].append(scores[y, x])
        marks = values[5:15].T.reshape(-1, 5, 2) if len(values) > 5 else np.zeros((len(x), 5, 2))
        columns[2].append((marks + np.stack([x, y], 1)[:, None]) * stride)
    found = Found(*(np.concatenate(column) for column in columns))
    return found.only(np.argsort(-found.scores, kind="stable")[:most])


def scaled(found: Found, across: float, down: float) -> Found:
    """The same faces in a picture that is so many times as wide and as high."""
    return Found(found.boxes * [across, down, across, down], found.scores, found.landmarks * [across, down])


# --- the public teacher ---------------------------------------------------------------


class Teacher:
    """YuNet-n, a public detector that gives boxes and landmarks where nobody drew any."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            folder / "yunet_n_dynamic.onnx", options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def find(self, picture: Image.Image, side: int, lowest: float) -> Found:
        """Faces in pixels of the picture, seen with `side` as its longer side."""
        pixels, across, down = letterbox(picture, side)
        image = padded(pixels[:, :, ::-1].astype(np.float32)).transpose(2, 0, 1)[None]
        names = [f"{kind}_{stride}" for stride in STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        heads = self._session.run(names, {self._input: np.ascontiguousarray(image)})
        maps = []
        for stride, (sure, there, box, marks) in zip(STRIDES, zip(*[iter(heads)] * 4)):
            score = np.sqrt(np.clip(sure[0], 0, 1) * np.clip(there[0], 0, 1)).clip(1e-6, 1 - 1e-6)
            rows = np.concatenate([np.log(score / (1 - score)), box[0], marks[0]], 1)
            maps.append(rows.T.reshape(15, image.shape[2] // stride, image.shape[3] // stride))
        return scaled(suppress(decode(maps, lowest)), 1 / across, 1 / down)


# --- measuring ------------------------------------------------------------------------


def sides(boxes: np.ndarray) -> np.ndarray:
    """One length for each box: the root of its area."""
    return np.sqrt(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1))


def match(found: Found, truth: np.ndarray, smallest: float = SMALLEST) -> np.ndarray:
    """For each face found, the surest first: 1 right, 0 wrong, -1 on a face too small to count.

    A face that counts is found once; it is tried before the small ones.
    """
    verdicts = np.zeros(len(found.scores), int)
    counts = sides(truth) >= smallest
    crossing = overlaps(found.boxes, truth)
    free = counts.copy()
    for row in np.argsort(-found.scores, kind="stable"):
        open_ones = np.where(free, crossing[row], 0)
        if len(truth) and open_ones.max() >= MATCH:
            verdicts[row] = 1
            free[open_ones.argmax()] = False
        elif len(truth) and np.where(counts, 0, crossing[row]).max() >= MATCH:
            verdicts[row] = -1
    return verdicts


def average_precision(found: Sequence[Found], truth: Sequence[np.ndarray], smallest: float = SMALLEST) -> float:
    """Area under precision over recall, precision made monotonous (Pascal VOC 2010)."""
    verdicts = np.concatenate([match(one, boxes, smallest) for one, boxes in zip(found, truth)])
    scores = np.concatenate([one.scores for one in found])
    verdicts, scores = verdicts[verdicts >= 0], scores[verdicts >= 0]
    verdicts = verdicts[np.argsort(-scores, kind="stable")]
    faces = sum(int((sides(boxes) >= smallest).sum()) for boxes in truth)
    right = np.cumsum(verdicts)
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * verdicts).sum() / max(1, faces))
