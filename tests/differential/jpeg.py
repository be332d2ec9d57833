#!/usr/bin/env python3
"""Compares Lepton's JPEG decoder with libjpeg-turbo (through Pillow) over generated files.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pillow==13.0.0 numpy
    cargo build --release --locked -p lepton-media --example jpegs
    /tmp/venv/bin/python tests/differential/jpeg.py --count 50000

The files are made by `crates/testkit/src/jpegs`: sampling factors 1 to 4 of each component, one scan or
several, baseline, extended and progressive, restart intervals, sizes of 1 to 70 pixels, 1, 3 and 4 components,
JFIF's and Adobe's markers, names of components. `--first` takes other seeds.

It fails where decoding panics, where only one of the two reads a file, where the sizes differ, or where the
levels of one channel are off by more than 1.5 on average or 32 anywhere: swapped planes, wrong colours and
shifted blocks are off by tens of levels on average. With libjpeg-turbo 3 they are the same to the bit; how many
are is printed. Grey is held to Y where the picture is YCbCr, and to Pillow's luma otherwise.

`--golden crates/media/golden/jpegs.txt` writes checksums of the first files (`--count 400`) and of what Pillow makes of them, to
which a unit test holds the decoder where there is no Python.
"""

import argparse
import collections
import io
import struct
import subprocess
import sys
import zlib

import numpy
from PIL import Image, features

MOST_ON_AVERAGE = 1.5
MOST_ANYWHERE = 32


def by_pillow(file):
    """The levels in colour and in grey, or why there are none."""
    try:
        picture = Image.open(io.BytesIO(file))
        picture.load()
    except (OSError, SyntaxError) as error:
        return str(error)
    colours = picture.convert("RGB")
    gray = picture if picture.mode == "L" else colours.convert("L")
    if picture.mode == "RGB":
        luma = Image.open(io.BytesIO(file))
        # libjpeg gives Y itself where the file is YCbCr, and refuses grey where it is RGB.
        if luma.draft("L", luma.size) and luma.mode == "L":
            try:
                luma.load()
                gray = luma
            except OSError:
                pass
    return numpy.asarray(colours).transpose(2, 0, 1).copy(), numpy.asarray(gray)[None].copy()


def apart(answer, expected):
    """How far levels are apart: on average of the worst channel, and at most."""
    levels = numpy.frombuffer(answer[1:], numpy.uint8)
    if levels.size != expected.size:
        return 999.0, 999
    difference = numpy.abs(levels.reshape(expected.shape).astype(int) - expected)
    return difference.mean(axis=(1, 2)).max(), difference.max()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=50000)
    parser.add_argument("--program", default="target/release/examples/jpegs")
    parser.add_argument("--golden")
    options = parser.parse_args()
    child = subprocess.Popen([options.program, str(options.first), str(options.count)], stdout=subprocess.PIPE)

    def part():
        (length,) = struct.unpack("<I", child.stdout.read(4))
        return child.stdout.read(length)

    tally, wrong, golden = collections.Counter(), [], []
    for seed in range(options.first, options.first + options.count):
        recipe, file, colours, gray = part().decode(), part(), part(), part()
        expected = by_pillow(file)
        digest = "refused" if isinstance(expected, str) else f"{zlib.crc32(expected[0].tobytes()):08x}"
        golden.append(f"{seed} {zlib.crc32(file):08x} {digest}")
        if b"!" in (colours[:1], gray[:1]):
            tally["panics"] += 1
            wrong.append(f"panic: {recipe}")
        elif isinstance(expected, str) or colours[:1] == b"-" or gray[:1] == b"-":
            if isinstance(expected, str) and colours[:1] == b"-" and gray[:1] == b"-":
                tally["refused by both"] += 1
            else:
                tally["read by one alone"] += 1
                wrong.append(f"Pillow: {expected if isinstance(expected, str) else 'reads it'}; "
                             f"Lepton: {colours[:120]}; {recipe}")
        else:
            for kind, answer, levels in (("colour", colours, expected[0]), ("grey", gray, expected[1])):
                mean, most = apart(answer, levels)
                if mean > MOST_ON_AVERAGE or most > MOST_ANYWHERE:
                    tally[f"{kind}: wrong"] += 1
                    wrong.append(f"{kind} off by {mean:.2f} on average, {most} at most: {recipe}")
                else:
                    tally[f"{kind}: the same to the bit" if most == 0 else f"{kind}: within the bounds"] += 1
    for what, count in sorted(tally.items()):
        print(f"{count:>8} {what}")
    for line in wrong[:20]:
        print(line)
    print(f"Pillow {Image.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}: {len(wrong)} of {options.count} wrong")
    if options.golden and not wrong:
        header = (f"# Made by tests/differential/jpeg.py --golden with Pillow {Image.__version__} and libjpeg-turbo "
                  f"{features.version('libjpeg_turbo')}: seed, CRC-32 of the file and of its red, green and blue planes.\n")
        with open(options.golden, "w", encoding="ascii") as out:
            out.write(header + "\n".join(golden) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
