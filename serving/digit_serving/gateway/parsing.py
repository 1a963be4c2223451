"""Parsing of requests: query parameters to what they choose, an HTTP body of any form to pictures."""

import base64
import io
import tokenize
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from werkzeug import Request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.formparser import parse_form_data

from digit_core.artifact.task_card import NAME, TaskCard
from digit_core.errors import (
    ImageError,
    ImageShapeError,
    NotAnImageError,
    PixelValueError,
    without_tracebacks,
)
from digit_core.reading.expectations import MAX_PATTERN, Expectation, parse_expectation
from digit_core.results import MIN_IS_DIGIT, parse_box
from digit_core.tfserving.codec import Batch, ModelRef
from digit_serving.commands import format_size
from digit_serving.gateway.errors import (
    MAX_QUOTED,
    InvalidSelectionError,
    MalformedBodyError,
    TooManyImagesError,
    UnknownModelError,
)
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.schemas import Share
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.work import Work

_MAX_INLINE_JSON = 1_000_000
"""Bytes of JSON above which a thread parses the body."""


def _require_digits(text: str) -> str:
    """Refuse other notations of integers, such as "+1" and "1_0", which Pydantic takes."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("Input should be a valid integer")
    return text


def _split_at_commas(text: str) -> list[str]:
    return text.split(",")


_Digits = BeforeValidator(_require_digits)
_Box = Annotated[
    Any, BeforeValidator(parse_box), WithJsonSchema({"type": "string", "examples": ["12,8,200,40"]})
]
_parse_expectation = lru_cache(256)(parse_expectation)


class Query(BaseModel):
    """Query parameters of an operation, as the OpenAPI document describes them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    repeated: ClassVar[frozenset[str]] = frozenset()
    """Names of the parameters that may come several times."""


class ModelQuery(Query):
    """Query that chooses a model."""

    model: str | None = None
    """Name of the model."""


class VersionQuery(ModelQuery):
    """Query that chooses a version of a model."""

    version: (
        Annotated[int, Field(ge=0, le=2**63 - 1, json_schema_extra={"format": "int64"}), _Digits] | None
    ) = None
    """Version of the model."""
    label: str | None = None
    """Label of a version of the model; excludes `version`."""
    min_is_digit: Share = MIN_IS_DIGIT
    """Least `is_digit` of a digit: models of digits refuse what has less. A higher value refuses more of what
    is no digit, and more digits."""


class PredictQuery(VersionQuery):
    """Query of /v1/predict."""

    include: Annotated[
        tuple[Literal["image", "labels", "layers"], ...],
        Field(min_length=1),
        BeforeValidator(_split_at_commas),
    ] = ()
    """Include the model's input image, the probability of each label, or of a request with one image the
    activations of each layer."""
    top: Annotated[int, Field(ge=1, le=1000), _Digits] | None = None
    """Number of the most probable classes listed in `top`, instead of `probabilities`."""


class ReadQuery(VersionQuery):
    """Query of /v1/read."""

    repeated = frozenset({"box"})

    include: Annotated[
        tuple[Literal["image", "opinions"], ...], Field(min_length=1), BeforeValidator(_split_at_commas)
    ] = ()
    """Include the model's input of each digit, or what each network alone takes it for."""
    expect: Annotated[str, Field(max_length=MAX_PATTERN, examples=["##/##/####"])] | None = None
    """Pattern of the number, of which the most probable one is read, or none: `#` stands for a digit, `#{4}`
    and `#{4,6}` for so many, digits and signs for themselves, `|` parts alternatives; `date` and `amount`
    name common patterns. A list of valid numbers is the member `expect` of a JSON body."""
    check: Annotated[str, Field(max_length=MAX_PATTERN, examples=["luhn"])] | None = None
    """Check of the number's digits: `luhn`, `mod11`, `mod97`, or a range such as `0..9999` or `48210..`."""
    min_confidence: Share | None = None
    """Least confidence of a reading, which is `unsure` below it."""
    box: Annotated[tuple[_Box, ...], Field(min_length=1)] = ()
    """Part of each image that is read: left,top,width,height, in pixels of the image. Repeat it for more
    parts: each has a reading, those of an image after another."""
    turn: Literal["auto"] | None = None
    """`auto` reads an image that is not upright as its `orientation` says."""

    def expectation(self, numbers: Expectation | None) -> Expectation | None:
        """Return the expectation, of these numbers of the body or of the query.

        Raise InvalidSelectionError with the place of a mistake.
        """
        if numbers and (self.expect is not None or self.check is not None):
            raise InvalidSelectionError("A list of numbers takes no parameter `expect` or `check`.")
        if self.expect is None and self.check is None:
            return numbers
        name = "check"
        try:
            if self.check is not None:
                _parse_expectation(None, self.check)
            name = "expect"
            return _parse_expectation(self.expect, self.check)
        except ValueError as error:
            raise InvalidSelectionError(f"Parameter `{name}`: {error}.") from error


