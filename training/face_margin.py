"""Measure how far a detector's box around a face must grow to look like the crops that `face` learnt from.

The crops of FER2013 were cut by a detector of 2013. Here a detector of today (YuNet) looks for the
face in each crop, enlarged on a canvas that goes on beyond the crop's edges, and the square around
its box is compared with the crop. What the missing surroundings change is measured beside it, on
photographs of LFW: the same detector sees the whole photograph first, and then crops of known size.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Sequence

import numpy as np
import onnxruntime
from PIL import Image

import common
from faces import SIDE, load

SCALE = 4  # a face of 48 pixels is seen as one of 192, the size that a detector knows best
CANVAS = 384
STRIDES = (8, 16, 32)
SURE = 0.7
GROWTHS = (0.9, 1.0, 1.1, 1.2)
PHOTOGRAPH = 224  # of the 250 pixels of a photograph in LFW: the strides divide it, and the face is in the middle


def canvas(crop: Image.Image, padding: str) -> np.ndarray:
    """A crop enlarged in the middle of a canvas, [384, 384]; around it its edge, repeated or mirrored."""
    large = np.asarray(crop.resize((SIDE * SCALE, SIDE * SCALE), Image.Resampling.BICUBIC))
    return np.pad(large, (CANVAS - SIDE * SCALE) // 2, mode=padding)


class Detector:
    """YuNet on one thread."""

    def __init__(self, path: Path) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def middle(self, grey: np.ndarray) -> np.ndarray | None:
        """The box (left, top, right, bottom) of the surest face that covers the middle of a grey picture."""
        image = np.broadcast_to(grey.astype(np.float32), (1, 3, *grey.shape))
        names = [output.name for output in self._session.get_outputs()]
        answers = dict(zip(names, self._session.run(None, {self._session.get_inputs()[0].name: image})))
        scores, boxes = [], []
        for stride in STRIDES:
            rows, columns = np.mgrid[:grey.shape[0] // stride, :grey.shape[1] // stride]
            offset = answers[f"bbox_{stride}"].reshape(-1, 4)
            centre = (np.stack([columns.ravel(), rows.ravel()], 1) + offset[:, :2]) * stride
            size = np.exp(offset[:, 2:]) * stride
            boxes.append(np.concatenate([centre - size / 2, centre + size / 2], 1))
            surety = [answers[f"{kind}_{stride}"].ravel().clip(0, 1) for kind in ("cls", "obj")]
            scores.append(np.sqrt(surety[0] * surety[1]))
        scores, boxes = np.concatenate(scores), np.concatenate(boxes)
        middle = np.array(grey.shape[::-1]) / 2
        scores = np.where(((boxes[:, :2] < middle) & (boxes[:, 2:] > middle)).all(1), scores, 0)
        best = scores.argmax()
        return boxes[best] if scores[best] >= SURE else None


def compare(detector: Detector, crops: Sequence[Image.Image], padding: str) -> dict:
    """How crops lie to the squares around the boxes in them: median, 10th and 90th percentile."""
    begin = (CANVAS - SIDE * SCALE) / 2
    found = [detector.middle(canvas(crop, padding)) for crop in crops]
    boxes = (np.array([box for box in found if box is not None]) - begin) / (SIDE * SCALE)
    left, top, right, bottom = boxes.T
    wide, high = right - left, bottom - top
    side = np.maximum(wide, high)
    measured = {"growth": 1 / side, "wide_to_high": wide / high,
                "right": (0.5 - (left + right) / 2) / side, "down": (0.5 - (top + bottom) / 2) / side}
    spread = {name: [round(float(v), 3) for v in np.percentile(values, (50, 10, 90))]
              for name, values in measured.items()}
    return {"crops": len(crops), "found": len(boxes), **spread}


def photographs(archive: Path, count: int) -> list[Image.Image]:
    """The middle of the first photographs by hash of their names, grey."""
    edge = (250 - PHOTOGRAPH) // 2
    square = (edge, edge, edge + PHOTOGRAPH, edge + PHOTOGRAPH)
    found = [(common.hash_share(name.encode()), content) for name, content in common.pictures(archive)]
    return [Image.open(io.BytesIO(content)).convert("L").crop(square) for _, content in sorted(found)[:count]]


def cut(detector: Detector, photographs: Sequence[Image.Image], growth: float) -> list[Image.Image]:
    """The square around the face of each photograph that holds it, grown so much, in the pixels of FER2013."""
    crops = []
    for photograph in photographs:
        box = detector.middle(np.asarray(photograph))
        if box is not None:
            centre, side = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * growth
            square = (*(centre - side / 2), *(centre + side / 2))
            if min(square) >= 0 and max(square) <= PHOTOGRAPH:
                crops.append(photograph.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=square))
    return crops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = common.REPOSITORY.parent / "shared"
    parser.add_argument("--data", type=Path, default=shared / "data")
    parser.add_argument("--cache", type=Path, default=common.REPOSITORY / "training" / ".cache")
    parser.add_argument("--yunet", type=Path, default=shared / "models" / "yunet" / "yunet_n_dynamic.onnx")
    parser.add_argument("--faces", type=int, default=1000, help="so many of the training split, the first by hash")
    parser.add_argument("--photographs", type=int, default=200, help="so many of LFW")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("face_margin.json"))
    options = parser.parse_args()

    detector = Detector(options.yunet)
    faces = load(options.data, options.cache)[0]
    chosen = [Image.fromarray(faces.pixels[row]) for row in np.argsort(faces.hashes)[:options.faces]]
    whole = photographs(options.data / "lfw-people.tar.xz", options.photographs)
    facts = {}
    for padding in ("edge", "reflect"):
        facts[padding] = {"FER2013": compare(detector, chosen, padding)}
        known = {growth: compare(detector, cut(detector, whole, growth), padding) for growth in GROWTHS}
        facts[padding] |= {f"LFW, {growth:.1f} times": measured for growth, measured in known.items()}
        for name, measured in facts[padding].items():
            print(padding, name, measured, flush=True)
        seen = [measured["growth"][0] for measured in known.values()]
        growth = float(np.interp(facts[padding]["FER2013"]["growth"][0], seen, GROWTHS))
        facts[padding]["growth"] = round(growth, 2)
        print(f"{padding}: a crop is the square of the longer side, {growth:.3f} times as large", flush=True)
    common.write_json(options.out, facts)


if __name__ == "__main__":
    main()
