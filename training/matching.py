"""Which cell answers for which face, and what its answer costs.

Every face is given to the few cells near its centre that already see it best, on the strides
that fit its size. All of it is done for a whole batch at once, faces padded to equal numbers.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch
from torch.nn import functional as F

from boxes import STRIDES

# Roots of areas, in network pixels, that each stride answers for. Neighbours share a part.
SIZES = ((0.0, 44.0), (28.0, 100.0), (64.0, 1e9))
CELLS_PER_FACE = 7
REACH = 1.5  # strides from the centre of a face to the centre of a cell that may answer for it
SMALLEST_LEARNT = 6.0  # network pixels: below that, neither face nor background
QUALITY_POWER, SCORE_POWER = 4.0, 0.5
WEIGHT_BOX, WEIGHT_LANDMARKS = 2.0, 2.5
BACKGROUND_WEIGHT, FOCUS = 0.75, 2.0


class Truth(NamedTuple):
    """Faces of a batch in one list: picture [f], boxes [f, 4], landmarks [f, 5, 2] (NaN: unknown), kinds [f].

    Kinds: 1 a face, -1 a region where nothing is learnt.
    """

    picture: torch.Tensor
    boxes: torch.Tensor
    landmarks: torch.Tensor
    kinds: torch.Tensor


class Cells(NamedTuple):
    """All cells of a picture: centres [c, 2] and strides [c], in network pixels."""

    centres: torch.Tensor
    strides: torch.Tensor


class Answers(NamedTuple):
    """What the network says for every cell: logits [n, c], boxes [n, c, 4], landmarks [n, c, 5, 2]."""

    logits: torch.Tensor
    boxes: torch.Tensor
    landmarks: torch.Tensor


def flatten(maps: Sequence[torch.Tensor]) -> tuple[Cells, Answers]:
    """Maps [n, 15, h, w] of every stride as one list of cells, in network pixels."""
    centres, strides, parts = [], [], []
    for stride, values in zip(STRIDES, maps):
        n, channels, high, wide = values.shape
        y, x = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        corner = torch.stack([x, y], -1).reshape(-1, 2).float()
        rows = values.float().permute(0, 2, 3, 1).reshape(n, high * wide, channels)
        centre = (corner + rows[..., 1:3]) * stride
        half = rows[..., 3:5].clamp(-6, 6).exp() * stride / 2
        marks = (rows[..., 5:15].unflatten(-1, (5, 2)) + corner[:, None]) * stride
        parts.append((rows[..., 0], torch.cat([centre - half, centre + half], -1), marks))
        centres.append((corner + 0.5) * stride)
        strides.append(torch.full((high * wide,), float(stride)))
    return Cells(torch.cat(centres), torch.cat(strides)), Answers(*(torch.cat(part, 1) for part in zip(*parts)))


def overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes [..., 4] that broadcast against each other."""
    sides = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(b[..., 2] - b[..., 0]).clamp(min=0) * (b[..., 3] - b[..., 1]).clamp(min=0) for b in (one, other)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def complete_overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Overlap less the distance of the centres and the difference of the shapes (CIoU)."""
    base = overlap(one, other)
    outer = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    apart = ((one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2).square().sum(-1)
    shapes = [torch.atan((b[..., 2] - b[..., 0]) / (b[..., 3] - b[..., 1]).clamp(min=1e-6)) for b in (one, other)]
    shape = (shapes[0] - shapes[1]).square() * 0.4053
    with torch.no_grad():
        share = shape / (1 - base + shape).clamp(min=1e-6)
    return base - apart / outer.square().sum(-1).clamp(min=1e-6) - share * shape


class Assignment(NamedTuple):
    """Which cell of its picture answers for which face [p], how sure it should be [p]; who learns [n, c]."""

    faces: torch.Tensor
    cells: torch.Tensor
    quality: torch.Tensor
    learns: torch.Tensor


@torch.no_grad()
def assign(cells: Cells, answers: Answers, truth: Truth) -> Assignment:
    """Give each face its cells: near its centre, on a stride of its size, those that see it best."""
    boxes = truth.boxes
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1).sqrt()
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    real = (truth.kinds == 1) & (size >= SMALLEST_LEARNT)

    apart = (cells.centres - centre[:, None]).abs().amax(-1) / cells.strides
    fits = torch.zeros_like(apart, dtype=torch.bool)
    for stride, (lowest, highest) in zip(STRIDES, SIZES):
        fits |= (cells.strides == stride) & ((size >= lowest) & (size < highest))[:, None]
    near = fits & (apart < REACH) & real[:, None]

    face, cell = torch.nonzero(near, as_tuple=True)
    picture = truth.picture[face]
    seen = overlap(answers.boxes[picture, cell], boxes[face])
    merit = answers.logits[picture, cell].sigmoid() ** SCORE_POWER * seen ** QUALITY_POWER
    # Without any overlap yet, the nearest cells begin.
    rows = merit.new_zeros(near.shape).index_put((face, cell), merit + 1e-6 / (1 + apart[face, cell]))
    last = rows.topk(min(CELLS_PER_FACE, rows.shape[1]), dim=1).values[:, -1:]
    rows = rows * (rows >= last)

    # A cell between two faces answers for the one that it sees better.
    best = rows.new_zeros(answers.logits.shape)
    best = best.scatter_reduce(0, truth.picture[:, None].expand_as(rows), rows, "amax")
    rows = rows * (rows == best[truth.picture])
    face, cell = torch.nonzero(rows, as_tuple=True)
    seen = overlap(answers.boxes[truth.picture[face], cell], boxes[face])
    most_merit = rows.amax(1).clamp(min=1e-12)
    most_seen = seen.new_zeros(len(boxes)).scatter_reduce(0, face, seen, "amax")
    quality = rows[face, cell] / most_merit[face] * most_seen[face]

    blind = (truth.kinds == -1) | ~real
    inside = ((cells.centres > boxes[blind, None, :2]) & (cells.centres < boxes[blind, None, 2:])).all(-1)
    hidden = torch.zeros_like(answers.logits).index_add(0, truth.picture[blind], inside.to(answers.logits.dtype))
    learns = (hidden == 0).to(hidden.dtype)
    learns[truth.picture[face], cell] = 1
    return Assignment(face, cell, quality, learns)


def loss(maps: Sequence[torch.Tensor], truth: Truth) -> tuple[torch.Tensor, dict[str, float]]:
    """The cost of a batch's answers, and its parts."""
    cells, answers = flatten(maps)
    face, cell, share, learns = assign(cells, answers, truth)
    picture = truth.picture[face]
    with torch.no_grad():
        quality = torch.zeros_like(answers.logits).index_put((picture, cell), share)
        chance = answers.logits.sigmoid()
        weight = torch.where(quality > 0, quality, BACKGROUND_WEIGHT * chance ** FOCUS) * learns
        total = share.sum().clamp(min=1)
    score = F.binary_cross_entropy_with_logits(answers.logits, quality, weight, reduction="sum") / total

    wanted = truth.boxes[face]
    box = ((1 - complete_overlap(answers.boxes[picture, cell], wanted)) * share).sum() / total
    marks = truth.landmarks[face]
    known = ~marks.isnan().flatten(1).any(1)
    length = (wanted[:, 2:] - wanted[:, :2]).clamp(min=1).prod(-1).sqrt()
    off = (answers.landmarks[picture, cell] - marks)[known] / length[known, None, None]
    landmarks = (F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.05, reduction="none").mean((1, 2))
                 * share[known]).sum() / total
    parts = {"score": score.item(), "box": box.item(), "landmarks": landmarks.item()}
    return score + WEIGHT_BOX * box + WEIGHT_LANDMARKS * landmarks, parts
