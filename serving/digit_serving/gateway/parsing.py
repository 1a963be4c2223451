"""Parsing of requests: query parameters to what they choose, an HTTP body of any form to pictures."""

import base64
import io
import math
import tokenize
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
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
from digit_core.options import (
    Option,
    OptionError,
    Options,
    ReadOptions,
    VersionOptions,
    names,
    parse,
    whole_number,
)
from digit_core.schema import MAX_NUMBERS
from digit_core.tfserving.codec import Batch, ModelRef
from digit_serving.commands import format_size
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.errors import (
    MAX_QUOTED,
    InvalidSelectionError,
    MalformedBodyError,
    TooManyImagesError,
    UnknownModelError,
)
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import Settings

_NUMBER_COST = 4
"""Cost of a number of an instance to convert, in bytes that are parsed in the same time."""
_ITEM_COST = 100
"""Cost of an item of an option's list to check, such as a valid number."""
_CHARACTER_COST = 300
"""Cost of a character of a pattern to parse: 64 fields of 200 digits take 43 ms."""
_HEAD_COST = 20
"""Cost of a byte of the heads of a form's parts: Werkzeug parses their parameters in Python."""
MAX_FIELDS = 80
"""Most fields of a form beside its pictures, and members of a JSON body: 64 boxes, and some options."""


class ModelQuery(TypedDict, total=False):
    """Query that chooses a model."""

    model: Annotated[str | None, Option("Name of the model.", {"type": "string"})]


class PredictQuery(ModelQuery, VersionOptions, total=False):
    """Query of /v1/predict, whose answers in JSON have more than a client's prediction."""

    include: Annotated[
        Sequence[str] | None,
        Option(
            "Include the model's input image, the probability of each label, or of a request with one image "
            "the activations of each layer.",
            names("image", "labels", "layers"),
            (),
        ),
    ]
    top: Annotated[
        int | None,
        Option(
            "Number of the most probable classes listed in `top`, instead of `probabilities`.",
            whole_number(1, 1000),
        ),
    ]


class ReadQuery(ModelQuery, ReadOptions, total=False):
    """Query of /v1/read."""


def parse_options(kind: Any, request: Request, body: Mapping[str, Any] = MappingProxyType({})) -> Options:
    """Return the options of the query and of a body. Raise InvalidSelectionError."""
    if not request.query_string and not body:
        return _no_options(kind)
    query = _values(request.args) if request.query_string else {}
    try:
        if twice := query.keys() & body.keys():
            raise OptionError(min(twice), "it is in the query and in the body; say it once")
        if "model" in body:
            raise OptionError("model", "name the model in the query")
        if "form" in query:
            raise OptionError("form", "send the form in the body, as a field of a form, or in JSON")
        return parse(kind, {**query, **body})
    except OptionError as error:
        place = "Field" if error.name.partition(".")[0] in body else "Parameter"
        raise InvalidSelectionError(f"{place} `{error.name[:MAX_QUOTED]}`: {error.reason}.") from error


def _values(texts: MultiDict[str, str]) -> dict[str, str | list[str]]:
    """Return the text of each name, or a list of those of a name that comes several times."""
    lists = dict(texts.lists())
    # A field of a form may have no name.
    return {name or "": values if len(values) > 1 else values[0] for name, values in lists.items()}


@cache
def _no_options(kind: Any) -> Options:
    return parse(kind, {})


_model_ref = lru_cache(256)(ModelRef)


def select_model(options: Options, settings: Settings) -> ModelRef:
    """Return the model that the options name, with the version or the label. Raise UnknownModelError."""
    name = settings.model_name if options["model"] is None else options["model"]
    if name not in settings.models and not ("*" in settings.model_names and NAME.fullmatch(name)):
        raise UnknownModelError(f"Parameter `model` must be one of: {', '.join(settings.models)}.")
    if name == settings.reader and "version" in options:
        raise UnknownModelError(f"The model {name} finds digits for others; ask another model.")
    return _model_ref(name, options.get("version"), options.get("label") or None)


def parse_selection(kind: Any, request: Request, settings: Settings) -> tuple[Options, ModelRef]:
    """Return the options of the query, and the model that they name. Raise as the functions above do."""
    options = parse_options(kind, request)
    return options, select_model(options, settings)


