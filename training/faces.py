"""The faces of FER+: reading them by the published protocol, and random views of a batch to learn from."""

from __future__ import annotations

import csv
import io
import math
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

import common

LABELS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
SIDE = 48
MEAN, STD = 0.5, 0.25
LFW_GROWTH = 2.2


# --- data -----------------------------------------------------------------------------


class Faces(NamedTuple):
    """Faces of one split: pixels [n, 48, 48] uint8, shares of the votes [n, 8], shares by hash."""

    pixels: np.ndarray
    votes: np.ndarray
    hashes: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The expression with the most votes."""
        return self.votes.argmax(1)

    def only(self, chosen: np.ndarray) -> "Faces":
        """The chosen rows."""
        return Faces(*(column[chosen] for column in self))

    def joined(self, others: "Faces") -> "Faces":
        """These faces and others."""
        return Faces(*map(np.concatenate, zip(self, others)))


def read(archive: Path) -> Faces:
    """Read one FER+ split by the published protocol.

    Faces whose majority is "unknown" or "not a face" are dropped. Of the others the votes for
    the eight expressions count, without single votes where more than one agree on something.
    """
    pixels, votes, hashes = [], [], []
    with tarfile.open(archive) as bundle:
        files = {Path(member.name).name: member for member in bundle.getmembers() if member.isfile()}
        rows = csv.DictReader(io.TextIOWrapper(bundle.extractfile(files["labels.csv"]), encoding="utf-8"))
        for row in sorted(rows, key=lambda row: row["Image name"]):
            counts = np.array([int(row[label]) for label in (*LABELS, "unknown", "NF")], np.float32)
            if row["Image name"] not in files or counts.argmax() >= len(LABELS):
                continue
            counts = counts[: len(LABELS)]
            if counts.max() > 1:
                counts[counts <= 1] = 0
            image = np.asarray(Image.open(bundle.extractfile(files[row["Image name"]])).convert("L"))
            pixels.append(image)
            votes.append(counts / counts.sum())
            hashes.append(common.hash_share(image.tobytes()))
    return Faces(np.stack(pixels), np.stack(votes), np.array(hashes))


def load(data: Path, cache: Path) -> tuple[Faces, Faces]:
    """Both splits, from the cache after the first time; no face of valid is in train."""
    cached = cache / "ferplus.npz"
    if not cached.exists():
        train, valid = read(data / "ferplus-train.tar.xz"), read(data / "ferplus-valid.tar.xz")
        buffer = io.BytesIO()
        np.savez(buffer, *train, *valid)
        common.write(cached, buffer.getvalue())
    with np.load(cached) as columns:
        arrays = [columns[key] for key in columns.files]
    train, valid = Faces(*arrays[:3]), Faces(*arrays[3:])
    return train.only(~np.isin(train.hashes, valid.hashes)), valid


def photographed(data: Path, cache: Path) -> Faces:
    """Faces in photographs of LFW, of which nobody said what they express (no votes); from the cache later.

    Each photograph is what a face detector of FER2013's kind found, 2.2 times as large (Huang et al. 2007).
    """
    cached = cache / "lfw-faces.npy"
    if not cached.exists():
        faces = []
        for _, content in common.pictures(data / "lfw-people.tar.xz"):
            photograph = Image.open(io.BytesIO(content)).convert("L")
            edge = photograph.width * (1 - 1 / LFW_GROWTH) / 2
            square = (edge, edge, photograph.width - edge, photograph.height - edge)
            faces.append(np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=square)))
        with common.replacing(cached) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack(faces))
    pixels = np.load(cached)
    return Faces(pixels, np.zeros((len(pixels), len(LABELS)), np.float32),
                 np.array([common.hash_share(face.tobytes()) for face in pixels]))


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Grey values 0..255 as the network wants them: [n, 1, 48, 48]."""
    return ((pixels.float() / 255 - MEAN) / STD).unsqueeze(1)


class View(NamedTuple):
    """How a detector's crop can differ from the one in the data: size, tilt, place, and pixels the face had."""

    growth: float = 1.0
    degrees: float = 0.0
    right: float = 0.0
    pixels: int = SIDE


def look(pixels: np.ndarray, view: View) -> np.ndarray:
    """Faces [n, 48, 48] uint8 as this view shows them; beyond a crop's edge its edge goes on."""
    x = torch.from_numpy(pixels).float().unsqueeze(1)
    if view.pixels < SIDE:
        x = F.interpolate(x, (view.pixels, view.pixels), mode="bilinear", antialias=True)
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear")
    angle = math.radians(view.degrees)
    cos, sin = math.cos(angle) * view.growth, math.sin(angle) * view.growth
    matrix = torch.tensor([[cos, -sin, 2 * view.right], [sin, cos, 0.0]]).expand(len(x), 2, 3)
    return sample(x, matrix, SIDE).squeeze(1).round().clamp(0, 255).byte().numpy()


