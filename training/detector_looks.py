"""What the server's steps around `models/face-detector` gain: levels that are spread, a second look, a glance.

Measured on photographs and portraits that nothing learnt from, with the steps on and off, in the way of
`src/task/detect/looks.rs` and `crates/media/src/image/levels.rs`. It needs numpy, Pillow and ONNX Runtime, and no torch:

    python training/detector_looks.py --data ../shared/data --photos ../shared/photos
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import tarfile
from pathlib import Path
from typing import Callable, Iterator, Sequence
from xml.etree import ElementTree

import numpy as np
import onnxruntime
from PIL import Image

import boxes

REPOSITORY = Path(__file__).resolve().parent.parent
MEAN, STD = 0.5, 0.25
THRESHOLD, LONG_THRESHOLD = 0.35, 0.5  # model.toml; a long side alone had 0.35 before it looked twice
DEVELOPMENT_SHARE = 0.15  # of the photographs, by a hash of the file: as in photos.py
USUAL, LONG = 320, 640
NARROW, EMPTY = 128, 4  # levels.rs
GLANCE, GLANCE_CANVAS, SURE, MOST = 4, 128, 0.6, 0.5  # looks.rs
LARGE, PART = 0.08, 0.7  # looks.rs, grids.rs
LIGHTS = (1, 2, 4, 8, 16)
CROPS = (2.0, 1.5, 1.2, 1.0, 0.85, 0.7, 0.55)
LUMA = (0.299, 0.587, 0.114)


class Detector:
    """The exported network on one thread."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            folder / "1" / "model.onnx", options, providers=["CPUExecutionProvider"])

    def look(self, pixels: np.ndarray, lowest: float) -> boxes.Found:
        """Faces in pixels [h, w, 3] that are not scaled any more."""
        image = boxes.padded((pixels.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
        maps = self._session.run([f"stride_{s}" for s in boxes.STRIDES], {"image": np.ascontiguousarray(image)})
        return boxes.suppress(boxes.decode([part[0] for part in maps], lowest))

    def find(self, picture: Image.Image, side: int, lowest: float = THRESHOLD, steps: bool = True) -> boxes.Found:
        """Faces of a picture, with the steps around the network or without."""
        pixels, across, down = boxes.letterbox(picture, side)
        if not steps:
            return boxes.scaled(self.look(pixels, lowest), 1 / across, 1 / down)
        pixels = spread(pixels)
        found = boxes.scaled(self.look(pixels, lowest), 1 / across, 1 / down)
        if side > USUAL and lowest == THRESHOLD:
            found = found.only(found.scores >= LONG_THRESHOLD)
        usual, across, down = boxes.letterbox(picture, USUAL)
        if side > USUAL and usual.shape[1] < pixels.shape[1]:
            pixels = smaller(pixels, usual.shape[1], usual.shape[0])
            again = boxes.scaled(self.look(pixels, lowest), 1 / across, 1 / down)
            found = without_parts(found, again, LARGE * picture.width * picture.height)
            found = boxes.suppress(boxes.Found(*(np.concatenate(pair) for pair in zip(found, again))))
        if (found.scores >= THRESHOLD).any():
            return found
        glanced = self.glance(picture, pixels)
        return glanced if len(glanced.scores) else found

    def glance(self, picture: Image.Image, pixels: np.ndarray) -> boxes.Found:
        """A face that fills the picture, seen small and with room around it."""
        high, wide = (-(-length // GLANCE) for length in pixels.shape[:2])
        canvas = np.full((GLANCE_CANVAS, GLANCE_CANVAS, 3), 127.5, np.float32)
        canvas[:high, :wide] = smaller(pixels, wide, high)
        found = boxes.scaled(self.look(canvas, SURE), picture.width / wide, picture.height / high)
        inside = np.clip(found.boxes, 0, [*picture.size, *picture.size])
        covered = (inside[:, 2:] - inside[:, :2]).prod(1) / (picture.width * picture.height)
        chosen = np.flatnonzero(covered >= MOST)[:1]
        return boxes.Found(inside, found.scores * THRESHOLD, found.landmarks).only(chosen)


def without_parts(found: boxes.Found, again: boxes.Found, large: float) -> boxes.Found:
    """Faces without those that are most likely parts of a surer and larger one."""
    areas, others = ((one.boxes[:, 2:] - one.boxes[:, :2]).prod(1) for one in (found, again))
    corner = np.maximum(found.boxes[:, None, :2], again.boxes[None, :, :2])
    opposite = np.minimum(found.boxes[:, None, 2:], again.boxes[None, :, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(2)
    part = ((shared >= PART * areas[:, None]) & (others[None] >= np.maximum(2 * areas[:, None], large))
            & (again.scores[None] > found.scores[:, None]))
    return found.only(~part.any(1))


def spread(pixels: np.ndarray) -> np.ndarray:
    """Levels between the first and the 99th percentile of luminance over the whole range, where they are close."""
    counts = np.bincount((pixels @ LUMA).round().astype(int).ravel(), minlength=256)
    least = -(-counts.sum() // 100)
    darkest = int((counts.cumsum() >= least).argmax())
    wide = 255 - int((counts[::-1].cumsum() >= least).argmax()) - darkest
    if not EMPTY <= wide < NARROW:
        return pixels
    return np.round(np.clip(pixels.astype(np.float32) - darkest, 0, wide) * 255 / wide).astype(np.uint8)


def smaller(pixels: np.ndarray, wide: int, high: int) -> np.ndarray:
    """Means over the pixels that each new one covers."""
    return np.asarray(Image.fromarray(pixels.astype(np.uint8)).resize((wide, high), Image.Resampling.BOX))


def photographs(archive: Path) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """The photographs kept back, with the boxes that people drew."""
    with tarfile.open(archive) as bundle:
        files = {member.name: bundle.extractfile(member).read() for member in bundle.getmembers() if member.isfile()}
    for name in sorted(name for name in files if name.startswith("images/")):
        if int.from_bytes(hashlib.sha256(files[name]).digest()[:8], "big") / 2**64 < DEVELOPMENT_SHARE:
            tree = ElementTree.fromstring(files[f"annotations/{Path(name).stem}.xml"])
            rows = [[float(box.find(edge).text) for edge in ("xmin", "ymin", "xmax", "ymax")]
                    for box in tree.iterfind("object/bndbox")]
            yield Image.open(io.BytesIO(files[name])).convert("RGB"), np.array(rows, float).reshape(-1, 4)


def portraits(archive: Path, every: int, most: int) -> Iterator[Image.Image]:
    """Every so many portraits of an archive that the recipe does not read."""
    with tarfile.open(archive, "r|xz") as bundle:
        names = (member for member in bundle if member.name.endswith(".jpg"))
        for member in itertools.islice(names, 0, every * most, every):
            yield Image.open(io.BytesIO(bundle.extractfile(member).read())).convert("RGB")


def cut(picture: Image.Image, box: np.ndarray, times: float, side: int = 600) -> Image.Image:
    """A square of so many times the face around it, as large as a telephone's portrait."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * times / 2
    corners = np.concatenate([np.maximum(centre - half, 0), np.minimum(centre + half, picture.size)])
    part = picture.crop(tuple(int(value) for value in corners.round()))
    larger = side / max(part.size)
    return part.resize([max(1, round(length * larger)) for length in part.size], Image.Resampling.BICUBIC)


def darker(picture: Image.Image, times: int) -> Image.Image:
    """The picture in that much less light."""
    return Image.fromarray((np.asarray(picture) // times).astype(np.uint8))


def share_found(detector: Detector, kept: Sequence, side: int, steps: bool,
                change: Callable[[Image.Image], Image.Image] = lambda it: it) -> tuple[float, int]:
    """Share of the faces that are found, and how many boxes are none."""
    verdicts = [boxes.match(detector.find(change(picture), side, steps=steps), truth) for picture, truth in kept]
    faces = sum(int((boxes.sides(truth) >= boxes.SMALLEST).sum()) for _, truth in kept)
    return sum(int((v == 1).sum()) for v in verdicts) / faces, sum(int((v == 0).sum()) for v in verdicts)


def cuts_without(picture: Image.Image, faces: np.ndarray, count: int, chance: np.random.Generator) -> Iterator[Image.Image]:
    """Square cuts of a picture in which there is no part of a face."""
    for _ in range(count):
        side = chance.uniform(0.08, 0.9) * min(picture.size)
        left, top = (chance.uniform(0, length - side) for length in picture.size)
        square = np.array([[left, top, left + side, top + side]])
        if not len(faces) or boxes.overlaps(square, faces).max() == 0:
            yield picture.crop(tuple(int(value) for value in square[0])).resize((500, 500), Image.Resampling.BICUBIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--photos", type=Path, default=REPOSITORY.parent / "shared" / "photos")
    parser.add_argument("--portraits", type=int, default=90, help="how many of lfw-people-2")
    options = parser.parse_args()
    detector = Detector(REPOSITORY / "models" / "face-detector")
    kept = list(photographs(options.data / "faceboxes-train.tar.xz"))
    truth = [rows for _, rows in kept]
    print(f"{len(kept)} photographs kept back; each figure without the steps, then with them")
    for side in (USUAL, LONG):
        precision = [boxes.average_precision([detector.find(picture, side, 0.002, steps) for picture, _ in kept], truth)
                     for steps in (False, True)]
        print(f"average precision at {side}: {precision[0]:.3f} {precision[1]:.3f}", flush=True)
    for times in LIGHTS:
        rows = [share_found(detector, kept, USUAL, steps, lambda it: darker(it, times)) for steps in (False, True)]
        print(f"light 1/{times}: found {rows[0][0]:.3f} {rows[1][0]:.3f}, wrong {rows[0][1]} {rows[1][1]}", flush=True)

    faces = [(picture, rows[0]) for picture, rows in kept if len(rows) and (rows[0][2:] - rows[0][:2]).min() >= 90]
    for picture in portraits(options.data / "lfw-people-2.tar.xz", 60, options.portraits):
        found = detector.find(picture, USUAL, steps=False)
        middle = (found.boxes[:, :2] < np.array(picture.size) / 2) & (found.boxes[:, 2:] > np.array(picture.size) / 2)
        faces += [(picture, box) for box in found.boxes[middle.all(1)][:1]]
    for times in CROPS:
        parts = [cut(picture, box, times) for picture, box in faces]
        shares = [np.mean([len(detector.find(part, side, steps=steps).scores) == 1 for part in parts])
                  for side in (USUAL, LONG) for steps in (False, True)]
        print(f"cut to {times} of the face, one face answered: at {USUAL} {shares[0]:.2f} {shares[1]:.2f}, "
              f"at {LONG} {shares[2]:.2f} {shares[3]:.2f} of {len(parts)}", flush=True)

    chance = np.random.default_rng(3)
    entries = json.loads((options.photos / "manifest.json").read_text())
    opened = [(entry, Image.open(options.photos / entry["file"]).convert("RGB")) for entry in entries]
    empty = [part for entry, picture in opened if entry["faces"] == 0
             for part in [picture, *cuts_without(picture, np.zeros((0, 4)), 40, chance)]]
    for picture, rows in kept:
        seen = np.concatenate([rows, detector.find(picture, LONG, 0.1, steps=False).boxes])
        empty += cuts_without(picture, seen, 6, chance)
    for side in (USUAL, LONG):
        wrong = [sum(len(detector.find(part, side, steps=steps).scores) > 0 for part in empty) for steps in (False, True)]
        print(f"{len(empty)} pictures and cuts without a face, a face answered at {side}: {wrong[0]} {wrong[1]}", flush=True)
    for steps in (False, True):
        wrong = [entry["file"] for entry, picture in opened for side in (USUAL, LONG)
                 if len(detector.find(picture, side, steps=steps).scores) != entry["faces"]]
        print(f"counts that are wrong of {len(opened)} photographs, steps {steps}: {wrong}", flush=True)


if __name__ == "__main__":
    main()
