"""Tables of characters as SentencePiece stores them: what the normaliser `Precompiled` of tokenizers reads.

The format is the length of a double array in bytes, the array, and the replacements, each with a zero behind it
(Darts-clone, Yata 2011). A unit holds a label in bits 0 to 7, whether a key ends below it in bit 8, and in bits 10 to 30
what the position of its children is combined with; a unit with bit 31 set is the end of a key and holds where its
replacement begins.
"""

from __future__ import annotations

import struct
from typing import Mapping

LEAF = 1 << 31
ENDS_BELOW = 1 << 8
BLOCK = 256  # children of a node lie within one block, so that no look-up leaves the array


def charsmap(replaced: Mapping[str, str]) -> bytes:
    """The table that replaces each character by a text. No text may be empty: the library counts on one character."""
    begins: dict[str, int] = {}
    texts = bytearray()
    for text in replaced.values():
        if not text or "\0" in text:
            raise ValueError(f"{text!r} cannot stand for a character")
        if text not in begins:
            begins[text] = len(texts)
            texts += text.encode() + b"\0"
    array = _double_array({key.encode(): begins[text] for key, text in replaced.items()})
    return struct.pack("<I", 4 * len(array)) + struct.pack(f"<{len(array)}I", *array) + bytes(texts)


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    root: dict = {}
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value  # no key has a zero in it
    array, free = [0] * BLOCK, [True] * BLOCK
    free[0] = False
    lowest = 1  # below it nothing is free
    bases = set()  # of two nodes with one base, one would find the other's children
    waiting = [(0, root)]
    while waiting:
        place, node = waiting.pop()
        labels = sorted(node)
        while not free[lowest]:
            lowest += 1
            if lowest == len(free):
                array += [0] * BLOCK
                free += [True] * BLOCK
        base = next((at ^ labels[0] for at in range(lowest, len(free))
                     if at ^ labels[0] not in bases and all(free[(at ^ labels[0]) ^ label] for label in labels)), None)
        if base is None:
            base = len(array)
            array += [0] * BLOCK
            free += [True] * BLOCK
        bases.add(base)
        array[place] |= (place ^ base) << 10 | (ENDS_BELOW if 0 in node else 0)
        for label in labels:
            free[base ^ label] = False
            if label:
                array[base ^ label] |= label
                waiting.append((base ^ label, node[label]))
            else:
                array[base] = LEAF | node[0]
    if len(array) >= 1 << 21:
        raise ValueError(f"{len(array)} units are too many for their positions")
    return array
