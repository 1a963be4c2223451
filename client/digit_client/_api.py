"""Codec of the gateway's HTTP API: images to request bodies, responses to results or errors."""

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import _inputs
from digit_client._exceptions import (
    DigitError,
    ImageError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    SeveralDigitsError,
    UnavailableError,
)
from digit_client._inputs import ImageSource
from digit_client._types import Box, Digit, Line, Prediction, Reading

# Within the gateway's default limits of 256 images and 8 MiB a request.
_MAX_IMAGES = 256
_MAX_BYTES = 6 * 1024 * 1024

_IMAGE_ERRORS: dict[str, type[ImageError]] = {error.code: error for error in ImageError.__subclasses__()}
_SERVICE_ERRORS: dict[str, type[ServiceError]] = {
    error.code: error for error in ServiceError.__subclasses__()
}
# A proxy's error has no code of ours.
_STATUS_ERRORS = {
    404: ModelNotFoundError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RequestBody:
    """Body of one request for predictions or readings.

    `arguments` are keyword arguments for httpx; `first_index` is the position of the body's first image among
    all images of the call.
    """

    arguments: dict[str, Any]
    first_index: int = 0


@dataclass(frozen=True, slots=True)
class _Model:
    """Version that answered, and the labels of its classes."""

    version: int
    labels: tuple[str, ...]


@dataclass(slots=True)
class _MultipartBatch:
    first_index: int = 0
    size: int = 0
    files: list[tuple[str, tuple[str, bytes, str]]] = field(default_factory=list)


def auth_headers(api_key: str | None) -> dict[str, str]:
    """Return the Authorization header for the API key, or no header without a key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def version_query(version: int | None, label: str | None) -> dict[str, str]:
    """Return the query parameters that select the version. Raise ValueError for a number and a label."""
    if version is not None and label is not None:
        raise ValueError("name a version or a label, not both")
    if version is not None:
        return {"version": str(version)}
    return {"label": label} if label is not None else {}


def encode_image(image: ImageSource) -> RequestBody:
    """Return the body of a request for one image."""
    data = _inputs.read_source(image)
    return RequestBody({"content": data, "headers": {"Content-Type": _inputs.media_type(data)}})


def encode_batches(images: Iterable[ImageSource]) -> Iterator[RequestBody]:
    """Yield request bodies for the images, as few as the gateway's limits allow.

    An array that may be a batch in the model's form is sent as npy, everything else as multipart.
    """
    if _inputs.is_batch(images) and images[:1].nbytes <= _MAX_BYTES:
        yield from _encode_array(images)
        return
    batch = _MultipartBatch()
    for index, image in enumerate(images):
        data = _inputs.read_source(image)
        if batch.files and (len(batch.files) == _MAX_IMAGES or batch.size + len(data) > _MAX_BYTES):
            yield RequestBody({"files": batch.files}, batch.first_index)
            batch = _MultipartBatch(first_index=index)
        batch.files.append(("image", (f"{index}", data, _inputs.media_type(data))))
        batch.size += len(data)
    if batch.files:
        yield RequestBody({"files": batch.files}, batch.first_index)


def parse_predictions(
    status: int, headers: Mapping[str, str], content: bytes, *, first_index: int = 0
) -> list[Prediction]:
    """Return the predictions in a response. Raise the DigitError that an error response describes.

    `first_index` is added to the index of the image in an ImageError.
    """
    document = parse_document(status, headers, content, first_index=first_index)
    return _parse_items(document, "predictions", _parse_prediction, status)


def parse_readings(
    status: int, headers: Mapping[str, str], content: bytes, *, first_index: int = 0
) -> list[Reading]:
    """Return the readings in a response, as `parse_predictions` returns predictions."""
    document = parse_document(status, headers, content, first_index=first_index)
    return _parse_items(document, "readings", _parse_reading, status)


def parse_document(
    status: int, headers: Mapping[str, str], content: bytes, *, first_index: int = 0
) -> dict[str, Any]:
    """Return the JSON object in a response. Raise the DigitError that an error response describes."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else None
    if status >= 400:
        raise _parse_problem(status, headers, document or {}, first_index)
    if document is None or status >= 300:
        raise ServiceError("the response does not come from a digits gateway", status=status)
    return document


def _encode_array(images: NDArray[np.uint8]) -> Iterator[RequestBody]:
    size = min(_MAX_IMAGES, _MAX_BYTES // max(1, images[:1].nbytes))
    for first_index in range(0, len(images), size):
        buffer = io.BytesIO()
        np.save(buffer, images[first_index : first_index + size], allow_pickle=False)
        headers = {"Content-Type": "application/x-npy"}
        yield RequestBody({"content": buffer.getvalue(), "headers": headers}, first_index)


def _parse_items(
    document: dict[str, Any], key: str, parse: Callable[[dict[str, Any], _Model], _Result], status: int
) -> list[_Result]:
    try:
        model = _parse_model(document["model"])
        return [parse(item, model) for item in document[key]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServiceError("the response does not come from a digits gateway", status=status) from error


def _parse_model(model: dict[str, Any]) -> _Model:
    return _Model(int(model["version"]), tuple(map(str, model["labels"])))


def _parse_prediction(item: dict[str, Any], model: _Model) -> Prediction:
    index, probabilities, is_digit = int(item["index"]), _parse_probabilities(item), item.get("is_digit")
    if len(probabilities) != len(model.labels) or not 0 <= index < len(model.labels):
        raise ValueError("the prediction does not match the model's labels")
    return Prediction(
        index,
        float(item["confidence"]),
        probabilities,
        model.labels,
        model.version,
        None if is_digit is None else float(is_digit),
    )


def _parse_reading(item: dict[str, Any], model: _Model) -> Reading:
    return Reading(str(item["text"]), tuple(map(_parse_line, item["lines"])), model.version)


def _parse_line(item: dict[str, Any]) -> Line:
    return Line(str(item["text"]), _parse_box(item), tuple(map(_parse_digit, item["digits"])))


def _parse_digit(item: dict[str, Any]) -> Digit:
    return Digit(int(item["digit"]), float(item["confidence"]), _parse_probabilities(item), _parse_box(item))


def _parse_probabilities(item: dict[str, Any]) -> tuple[float, ...]:
    return tuple(map(float, item["probabilities"]))


def _parse_box(item: dict[str, Any]) -> Box:
    left, top, width, height = map(int, item["box"])
    return left, top, width, height


def _parse_problem(
    status: int, headers: Mapping[str, str], problem: dict[str, Any], first_index: int
) -> DigitError:
    """Convert a problem document (RFC 9457) to an error."""
    code = str(problem.get("code", ""))
    message = str(problem.get("detail") or problem.get("title") or f"the service answered with {status}")
    if code in _IMAGE_ERRORS:
        image_error, index = _IMAGE_ERRORS[code](message), problem.get("index")
        image_error.index = index + first_index if isinstance(index, int) else None
        if isinstance(image_error, SeveralDigitsError):
            image_error.count = problem.get("count")
        return image_error
    error_class = _SERVICE_ERRORS.get(code) or _STATUS_ERRORS.get(status, ServiceError)
    return error_class(
        message,
        status=status,
        reason=code or None,
        request_id=problem.get("request_id") or headers.get("x-request-id"),
        retry_after=_parse_retry_after(headers.get("retry-after")),
    )


def _parse_retry_after(value: str | None) -> float | None:
    """Return the seconds in a Retry-After header; None for a date, which needs synchronised clocks."""
    try:
        seconds = float(value) if value else math.nan
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
