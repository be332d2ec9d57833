"""Scenes to learn from: photographs cut, turned, put together and damaged, with their faces.

A batch depends on its number and the seed alone, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import io
from typing import NamedTuple, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from backdrops import sky, texture
from photos import FACE, IGNORED, Photo, Photos

SIDES, SIDE_SHARES = (256, 320, 384, 512), (0.35, 0.35, 0.2, 0.1)
PIXELS_PER_BATCH = 16 * 320 * 320
LARGEST_FACE = 440.0
EMPTY_SCENES, EMPTY_TILES = 0.1, 0.16
SMALLEST_SEEN = 0.5  # a face of which less is left in the scene is neither face nor background
PADDING = 128  # what normalises to almost zero: how the server fills up a picture


class Scene(NamedTuple):
    """Part of a picture while it is made: the image, boxes [n, 4], landmarks [n, 5, 2], kinds [n]."""

    image: Image.Image
    boxes: np.ndarray
    landmarks: np.ndarray
    kinds: np.ndarray


class View(NamedTuple):
    """Where a photograph goes: target = matrix @ source + offset."""

    matrix: np.ndarray
    offset: np.ndarray


def view(chance: np.random.Generator, scale: float, source: np.ndarray, target: np.ndarray) -> View:
    """A view of that scale that puts the point `source` of a photograph on the point `target`, a little turned."""
    angle = chance.normal(0, np.radians(7)) if chance.random() < 0.5 else 0.0
    angle = np.clip(angle, -np.radians(20), np.radians(20))
    aspect = np.exp(chance.uniform(-0.12, 0.12))
    flip = -1.0 if chance.random() < 0.5 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([scale * aspect * flip, scale / aspect])
    return View(matrix, target - matrix @ source)


def render(pyramid: Sequence[np.ndarray], photo: Photo, placed: View, width: int, height: int) -> Scene:
    """The view as a picture of that size, with the faces that it shows."""
    scale = np.sqrt(abs(np.linalg.det(placed.matrix)))
    level = int(np.clip(np.floor(-np.log2(scale) + 0.35), 0, len(pyramid) - 1))
    inverse = np.linalg.inv(placed.matrix)
    origin = -inverse @ placed.offset
    shrink = 2.0**level
    values = np.column_stack([inverse, origin]).ravel() / shrink
    image = Image.fromarray(pyramid[level]).transform(
        (width, height), Image.Transform.AFFINE, tuple(values), Image.Resampling.BILINEAR,
        fillcolor=(PADDING,) * 3)

    boxes, landmarks = photo.boxes, photo.landmarks
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ placed.matrix.T + placed.offset
    # The upright box of the ellipse in the turned box: corners of a face are not face.
    half = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (placed.matrix.T**2))
    marks = landmarks @ placed.matrix.T + placed.offset
    if np.linalg.det(placed.matrix) < 0:
        marks = marks[:, [1, 0, 2, 4, 3]]
    return Scene(image, np.concatenate([centre - half, centre + half], 1), marks, photo.kinds.copy())


def clip(boxes: np.ndarray, kinds: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes inside a picture, their kinds, and which are in it at all."""
    inside = np.clip(boxes, 0, [width, height, width, height])
    areas = [np.clip(rows[:, 2:] - rows[:, :2], 0, None).prod(1) for rows in (inside, boxes)]
    seen = areas[0] / np.maximum(areas[1], 1e-6)
    return inside, np.where(seen < SMALLEST_SEEN, IGNORED, kinds), seen > 0.02


# --- damage ---------------------------------------------------------------------------


