"""Draw `docs/faces.jpg`: what a running server answers about photographs, with boxes, landmarks and labels.

The photographs come with scikit-image 0.26: `astronaut` (NASA, public domain), `camera` (CC0, by Lav Varshney),
`coffee` (CC0, by Rachel Michetti), `chelsea` (CC0, by Stefan van der Walt). Some are also tilted, made small or grey.

`cargo run --release`, then `python training/contact_sheet.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import urllib.request
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from skimage import data

import common

TILE, COLUMNS, CAPTION = 300, 4, 22


def pictures() -> list[tuple[str, Image.Image]]:
    """Photographs by name, as they are and changed."""
    astronaut, camera, coffee, chelsea = (Image.fromarray(load()).convert("RGB") for load in (
        data.astronaut, data.camera, data.coffee, data.chelsea))
    return [
        ("astronaut", astronaut), ("grey", astronaut.convert("L").convert("RGB")),
        ("tilted by 15 degrees", astronaut.rotate(15, Image.Resampling.BICUBIC)),
        ("of 128 pixels", astronaut.resize((128, 128), Image.Resampling.LANCZOS)),
        ("camera", camera), ("camera, mirrored", camera.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        ("coffee", coffee), ("chelsea", chelsea),
    ]


def faces(server: str, picture: Image.Image) -> list[dict]:
    """What the server answers."""
    body = io.BytesIO()
    picture.save(body, "PNG")
    request = urllib.request.Request(f"{server}/v1/vision/classify?top_k=1", body.getvalue(),
                                     {"content-type": "image/png"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["images"][0]["faces"]


def tile(name: str, picture: Image.Image, found: list[dict]) -> Image.Image:
    """One picture with its answer drawn in, and its name below."""
    scale = TILE / max(picture.size)
    sheet = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    sheet.paste(picture.resize((round(picture.width * scale), round(picture.height * scale))), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for face in found:
        box = face["box"]
        left, top = box["x"] * scale, box["y"] * scale
        right, bottom = left + box["width"] * scale, top + box["height"] * scale
        draw.rectangle((left, top, right, bottom), outline="lime", width=2)
        for point in face.get("landmarks", []):
            x, y = point["x"] * scale, point["y"] * scale
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill="yellow")
        text = f"{face['label']} {face['score']:.2f}"
        draw.rectangle(draw.textbbox((left, bottom + 1), text, font), fill="black")
        draw.text((left, bottom + 1), text, "lime", font)
    draw.text((3, TILE + 2), f"{name}: {len(found)} face{'' if len(found) == 1 else 's'}", "black", font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--out", type=Path, default=common.REPOSITORY / "docs" / "faces.jpg")
    options = parser.parse_args()
    tiles = [tile(name, picture, faces(options.server, picture)) for name, picture in pictures()]
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + CAPTION)), "white")
    for k, each in enumerate(tiles):
        sheet.paste(each, (k % COLUMNS * TILE, k // COLUMNS * (TILE + CAPTION)))
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=85)
    common.write(options.out, content.getvalue())


if __name__ == "__main__":
    main()
