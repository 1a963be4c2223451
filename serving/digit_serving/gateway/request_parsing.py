"""Request parsing: query parameters to the model and the form of its answer, HTTP bodies to pictures."""

import base64
import binascii
import io
import tokenize
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug import Request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from digit_client import ImageError, ImageShapeError, NotAnImageError, PixelValueError, TaskCard
from digit_client._exceptions import without_tracebacks
from digit_client.artifact.task_card import NAME
from digit_client.images import MIN_IS_DIGIT
from digit_client.tfserving.codec import Batch, ModelRef
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import (
    InvalidSelectionError,
    MalformedBodyError,
    TooManyImagesError,
    UnknownModelError,
)
from digit_serving.gateway.preparation import Scheduler
from digit_serving.gateway.settings import Settings

MAX_VERSION = 2**63 - 1
"""Largest version number of TensorFlow Serving."""
MAX_TOP = 1000
"""Largest value of `top`: a task has no more classes."""
MAX_NAME = 100
"""Longest name that an error quotes."""

PREDICT_PARAMETERS = ("model", "version", "label", "include", "top", "min_is_digit")
READ_PARAMETERS = ("model", "version", "label", "include", "min_is_digit")
MODEL_PARAMETERS = ("model",)
UNLABELLED_PARAMETERS = ("model", "limit", "above", "within")

Query = Mapping[str, str]

_MAX_INLINE_JSON = 1_000_000
"""Bytes of JSON above which a thread parses the body."""
_UNTYPED = ("application/octet-stream", "")
"""Media types whose content is recognised by its bytes."""
_NUMBER_TYPES = {int, float}

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Body:
    """Content of a request: image files, an array of images, or items of {"instances": …}."""

    files: Sequence[bytes | ImageError] = ()
    """Image files, or errors in the places of those that can't be used."""
    array: NDArray[np.uint8] | None = None
    instances: Sequence[Any] = ()
    is_image: bool = False
    """True if the body is one image: its error is that of the request."""
    length: int = 0
    """Bytes of JSON."""

    def picture(self, index: int) -> bytes | NDArray[Any]:
        """Return a picture that has a result."""
        if self.array is not None:
            return np.asarray(self.array[index])
        if self.instances:
            return np.array(self.instances[index], np.float32)
        file = self.files[index]
        assert isinstance(file, bytes)
        return file


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of a request as Recognition takes them, and the errors of the others by position."""

    content: Sequence[bytes | ImageError] | Batch
    errors: Mapping[int, ImageError] = field(default_factory=dict)


class ModelSelector:
    """Finds the model that a query names by `model`, `version` and `label`."""

    def __init__(self, settings: Settings) -> None:
        self._default = settings.model_name
        self._models = {name: ModelRef(name) for name in settings.models}
        self._takes_any = "*" in settings.model_names
        self._reader = settings.reader

    def model(self, query: Query) -> ModelRef:
        """Return the model without a version. Raise UnknownModelError if the settings don't permit it."""
        name = query.get("model", self._default)
        if listed := self._models.get(name):
            return listed
        if not (self._takes_any and NAME.fullmatch(name)):
            raise UnknownModelError(f"Parameter `model` must be one of: {', '.join(self._models)}.")
        return ModelRef(name)

    def version(self, query: Query) -> ModelRef:
        """Return the model, with the version or the label if the query names one.

        Raise UnknownModelError, also for the reader, or InvalidSelectionError for an invalid version and for
        a version together with a label.
        """
        model = self.model(query)
        if model.name == self._reader:
            raise UnknownModelError(f"The model {model.name} finds digits for others; ask another model.")
        version, label = query.get("version"), query.get("label")
        if version is not None and label is not None:
            raise InvalidSelectionError("Parameters `version` and `label` exclude each other.")
        if version is not None:
            number = parse_integer("version", version, 0, MAX_VERSION)
            return ModelRef(model.name, version=number)
        return ModelRef(model.name, label=label) if label else model


def check_names(query: Query, known: Collection[str]) -> None:
    """Raise InvalidSelectionError for a parameter that is not known: a misspelt one would have no effect."""
    for name in query:
        if name not in known:
            names = f"; known: {', '.join(known)}" if known else ""
            raise InvalidSelectionError(f"Unknown parameter `{name[:MAX_NAME]}`{names}.")


