"""Request parsing: HTTP bodies to pictures."""

import base64
import binascii
import io
import tokenize
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from digit_client import ImageShapeError, PixelValueError
from digit_client.tfserving.codec import Batch
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import MalformedBodyError, TooManyImagesError
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings

Pictures = Sequence[bytes] | Batch
"""Pictures of a request: image files, or an array uint8 [n, 28, 28] or float32 [n, 784] in 0..1."""

_MAX_INLINE_JSON = 1_000_000
"""Bytes of JSON above which a thread parses the body."""
_UNTYPED = ("application/octet-stream", "")
"""Media types whose content is recognised by its bytes."""
_NUMBER_TYPES = {int, float}


def silence_library_warnings() -> None:
    """Silence Pillow's and NumPy's warnings about malformed uploads: one file can raise thousands."""
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="Reading `.npy`")


class RequestParser:
    """Parses request bodies; long JSON texts one at a time in a thread."""

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._settings = settings
        self._scheduler = scheduler

    def parse(self, request: Request, context: RequestContext) -> Pictures:
        """Return the request's pictures, at least one and at most `max_images`.

        Raise MalformedBodyError, TooManyImagesError, UnsupportedMediaType, RequestEntityTooLarge,
        ImageShapeError or PixelValueError; OverloadedError if parsing begins too late.
        """
        media_type = request.mimetype
        if media_type.startswith("image/") or media_type in _UNTYPED:
            return [self._content(request)]
        if media_type == "multipart/form-data":
            return self._from_parts(request.files.getlist("image"))
        if media_type == "application/json":
            return self._from_json(self._content(request), context)
        if media_type == "application/x-npy":
            return self._from_npy(self._content(request))
        raise UnsupportedMediaType(
            "Unsupported media type. Send one image as image/*, "
            "several as multipart/form-data, application/json or application/x-npy."
        )

    def _content(self, request: Request) -> bytes:
        """Return the body, without Werkzeug's get_data, which allocates 64 kB even for a short body."""
        if int(request.environ.get("CONTENT_LENGTH") or 0) > self._settings.max_body:
            raise RequestEntityTooLarge
        return request.environ["wsgi.input"].read()  # type: ignore[no-any-return]

    def _from_parts(self, parts: list[FileStorage]) -> list[bytes]:
        if not parts:
            raise MalformedBodyError("The form has no file part named `image`.")
        self._check_count(len(parts))
        return [part.read() for part in parts]

    def _from_json(self, data: bytes, context: RequestContext) -> Pictures:
        if len(data) <= _MAX_INLINE_JSON:
            return self._parse_json(data)
        return self._scheduler.run_in_thread(context, 0, self._parse_json, data)

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

    def _from_npy(self, data: bytes) -> NDArray[np.uint8]:
        array = _load_npy(data)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
            raise ImageShapeError(
                f"the array must be uint8 [n, 28, 28], not {array.dtype} {list(array.shape)}"
            )
        self._check_count(len(array))
        return array

    def _check_count(self, count: int) -> None:
        if count > self._settings.max_images:
            raise TooManyImagesError(
                f"A request may hold {self._settings.max_images} images; this request has {count}."
            )


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
