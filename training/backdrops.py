"""Backgrounds drawn by chance, without a face: textures, and skies full of stars and galaxies."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def texture(chance: np.random.Generator, width: int, height: int) -> Image.Image:
    """Something without a face: clouds, stripes, blots, boxes and stars over each other."""
    base = chance.integers(0, 256, (2, 3))
    grain = int(chance.integers(2, 24))
    clouds = chance.random((max(2, height // grain), max(2, width // grain)), dtype=np.float32)
    image = Image.fromarray((clouds * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    mix = np.asarray(image).astype(np.float32)[..., None] / 255
    if chance.random() < 0.4:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        wave = np.sin((x * chance.normal() + y * chance.normal()) * chance.uniform(0.05, 0.8))[..., None]
        mix = np.clip(mix * 0.5 + (wave > 0) * 0.5, 0, 1)
    image = Image.fromarray((base[0] * (1 - mix) + base[1] * mix).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(chance.integers(0, 14)):
        corner = chance.uniform(0, [width, height])
        size = np.exp(chance.uniform(np.log(3), np.log(max(width, height) / 2), 2))
        colour = tuple(chance.integers(0, 256, 3).tolist())
        shape = (draw.ellipse, draw.rectangle)[chance.integers(2)]
        shape([*corner, *(corner + size)], fill=colour)
    if chance.random() < 0.3:
        for _ in range(chance.integers(5, 80)):
            x, y, size = *chance.uniform(0, [width, height]), np.exp(chance.uniform(0, np.log(14)))
            draw.ellipse([x, y, x + size, y + size], fill=tuple(chance.integers(90, 256, 3).tolist()))
    if chance.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(chance.uniform(0.5, 3)))
    return image


def sky(chance: np.random.Generator, width: int, height: int) -> Image.Image:
    """Stars and galaxies: soft spots of light, round, flat or with arms, which a face seen from far resembles."""
    canvas = np.full((height, width, 3), chance.uniform(0, 28), np.float32)
    canvas += chance.normal(0, chance.uniform(1, 7), (height, width, 1))
    smallest, largest = 0.7, max(1.5, chance.uniform(0.02, 0.14) * min(width, height))
    for _ in range(int(np.exp(chance.uniform(np.log(4), np.log(120))))):
        size = smallest * (largest / smallest) ** (chance.random() ** 2)
        reach = int(4 * size) + 2
        x, y = int(chance.integers(width)), int(chance.integers(height))
        rows, columns = slice(max(0, y - reach), y + reach), slice(max(0, x - reach), x + reach)
        down, right = np.arange(height)[rows, None] - y, np.arange(width)[None, columns] - x
        light = (np.array([1.0, 0.85, 0.7]) ** chance.normal(0, 1.2)).clip(0.4, 1.6) * chance.uniform(40, 330)
        canvas[rows, columns] += _spot(chance, right, down, size)[..., None] * light
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _spot(chance: np.random.Generator, right: np.ndarray, down: np.ndarray, size: float) -> np.ndarray:
    """The light of one star or galaxy at these distances from its middle."""
    turn, flat = chance.uniform(0, np.pi), chance.uniform(0.25, 1.0)
    along, across = right * np.cos(turn) + down * np.sin(turn), (down * np.cos(turn) - right * np.sin(turn)) / flat
    radius = np.hypot(along, across) / size
    light = np.exp(-radius**chance.uniform(0.9, 2.0))
    if size > 3 and chance.random() < 0.6:
        wound = np.arctan2(across, along) + chance.uniform(-3, 3) * np.log(radius + 0.1)
        arms = np.cos(chance.integers(1, 4) * wound)
        light = light * (1 + chance.uniform(0.2, 0.9) * arms * (radius > 0.4))
    if chance.random() < 0.15:  # a star in the mirror's cross
        light = light + np.exp(-np.minimum(abs(right), abs(down)) / 0.6 - radius / 2)
    return light