def parse_include(query: Query, supported: Collection[str]) -> set[str]:
    """Return what the answer shall include. Raise InvalidSelectionError for an unsupported value."""
    if "include" not in query:
        return set()
    included = set(query["include"].split(","))
    if not included.issubset(supported):
        raise InvalidSelectionError(f"Unsupported value of `include`; supported: {', '.join(supported)}.")
    return included


def parse_top(query: Query) -> int | None:
    """Return the number of classes that each prediction shall list, None for all of them."""
    return parse_integer("top", query["top"], 1, MAX_TOP) if "top" in query else None


def parse_min_is_digit(query: Query) -> float:
    """Return the least `is_digit` of a digit."""
    text = query.get("min_is_digit")
    return MIN_IS_DIGIT if text is None else parse_probability("min_is_digit", text)


def parse_probability(name: str, text: str) -> float:
    """Return the value of a parameter, 0..1. Raise InvalidSelectionError."""
    with suppress(ValueError):
        number = float(text)
        if 0 <= number <= 1:
            return number
    raise InvalidSelectionError(f"Parameter `{name}` must be a number from 0 to 1.")


def parse_integer(name: str, text: str, least: int, largest: int) -> int:
    """Return the value of a parameter. Raise InvalidSelectionError unless it is within the limits."""
    # Check the length first: int() raises ValueError for thousands of digits.
    if text.isascii() and text.isdigit() and len(text) <= len(str(largest)):
        number = int(text)
        if least <= number <= largest:
            return number
    raise InvalidSelectionError(f"Parameter `{name}` must be an integer from {least} to {largest}.")


def read_body(request: Request, limit: int) -> bytes:
    """Return the body, without Werkzeug's get_data, which allocates 64 kB even for a short body.

    Raise UnsupportedMediaType if it is compressed, RequestEntityTooLarge above `limit` bytes.
    """
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding.lower() != "identity":
        # A compressed body of a few kilobytes may hold gigabytes.
        raise UnsupportedMediaType(
            f"Unsupported content encoding {encoding[:MAX_NAME]!r}. Send the body without compression."
        )
    if int(request.environ.get("CONTENT_LENGTH") or 0) > limit:
        raise RequestEntityTooLarge
    return request.environ["wsgi.input"].read()  # type: ignore[no-any-return]


def silence_library_warnings() -> None:
    """Silence Pillow's and NumPy's warnings about malformed uploads: one file can raise thousands."""
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="Reading `.npy`")


class RequestParser:
    """Parses request bodies; long JSON texts one at a time in a thread."""

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._settings = settings
        self._scheduler = scheduler

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

    def pictures(self, body: Body, task: TaskCard, context: RequestContext) -> Pictures:
        """Return the pictures of a body as the task takes them.

        Raise OverloadedError or DeadlineExceededError if checking begins too late.
        """
        if body.instances:
            return self._call(context, body.length, _to_pixels, body.instances, task)
        return Pictures(body.files if body.array is None else body.array)

    def _call(
        self, context: RequestContext, length: int, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Call a function on JSON of this length, in the thread if it takes long."""
        if length <= _MAX_INLINE_JSON:
            return function(*arguments)
        return self._scheduler.run_in_thread(context, function, *arguments)

    def _content(self, request: Request) -> bytes:
        return read_body(request, self._settings.max_body)

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
        return Body(array=array, is_image=len(array) == 1)

    def _check_count(self, count: int) -> None:
        if count > self._settings.max_images:
            raise TooManyImagesError(
                f"A request may hold {self._settings.max_images} images; this request has {count}."
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


def _to_pixels(items: Sequence[Any], task: TaskCard) -> Pictures:
    """Convert instances to float32 [n, *instance_shape], after a check of their shapes and types."""
    rows = []
    errors: dict[int, ImageError] = {}
    for index, item in enumerate(items):
        try:
            rows.append(_to_row(item, task))
        except ImageError as error:
            errors[index] = without_tracebacks(error)
    return Pictures(np.array(rows, np.float32).reshape(len(rows), *task.instance_shape), errors)


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
