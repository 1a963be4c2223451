"""A request's body as the model's input."""

import base64
import binascii
import io
import time
import tokenize
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug import Request
from werkzeug.exceptions import UnsupportedMediaType

from digit_client import images
from digit_client.arrays import Pixels
from digit_client.errors import ImageError, ImageShapeError, NotAnImageError, PixelValueError
from digit_client.wire import Batch
from digit_serving.gateway.errors import MalformedBodyError, TooManyImagesError
from digit_serving.gateway.record import Record
from digit_serving.gateway.settings import Settings

_NUMBERS = {int, float}
_BINARY = ("application/octet-stream", "")


def read(request: Request, settings: Settings, record: Record) -> Batch:
    """The images of the request: uint8 [n, 28, 28], or float32 [n, 784] where it brought such numbers.

    Raises MalformedBodyError, TooManyImagesError, UnsupportedMediaType or ImageError.
    """
    media_type = request.mimetype
    if media_type.startswith("image/") or media_type in _BINARY:
        return _normalised([_whole(request)], settings, record)
    if media_type == "multipart/form-data":
        return _from_parts(request, settings, record)
    if media_type == "application/json":
        return _from_json(_whole(request), settings, record)
    if media_type == "application/x-npy":
        return _from_npy(_whole(request), settings, record)
    raise UnsupportedMediaType(
        "Send an image as image/*, several as multipart/form-data, application/json or application/x-npy."
    )


def _whole(request: Request) -> bytes:
    data = request.get_data(cache=False)
    if request.content_length is None:
        # A chunked body is read as far as it may go, and is refused only where more of it is asked for.
        request.stream.read(1)
    elif len(data) < request.content_length:
        raise MalformedBodyError("The body ends early.")
    return data


def _normalised(files: Iterable[bytes], settings: Settings, record: Record) -> NDArray[np.uint8]:
    record.read_from = time.perf_counter()
    return np.array([_read_image(data, index, settings, record) for index, data in enumerate(files)])


def _read_image(data: bytes, index: int, settings: Settings, record: Record) -> NDArray[np.uint8]:
    try:
        if not data:
            raise NotAnImageError("there is no image in the request")
        return _normalise(_decode(data, settings, record), record)
    except ImageError as error:
        error.index = index
        raise


def _decode(data: bytes, settings: Settings, record: Record) -> Pixels:
    started = time.perf_counter()
    try:
        return images.decode(data, max_pixels=settings.max_pixels)
    finally:
        record.decode += time.perf_counter() - started


def _normalise(image: NDArray[np.generic], record: Record) -> NDArray[np.uint8]:
    started = time.perf_counter()
    try:
        return images.normalise(image)
    finally:
        record.normalise += time.perf_counter() - started


def _from_parts(request: Request, settings: Settings, record: Record) -> Batch:
    parts = request.files.getlist("image")
    if not parts:
        raise MalformedBodyError("The form has no file part named image.")
    _check_count(len(parts), settings)
    return _normalised((part.read() for part in parts), settings, record)


def _from_json(data: bytes, settings: Settings, record: Record) -> Batch:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedBodyError(f"The body is not JSON: {error}.") from error
    keys = {"images", "instances"} & document.keys() if isinstance(document, dict) else set()
    if len(keys) != 1:
        raise MalformedBodyError(
            'The body is to be {"images": [base64, …]} or {"instances": [[784 numbers], …]}.'
        )
    key = keys.pop()
    items = document[key]
    if not isinstance(items, list) or not items:
        raise MalformedBodyError(f"The field {key} is to be a list with at least one item.")
    _check_count(len(items), settings)
    if key == "images":
        return _normalised(map(_from_base64, items), settings, record)
    return _from_numbers(items)


def _from_base64(item: Any) -> bytes:
    try:
        # A canvas gives its picture as a data: URL.
        return base64.b64decode(item.partition(",")[2] if item.startswith("data:") else item, validate=True)
    except (AttributeError, ValueError, binascii.Error) as error:
        raise MalformedBodyError("The field images is to be a list of strings in base64.") from error


def _from_numbers(rows: list[Any]) -> NDArray[np.float32]:
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 784:
            raise ImageShapeError("an instance is a list of 784 numbers", index=index)
        # NumPy would take "0.5" and true for numbers as well.
        if not _NUMBERS.issuperset(map(type, row)):
            raise PixelValueError("an instance is a list of 784 numbers", index=index)
    pixels = np.array(rows, dtype=np.float64)
    wrong = np.flatnonzero(((pixels < 0) | (pixels > 1)).any(axis=1))
    if wrong.size:
        raise PixelValueError("the numbers of an instance lie in 0..1", index=int(wrong[0]))
    return pixels.astype(np.float32)


def _from_npy(data: bytes, settings: Settings, record: Record) -> Batch:
    array = _load_npy(data)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
        raise ImageShapeError(f"the array is to be uint8 [n, 28, 28], not {array.dtype} {list(array.shape)}")
    _check_count(len(array), settings)
    record.read_from = time.perf_counter()
    # Most are framed, which is seen of all at once.
    batch = array.copy()
    for index in np.flatnonzero(~images.are_framed(array)).tolist():
        batch[index] = _normalise_at(array[index], index, record)
    record.normalise = time.perf_counter() - record.read_from
    return batch


def _normalise_at(image: NDArray[np.uint8], index: int, record: Record) -> NDArray[np.uint8]:
    try:
        return _normalise(image, record)
    except ImageError as error:
        error.index = index
        raise


def _load_npy(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"format {version} is not read here")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        # np.load would set aside as much memory as the header asks for before it reads.
        array = np.frombuffer(data, dtype, offset=stream.tell())
        return array.reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, TypeError, SyntaxError, EOFError, tokenize.TokenError) as error:
        raise MalformedBodyError("The body is not a whole .npy file.") from error


def _check_count(count: int, settings: Settings) -> None:
    if count > settings.max_images:
        raise TooManyImagesError(f"A request may hold {settings.max_images} images; this one has {count}.")
