"""Hostile image files: decompression bombs, malformed headers, and the largest files within the limits."""

import io
import struct
import zlib
from functools import cache
from operator import itemgetter
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

SIDE = 4000
"""Width and height of a picture of exactly the default limit of pixels."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

pillow_heif.register_heif_opener()

Tag = tuple[int, int, int, int | None]
"""TIFF tag: number, type, count and value; None for the offset of the data."""


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return the image as a file of this format."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def blank(mode: str, form: str, **options: Any) -> bytes:
    """Return a blank picture of SIDE × SIDE pixels as a file of this format."""
    return encode(Image.new(mode, (SIDE, SIDE)), form, **options)


def png(
    width: int, height: int, *, color_type: int = 0, depth: int = 8, extra: bytes = b"", surplus: int = 0
) -> bytes:
    """Return a blank PNG with these chunks before its pixels; colour type as in its header, depth in bits.

    Its rows inflate to the surplus of bytes more than they need.
    """
    row = 1 + width * {0: 1, 2: 3, 6: 4}[color_type] * depth // 8
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    deflate = zlib.compressobj()
    sizes = [row * height, *[2**20] * (surplus // 2**20)]
    pixels = b"".join([*(deflate.compress(bytes(size)) for size in sizes), deflate.flush()])
    chunks = (png_chunk(b"IHDR", header), extra, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return PNG_SIGNATURE + b"".join(chunks)


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def tiff(
    data: bytes, *extra: Tag, side: int = 28, compression: int = 8, bits: int = 8, sample_format: int = 1
) -> bytes:
    """Return a square TIFF with these extra tags; compression and sample format as TIFF numbers them."""
    tags: list[Tag] = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, bits),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (339, 3, 1, sample_format),
        *extra,
    ]
    start = 14 + 12 * len(tags)
    entries = [
        struct.pack("<HHII", *tag[:3], start if tag[3] is None else tag[3])
        for tag in sorted(tags, key=itemgetter(0))
    ]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4) + data


def tiff_in_strips(values: np.ndarray, sample_format: int) -> bytes:
    """Return an uncompressed TIFF of one strip."""
    data = values.tobytes()
    tags: tuple[Tag, ...] = ((273, 4, 1, None), (279, 4, 1, len(data)))
    bits = 8 * values.itemsize
    return tiff(data, *tags, side=len(values), compression=1, bits=bits, sample_format=sample_format)


def tiff_in_tiles(*sizes: int) -> bytes:
    """Return a TIFF of 28×28 pixels in one square tile; libraries differ on duplicate tile sizes."""
    data = zlib.compress(bytes(2**20))
    tags: list[Tag] = [(tag, 4, 1, size) for tag in (322, 323) for size in sizes]
    return tiff(data, *tags, (324, 4, 1, None), (325, 4, 1, len(data)))


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """Return a JPEG's segment with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_jpeg_head(extra: bytes, side: int = 28) -> bytes:
    """Return a JPEG with these bytes in place of its JFIF segment."""
    file = encode(Image.new("L", (side, side)), "JPEG")
    return file[:2] + extra + file[20:]


def exif(*tags: Tag, data: bytes = b"") -> bytes:
    """Return EXIF with these tags, and data for tags with None as value."""
    start = 14 + 12 * len(tags)
    entries = [struct.pack("<HHII", *tag[:3], start if tag[3] is None else tag[3]) for tag in tags]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4) + data


def with_riff_chunk(webp: bytes, name: bytes, content: bytes) -> bytes:
    """Return a simple WebP of 64×64 pixels in the extended form, with this chunk."""
    canvas = b"VP8X" + struct.pack("<IB", 10, 8) + b"\0\0\0" + b"\x3f\0\0" * 2
    chunks = b"WEBP" + canvas + webp[12:] + name + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def progressive_jpeg(repeats: int, side: int = SIDE) -> bytes:
    """Return a progressive JPEG with this many copies of its last scan."""
    data = encode(Image.new("L", (side, side)), "JPEG", quality=1, progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * repeats + b"\xff\xd9"


def with_jpeg_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Return the JPEG with another size in its header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def with_heif_size(file: bytes, width: int, height: int) -> bytes:
    """Return the HEIC with another size in its headers."""
    head, *tails = file.split(b"ispe" + bytes(4))
    size = b"ispe" + bytes(4) + struct.pack(">II", width, height)
    return head + b"".join(size + tail[8:] for tail in tails)


def bmp(width: int, height: int, compression: int = 0, bits: int = 24, rest: bytes = b"") -> bytes:
    """Return a BMP's headers, and the rest of the file as given."""
    header = struct.pack("<IHHI", 54, 0, 0, 54 + 4 * 256 * (bits == 8))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, *[0] * 5)
    return b"BM" + header + info + rest


