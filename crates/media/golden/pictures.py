"""Writes small pictures of every form that is served, and what Pillow reads in each.

    pip install pillow==13.0.0 tifffile==2026.3.3 numpy imagecodecs && python crates/media/golden/pictures.py

`pictures/` holds the files, `pictures/expected.txt` a line for each: name, width, height, the most that a level may
be off, and red, green and blue of every pixel over black: in hexadecimal, or their CRC-32 where none may be off, or
nothing (`-`) of large pictures with losses.
Orientation is not undone: the pictures are as they are stored.
"""

import io
import pathlib
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

OUT = pathlib.Path(__file__).parent / "pictures"
W, H = 21, 13
files: dict[str, tuple[bytes, np.ndarray | None, int]] = {}


def over_black(image: Image.Image) -> np.ndarray:
    """Red, green and blue of each pixel, composited over black as the server does it."""
    pixels = np.asarray(image.convert("RGBA")).astype(np.uint32)
    return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype(np.uint8)


def add(name: str, data: bytes, expected: np.ndarray | None = None, tolerance: int = 0) -> None:
    files[name] = (data, expected, tolerance)


def saved(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


y, x = np.mgrid[0:H, 0:W]
RGB = np.stack([x * 11 + y * 3, 255 - x * 5 - y * 7, (x * y * 3) % 256], axis=-1).astype(np.uint8)
ALPHA = ((x * 37 + y * 59) % 256).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
GRAY = (x * 9 + y * 5).astype(np.uint8)
GRAY16 = (x * 2999 + y * 411).astype(np.uint16)
RGB16 = RGB.astype(np.uint16) * 257 - 99
BILEVEL = ((x // 3 + y // 2) % 3 == 0).astype(np.uint8)
image, gray, bilevel = Image.fromarray(RGB), Image.fromarray(GRAY), Image.fromarray(BILEVEL * 255).convert("1")
palette = image.quantize(29)
few = image.quantize(11)
rgba = Image.fromarray(RGBA)


def three(levels: np.ndarray) -> np.ndarray:
    return np.stack([levels] * 3, axis=-1)


# --- GIF
add("plain.gif", saved(palette, "GIF"))
add("interlaced.gif", saved(palette, "GIF", interlace=1))
add("flat.gif", saved(palette, "GIF", interlace=0))
add("gray.gif", saved(gray, "GIF"))
add("two.gif", saved(bilevel, "GIF"))
clear = few.copy()
clear.info["transparency"] = 3
add("clear.gif", saved(clear, "GIF", transparency=3))
add("animated.gif", saved(palette, "GIF", save_all=True, append_images=[few, palette.rotate(180)]))


# --- BMP
def bmp(width, height, bits, compression, rows, table=b"", masks=b"", header=40):
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(rows), 0, 0, len(table) // 4, 0)
    info = info[:40] + masks.ljust(header - 40, b"\0") if header > 40 else info + masks
    offset = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + table + rows


def padded(row: bytes) -> bytes:
    return row + bytes(-len(row) % 4)


BGR = RGB[..., ::-1]
add("24.bmp", saved(image, "BMP"))
add("8.bmp", saved(palette, "BMP"))
add("gray.bmp", saved(gray, "BMP"))
add("1.bmp", saved(bilevel, "BMP"))
add("down.bmp", bmp(W, -H, 24, 0, b"".join(padded(r.tobytes()) for r in BGR)))
add("32.bmp", bmp(W, H, 32, 0, np.dstack([BGR, ALPHA])[::-1].tobytes()), RGB)
add("alpha.bmp", saved(rgba, "BMP"), None)
colours = few.getpalette("RGB")[:48]
table = b"".join(bytes([*colours[at : at + 3][::-1], 0]) for at in range(0, len(colours), 3)).ljust(64, b"\0")
index = np.asarray(few)
four = np.pad(index, ((0, 0), (0, W % 2)))
rows4 = b"".join(padded((r[0::2] << 4 | r[1::2]).astype(np.uint8).tobytes()) for r in four[::-1])
add("4.bmp", bmp(W, H, 4, 0, rows4, table))
rle = b""
for row in index[::-1]:
    at = 0
    while at < W:
        n = 1
        while at + n < W and row[at + n] == row[at]:
            n += 1
        rle += bytes([n, row[at]])
        at += n
    rle += b"\0\0"
add("rle8.bmp", bmp(W, H, 8, 1, rle + b"\0\1", table.ljust(1024, b"\0")))
f = RGB.astype(np.uint16)
v555 = ((f[..., 0] >> 3) << 10 | (f[..., 1] >> 3) << 5 | f[..., 2] >> 3).astype("<u2")
v565 = ((f[..., 0] >> 3) << 11 | (f[..., 1] >> 2) << 5 | f[..., 2] >> 3).astype("<u2")
add("555.bmp", bmp(W, H, 16, 0, b"".join(padded(r.tobytes()) for r in v555[::-1])), None, 1)
masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
add("565.bmp", bmp(W, H, 16, 3, b"".join(padded(r.tobytes()) for r in v565[::-1]), masks=masks), None, 1)
core = struct.pack("<IHHHH", 12, W, H, 1, 24)
rows24 = b"".join(padded(row.tobytes()) for row in BGR[::-1])
add("core.bmp", b"BM" + struct.pack("<IHHI", 26 + len(rows24), 0, 0, 26) + core + rows24)

# --- TIFF
for name, picture in {"rgb": image, "gray": gray, "palette": palette, "rgba": rgba, "two": bilevel}.items():
    for packing in [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"]:
        add(f"{name}-{(packing or 'raw').removeprefix('tiff_')}.tif", saved(picture, "TIFF", compression=packing))
add("group4.tif", saved(bilevel, "TIFF", compression="group4"))
add("strips.tif", saved(image, "TIFF", compression="tiff_lzw", tiffinfo={278: 4, 317: 2}))
add("differences.tif", saved(image, "TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 2}))
add("jpeg.tif", saved(image, "TIFF", compression="jpeg", quality=95), None, 8)
add("jpeg-gray.tif", saved(gray, "TIFF", compression="jpeg", quality=95), None, 3)
add("pages.tif", saved(image, "TIFF", save_all=True, append_images=[few.convert("RGB")]))
white_is_zero = io.BytesIO()
tifffile.imwrite(white_is_zero, 255 - GRAY, photometric="miniswhite")
add("inverted.tif", white_is_zero.getvalue(), three(GRAY))


def tiff(levels, expected, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, levels, metadata=None, **options)
    return out.getvalue(), expected


add("gray16.tif", *tiff(GRAY16, three((GRAY16 >> 8).astype(np.uint8)), photometric="minisblack"))
add("gray16-big.tif", *tiff(GRAY16, three((GRAY16 >> 8).astype(np.uint8)), photometric="minisblack", byteorder=">"))
add("rgb16.tif", *tiff(RGB16, (RGB16 >> 8).astype(np.uint8), photometric="rgb"))
for order, end in (("little", "<"), ("big", ">")):
    options = {"photometric": "rgb", "byteorder": end, "compression": "deflate", "predictor": True}
    add(f"rgb16-differences-{order}.tif", *tiff(RGB16, (RGB16 >> 8).astype(np.uint8), **options))
add("big.tif", *tiff(RGB, RGB, photometric="rgb", byteorder=">"))
add("planes.tif", *tiff(RGB.transpose(2, 0, 1), RGB, photometric="rgb", planarconfig="separate"))
wide = np.tile(RGB, (3, 2, 1))
add("tiles.tif", *tiff(wide, wide, photometric="rgb", tile=(16, 32), compression="lzw"))
options = {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16), "compression": "deflate"}
add("tiles-planes.tif", *tiff(RGB.transpose(2, 0, 1), RGB, **options))
straight = np.asarray(rgba)
add("unassociated.tif", *tiff(straight, over_black(rgba), photometric="rgb", extrasamples=["unassalpha"]))
premultiplied = np.dstack([over_black(rgba), ALPHA])
add("associated.tif", *tiff(premultiplied, over_black(rgba), photometric="rgb", extrasamples=["assocalpha"]))
add("gray-alpha.tif", *tiff(np.dstack([GRAY, ALPHA]), over_black(Image.fromarray(np.dstack([GRAY, ALPHA]), "LA")),
                            photometric="minisblack", extrasamples=["unassalpha"]))


# --- PNG as Xcode writes it
def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def apple(pixels: np.ndarray, colour: int, parts: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeeze.compress(b"".join(b"\0" + row.tobytes() for row in pixels)) + squeeze.flush()
    step = len(data) // parts + 1
    chunks = [chunk(b"IDAT", data[at : at + step]) for at in range(0, len(data), step)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, colour, 0, 0, 0))
    mark = chunk(b"CgBI", bytes.fromhex("50002002"))
    return b"\x89PNG\r\n\x1a\n" + mark + header + b"".join(chunks) + chunk(b"IEND", b"")


add("apple-alpha.png", apple(np.dstack([premultiplied[..., 2::-1], ALPHA]), 6, 3), over_black(rgba))
add("apple.png", apple(np.ascontiguousarray(BGR), 2, 1), RGB)
add("gray-alpha.png", saved(Image.fromarray(np.dstack([GRAY, ALPHA]), "LA"), "PNG"))
add("palette.png", saved(palette, "PNG"))

# --- WebP
noise = np.random.default_rng(7).integers(0, 256, (40, 52, 3), np.uint8)
soft = np.asarray(Image.fromarray(noise[:8, :9]).resize((45, 35), Image.Resampling.BICUBIC))
for method in (0, 6):
    add(f"lossless-{method}.webp", saved(Image.fromarray(soft), "WEBP", lossless=True, method=method, quality=100))
add("noise.webp", saved(Image.fromarray(noise), "WEBP", lossless=True, method=6, quality=100))
add("few.webp", saved(few.convert("RGB"), "WEBP", lossless=True, method=6))
add("two.webp", saved(bilevel.convert("RGB"), "WEBP", lossless=True, method=6))
add("lossless-alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True))
add("lossy.webp", saved(Image.fromarray(soft), "WEBP", quality=90), None, 12)
soft_alpha = Image.merge("RGBA", [*Image.fromarray(soft).split(), Image.fromarray(noise[:35, :45, 0])])
add("lossy-alpha.webp", saved(soft_alpha, "WEBP", quality=90), None, 12)
frames = {"save_all": True, "append_images": [Image.fromarray(255 - soft)]}
add("animated.webp", saved(Image.fromarray(soft), "WEBP", lossless=True, **frames))



# --- Adam7, which Pillow does not write
def interlaced(pixels: np.ndarray) -> bytes:
    rows = b""
    passes = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
    for left, top, across, down in passes:
        part = pixels[top::down, left::across]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    height, width, n_samples = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[n_samples], 0, 0, 1)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


add("interlaced.png", interlaced(RGB))
add("interlaced-alpha.png", interlaced(RGBA))

# --- Large ones of few bytes, in which what is kept for each pixel shows
LARGE = ((np.indices((600, 800)) // 100).sum(axis=0) * 19).astype(np.uint8)
blocks = Image.merge("RGB", [Image.fromarray(plane) for plane in (LARGE, LARGE[::-1], LARGE[:, ::-1])])
alphas = Image.merge("RGBA", [*blocks.split(), Image.fromarray(255 - LARGE)])
add("large.gif", saved(blocks.quantize(64), "GIF", interlace=1))
add("large-lzw.tif", saved(blocks.convert("L"), "TIFF", compression="tiff_lzw", strip_size=1 << 30))
add("large-alpha.tif", saved(alphas, "TIFF", compression="tiff_adobe_deflate"))
add("large-jpeg.tif", saved(blocks.convert("L"), "TIFF", compression="jpeg", strip_size=1 << 30), None, 255)
add("large.png", saved(blocks, "PNG", optimize=True))
add("large-alpha.png", saved(alphas, "PNG", optimize=True))
add("large-interlaced.png", interlaced(np.asarray(alphas)))
add("large-palette.png", saved(blocks.quantize(64), "PNG"))
add("large-lossless.webp", saved(alphas, "WEBP", lossless=True, exact=True))
add("large-lossless-opaque.webp", saved(blocks, "WEBP", lossless=True))
add("large-lossy.webp", saved(blocks, "WEBP", quality=5), None, 255)
add("large-lossy-alpha.webp", saved(alphas, "WEBP", quality=5), None, 255)
for name, options in (("lossy", {"quality": 5}), ("lossless", {"lossless": True})):
    part = saved(alphas, "WEBP", save_all=True, append_images=[alphas.rotate(180)], **options)
    add(f"large-animated-{name}.webp", part, None, 255)
rle = b"".join(bytes([250, i, 250, i, 250, i, 50, i, 0, 0]) for i in np.arange(600) % 7)
add("large-rle8.bmp", bmp(800, 600, 8, 1, rle + b"\0\1", table.ljust(1024, b"\0")))

OUT.mkdir(exist_ok=True)
for old in OUT.iterdir():
    old.unlink()
lines = []
for name, (data, expected, tolerance) in sorted(files.items()):
    (OUT / name).write_bytes(data)
    if expected is None:
        expected = over_black(Image.open(io.BytesIO(data)))
    height, width = expected.shape[:2]
    pixels = expected.astype(np.uint8).tobytes()
    value = "-" if tolerance == 255 else pixels.hex() if tolerance else f"{zlib.crc32(pixels):08x}"
    lines.append(f"{name} {width} {height} {tolerance} {value}\n")
(OUT / "expected.txt").write_text("".join(lines))
