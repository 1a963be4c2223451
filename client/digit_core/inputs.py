"""Image inputs: conversion of every accepted source to an encoded file, and of arrays to PNG."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from digit_core.errors import ImageShapeError, NotAnImageError, PixelValueError

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""First bytes of every PNG file."""

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Suffixes of image files; other files in a folder are skipped."""

_HEIC_BRANDS = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"))
"""Brands of ISO base media files, after the four bytes of a length."""
_MEDIA_TYPES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"RIFF", "image/webp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    *((brand, "image/heic") for brand in _HEIC_BRANDS),
)

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Image modes that Pillow writes as PNG."""

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image | NDArray[Any]"
"""A path, the bytes of an image file, an open binary file, a Pillow image, or an array of pixels."""

Pixels = NDArray[np.uint8]
"""Grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4]."""


def is_url(text: str) -> bool:
    """True for the URL of a web page or file."""
    return text[:8].lower().startswith(("http://", "https://"))


def read_source(image: ImageSource) -> bytes:
    """Return the image as an encoded file.

    Raise OSError if a path can't be read, ImageError if the source is not an image.
    """
    if isinstance(image, str) and is_url(image):
        raise NotAnImageError(f"an image can't be a URL; download {image} and pass its bytes")
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return to_png(to_uint8_image(image))
    if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
        try:
            data = image.read() if hasattr(image, "read") else Path(image).read_bytes()
        except IsADirectoryError as error:
            raise IsADirectoryError(f"{image} is a folder: pass the pictures in it one by one") from error
        except ValueError as error:
            # The path has a null character, or the file is closed.
            raise NotAnImageError(f"the image can't be read: {error}") from error
        if not isinstance(data, bytes):
            raise NotAnImageError("an open image file must be in binary mode")
        return data
    if hasattr(image, "save"):
        return _encode_pillow_image(image)
    raise NotAnImageError(
        f"an image must be a path, bytes, a file, a Pillow image or an array, not {type(image).__name__}"
    )


def is_batch(images: object) -> TypeGuard[NDArray[np.uint8]]:
    """True for an array that may be a batch in a model's form: uint8 [n, h, w] or [n, h, w, 1 or 3]."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or 0 in images.shape[1:]:
        return False
    return images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))


def media_type(data: bytes) -> str:
    """Return the media type of an image file, detected by its first bytes."""
    head = data[4:] if data[4:8] == b"ftyp" else data
    return next((name for magic, name in _MEDIA_TYPES if head.startswith(magic)), "application/octet-stream")


_FOREIGN = (
    (b"%PDF-", "a PDF: render its pages first, e.g. `pdftoppm -r 150 -png FILE.pdf page`"),
    (b"PK\3\4", "a ZIP archive or an Office document: take its pictures out first"),
    (b"ftypavif", "AVIF: save it as PNG or JPEG first"),
    *((brand, "HEIC that is damaged: save the picture as JPEG first") for brand in _HEIC_BRANDS),
    (b"ftyp", "a video: save one of its frames as PNG or JPEG first"),
    (b"\0\0\0\x0cJXL ", "JPEG XL: save it as PNG or JPEG first"),
    (b"\xff\x0a", "JPEG XL: save it as PNG or JPEG first"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000: save it as PNG or JPEG first"),
    (b"8BPS", "a Photoshop document: export it as PNG or JPEG first"),
    (b"\0\0\1\0", "an icon: save it as PNG first"),
    (b"\x93NUMPY", "an .npy file: load it with numpy.load, and pass the array"),
)
_SNIFFED_BYTES = 1024
_GIF_BLOCKS = b",!"
"""First bytes of an image descriptor and of an extension in a GIF."""


def foreign_format(data: bytes) -> str | None:
    """Return what a file is that is no picture, and the way out; None if its first bytes don't tell."""
    if not data:
        return "an empty file: 0 bytes"
    head = data[4:] if data[4:8] == b"ftyp" else data
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            return name
    start = data[:_SNIFFED_BYTES]
    if b"<svg" in start:
        return "an SVG, which is a drawing: save it as PNG first, e.g. `rsvg-convert FILE.svg -o FILE.png`"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page: download the picture itself"
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut off.
        text = start[: error.start].decode() if error.start > len(start) - 4 else "\0"
    is_text = text.isprintable() or all(each.isprintable() or each in "\t\r\n" for each in text)
    return "text, and no picture" if is_text else None


def has_frames(data: bytes) -> bool:
    """True for an animated GIF, PNG or WebP, of which the first frame is read."""
    start = data[:_SNIFFED_BYTES]
    if data.startswith(b"GIF8"):
        return _has_gif_frames(data)
    return (data.startswith(PNG_SIGNATURE) and b"acTL" in start) or (
        data.startswith(b"RIFF") and b"ANIM" in start
    )


def _has_gif_frames(data: bytes) -> bool:
    """True if a GIF has a second image descriptor; the blocks of pixels are skipped."""

    def table(flags: int) -> int:
        """Return the bytes of a colour table."""
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    frames = 0
    try:
        place = 13 + table(data[10])
        while frames < 2 and data[place] in _GIF_BLOCKS:
            is_frame = data[place] == _GIF_BLOCKS[0]
            frames += is_frame
            # Descriptor, colour table and code size of a frame; introducer and label of an extension.
            place += 11 + table(data[place + 9]) if is_frame else 2
            while data[place]:
                place += 1 + data[place]
            place += 1
    except IndexError:
        return False
    return frames > 1


def to_uint8_image(image: NDArray[np.generic]) -> Pixels:
    """Convert an array of any number type to uint8 pixels.

    Booleans become 0 and 255; of uint16 the upper eight bits are kept; floats are scaled from 0..1 unless one
    exceeds 1. All other numbers must lie in 0..255. Raise ImageShapeError or PixelValueError for others.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or 0 in image.shape:
        raise ImageShapeError(f"an image has shape [h, w], [h, w, 3] or [h, w, 4], not {list(image.shape)}")
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype == np.uint16:
        return (np.asarray(image, np.uint16) >> 8).astype(np.uint8)
    return _scale_numbers(image)


def to_uint8(values: NDArray[np.float32]) -> Pixels:
    """Round floats in 0..255 to uint8."""
    pixels: Pixels = np.rint(values).astype(np.uint8)
    return pixels


def to_png(pixels: Pixels) -> bytes:
    """Encode pixels as a PNG file, without an imaging library."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    color_type = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    # Each row starts with its filter type; 0 means no filter. np.pad would take as long as the compression.
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_png_chunk(name, content) for name, content in chunks)


def _encode_pillow_image(image: "Image") -> bytes:
    if image.mode in ("I", "F"):
        return to_png(to_uint8_image(np.asarray(image)))
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def _scale_numbers(image: NDArray[np.generic]) -> Pixels:
    if not np.issubdtype(image.dtype, np.number) or np.issubdtype(image.dtype, np.complexfloating):
        raise PixelValueError(f"pixels must be numbers, not {image.dtype}")
    values = image.astype(np.float32)
    if not np.isfinite(values).all():
        raise PixelValueError("a pixel is not a finite number")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        raise PixelValueError(f"pixels must lie in 0..1 or 0..255, not in {low:g}..{high:g}")
    is_unit_range = np.issubdtype(image.dtype, np.floating) and high <= 1
    return to_uint8(values * 255 if is_unit_range else values)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
