"""English statements about goods, public affairs and somebody's day, put together from parts written for this recipe.

The labelled English texts are about films and places, and no text about things is at hand: what praises a battery or
blames a ministry ("sturdy", "drains overnight", "a step backward") would stay unknown. The parts are in `statements.toml`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np

NUMBER = 40_000
SEED = 7
SURE = 0.96      # chance of "positive" of statements that praise
WEIGHED = 0.75   # of a text whose last part praises and whose first does not
TOGETHER = 0.6   # share of the pairs that speak of the same things
SAME = (". ", ", ", " and ", "! ", "... ")
OTHER = (", but ", ". But ", " but ", "; however, ")
ENDS = ("", ".", ".", "!", "!!", "...")


class Statement(NamedTuple):
    """A statement with its side."""

    text: str
    praises: bool


def written() -> tuple[list[list[Statement]], dict[str, list[str]]]:
    """Every statement, by group, and what may stand before and after one."""
    parts = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    groups = [[Statement(f"{about} {said}".strip(), side == "good")
               for about in group["about"] for side in ("good", "bad") for said in group[side]]
              for group in parts["group"]]
    return groups, {place: parts[place] for place in ("before", "after")}


def texts() -> list[tuple[str, float]]:
    """Texts of one or two statements, all different, with the chance that they are positive."""
    random = np.random.default_rng(SEED)
    groups, around = written()

    def pick(rows: list):
        return rows[int(random.integers(len(rows)))]

    found: dict[str, float] = {}
    while len(found) < NUMBER:
        group = pick(groups)
        first = pick(group)
        text, chance, kind = first.text, SURE if first.praises else 1 - SURE, random.random()
        if kind < 0.5:
            if random.random() < 0.3:
                text = f"{pick(around['before'])} {text}"
            if random.random() < 0.15:
                text = f"{text} {pick(around['after'])}"
        else:
            second = pick(group if random.random() < TOGETHER else pick(groups))
            between = pick(SAME if first.praises == second.praises else OTHER)
            text = f"{text}{between}{second.text}"
            if first.praises != second.praises:
                chance = WEIGHED if second.praises else 1 - WEIGHED
        found[text + pick(ENDS)] = chance
    return list(found.items())