@dataclass(frozen=True, slots=True)
class Body:
    """Pictures of a request, at least one, and the options beside them."""

    content: Sequence[bytes | ImageError] | Batch
    """Pictures as Recognition takes them: files, with errors in the places of those that can't be used, or an
    array."""
    errors: Mapping[int, ImageError] = field(default_factory=dict)
    """Errors of instances that are not in the content, by position."""
    is_image: bool = False
    """True if the body is one image: its error is that of the request."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Members of a JSON body, or fields of a form, beside the pictures."""
    instances: bytes = b""
    """Instances of a JSON body, in JSON, which become the content by the card of the model."""

    def __len__(self) -> int:
        """Return the number of pictures; instances count once they are the content."""
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
    """Parses request bodies, and the options in them; long ones one at a time in a thread."""

    def __init__(self, settings: Settings, work: Work) -> None:
        self._max_body, self._max_images = settings.max_body, settings.max_images
        self._work = work

    def parse(self, request: Request, context: RequestContext) -> Body:
        """Return the request's pictures, at most `max_images`, and the options beside them.

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
            files, fields = self.parse_form(request, context)
            return Body(files, options=_values(fields))
        if media_type == "application/json":
            data = read_body(request, self._max_body)
            return self._work.run(context, len(data), self._from_json, data)
        raise UnsupportedMediaType(
            "Unsupported media type. Send one image as image/*, "
            "several as multipart/form-data, application/json or application/x-npy."
        )

    def to_inputs(self, body: Body, task: TaskCard, context: RequestContext) -> Body:
        """Return the body with its instances as inputs of a model of the task. Raise what `parse` does."""
        numbers = self._max_images * math.prod(task.instance_shape)
        # Each number may begin a list of each dimension.
        check_values(body.instances, numbers * (1 + len(task.instance_shape)) + 1)
        cost = len(body.instances) + _NUMBER_COST * body.instances.count(b",")
        return self._work.run(context, cost, self._to_inputs, body.instances, task)

    def options(self, kind: Any, request: Request, body: Body, context: RequestContext) -> Options:
        """Return the options of query and body. Raise InvalidSelectionError, and as `parse` does."""
        cost = sum(map(_cost, body.options.values()))
        return self._work.run(context, cost, parse_options, kind, request, body.options)

    def parse_form(
        self, request: Request, context: RequestContext
    ) -> tuple[list[bytes], MultiDict[str, str]]:
        """Return the files of the parts `image`, at least one, and the fields. Raise what `parse` does."""
        body = read_body(request, self._max_body)
        delimiter = b"--" + request.mimetype_params.get("boundary", "").encode()
        # Each part follows a delimiter, and a last one ends the form.
        count = body.count(delimiter) - 1
        if count > self._max_images + MAX_FIELDS:
            self._check_count(count)
        heads = sum(map(_head_size, body.split(delimiter)))
        return self._work.run(context, len(body) + _HEAD_COST * heads, self._parse_form, request)

    def _parse_form(self, request: Request) -> tuple[list[bytes], MultiDict[str, str]]:
        request.environ["wsgi.input"].seek(0)
        _, fields, files = parse_form_data(
            request.environ,
            # The body is in memory: Werkzeug's temporary files would copy it to disk, and stay open in a
            # form that ends early.
            _open_part,
            max_form_memory_size=request.max_form_memory_size,
            max_form_parts=request.max_form_parts,
        )
        images = files.getlist("image")
        if not images:
            raise MalformedBodyError("The form has no file part named `image`.")
        # A part may have no name.
        if others := {str(name or "")[:MAX_QUOTED] for name in files if name != "image"}:
            raise MalformedBodyError(
                f"The form has a file part named `{min(others)}`; name each picture `image`. With curl, a "
                f"text from a file is `-F '{min(others)}=<FILE'`."
            )
        self._check_count(len(images))
        return [image.read() for image in images], fields

    def _from_json(self, data: bytes) -> Body:
        """Return the files of {"images": …}, or the JSON of {"instances": …}, with the other members."""
        # Beside instances, which have no texts: the pictures, each perhaps a data: URL, and valid numbers.
        most = 2 * (self._max_images + MAX_NUMBERS)
        _check(data.count(b'"') // 2, most)
        try:
            members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError:
            members = {}
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise MalformedBodyError(f"The body is not valid JSON: {error}.") from error
        keys = {"images", "instances"} & members.keys()
        if len(keys) != 1:
            raise MalformedBodyError(
                'The body must be {"images": [base64, …]} or {"instances": [[numbers], …]}.'
            )
        if len(members) > MAX_FIELDS:
            raise MalformedBodyError(f"The body has {len(members):,} members of at most {MAX_FIELDS}.")
        instances = bytes(members.pop("instances", b""))
        texts = {name: bytes(value) for name, value in members.items()}
        check_values(b",".join(texts.values()), most)
        others = {name: load_json(text) for name, text in texts.items()}
        if instances:
            return Body((), options=others, instances=instances)
        items = self._items("images", others.pop("images"))
        if not all(isinstance(item, str) for item in items):
            raise MalformedBodyError("The field `images` must be a list of base64 strings.")
        return Body([*map(from_base64, items)], options=others)

    def _items(self, name: str, items: Any) -> list[Any]:
        if not isinstance(items, list) or not items:
            raise MalformedBodyError(f"The field `{name}` must be a list with at least one item.")
        self._check_count(len(items))
        return items

    def _to_inputs(self, instances: bytes, task: TaskCard) -> Body:
        return _to_inputs(self._items("instances", load_json(instances)), task)

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


def _cost(option: Any) -> int:
    """Return the cost of checking an option's value; that of a form is the cost of all its fields."""
    if isinstance(option, Mapping):
        return sum(map(_cost, option.values())) + _ITEM_COST * len(option)
    if isinstance(option, str):
        return _CHARACTER_COST * len(option)
    return _ITEM_COST * len(option) if isinstance(option, list) else 0


def _head_size(part: bytes) -> int:
    """Return the bytes of a part up to its first blank line, all of them without one."""
    size = len(part)
    for blank_line in (b"\r\n\r\n", b"\r\r", b"\n\n"):
        # Not in the picture, which follows the head.
        found = part.find(blank_line, 0, size + 1)
        size = found if found >= 0 else size
    return size


def _open_part(*_: object, **__: object) -> io.BytesIO:
    """Return the file to which Werkzeug writes a part of a form."""
    return io.BytesIO()


def check_values(data: bytes, most: int) -> None:
    """Raise RequestEntityTooLarge if JSON may have more values: each follows a comma or a bracket.

    Lists and objects take far longer to make than their bytes to count, and nothing else runs meanwhile.
    """
    _check(sum(map(data.count, (b",", b"[", b"{"))), most)


def _check(values: int, most: int) -> None:
    if values > most:
        raise RequestEntityTooLarge(f"The body has more than {most:,} values in JSON.")


def load_json(data: bytes) -> Any:
    """Return the document. Raise MalformedBodyError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedBodyError(f"The body is not valid JSON: {error}.") from error


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
