"""Whatever a caller has that holds an image, as the bytes of an image file."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

from digit_client.arrays import as_pixels, to_png
from digit_client.errors import NotAnImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image | NDArray[Any]"
"""A path, the bytes of an image file, such a file opened, a Pillow image, or an array of pixels."""

_MEDIA_TYPES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"RIFF", "image/webp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def read(image: ImageSource) -> bytes:
    """The image as an encoded file. Raises OSError where a path can't be read, ImageError for no image."""
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return to_png(as_pixels(image))
    if hasattr(image, "read"):
        return image.read()
    if hasattr(image, "save"):
        return _from_pillow(image)
    raise NotAnImageError(
        f"an image is a path, bytes, a file, a Pillow image or an array, not {type(image).__name__}"
    )


def media_type(data: bytes) -> str:
    """The media type that an image file's first bytes tell."""
    return next((name for magic, name in _MEDIA_TYPES if data.startswith(magic)), "application/octet-stream")


def _from_pillow(image: "Image") -> bytes:
    if image.mode in ("I", "F"):
        return to_png(as_pixels(np.asarray(image)))
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()
