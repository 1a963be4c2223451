"""Request parsing: HTTP bodies to pictures."""

import base64
import binascii
import io
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from digit_client import ImageShapeError, PixelValueError, TaskCard
from digit_client.tfserving.codec import Batch
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import MalformedBodyError, TooManyImagesError
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings

Pictures = Sequence[bytes] | Batch
"""Pictures of a request: image files, or an array uint8 [n, *shape] or float32 [n, *instance_shape] in the
task's range."""

_MAX_INLINE_JSON = 1_000_000
"""Bytes of JSON above which a thread parses the body."""
_UNTYPED = ("application/octet-stream", "")
"""Media types whose content is recognised by its bytes."""
_NUMBER_TYPES = {int, float}


@dataclass(frozen=True, slots=True)
class Instances:
    """Items of {"instances": …}, and the length of the JSON text in bytes."""

    items: list[Any]
    length: int


Body = list[bytes] | NDArray[Any] | Instances
"""Content of a request, which the task decides to accept: image files, an array, or items of JSON."""


def silence_library_warnings() -> None:
    """Silence Pillow's and NumPy's warnings about malformed uploads: one file can raise thousands."""
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="Reading `.npy`")


class RequestParser:
    """Parses request bodies; long JSON texts one at a time in a thread.

    In two steps: `parse` needs no task, so that `pictures` can check one body for the tasks of two versions.
    """

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._settings = settings
        self._scheduler = scheduler

    def parse(self, request: Request, context: RequestContext) -> Body:
        """Return the request's content, unchecked against the task.

        Raise MalformedBodyError, TooManyImagesError, UnsupportedMediaType or RequestEntityTooLarge;
        OverloadedError if parsing begins too late.
        """
        media_type = request.mimetype
        if media_type.startswith("image/") or media_type in _UNTYPED:
            return [self._content(request)]
        if media_type == "multipart/form-data":
            return self._from_parts(request.files.getlist("image"))
        if media_type == "application/json":
            return self._from_json(self._content(request), context)
        if media_type == "application/x-npy":
            return _load_npy(self._content(request))
        raise UnsupportedMediaType(
            "Unsupported media type. Send one image as image/*, "
            "several as multipart/form-data, application/json or application/x-npy."
        )

    def pictures(self, body: Body, task: TaskCard, context: RequestContext) -> Pictures:
        """Return the pictures of a body, at least one and at most `max_images`, as the task takes them.

        Raise ImageShapeError, PixelValueError or TooManyImagesError; OverloadedError or DeadlineExceededError
        if checking begins too late.
        """
        if isinstance(body, list):
            return body
        if isinstance(body, np.ndarray):
            return self._check_array(body, task)
        if body.length <= _MAX_INLINE_JSON:
            return _to_pixels(body.items, task)
        return self._scheduler.run_in_thread(context, 0, _to_pixels, body.items, task)

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

    def _from_json(self, data: bytes, context: RequestContext) -> Body:
        if len(data) <= _MAX_INLINE_JSON:
            return self._parse_json(data)
        return self._scheduler.run_in_thread(context, 0, self._parse_json, data)

    def _parse_json(self, data: bytes) -> list[bytes] | Instances:
        """Return the files of {"images": …}, or the items of {"instances": …}."""
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise MalformedBodyError(f"The body is not valid JSON: {error}.") from error
        keys = {"images", "instances"} & document.keys() if isinstance(document, dict) else set()
        if len(keys) != 1:
            raise MalformedBodyError(
                'The body must be {"images": [base64, …]} or {"instances": [[numbers], …]}.'
            )
        key = keys.pop()
        items = document[key]
        if not isinstance(items, list) or not items:
            raise MalformedBodyError(f"The field `{key}` must be a list with at least one item.")
        self._check_count(len(items))
        return list(map(_from_base64, items)) if key == "images" else Instances(items, len(data))

    def _check_array(self, array: NDArray[Any], task: TaskCard) -> NDArray[np.uint8]:
        if array.dtype != np.uint8 or array.shape[1:] != task.shape or not array.size:
            expected = ", ".join(map(str, ("n", *task.shape)))
            raise ImageShapeError(
                f"the array must be uint8 [{expected}], not {array.dtype} {list(array.shape)}"
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


def _to_pixels(items: list[Any], task: TaskCard) -> NDArray[np.float32]:
    """Convert instances to float32 [n, *instance_shape], after a check of their shapes and types."""
    low, high = task.range
    rows = []
    for index, item in enumerate(items):
        numbers = _flatten(item, task.instance_shape)
        if numbers is None:
            raise ImageShapeError(_describe_instance(task), index=index)
        # Check the types: NumPy would convert "0.5" and true to numbers.
        if not _NUMBER_TYPES.issuperset(map(type, numbers)):
            raise PixelValueError(_describe_instance(task), index=index)
        pixels = np.array(numbers, dtype=np.float64)
        if pixels.min() < low or pixels.max() > high:
            raise PixelValueError(f"the numbers of an instance must lie in {low:g}..{high:g}", index=index)
        rows.append(pixels.astype(np.float32))
    return np.array(rows).reshape(len(items), *task.instance_shape)


def _flatten(item: Any, shape: tuple[int, ...]) -> list[Any] | None:
    """Return the elements of nested lists of this shape, in row-major order; None for another shape."""
    level = [item]
    for size in shape:
        if not all(type(part) is list and len(part) == size for part in level):
            return None
        level = list(chain.from_iterable(level))
    return level


def _describe_instance(task: TaskCard) -> str:
    if len(task.instance_shape) == 1:
        return f"an instance must be a list of {task.instance_shape[0]} numbers"
    return f"an instance must be nested lists of {'×'.join(map(str, task.instance_shape))} numbers"


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
