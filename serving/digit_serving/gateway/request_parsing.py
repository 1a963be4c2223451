"""Request parsing: HTTP bodies to the model's input batch."""

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
from digit_serving.gateway.asgi import SLICE_SECONDS, await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import MalformedBodyError, TooManyImagesError
from digit_serving.gateway.settings import Settings

_MAX_INLINE_PIXELS = 1_000_000
"""Larger pictures are read in a thread, since they would block the event loop. The limit for JPEGs, which are
decoded downscaled, is four times as high."""
_MAX_INLINE_JSON = 1_000_000
"""Bytes of JSON above which a thread parses the body."""
_UNTYPED = ("application/octet-stream", "")
"""Media types whose content is recognised by its bytes."""
_NUMBER_TYPES = {int, float}

_Result = TypeVar("_Result")


def silence_library_warnings() -> None:
    """Silence Pillow's and NumPy's warnings about malformed uploads: one file can raise thousands."""
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="Reading `.npy`")


class RequestParser:
    """Parses request bodies; large pictures and JSON texts one at a time in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # One thread: two threads would need the memory of two large pictures.
        self._executor = ThreadPoolExecutor(1, "large")

    def parse(self, request: Request, context: RequestContext) -> Batch:
        """Return the request's images: uint8 [n, 28, 28], or float32 [n, 784] if it holds numbers.

        Raise MalformedBodyError, TooManyImagesError, UnsupportedMediaType, RequestEntityTooLarge or
        ImageError; OverloadedError if reading begins too late, DeadlineExceededError if it takes too long.
        """
        media_type = request.mimetype
        if media_type.startswith("image/") or media_type in _UNTYPED:
            return self._read_images([self._content(request)], context)
        if media_type == "multipart/form-data":
            return self._from_parts(request.files.getlist("image"), context)
        if media_type == "application/json":
            return self._from_json(self._content(request), context)
        if media_type == "application/x-npy":
            return self._from_npy(self._content(request), context)
        raise UnsupportedMediaType(
            "Unsupported media type. Send one image as image/*, "
            "several as multipart/form-data, application/json or application/x-npy."
        )

    def _content(self, request: Request) -> bytes:
        """Return the body, without Werkzeug's get_data, which allocates 64 kB even for a short body."""
        if int(request.environ.get("CONTENT_LENGTH") or 0) > self._settings.max_body:
            raise RequestEntityTooLarge
        return request.environ["wsgi.input"].read()  # type: ignore[no-any-return]

    def _from_parts(self, parts: list[FileStorage], context: RequestContext) -> Batch:
        if not parts:
            raise MalformedBodyError("The form has no file part named `image`.")
        self._check_count(len(parts))
        return self._read_images((part.read() for part in parts), context)

    def _from_json(self, data: bytes, context: RequestContext) -> Batch:
        is_large = len(data) > _MAX_INLINE_JSON
        parsed = (
            self._run_in_thread(context, 0, self._parse_json, data) if is_large else self._parse_json(data)
        )
        return parsed if isinstance(parsed, np.ndarray) else self._read_images(parsed, context)

    def _parse_json(self, data: bytes) -> list[bytes] | NDArray[np.float32]:
        """Return the files of {"images": …}, or the numbers of {"instances": …} as float32 [n, 784]."""
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise MalformedBodyError(f"The body is not valid JSON: {error}.") from error
        keys = {"images", "instances"} & document.keys() if isinstance(document, dict) else set()
        if len(keys) != 1:
            raise MalformedBodyError(
                'The body must be {"images": [base64, …]} or {"instances": [[784 numbers], …]}.'
            )
        key = keys.pop()
        items = document[key]
        if not isinstance(items, list) or not items:
            raise MalformedBodyError(f"The field `{key}` must be a list with at least one item.")
        self._check_count(len(items))
        return list(map(_from_base64, items)) if key == "images" else _from_numbers(items)

    def _from_npy(self, data: bytes, context: RequestContext) -> Batch:
        array = _load_npy(data)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
            raise ImageShapeError(
                f"the array must be uint8 [n, 28, 28], not {array.dtype} {list(array.shape)}"
            )
        self._check_count(len(array))
        context.read_started_at = time.perf_counter()
        # Vectorised check: most images are normalised already.
        batch = array.copy()
        others = np.flatnonzero(~images.are_normalized(array)).tolist()
        slice_began = time.perf_counter()
        context.normalise_seconds = slice_began - context.read_started_at
        for index in others:
            slice_began = self._yield_if_due(slice_began, context, index)
            try:
                batch[index] = _normalise(array[index], context)
            except ImageError as error:
                error.index = index
                raise
        return batch

    def _run_in_thread(
        self, context: RequestContext, index: int, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Call the function in the single thread for large input, unless the request waited too long."""

        def check_time_and_call() -> _Result:
            self._check_time(context, index)
            return function(*arguments)

        return await_(asyncio.get_running_loop().run_in_executor(self._executor, check_time_and_call))

    def _yield_if_due(self, slice_began: float, context: RequestContext, index: int) -> float:
        """Cooperative scheduling: yield to the event loop after SLICE_SECONDS of work.

        Return the start of the current slice.
        """
        if time.perf_counter() - slice_began <= SLICE_SECONDS:
            return slice_began
        self._check_time(context, index)
        await_(asyncio.sleep(0))
        return time.perf_counter()

    def _check_time(self, context: RequestContext, index: int) -> None:
        """Raise OverloadedError if the first image waited longer than `max_queue_time` to be read.

        Raise DeadlineExceededError if the deadline has passed, for any image.
        """
        waited = time.perf_counter() - context.arrived_at
        if not index and waited > self._settings.max_queue_time:
            raise OverloadedError("the request waited too long to be read")
        if waited > self._settings.deadline:
            raise DeadlineExceededError("reading the images took too long")

    def _check_count(self, count: int) -> None:
        if count > self._settings.max_images:
            raise TooManyImagesError(
                f"A request may hold {self._settings.max_images} images; this request has {count}."
            )

    def _read_images(self, files: Iterable[bytes], context: RequestContext) -> NDArray[np.uint8]:
        context.read_started_at = slice_began = time.perf_counter()
        read = []
        for index, data in enumerate(files):
            slice_began = self._yield_if_due(slice_began, context, index)
            read.append(self._read_image(data, index, context))
        return np.array(read)

    def _read_image(self, data: bytes, index: int, context: RequestContext) -> NDArray[np.uint8]:
        try:
            if not data:
                raise NotAnImageError("the request holds no image")
            max_pixels = self._settings.max_pixels
            # The size is in the file's header, so a larger picture is refused before it is decoded.
            try:
                return _decode_and_normalise(data, min(max_pixels, _MAX_INLINE_PIXELS), context)
            except ImageTooLargeError:
                if max_pixels <= _MAX_INLINE_PIXELS:
                    raise
            return self._run_in_thread(context, index, _decode_and_normalise_large, data, max_pixels, context)
        except ImageError as error:
            error.index = index
            raise


def _decode_and_normalise(data: bytes, max_pixels: int, context: RequestContext) -> NDArray[np.uint8]:
    started = time.perf_counter()
    try:
        pixels = images.decode(data, max_pixels=max_pixels)
    finally:
        context.decode_seconds += time.perf_counter() - started
    return _normalise(pixels, context)


def _decode_and_normalise_large(data: bytes, max_pixels: int, context: RequestContext) -> NDArray[np.uint8]:
    try:
        return _decode_and_normalise(data, max_pixels, context)
    except ImageError as error:
        # Clear the frames, which keep the pixels alive: the thread decodes the next picture meanwhile.
        traceback.clear_frames(error.__traceback__)
        raise


def _normalise(image: NDArray[np.generic], context: RequestContext) -> NDArray[np.uint8]:
    started = time.perf_counter()
    try:
        return images.normalise(image)
    finally:
        context.normalise_seconds += time.perf_counter() - started


def _from_base64(item: Any) -> bytes:
    try:
        # A browser's canvas exports its picture as a data: URL.
        return base64.b64decode(item.partition(",")[2] if item.startswith("data:") else item, validate=True)
    except (AttributeError, ValueError, binascii.Error) as error:
        raise MalformedBodyError("The field `images` must be a list of base64 strings.") from error


def _from_numbers(rows: list[Any]) -> NDArray[np.float32]:
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 784:
            raise ImageShapeError("an instance must be a list of 784 numbers", index=index)
        # Check the types: NumPy would convert "0.5" and true to numbers.
        if not _NUMBER_TYPES.issuperset(map(type, row)):
            raise PixelValueError("an instance must be a list of 784 numbers", index=index)
    pixels = np.array(rows, dtype=np.float64)
    wrong = np.flatnonzero(((pixels < 0) | (pixels > 1)).any(axis=1))
    if wrong.size:
        raise PixelValueError("the numbers of an instance must lie in 0..1", index=int(wrong[0]))
    return pixels.astype(np.float32)


def _load_npy(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"unsupported format {version}")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        # Avoid np.load: it allocates as much memory as the header declares before it reads.
        array = np.frombuffer(data, dtype, offset=stream.tell())
        return array.reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, TypeError, SyntaxError, EOFError, tokenize.TokenError) as error:
        raise MalformedBodyError("The body is not a complete .npy file.") from error
