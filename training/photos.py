"""Photographs with faces: those with drawn boxes, and portraits whose boxes a public detector found; some without.

A box of the teacher ends above the forehead, a drawn one below it: the teacher's boxes are moved
to where people draw them before anything learns from them.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Sequence
from xml.etree import ElementTree

import numpy as np
from PIL import Image

import boxes
import common

DEVELOPMENT_SHARE = 0.15
TEACHER_SIDE = 640
SURE, DOUBTFUL = 0.7, 0.35  # scores of the teacher: above, a face; between, nothing is learnt there
FACE, IGNORED = 1, -1
# No face and none of the pictures that the detector is tried on afterwards.
EMPTY = {  # by package and its folder
    ("scikit-image", "skimage/data"): (
        "cell.png", "clock_motion.png", "color.png", "gravel.png", "horse.png", "ihc.png", "logo.png", "moon.png",
        "motorcycle_left.png", "page.png", "retina.jpg", "text.png"),
    ("scikit-learn", "sklearn/datasets/images"): ("china.jpg", "flower.jpg"),
}


class Photo(NamedTuple):
    """One picture: pixels [h, w, 3] uint8, boxes [n, 4], landmarks [n, 5, 2] (NaN), kinds [n], hash share."""

    pixels: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    kinds: np.ndarray
    share: float


class Shift(NamedTuple):
    """How a drawn box differs from the teacher's: factors of the sides, moves in the teacher's sides."""

    wide: float
    high: float
    right: float
    down: float

    def moved(self, rows: np.ndarray) -> np.ndarray:
        """The teacher's boxes as people would draw them."""
        size = rows[:, 2:] - rows[:, :2]
        centre = (rows[:, :2] + rows[:, 2:]) / 2 + size * [self.right, self.down]
        half = size * [self.wide, self.high] / 2
        return np.concatenate([centre - half, centre + half], 1)


def measure_shift(found: Sequence[boxes.Found], drawn: Sequence[np.ndarray]) -> Shift:
    """The median difference over the faces that both the teacher and people boxed."""
    rows = []
    for one, truth in zip(found, drawn):
        crossing = boxes.overlaps(one.boxes, truth) * (one.scores > SURE)[:, None]
        for j in range(len(truth)):
            if len(crossing) and crossing[:, j].max() > 0.4 and boxes.sides(truth[j:j + 1])[0] > 20:
                mine, theirs = truth[j], one.boxes[crossing[:, j].argmax()]
                size, want = theirs[2:] - theirs[:2], mine[2:] - mine[:2]
                rows.append([*(want / size), *(((mine[:2] + mine[2:]) - (theirs[:2] + theirs[2:])) / 2 / size)])
    return Shift(*(float(value) for value in np.median(rows, 0)))


def read_drawn(archive: Path) -> tuple[list[Photo], list[bytes]]:
    """Photographs with the boxes that people drew, and the files' bytes."""
    photos, files = [], []
    with tarfile.open(archive) as bundle:
        members = {member.name: bundle.extractfile(member).read() for member in bundle.getmembers() if member.isfile()}
    for name in sorted(name for name in members if name.startswith("images/")):
        tree = ElementTree.fromstring(members[f"annotations/{Path(name).stem}.xml"])
        rows = [[float(box.find(edge).text) for edge in ("xmin", "ymin", "xmax", "ymax")]
                for box in tree.iterfind("object/bndbox")]
        content = members[name]
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        count = len(rows)
        photos.append(Photo(pixels, np.array(rows, float).reshape(-1, 4), np.full((count, 5, 2), np.nan),
                            np.full(count, FACE), common.hash_share(content)))
        files.append(content)
    return photos, files


def taught(photo: Photo, found: boxes.Found, shift: Shift) -> Photo:
    """A photograph with drawn boxes, with the teacher's landmarks and its other faces left open."""
    landmarks, extra = photo.landmarks.copy(), []
    crossing = boxes.overlaps(shift.moved(found.boxes), photo.boxes)
    for row, score in enumerate(found.scores):
        best = crossing[row].argmax() if len(photo.boxes) else -1
        if best >= 0 and crossing[row, best] > 0.45:
            if score > SURE and np.isnan(landmarks[best]).any():
                landmarks[best] = found.landmarks[row]
        elif score > DOUBTFUL and not (len(photo.boxes) and crossing[row].max() > 0.2):
            extra.append(found.boxes[row])
    none = np.full((len(extra), 5, 2), np.nan)
    return Photo(photo.pixels, np.concatenate([photo.boxes, np.array(extra).reshape(-1, 4)]),
                 np.concatenate([landmarks, none]),
                 np.concatenate([photo.kinds, np.full(len(extra), IGNORED)]), photo.share)