class UnlabelledQuery(ModelQuery):
    """Query of pictures that wait for a label."""

    limit: Annotated[int, Field(ge=1, le=100), _Digits] = 20
    """Largest number of pictures."""


_Query = TypeVar("_Query", bound=Query)
_Selection = TypeVar("_Selection", bound=ModelQuery)


def parse_query(kind: type[_Query], request: Request) -> _Query:
    """Return the query. Raise InvalidSelectionError, also for a name that is misspelt or comes twice."""
    if not request.query_string:
        return _default(kind)  # type: ignore[no-any-return]
    parameters = request.args
    for name, values in parameters.lists():
        if len(values) > 1 and name not in kind.repeated:
            raise InvalidSelectionError(f"Parameter `{name[:MAX_QUOTED]}` comes {len(values)} times.")
    try:
        lists = {name: parameters.getlist(name) for name in kind.repeated & parameters.keys()}
        return kind.model_validate(parameters.to_dict() | lists)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])[:MAX_QUOTED]
        if first["type"] == "extra_forbidden":
            known = f"; known: {', '.join(kind.model_fields)}" if kind.model_fields else ""
            raise InvalidSelectionError(f"Unknown parameter `{name}`{known}.") from error
        reason = first["msg"].removeprefix("Value error, ")
        raise InvalidSelectionError(f"Parameter `{name}`: {reason}.") from error


@cache
def _default(kind: type[Any]) -> Any:
    return kind()


_model_ref = lru_cache(256)(ModelRef)


def parse_selection(
    kind: type[_Selection], request: Request, settings: Settings
) -> tuple[_Selection, ModelRef]:
    """Return the query and the model that it names, with the version or the label of a VersionQuery.

    Raise UnknownModelError if the settings don't permit the model, InvalidSelectionError as `parse_query`,
    and for a version together with a label.
    """
    query = parse_query(kind, request)
    name = settings.model_name if query.model is None else query.model
    if name not in settings.models and not ("*" in settings.model_names and NAME.fullmatch(name)):
        raise UnknownModelError(f"Parameter `model` must be one of: {', '.join(settings.models)}.")
    if not isinstance(query, VersionQuery):
        return query, _model_ref(name)
    if name == settings.reader:
        raise UnknownModelError(f"The model {name} finds digits for others; ask another model.")
    if query.version is not None and query.label is not None:
        raise InvalidSelectionError("Parameters `version` and `label` exclude each other.")
    return query, _model_ref(name, query.version, query.label or None)


@dataclass(frozen=True, slots=True)
class Body:
    """Pictures of a request, at least one."""

    content: Sequence[bytes | ImageError] | Batch
    """Pictures as Recognition takes them: files, with errors in the places of those that can't be used, or an
    array."""
    errors: Mapping[int, ImageError] = field(default_factory=dict)
    """Errors of instances that are not in the content, by position."""
    is_image: bool = False
    """True if the body is one image: its error is that of the request."""
    expectation: Expectation | None = None
    """Valid numbers, of a JSON body with a list of them."""

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.content) + len(self.errors)

    def picture(self, index: int) -> bytes | NDArray[Any]:
        """Return a picture that has a result."""
        picture = self.content[index - sum(position < index for position in self.errors)]
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
    stream = request.environ["wsgi.input"]
    # The body is parsed again if another version answers.
    stream.seek(0)
    return stream.read()  # type: ignore[no-any-return]


def silence_library_warnings() -> None:
    """Silence Pillow's and NumPy's warnings about malformed uploads: one file can raise thousands."""
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="Reading `.npy`")