def gif(screen: int, frame: int, offset: int = 0) -> bytes:
    """Return a GIF of a square screen and a square frame in it, without pixels."""
    header = struct.pack("<HHBBB", screen, screen, 0, 0, 0)
    descriptor = struct.pack("<HHHHB", *[offset] * 2, *[frame] * 2, 0)
    return b"GIF89a" + header + b"," + descriptor + b"\2\2\x4c\1\0;"


@cache
def valid_files() -> dict[str, bytes]:
    """Return a small valid file of each supported format."""
    drawing = Image.fromarray(np.pad(np.eye(20, dtype=np.uint8) * 255, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {form: encode(drawing, form) for form in ("PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")}
    files["HEIF"] = encode(drawing.convert("RGB"), "HEIF")
    lzw = encode(drawing, "TIFF", compression="tiff_lzw")
    return files | {"LZW TIFF": lzw, "JPEG": encode(drawing, "JPEG", exif=exif)}


@cache
def oversized_files() -> dict[str, bytes]:
    """Return files with too many pixels, which are refused before any pixel is decoded."""
    huge = png(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", 100_000, 100_000))
    small = Image.new("L", (64, 64))
    return {
        "png 100k": huge,
        "png 100k with late header": huge[:8] + png_chunk(b"tEXt", struct.pack(">II", 1, 1)) + huge[8:],
        "png one column over the limit": png(SIDE + 1, SIDE),
        "png of 28x28 that inflates to 100 MB": png(28, 28, surplus=100 * 2**20),
        "png of a megapixel that inflates to 300 MB": png(1000, 1000, surplus=300 * 2**20),
        "png of a million bytes in chunks of none": png(28, 28, extra=png_chunk(b"IDAT", b"") * 100_000),
        "png of 8 MB in chunks of no pixels": png(28, 28, extra=png_chunk(b"tEXt", b"") * 600_000),
        "jpeg of 64 megapixels in 17 scans": progressive_jpeg(17, 2 * SIDE),
        "jpeg of two million comments": with_jpeg_head(jpeg_segment(0xFE, b"") * 2_000_000),
        "jpeg of eight million fill bytes": with_jpeg_head(b"\xff" * 8_000_000),
        "jpeg of many small blocks of exif": with_jpeg_head(
            jpeg_segment(0xE1, b"Exif\0\0" + bytes(10)) * 50_000
        ),
        "gif of four million blocks": gif(28, 28)[:13]
        + b"!\xfe"
        + b"\1a" * 4_000_000
        + b"\0"
        + gif(28, 28)[13:],
        "ppm of a long comment": b"P5 #" + b"a" * 8_000_000 + b"\n28 28 255 " + bytes(784),
        "ppm of many spaces": b"P5" + b" " * 8_000_000 + b"28 28 255 " + bytes(784),
        "tiff of a million strips": tiff(bytes(4_000_000), (273, 4, 1_000_000, None), compression=1),
        "webp of 8 MB of exif": with_riff_chunk(
            encode(small, "WEBP", lossless=True), b"EXIF", exif((282, 5, 10**6, None), data=bytes(8 * 10**6))
        ),
        "gif 65k": gif(65_535, 65_535),
        "gif with frame larger than screen": gif(1, 20_000),
        "gif with frame outside of screen": gif(1, 1, 60_000),
        "bmp 100k": bmp(100_000, 100_000),
        "bmp upside down": bmp(1, -(2**31)),
        "jpeg 65k": with_jpeg_size(encode(small, "JPEG"), 65_500, 65_500),
        "jpeg of a thousand scans": progressive_jpeg(1000),
        "tiff 100k": tiff(b"", (273, 4, 1, None), side=100_000),
        "ppm 100k": b"P6 100000 100000 255\n",
        "heic 16k": with_heif_size(encode(small.convert("RGB"), "HEIF"), 16_000, 16_000),
        "webp 16k": encode(small, "WEBP", lossless=True).replace(b"/\x3f\xc0\x0f", b"/\xff\xff\xff"),
    }


@cache
def malformed_files() -> dict[str, bytes]:
    """Return files of unsupported formats, and files that are not what their headers say."""
    return {
        "tiff in a tile of 2 GB": tiff_in_tiles(46_336),
        "tiff in a tile of two sizes": tiff_in_tiles(46_336, 16),
        "avif": encode(Image.new("L", (64, 64)), "AVIF"),
        "heic of a larger frame": with_heif_size(encode(Image.new("RGB", (640, 640)), "HEIF"), 64, 64),
        "big tiff": b"II+\0\x08\0\0\0" + bytes(100),
        "png of no pixels": png(0, 0),
        "png wider than libpng reads": png(2**20 + 1, 1),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        "icon": b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 1000, 22) + png(8, 8),
        "polyglot of gif and script": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)//",
        "bmp of endless runs": bmp(SIDE, SIDE, 1, 8, bytes(1024) + b"\xff\1" * 60_000),
        "bmp in runs of nothing": bmp(28, 28, 1, 8, bytes(1024) + b"\0\0" * 3_900_000),
        "bmp in short runs": bmp(28, 28, 1, 8, bytes(1024) + b"\1\0" * 784),
        "pgm in text of many comments": b"P2 28 28 255\n" + b"#\n" * 30_000 + b"0 " * 784,
        "ppm in text": b"P3 100 100 255\n" + b"0 " * 30_000,
        "pbm in text": b"P1 100 100\n" + b"0" * 10_000,
        "pgm of 254 levels": b"P5 100 100 254\n" + bytes(10_000),
        "ppm of a million digits": b"P5 " + b"1" * 1_000_000,
    }


@cache
def largest_files() -> dict[str, bytes]:
    """Return valid files without a digit: the largest pictures within the limits, and small pictures with a
    large payload beside their pixels.
    """
    text = b"a\0\0" + zlib.compress(bytes(7_900_000))
    large = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    return {
        "png of 16 bits": png(SIDE, SIDE, color_type=6, depth=16),
        "png with 7 GB of text": png(28, 28, extra=png_chunk(b"zTXt", text) * 900),
        "gif": blank("P", "GIF"),
        "webp": blank("RGBA", "WEBP", lossless=True, method=0),
        "tiff of floats": blank("F", "TIFF", compression="tiff_adobe_deflate"),
        "tiff of four inks": blank("CMYK", "TIFF", compression="tiff_lzw"),
        "jpeg in colour": encode(large, "JPEG", quality=1),
        "jpeg in scans": encode(large, "JPEG", quality=1, progressive=True, subsampling=0),
        "polyglot of png and zip": png(28, 28) + b"PK\3\4" + bytes(1000),
    }


@cache
def files_of_metadata() -> dict[str, bytes]:
    """Return pictures of 28×28 pixels with megabytes of metadata, which is skipped."""
    many = 1_000_000
    fractions = bytes(8 * many)
    block = exif((274, 3, 1, 6), (282, 5, many, None), data=fractions)
    starts = range(0, len(block), 65_000)
    photoshop = jpeg_segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\4\4" + bytes(6)) * 5400)
    strip: tuple[Tag, ...] = ((273, 4, 1, None), (278, 4, 1, 28), (279, 4, 1, 784))
    tags: list[Tag] = [(number, 4, 2**30, 1) for number in range(1000, 61_000)]
    return {
        "png before 8 MB": png(28, 28) + bytes(8 * many),
        "jpeg of a million fractions": with_jpeg_head(
            b"".join(jpeg_segment(0xE1, b"Exif\0\0" + block[start : start + 65_000]) for start in starts)
        ),
        "jpeg of 8 MB of photoshop": with_jpeg_head(photoshop * 120),
        "tiff of a million fractions": tiff(bytes(784) + fractions, (282, 5, many, 8), *strip, compression=1),
        "tiff of sixty thousand tags": tiff(bytes(784), *strip, *tags, compression=1),
    }


@cache
def non_finite_files() -> dict[str, bytes]:
    """Return files of floats that are NaN or infinite."""
    return {
        "tiff of nan": tiff_in_strips(np.full((8, 8), np.nan, "<f4"), 3),
        "tiff of infinity": tiff_in_strips(np.full((8, 8), -np.inf, "<f4"), 3),
        "pfm of nan": b"Pf 8 8 -1\n" + np.full(64, np.nan, "<f4").tobytes(),
    }
