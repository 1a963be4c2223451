"""Body of a request: an HTTP body of any form to pictures."""

import base64
import binascii
import io
import tokenize
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug import Request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import (
    ImageError,
    ImageShapeError,
    NotAnImageError,
    PixelValueError,
    without_tracebacks,
)
from digit_core.tfserving.codec import Batch
from digit_serving.commands import format_size
from digit_serving.gateway.errors import MAX_QUOTED, MalformedBodyError, TooManyImagesError
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.work import Work

_MAX_INLINE_JSON = 1_000_000
"""Bytes of JSON above which a thread parses the body."""
_UNTYPED = ("application/octet-stream", "")
"""Media types whose content is recognised by its bytes."""
_NUMBER_TYPES = {int, float}

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Body:
    """Pictures of a request."""

    content: Sequence[bytes | ImageError] | Batch = ()
    """Pictures as Recognition takes them: files, with errors in the places of those that can't be used, or an
    array. Instances have none before the task is known."""
    errors: Mapping[int, ImageError] = field(default_factory=dict)
    """Errors of instances that are not in the content, by position."""
    instances: Sequence[Any] = ()
    """Items of {"instances": …}."""
    is_image: bool = False
    """True if the body is one image: its error is that of the request."""
    length: int = 0
    """Bytes of JSON."""

    def picture(self, index: int) -> bytes | NDArray[Any]:
        """Return a picture that has a result."""
        if self.instances:
            return np.array(self.instances[index], np.float32)
        picture = self.content[index]
        assert not isinstance(picture, ImageError)
        return picture


def read_body(request: Request, limit: int) -> bytes:
    """Return the body, without Werkzeug's get_data, which allocates 64 kB even for a short body.

    Raise UnsupportedMediaType if it is compressed, RequestEntityTooLarge above `limit` bytes.
    """
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding.lower() != "identity":
        # A compressed body of a few kilobytes may hold gigabytes.
        raise UnsupportedMediaType(
            f"Unsupported content encoding {encoding[:MAX_QUOTED]!r}. Send the body without compression."
        )
    if int(request.environ.get("CONTENT_LENGTH") or 0) > limit:
        raise RequestEntityTooLarge(f"The body is larger than {format_size(limit)}.")
    return request.environ["wsgi.input"].read()  # type: ignore[no-any-return]


def silence_library_warnings() -> None:
    """Silence Pillow's and NumPy's warnings about malformed uploads: one file can raise thousands."""
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="Reading `.npy`")


class BodyParser:
    """Parses request bodies; long JSON texts one at a time in a thread."""

    def __init__(self, settings: Settings, work: Work) -> None:
        self._max_body, self._max_images = settings.max_body, settings.max_images
        self._work = work

    def parse(self, request: Request, context: RequestContext) -> Body:
        """Return the request's content, at least one image and at most `max_images`.

        Raise MalformedBodyError, TooManyImagesError, ImageShapeError, UnsupportedMediaType or
        RequestEntityTooLarge; OverloadedError if parsing begins too late.
        """
        media_type = request.mimetype
        if media_type.startswith("image/") or media_type in _UNTYPED:
            return Body([self._content(request)], is_image=True)
        if media_type == "multipart/form-data":
            return Body(self._from_form(request))
        if media_type == "application/json":
            data = self._content(request)
            return self._call(context, len(data), self._parse_json, data)
        if media_type == "application/x-npy":
            return self._from_array(_load_npy(self._content(request)))
        raise UnsupportedMediaType(
            "Unsupported media type. Send one image as image/*, "
            "several as multipart/form-data, application/json or application/x-npy."
        )

    def for_task(self, body: Body, task: TaskCard, context: RequestContext) -> Body:
        """Return the body with its instances as inputs of the task's model.

        Raise OverloadedError or DeadlineExceededError if checking begins too late.
        """
        return self._call(context, body.length, _to_inputs, body, task) if body.instances else body

    def _call(
        self, context: RequestContext, length: int, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Call a function on JSON of this length, in the thread if it takes long."""
        if length <= _MAX_INLINE_JSON:
            return function(*arguments)
        return self._work.run_in_thread(context, function, *arguments)

    def _content(self, request: Request) -> bytes:
        return read_body(request, self._max_body)

    def _from_form(self, request: Request) -> list[bytes]:
        boundary = request.mimetype_params.get("boundary", "").encode()
        # Each part follows a delimiter, and a last one ends the form. Werkzeug's own limit leaves files open.
        self._check_count(self._content(request).count(b"--" + boundary) - 1)
        request.environ["wsgi.input"].seek(0)
        parts = request.files.getlist("image")
        if not parts:
            raise MalformedBodyError("The form has no file part named `image`.")
        return [part.read() for part in parts]

    def _parse_json(self, data: bytes) -> Body:
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
        return _from_base64(items) if key == "images" else Body(instances=items, length=len(data))

    def _from_array(self, array: NDArray[Any]) -> Body:
        if array.dtype != np.uint8 or array.ndim not in (3, 4) or not array.size:
            raise ImageShapeError(
                f"the array must be uint8 [n, h, w] or [n, h, w, c], not {array.dtype} {list(array.shape)}"
            )
        self._check_count(len(array))
        return Body(array, is_image=len(array) == 1)

    def _check_count(self, count: int) -> None:
        if count > self._max_images:
            raise TooManyImagesError(
                f"A request may hold {self._max_images} images; this request has {count}."
            )


def _from_base64(items: Sequence[Any]) -> Body:
    files: list[bytes | ImageError] = []
    for item in items:
        if not isinstance(item, str):
            raise MalformedBodyError("The field `images` must be a list of base64 strings.")
        try:
            # A browser's canvas exports its picture as a data: URL.
            text = item.partition(",")[2] if item.startswith("data:") else item
            files.append(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error):
            files.append(NotAnImageError("the text is not base64"))
    return Body(files)


def _to_inputs(body: Body, task: TaskCard) -> Body:
    """Convert instances to float32 [n, *instance_shape], after a check of their shapes and types."""
    rows = []
    errors: dict[int, ImageError] = {}
    for index, item in enumerate(body.instances):
        try:
            rows.append(_to_row(item, task))
        except ImageError as error:
            errors[index] = without_tracebacks(error)
    content = np.array(rows, np.float32).reshape(len(rows), *task.instance_shape)
    return replace(body, content=content, errors=errors)


def _to_row(item: Any, task: TaskCard) -> NDArray[np.float32]:
    """Return an instance as float32 [*], flat. Raise ImageShapeError or PixelValueError."""
    low, high = task.range
    numbers = _flatten(item, task.instance_shape)
    if numbers is None:
        raise ImageShapeError(_describe_instance(task))
    # Check the types: NumPy would convert "0.5" and true to numbers.
    if not _NUMBER_TYPES.issuperset(map(type, numbers)):
        raise PixelValueError(_describe_instance(task))
    pixels = np.array(numbers, dtype=np.float64)
    if pixels.min() < low or pixels.max() > high:
        raise PixelValueError(f"the numbers of an instance must lie in {low:g}..{high:g}")
    return pixels.astype(np.float32)


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