def cover(chance: np.random.Generator, scene: Scene) -> None:
    """Draw a mask over the lower half of some faces, or a bar over a part, or leave a profile of them; in place."""
    draw = ImageDraw.Draw(scene.image)
    for k, (box, marks) in enumerate(zip(scene.boxes, scene.landmarks)):
        if scene.kinds[k] != FACE:
            continue
        luck = chance.random()
        if luck < 0.3 and not np.isnan(marks).any():
            colour = _cloth(chance)
            right, down = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
            eyes, mouth, axis = _upright(marks)
            across = np.array([axis[1], -axis[0]])
            top = eyes + (marks[2] - eyes) * chance.uniform(0.3, 1.0)
            side = right * chance.uniform(0.7, 1.05)
            chin = mouth + axis * down * chance.uniform(0.3, 0.75)
            corners = [top, top + across * side + axis * 2, mouth + across * side * 0.9, chin + across * side * 0.45,
                       chin - across * side * 0.45, mouth - across * side * 0.9, top - across * side + axis * 2]
            draw.polygon([tuple(corner) for corner in corners], fill=colour)
            if chance.random() < 0.5:
                for share in chance.uniform(0.1, 0.9, 2):
                    ends = [top * (1 - share) + chin * share + sign * across * side * 0.8 for sign in (-1, 1)]
                    draw.line([tuple(end) for end in ends], fill=tuple(int(c * 0.85) for c in colour))
        elif luck < 0.4:
            size = (box[2:] - box[:2]) * chance.uniform(0.15, 0.5, 2)
            corner = box[:2] + (box[2:] - box[:2] - size) * chance.random(2)
            draw.rectangle([*corner, *(corner + size)], fill=tuple(chance.integers(0, 256, 3).tolist()))
        elif luck < 0.75 and not np.isnan(marks).any():
            hidden = _profile(chance, scene.image, box, marks)
            middles = ((scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2).round().astype(int)
            for other, middle in enumerate(middles.clip(0, np.array(scene.image.size) - 1).tolist()):
                if other != k and hidden.getpixel(tuple(middle)):
                    scene.kinds[other] = IGNORED


def _upright(marks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The middle of the eyes, that of the mouth, and the direction from one to the other."""
    eyes, mouth = marks[:2].mean(0), marks[3:].mean(0)
    return eyes, mouth, (mouth - eyes) / max(np.linalg.norm(mouth - eyes), 1e-3)


def _profile(chance: np.random.Generator, image: Image.Image, box: np.ndarray, marks: np.ndarray) -> Image.Image:
    """Put something else where the farther half of a face is, up to a line over forehead, nose and chin; in place.

    The box ends at the nose, and the landmarks are no longer known. Answers where something else is.
    """
    (eyes, mouth, axis), nose, size = _upright(marks), marks[2], box[2:] - box[:2]
    farther = np.array([axis[1], -axis[0]]) * (1 if chance.random() < 0.5 else -1)
    wide, length = float(min(size)), np.linalg.norm(mouth - eyes)
    tip = nose + farther * chance.uniform(0.1, 0.2) * wide
    edge = [eyes - axis * 1.6 * size[1], eyes - axis * 0.6 * length + farther * 0.05 * wide,
            eyes - farther * 0.03 * wide, tip, (nose + mouth) / 2 + farther * 0.03 * wide,
            mouth + farther * 0.07 * wide, mouth + axis * 0.3 * length + farther * 0.02 * wide,
            mouth + axis * 0.7 * length + farther * 0.06 * wide, mouth + axis * 1.1 * length - farther * 0.15 * wide,
            mouth + axis * 1.6 * size[1] - farther * 0.1 * wide]
    beyond = [edge[-1] + farther * 1.1 * wide, edge[0] + farther * 1.1 * wide]
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon([tuple(point) for point in (*edge, *beyond)], fill=255)
    if chance.random() < 0.4:
        other = texture(chance, *image.size)
    else:
        other = image.reduce(4).filter(ImageFilter.GaussianBlur(wide / 8)).resize(image.size)
    image.paste(other, mask=mask.filter(ImageFilter.GaussianBlur(wide / 60)))
    side = 0 if abs(farther[0]) > abs(farther[1]) else 1
    box[side + 2 * (farther[side] > 0)] = tip[side]
    marks[:] = np.nan
    return mask


def _cloth(chance: np.random.Generator) -> tuple[int, ...]:
    """White, pale blue, black or any colour, as masks are."""
    base = ((235, 238, 240), (165, 200, 220), (30, 30, 34))[chance.integers(3)]
    if chance.random() < 0.3:
        base = tuple(chance.integers(0, 256, 3).tolist())
    return tuple(int(c) for c in np.clip(np.array(base) + chance.normal(0, 15, 3), 0, 255))


def recolour(chance: np.random.Generator, image: Image.Image) -> Image.Image:
    """Other light: brightness, contrast, gamma and the colours' shares; sometimes grey or the colours swapped."""
    luck = chance.random()
    if luck < 0.12:
        image = image.convert("L").convert("RGB")
    elif luck < 0.3:
        grey = image.convert("L").convert("RGB")
        image = Image.blend(grey, image, chance.uniform(0.2, 1.7))
    if chance.random() < 0.2:
        return image
    level = np.arange(256) / 255
    gain, gamma = np.exp(chance.normal(0, 0.22)), np.exp(chance.normal(0, 0.2))
    shift = chance.normal(0, 0.07)
    tables = []
    for tint in np.exp(chance.normal(0, 0.07, 3)):
        curve = ((level**gamma) - 0.5) * gain * tint + 0.5 + shift
        tables.append(np.clip(curve * 255, 0, 255).astype(np.uint8))
    return image.point(np.concatenate(tables).tolist())


def worsen(chance: np.random.Generator, image: Image.Image) -> Image.Image:
    """Blur, a detour through fewer pixels, noise and JPEG, each sometimes."""
    luck = chance.random()
    if luck < 0.08:
        image = image.filter(ImageFilter.GaussianBlur(chance.uniform(0.4, 1.6)))
    elif luck < 0.2:
        size, share = image.size, chance.uniform(0.4, 0.9)
        small = image.resize((max(8, int(size[0] * share)), max(8, int(size[1] * share))), Image.Resampling.BILINEAR)
        image = small.resize(size, Image.Resampling.BILINEAR)
    elif luck < 0.26:
        image = image.filter(ImageFilter.UnsharpMask(1.5, int(chance.uniform(50, 200)), 0))
    if chance.random() < 0.1:
        pixels = np.asarray(image).astype(np.float32)
        noise = chance.standard_normal(pixels.shape[:2] + (1,), dtype=np.float32) * chance.uniform(2, 14)
        image = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
    if chance.random() < 0.2:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(chance.integers(25, 85)))
        image = Image.open(buffer).convert("RGB")
    return image


# --- scenes ---------------------------------------------------------------------------


class Scenes(torch.utils.data.Dataset):
    """Batches by their number: pixels [n, side, side, 3] uint8, then the columns of `matching.Truth`."""

    def __init__(self, photos: Photos, seed: int, pixels: int = PIXELS_PER_BATCH) -> None:
        self._drawn, self._portraits, self._empty = ([(photo, _pyramid(photo.pixels)) for photo in part]
                                                     for part in (photos.drawn, photos.portraits, photos.empty))
        self._seed, self._pixels = seed, pixels

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> tuple[torch.Tensor, ...]:
        chance = np.random.default_rng([self._seed, number])
        side = int(chance.choice(SIDES, p=SIDE_SHARES))
        scenes = [self._scene(chance, side) for _ in range(max(1, self._pixels // side**2))]
        picture = np.repeat(np.arange(len(scenes)), [len(scene.kinds) for scene in scenes])
        boxes, landmarks = (np.concatenate([getattr(scene, name) for scene in scenes]).astype(np.float32)
                            for name in ("boxes", "landmarks"))
        kinds = np.concatenate([scene.kinds for scene in scenes])
        pixels = np.stack([np.asarray(scene.image) for scene in scenes])
        return tuple(torch.from_numpy(array) for array in (pixels, picture, boxes, landmarks, kinds))

    def _scene(self, chance: np.random.Generator, side: int) -> Scene:
        """One picture: a whole photograph, or several side by side."""
        luck = chance.random()
        if luck < EMPTY_SCENES:
            scene = recoloured(chance, self._nothing(chance, side, side))
        elif luck < 0.5:
            scene = recoloured(chance, self._whole(chance, side))
        else:
            scene = self._mosaic(chance, side, 1 if luck < 0.6 else 2 if luck < 0.85 else 3)
        scene = scene._replace(image=worsen(chance, scene.image))
        boxes, kinds, seen = clip(scene.boxes, scene.kinds, side, side)
        return Scene(scene.image, boxes[seen], scene.landmarks[seen], kinds[seen])

    def _whole(self, chance: np.random.Generator, side: int) -> Scene:
        """A photograph with drawn boxes much as the server would show it to the network, or a part of it."""
        photo, pyramid = self._drawn[chance.integers(len(self._drawn))]
        size = np.array(photo.pixels.shape[1::-1], float)
        scale = np.exp(chance.uniform(np.log(220), np.log(760))) / size.max()
        room = side - size * scale
        target = np.minimum(room, 0) * chance.random(2) + np.maximum(room, 0) * chance.random(2) * (chance.random() < 0.5)
        placed = view(chance, scale, size / 2, target + size * scale / 2)
        return covered(chance, render(pyramid, photo, placed, side, side), 0.25)

    def _mosaic(self, chance: np.random.Generator, side: int, tiles: int) -> Scene:
        """Tiles with a face of any size, or with none."""
        cuts = [np.rint(side * (np.arange(tiles + 1) / tiles) + np.pad(
            chance.uniform(-0.35, 0.35, tiles - 1) * side / tiles, 1)).astype(int) for _ in range(2)]
        canvas = Image.new("RGB", (side, side))
        parts = []
        for left, right in zip(cuts[0], cuts[0][1:]):
            for top, low in zip(cuts[1], cuts[1][1:]):
                scene = recoloured(chance, self._tile(chance, right - left, low - top))
                canvas.paste(scene.image, (int(left), int(top)))
                boxes, kinds, seen = clip(scene.boxes, scene.kinds, right - left, low - top)
                corner = np.array([left, top])
                parts.append((boxes[seen] + np.tile(corner, 2), scene.landmarks[seen] + corner, kinds[seen]))
        return Scene(canvas, *(np.concatenate(column) for column in zip(*parts)))

    def _tile(self, chance: np.random.Generator, width: int, height: int) -> Scene:
        if chance.random() < EMPTY_TILES:
            return self._nothing(chance, width, height)
        kind = self._drawn if chance.random() < 0.45 else self._portraits
        photo, pyramid = kind[chance.integers(len(kind))]
        size = np.array([width, height], float)
        whole = np.array(photo.pixels.shape[1::-1], float)
        faces = np.flatnonzero(photo.kinds == FACE)
        if not len(faces) or chance.random() < 0.15:
            scale = np.exp(chance.uniform(np.log(0.5), np.log(2.0))) * (size / whole).max()
            source = whole * chance.uniform(0.1, 0.9, 2)
            return render(pyramid, photo, view(chance, scale, source, size / 2), width, height)
        box = photo.boxes[chance.choice(faces)]
        length = np.sqrt((box[2:] - box[:2]).clip(1).prod())
        wanted = np.exp(chance.uniform(np.log(9), np.log(min(LARGEST_FACE, 0.9 * size.min()))))
        # A tile is filled where it can be: seams and borders say nothing about faces.
        scale = np.clip(wanted / length, 0.5 * (size / whole).max(), 4.0)
        target = size * chance.uniform(0.2, 0.8, 2)
        placed = view(chance, scale, (box[:2] + box[2:]) / 2, target)
        return covered(chance, render(pyramid, photo, placed, width, height), 0.6)

    def _nothing(self, chance: np.random.Generator, width: int, height: int) -> Scene:
        """A texture, a sky, or a part of a picture without a face."""
        luck = chance.random()
        if luck < 0.6:
            drawn = (texture if luck < 0.35 else sky)(chance, width, height)
            return Scene(drawn, np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0, int))
        photo, pyramid = self._empty[chance.integers(len(self._empty))]
        size, whole = np.array([width, height], float), np.array(photo.pixels.shape[1::-1], float)
        scale = np.exp(chance.uniform(np.log(0.6), np.log(3.0))) * (size / whole).max()
        placed = view(chance, scale, whole * chance.uniform(0.2, 0.8, 2), size / 2)
        return render(pyramid, photo, placed, width, height)


def recoloured(chance: np.random.Generator, scene: Scene) -> Scene:
    """The same scene in other light."""
    return scene._replace(image=recolour(chance, scene.image))


def covered(chance: np.random.Generator, scene: Scene, share: float) -> Scene:
    """The same scene, in a share of the cases with masks."""
    if chance.random() < share:
        cover(chance, scene)
    return scene


def _pyramid(pixels: np.ndarray) -> list[np.ndarray]:
    image = Image.fromarray(pixels)
    return [pixels, *(np.asarray(image.reduce(2**level)) for level in (1, 2))]
