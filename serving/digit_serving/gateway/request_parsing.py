"""A request's body as the model's input."""

import asyncio
import base64
import binascii
import io
import time
import tokenize
import traceback
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from digit_client import (
    DeadlineExceededError,
    ImageError,
    ImageShapeError,
    ImageTooLargeError,
    NotAnImageError,
    OverloadedError,
    PixelValueError,
    images,
)
from digit_client.tfserving.codec import Batch
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import MalformedBodyError, TooManyImagesError
from digit_serving.gateway.settings import Settings

_Read = TypeVar("_Read")

_NUMBERS = {int, float}
_BINARY = ("application/octet-stream", "")
_LARGE_PICTURE = 1_000_000  # pixels; a JPEG's are four times as many
_LARGE_TEXT = 1_000_000  # bytes
_SLICE_SECONDS = 0.01  # of reading pictures between two looks at the network


def ignore_doubts() -> None:
    """Have nothing written of what Pillow and NumPy doubt about a file, which can raise thousands of doubts.

    They are its sender's affair.
    """
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="Reading `.npy`")


class RequestParser:
    """Reads the bodies of requests, large pictures and texts one at a time in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # One thread: on the event loop all requests would wait, and two threads need the memory of two.
        self._large = ThreadPoolExecutor(1, "large")

    def read(self, request: Request, context: RequestContext) -> Batch:
        """The images of the request: uint8 [n, 28, 28], or float32 [n, 784] where it brought such numbers.

        Raises MalformedBodyError, TooManyImagesError, UnsupportedMediaType or ImageError; OverloadedError or
        DeadlineExceededError where they can't be read in time.
        """
        media_type = request.mimetype
        if media_type.startswith("image/") or media_type in _BINARY:
            return self._normalised([self._content(request)], context)
        if media_type == "multipart/form-data":
            return self._from_parts(request.files.getlist("image"), context)
        if media_type == "application/json":
            return self._from_json(self._content(request), context)
        if media_type == "application/x-npy":
            return self._from_npy(self._content(request), context)
        raise UnsupportedMediaType(
            "Send an image as image/*, several as multipart/form-data, application/json or application/x-npy."
        )

    def _content(self, request: Request) -> bytes:
        """The body. Werkzeug's own way makes room for 64 kB at a time, however short it is."""
        if int(request.environ.get("CONTENT_LENGTH") or 0) > self._settings.max_body:
            raise RequestEntityTooLarge
        return request.environ["wsgi.input"].read()  # type: ignore[no-any-return]

    def _from_parts(self, parts: list[FileStorage], context: RequestContext) -> Batch:
        if not parts:
            raise MalformedBodyError("The form has no file part named image.")
        self._check_count(len(parts))
        return self._normalised((part.read() for part in parts), context)

    def _from_json(self, data: bytes, context: RequestContext) -> Batch:
        is_large = len(data) > _LARGE_TEXT
        parsed = (
            self._run_in_thread(context, 0, self._parse_json, data) if is_large else self._parse_json(data)
        )
        return parsed if isinstance(parsed, np.ndarray) else self._normalised(parsed, context)

    def _parse_json(self, data: bytes) -> list[bytes] | NDArray[np.float32]:
        """The image files of {"images": …}, or the numbers of {"instances": …}, float32 [n, 784]."""
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
        self._check_count(len(items))
        return list(map(_from_base64, items)) if key == "images" else _from_numbers(items)

    def _from_npy(self, data: bytes, context: RequestContext) -> Batch:
        array = _load_npy(data)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
            raise ImageShapeError(
                f"the array is to be uint8 [n, 28, 28], not {array.dtype} {list(array.shape)}"
            )
        self._check_count(len(array))
        context.read_from = time.perf_counter()
        # Most are framed, which is seen of all at once.
        batch = array.copy()
        for index in np.flatnonzero(~images.are_normalized(array)).tolist():
            batch[index] = _normalise_at(array[index], index, context)
        context.normalise = time.perf_counter() - context.read_from
        return batch

    def _run_in_thread(
        self, context: RequestContext, index: int, read: Callable[..., _Read], *arguments: Any
    ) -> _Read:
        """Call the function in the thread for large input, which works on one at a time."""

        def read_in_time() -> _Read:
            self._check_time(context, index)
            return read(*arguments)

        return await_(asyncio.get_running_loop().run_in_executor(self._large, read_in_time))

    def _check_time(self, context: RequestContext, index: int) -> None:
        """Raise OverloadedError where a request has waited too long to begin with its first image.

        Raises DeadlineExceededError where the answer would come too late, whichever image it is.
        """
        waited = time.perf_counter() - context.started
        if not index and waited > self._settings.max_queue_time:
            raise OverloadedError("it waited too long to be read")
        if waited > self._settings.deadline:
            raise DeadlineExceededError("it took too long to read")

    def _check_count(self, count: int) -> None:
        if count > self._settings.max_images:
            raise TooManyImagesError(
                f"A request may hold {self._settings.max_images} images; this one has {count}."
            )

    def _normalised(self, files: Iterable[bytes], context: RequestContext) -> NDArray[np.uint8]:
        context.read_from = slice_began = time.perf_counter()
        read = []
        for index, data in enumerate(files):
            if time.perf_counter() - slice_began > _SLICE_SECONDS:
                # Cooperative scheduling: other requests go on between two slices of work.
                self._check_time(context, index)
                await_(asyncio.sleep(0))
                slice_began = time.perf_counter()
            read.append(self._read_image(data, index, context))
        return np.array(read)

    def _read_image(self, data: bytes, index: int, context: RequestContext) -> NDArray[np.uint8]:
        try:
            if not data:
                raise NotAnImageError("there is no image in the request")
            most = self._settings.max_pixels
            try:
                return _image(data, min(most, _LARGE_PICTURE), context)
            except ImageTooLargeError:
                if most <= _LARGE_PICTURE:
                    raise
            return self._run_in_thread(context, index, _large_image, data, most, context)
        except ImageError as error:
            error.index = index
            raise


def _image(data: bytes, max_pixels: int, context: RequestContext) -> NDArray[np.uint8]:
    started = time.perf_counter()
    try:
        pixels = images.decode(data, max_pixels=max_pixels)
    finally:
        context.decode += time.perf_counter() - started
    return _normalise(pixels, context)


def _large_image(data: bytes, max_pixels: int, context: RequestContext) -> NDArray[np.uint8]:
    try:
        return _image(data, max_pixels, context)
    except ImageError as error:
        # They hold the pixels, and the next picture is opened before the error has been told.
        traceback.clear_frames(error.__traceback__)
        raise


def _normalise(image: NDArray[np.generic], context: RequestContext) -> NDArray[np.uint8]:
    started = time.perf_counter()
    try:
        return images.normalise(image)
    finally:
        context.normalise += time.perf_counter() - started


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


def _normalise_at(image: NDArray[np.uint8], index: int, context: RequestContext) -> NDArray[np.uint8]:
    try:
        return _normalise(image, context)
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
