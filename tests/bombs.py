"""Image files of a few bytes that ask for gigabytes or minutes, or that lie."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from digit_client.images import to_png

SIDE = 4000
"""Of a picture that is just not too large by default."""

Tag = tuple[int, int, int, int | None]
"""Number, type, count and value, or None where the value is where the data begin."""


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def blank(mode: str, form: str, **options: Any) -> bytes:
    """A file of the largest picture, with nothing on it."""
    return saved(Image.new(mode, (SIDE, SIDE)), form, **options)


def png(width: int, height: int, *, colour: int = 0, depth: int = 8, extra: bytes = b"") -> bytes:
    """An empty PNG: colour type and bits as PNG counts them, with chunks before its pixels."""
    row = 1 + width * {0: 1, 2: 3, 6: 4}[colour] * depth // 8
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(bytes(row * height))
    return to_png(np.zeros((1, 1), np.uint8))[:8] + b"".join(
        (chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def tiff(data: bytes, *more: Tag, side: int = 28, kind: int = 8, bits: int = 8, sample: int = 1) -> bytes:
    """A TIFF with these tags as well; `kind` is that of its compression, `sample` that of its numbers."""
    tags: list[Tag] = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, bits),
        (259, 3, 1, kind),
        (262, 3, 1, 1),
        (339, 3, 1, sample),
        *more,
    ]
    start = 14 + 12 * len(tags)
    entries = [
        struct.pack("<HHII", *tag[:3], start if tag[3] is None else tag[3])
        for tag in sorted(tags, key=_number)
    ]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4) + data


def strips(values: np.ndarray, sample: int) -> bytes:
    """A TIFF of one strip, uncompressed."""
    data = values.tobytes()
    tags: tuple[Tag, ...] = ((273, 4, 1, None), (279, 4, 1, len(data)))
    return tiff(data, *tags, side=len(values), kind=1, bits=8 * values.itemsize, sample=sample)


def tiles(*sizes: int) -> bytes:
    """A TIFF of 28×28 pixels in one square tile; where it tells several sizes of it, libraries differ."""
    data = zlib.compress(bytes(2**20))
    tags: list[Tag] = [(tag, 4, 1, size) for tag in (322, 323) for size in sizes]
    return tiff(data, *tags, (324, 4, 1, None), (325, 4, 1, len(data)))


def scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    data = blank("L", "JPEG", quality=1, progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + b"\xff\xd9"


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG, of which its header says that it is of this size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def bmp(width: int, height: int, kind: int = 0, bits: int = 24, rest: bytes = b"") -> bytes:
    """A BMP's header."""
    head = struct.pack("<IHHI", 54, 0, 0, 54 + 4 * 256 * (bits == 8))
    return b"BM" + head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, kind, *[0] * 5) + rest


def gif(screen: int, frame: int, offset: int = 0) -> bytes:
    """A GIF's headers."""
    head = struct.pack("<HHBBB", screen, screen, 0, 0, 0)
    return b"GIF89a" + head + b"," + struct.pack("<HHHHB", *[offset] * 2, *[frame] * 2, 0) + b"\2\2\x4c\1\0;"


def _number(tag: Tag) -> int:
    return tag[0]


def samples() -> dict[str, bytes]:
    """A small honest file of each format that is read."""
    drawing = Image.fromarray(np.pad(np.eye(20, dtype=np.uint8) * 255, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {form: saved(drawing, form) for form in ("PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")}
    packed = saved(drawing, "TIFF", compression="tiff_lzw")
    return files | {"packed TIFF": packed, "JPEG": saved(drawing, "JPEG", exif=exif)}


def too_large() -> dict[str, bytes]:
    """Whose pixels are never decoded, since they are too many."""
    huge = png(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", 100_000, 100_000))
    small = Image.new("L", (64, 64))
    return {
        "png 100k": huge,
        "png 100k whose header comes late": huge[:8] + chunk(b"tEXt", struct.pack(">II", 1, 1)) + huge[8:],
        "gif 65k": gif(65_535, 65_535),
        "gif with a frame larger than it": gif(1, 20_000),
        "gif with a frame far outside": gif(1, 1, 60_000),
        "bmp 100k": bmp(100_000, 100_000),
        "bmp upside down": bmp(1, -(2**31)),
        "jpeg 65k": resized(saved(small, "JPEG"), 65_500, 65_500),
        "jpeg long and narrow": resized(saved(small, "JPEG"), 65_000, 970),
        "jpeg of a thousand scans": scans(1000),
        "tiff 100k": tiff(b"", (273, 4, 1, None), side=100_000),
        "ppm 100k": b"P6 100000 100000 255\n",
        "webp 16k": saved(small, "WEBP", lossless=True).replace(b"/\x3f\xc0\x0f", b"/\xff\xff\xff"),
    }


def lies() -> dict[str, bytes]:
    """In no format that is read, or not what their headers say."""
    return {
        "tiff in a tile of 2 GB": tiles(46_336),
        "tiff in such a tile that it also says is small": tiles(46_336, 16),
        "big tiff": b"II+\0\x08\0\0\0" + bytes(100),
        "png of no pixels": png(0, 0),
        "png wider than libpng reads": png(2**20 + 1, 1),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        "icon": b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 1000, 22) + png(8, 8),
        "gif that is a script": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)//",
        "bmp that is nothing but runs": bmp(SIDE, SIDE, 1, 8, bytes(1024) + b"\xff\1" * 60_000),
        "ppm of a number without end": b"P5 " + b"1" * 1_000_000,
    }


def large() -> dict[str, bytes]:
    """The largest pictures that are decoded, and small ones with more beside them."""
    text = b"a\0\0" + zlib.compress(bytes(7_900_000))
    return {
        "png of 16 bits": png(SIDE, SIDE, colour=6, depth=16),
        "png with 7 GB of text": png(28, 28, extra=chunk(b"zTXt", text) * 900),
        "gif": blank("P", "GIF"),
        "webp": blank("RGBA", "WEBP", lossless=True, method=0),
        "tiff of floats": blank("F", "TIFF", compression="tiff_adobe_deflate"),
        "tiff of four inks": blank("CMYK", "TIFF", compression="tiff_lzw"),
        "jpeg in colour": saved(Image.new("RGB", (2 * SIDE, 2 * SIDE)), "JPEG", quality=1),
        "jpeg in scans": saved(
            Image.new("RGB", (2 * SIDE, 2 * SIDE)), "JPEG", quality=1, progressive=True, subsampling=0
        ),
        "polyglot of png and zip": png(28, 28) + b"PK\3\4" + bytes(1000),
    }


def no_numbers() -> dict[str, bytes]:
    """Whose pixels are no numbers."""
    return {
        "tiff of nan": strips(np.full((8, 8), np.nan, "<f4"), 3),
        "tiff of infinity": strips(np.full((8, 8), -np.inf, "<f4"), 3),
        "pfm of nan": b"Pf 8 8 -1\n" + np.full(64, np.nan, "<f4").tobytes(),
    }