class BodyParser:
    """Parses request bodies; long JSON texts one at a time in a thread."""

    def __init__(self, settings: Settings, work: Work) -> None:
        self._max_body, self._max_images = settings.max_body, settings.max_images
        self._work = work

    def parse(self, request: Request, task: TaskCard, context: RequestContext) -> Body:
        """Return the request's pictures, at most `max_images`, for a model of the task.

        Raise MalformedBodyError, TooManyImagesError, ImageShapeError, UnsupportedMediaType or
        RequestEntityTooLarge; OverloadedError or DeadlineExceededError if parsing begins too late.
        """
        media_type = request.mimetype
        if media_type.startswith("image/"):
            return Body([read_body(request, self._max_body)], is_image=True)
        if media_type in ("application/octet-stream", "application/x-npy", ""):
            data = read_body(request, self._max_body)
            # The bytes of an untyped body tell its format.
            if media_type == "application/x-npy" or data.startswith(np.lib.format.MAGIC_PREFIX):
                return self._from_npy(data)
            return Body([data], is_image=True)
        if media_type == "multipart/form-data":
            return Body(self.parse_form(request)[0])
        if media_type == "application/json":
            data = read_body(request, self._max_body)
            if len(data) <= _MAX_INLINE_JSON:
                return self._from_json(data, task)
            return self._work.run_in_thread(context, self._from_json, data, task)
        raise UnsupportedMediaType(
            "Unsupported media type. Send one image as image/*, "
            "several as multipart/form-data, application/json or application/x-npy."
        )

    def parse_form(self, request: Request) -> tuple[list[bytes], MultiDict[str, str]]:
        """Return the files of the parts `image`, at least one, and the fields. Raise what `parse` does."""
        boundary = request.mimetype_params.get("boundary", "").encode()
        # Each part follows a delimiter, and a last one ends the form.
        self._check_count(read_body(request, self._max_body).count(b"--" + boundary) - 1)
        request.environ["wsgi.input"].seek(0)
        _, fields, files = parse_form_data(
            request.environ,
            # The body is in memory: Werkzeug's temporary files would copy it to disk, and stay open in a
            # form that ends early.
            _open_part,
            max_form_memory_size=request.max_form_memory_size,
            max_form_parts=request.max_form_parts,
        )
        parts = files.getlist("image")
        if not parts:
            raise MalformedBodyError("The form has no file part named `image`.")
        return [part.read() for part in parts], fields

    def _from_json(self, data: bytes, task: TaskCard) -> Body:
        """Return the files of {"images": …}, or the items of {"instances": …} as inputs of the model."""
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise MalformedBodyError(f"The body is not valid JSON: {error}.") from error
        keys = {"images", "instances"} & document.keys() if isinstance(document, dict) else set()
        if len(keys) != 1:
            raise MalformedBodyError(
                'The body must be {"images": [base64, …]} or {"instances": [[numbers], …]}.'
            )
        (key,) = keys
        items = document[key]
        if not isinstance(items, list) or not items:
            raise MalformedBodyError(f"The field `{key}` must be a list with at least one item.")
        self._check_count(len(items))
        if key == "instances":
            return _to_inputs(items, task)
        if not all(isinstance(item, str) for item in items):
            raise MalformedBodyError("The field `images` must be a list of base64 strings.")
        return Body([*map(from_base64, items)], expectation=_expectation(document.get("expect")))

    def _from_npy(self, data: bytes) -> Body:
        array = _load_npy(data)
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


def _expectation(numbers: object) -> Expectation | None:
    """Return the expectation of a list of valid numbers. Raise MalformedBodyError."""
    if numbers is None:
        return None
    if not isinstance(numbers, list):
        raise MalformedBodyError("The field `expect` must be a list of numbers, as texts of digits.")
    try:
        return parse_expectation(numbers)
    except ValueError as error:
        raise MalformedBodyError(f"The field `expect`: {error}.") from error


def _open_part(*_: object, **__: object) -> io.BytesIO:
    """Return the file to which Werkzeug writes a part of a form."""
    return io.BytesIO()


def from_base64(text: str) -> bytes | ImageError:
    """Return the file in base64, also as a data: URL, or the error of another text."""
    # A browser's canvas exports its picture as a data: URL.
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return NotAnImageError("the text is not base64")


def _to_inputs(items: Sequence[Any], task: TaskCard) -> Body:
    """Convert instances to float32 [n, *instance_shape], with errors for those of other shapes and types."""
    rows = []
    errors: dict[int, ImageError] = {}
    for index, item in enumerate(items):
        try:
            rows.append(_to_row(item, task))
        except ImageError as error:
            errors[index] = without_tracebacks(error)
    return Body(np.array(rows, np.float32).reshape(len(rows), *task.instance_shape), errors)


def _to_row(item: Any, task: TaskCard) -> NDArray[np.float32]:
    """Return an instance as float32 [*], flat. Raise ImageShapeError or PixelValueError."""
    (low, high), shape = task.range, task.instance_shape
    kind = f"a list of {shape[0]}" if len(shape) == 1 else f"nested lists of {'×'.join(map(str, shape))}"
    numbers = [item]
    for size in shape:
        if not all(type(part) is list and len(part) == size for part in numbers):
            raise ImageShapeError(f"an instance must be {kind} numbers")
        numbers = list(chain.from_iterable(numbers))
    # Check the types: NumPy would convert "0.5" and true to numbers.
    if not {int, float}.issuperset(map(type, numbers)):
        raise PixelValueError(f"an instance must be {kind} numbers")
    pixels = np.array(numbers, dtype=np.float64)
    if pixels.min() < low or pixels.max() > high:
        raise PixelValueError(f"the numbers of an instance must lie in {low:g}..{high:g}")
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