def sample(x: torch.Tensor, matrix: torch.Tensor, side: int) -> torch.Tensor:
    """Pictures [n, 1, h, w] moved by a matrix [n, 2, 3] each, in pixels of `side`."""
    grid = F.affine_grid(matrix, [len(x), 1, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


# --- random views ---------------------------------------------------------------------


def between(n: int, low: float, high: float) -> torch.Tensor:
    """Uniform numbers, one for each of n faces."""
    return torch.rand(n) * (high - low) + low


def turn(x: torch.Tensor, side: int, strength: float) -> torch.Tensor:
    """Faces [n, 1, h, w] seen by a detector that errs in place and size, tilted and mirrored, in pixels of `side`.

    Everything that moves a face is one sampling of the picture, which costs what a copy would.
    """
    n = len(x)
    angle = torch.randn(n).mul_(0.14 * strength).clamp_(-0.4, 0.4)
    size = torch.exp(strength * between(n, -0.24, 0.16))
    aspect = torch.exp(strength * between(n, -0.08, 0.08))
    right, down = strength * between(n, -0.13, 0.13), strength * between(n, -0.13, 0.13)
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    matrix = torch.stack([torch.stack([cos * aspect * flip, -sin, right], 1),
                          torch.stack([sin * flip, cos / aspect, down], 1)], 1)
    return sample(x, matrix, side)


def light(x: torch.Tensor, strength: float) -> torch.Tensor:
    """Other light: contrast, brightness and gamma of each face."""
    n, shape = len(x), (len(x), 1, 1, 1)
    contrast, gamma = (torch.exp(strength * between(n, *limits)).view(shape) for limits in ((-0.5, 0.4), (-0.4, 0.4)))
    bright, centre = strength * between(n, -0.18, 0.18).view(shape), x.mean((2, 3), keepdim=True)
    return ((x - centre) * contrast + centre + bright).clamp_(0.001, 1).pow_(gamma)


def shrink(x: torch.Tensor) -> torch.Tensor:
    """Faces that were small or out of focus: down and up again."""
    side = x.shape[-1]
    small = int(torch.randint(side // 3, side * 5 // 6, ()))
    x = F.interpolate(x, (small, small), mode="bilinear", antialias=True)
    return F.interpolate(x, (side, side), mode="bilinear")


def _cosines() -> torch.Tensor:
    """The orthonormal basis of the discrete cosine transform of eight values."""
    at = torch.arange(8, dtype=torch.float32)
    basis = torch.cos((2 * at + 1) * at.view(8, 1) * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


COSINES = _cosines()


def quantise(x: torch.Tensor) -> torch.Tensor:
    """Damage as a JPEG file does it: blocks of 8x8 with coefficients rounded, high frequencies most."""
    n, side = len(x), x.shape[-1]
    at = torch.arange(8.0)
    coarse = (2 + at + at.view(8, 1)) * (0.008 * torch.exp(between(n, 0.0, 1.6))).view(n, 1, 1, 1, 1)
    blocks = x.view(n, side // 8, 8, side // 8, 8).transpose(2, 3)
    waves = COSINES @ (blocks - 0.5) @ COSINES.T
    waves = torch.round(waves / coarse) * coarse
    return (COSINES.T @ waves @ COSINES + 0.5).transpose(2, 3).reshape(n, 1, side, side)


def erase(x: torch.Tensor, share: float) -> torch.Tensor:
    """A rectangle of one grey in a share of the faces."""
    n, side = len(x), x.shape[-1]
    rows, columns = torch.arange(side).view(1, side, 1), torch.arange(side).view(1, 1, side)
    limit = side * 4 // 9
    top, left, high, wide = (torch.randint(0, most, (n, 1, 1)) for most in (side, side, limit, limit))
    hole = (rows >= top) & (rows < top + high) & (columns >= left) & (columns < left + wide)
    hole &= torch.rand(n, 1, 1) < share
    return torch.where(hole.unsqueeze(1), torch.rand(n, 1, 1, 1), x)


def augment(pixels: torch.Tensor, side: int, strength: float) -> torch.Tensor:
    """Random views of faces [n, 48, 48] uint8 in pixels of `side`, as the network wants them.

    A strength of 1 goes to the limits of what a detector hands over; of 0 would only mirror.
    """
    x = pixels.float().div_(255).unsqueeze(1)
    if side < x.shape[-1]:
        x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
    x = light(turn(x, side, strength), strength)
    # The batch is in random order already: a slice of it is a random part.
    part = round(len(x) / 8 * strength)
    for begin, change in ((0, shrink), (part, shrink), (2 * part, quantise)):
        x[begin:begin + part] = change(x[begin:begin + part])
    noisy = x[3 * part // 2:5 * part // 2]
    noisy += torch.randn_like(noisy) * between(len(noisy), 0.0, 0.06).view(-1, 1, 1, 1)
    return (erase(x.clamp_(0, 1), 0.35 * strength) - MEAN) / STD


def mixed(n: int) -> int:
    """How many of n rows `mix` blends."""
    return n // 4


def mix(x: torch.Tensor, votes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blends the first quarter of a batch with the second, pictures and votes alike."""
    part = mixed(len(x))
    share = torch.distributions.Beta(0.4, 0.4).sample((part,))
    x, votes = x.clone(), votes.clone()
    x[:part].lerp_(x[part:2 * part], share.view(-1, 1, 1, 1))
    votes[:part].lerp_(votes[part:2 * part], share.view(-1, 1))
    return x, votes