def portrait(content: bytes, teacher: boxes.Teacher, shift: Shift) -> Photo | None:
    """A photograph with the faces that the teacher finds; none where it sees none in the middle."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    found = teacher.find(picture, 2 * max(picture.size), DOUBTFUL)
    middle = np.array([*picture.size]) / 2
    inside = (found.boxes[:, :2] < middle).all(1) & (found.boxes[:, 2:] > middle).all(1)
    if not (inside & (found.scores > SURE)).any():
        return None
    kinds = np.where(found.scores > SURE, FACE, IGNORED)
    marks = np.where((kinds == FACE)[:, None, None], found.landmarks, np.nan)
    return Photo(np.asarray(picture), shift.moved(found.boxes), marks, kinds, common.hash_share(content))


def read_empty() -> list[Photo]:
    """Pictures without a face, which come with two packages."""
    none = np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0, int)
    photos = []
    for (package, folder), names in EMPTY.items():
        for name in names:
            picture = Image.open(metadata.distribution(package).locate_file(f"{folder}/{name}")).convert("RGB")
            picture.thumbnail((700, 700))
            photos.append(Photo(np.asarray(picture), *none, 0.0))
    return photos


class Photos(NamedTuple):
    """Everything to learn from and to measure on."""

    drawn: list[Photo]
    portraits: list[Photo]
    empty: list[Photo]
    development: list[Photo]
    shift: Shift


def load(data: Path, models: Path, cache: Path, few: int | None = None) -> Photos:
    """Photographs of both kinds, from the cache after the first time; `few` reads that many of each."""
    cached = cache / ("photos.npz" if few is None else f"photos-{few}.npz")
    if not cached.exists():
        common.write(cached, _pack(_prepare(data, models, few)))
    with np.load(cached) as columns:
        return _unpack(columns)


def _prepare(data: Path, models: Path, few: int | None) -> Photos:
    teacher = boxes.Teacher(models / "yunet")
    drawn, _ = read_drawn(data / "faceboxes-train.tar.xz")
    drawn = drawn[:few]
    found = [teacher.find(Image.fromarray(photo.pixels), TEACHER_SIDE, DOUBTFUL) for photo in drawn]
    learnt = [photo.share >= DEVELOPMENT_SHARE for photo in drawn]
    shift = measure_shift([one for one, yes in zip(found, learnt) if yes],
                          [photo.boxes for photo, yes in zip(drawn, learnt) if yes])
    portraits = [portrait(content, teacher, shift)
                 for _, content in itertools.islice(common.pictures(data / "lfw-people.tar.xz"), few)]
    return Photos([taught(photo, one, shift) for photo, one, yes in zip(drawn, found, learnt) if yes],
                  [photo for photo in portraits if photo is not None], read_empty(),
                  [photo for photo, yes in zip(drawn, learnt) if not yes], shift)


def _pack(photos: Photos) -> bytes:
    """All photographs as a few flat arrays, so that loading them is one read."""
    every = [*photos.drawn, *photos.portraits, *photos.empty, *photos.development]
    buffer = io.BytesIO()
    np.savez(buffer, counts=[len(part) for part in photos[:4]], shift=photos.shift,
             sizes=[photo.pixels.shape[:2] for photo in every], faces=[len(photo.kinds) for photo in every],
             pixels=np.concatenate([photo.pixels.reshape(-1) for photo in every]),
             shares=[photo.share for photo in every],
             **{name: np.concatenate([getattr(photo, name) for photo in every])
                for name in ("boxes", "landmarks", "kinds")})
    return buffer.getvalue()


def _unpack(columns: np.lib.npyio.NpzFile) -> Photos:
    sizes, faces = columns["sizes"], columns["faces"]
    areas = np.cumsum(sizes.prod(1) * 3)[:-1]
    rows = np.cumsum(faces)[:-1]
    pixels = [part.reshape(*size, 3) for part, size in zip(np.split(columns["pixels"], areas), sizes)]
    every = [Photo(*row) for row in zip(pixels, *(np.split(columns[name], rows)
                                                  for name in ("boxes", "landmarks", "kinds")), columns["shares"])]
    ends = np.cumsum([0, *columns["counts"]])
    return Photos(*(every[first:last] for first, last in zip(ends, ends[1:])),
                  Shift(*(float(value) for value in columns["shift"])))
