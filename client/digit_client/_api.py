"""The gateway's HTTP API as the clients see it: what to send, and what an answer means. Pure."""

import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from digit_client import _inputs
from digit_client._exceptions import (
    DigitError,
    ImageError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_client._inputs import ImageSource
from digit_client._types import Prediction

# Below the gateway's limits of 256 images and 8 MiB a request.
_MOST_IMAGES = 256
_MOST_BYTES = 6 * 1024 * 1024

_IMAGE_ERRORS: dict[str, type[ImageError]] = {error.code: error for error in ImageError.__subclasses__()}
_STATUS_ERRORS = {
    404: ModelNotFoundError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class Body:
    """What one request carries: `arguments` for httpx, and how many images came before it."""

    arguments: dict[str, Any]
    first: int = 0


@dataclass(slots=True)
class _Parts:
    first: int = 0
    size: int = 0
    files: list[tuple[str, tuple[str, bytes, str]]] = field(default_factory=list)


def single(image: ImageSource) -> Body:
    """One image as a request's body."""
    data = _inputs.read(image)
    return Body({"content": data, "headers": {"Content-Type": _inputs.media_type(data)}})


def several(images: Iterable[ImageSource]) -> Iterator[Body]:
    """Any number of images, as few requests as the gateway's limits allow."""
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (28, 28):
        yield from _arrays(images)
        return
    parts = _Parts()
    for position, image in enumerate(images):
        data = _inputs.read(image)
        if parts.files and (len(parts.files) == _MOST_IMAGES or parts.size + len(data) > _MOST_BYTES):
            yield Body({"files": parts.files}, parts.first)
            parts = _Parts(first=position)
        parts.files.append(("image", (f"{position}", data, _inputs.media_type(data))))
        parts.size += len(data)
    if parts.files:
        yield Body({"files": parts.files}, parts.first)


def _arrays(images: np.ndarray[Any, Any]) -> Iterator[Body]:
    for first in range(0, len(images), _MOST_IMAGES):
        buffer = io.BytesIO()
        np.save(buffer, images[first : first + _MOST_IMAGES], allow_pickle=False)
        headers = {"Content-Type": "application/x-npy"}
        yield Body({"content": buffer.getvalue(), "headers": headers}, first)


def read_predictions(status: int, headers: Any, content: bytes, *, first: int = 0) -> list[Prediction]:
    """The predictions of an answer. Raises what an error answer means; `first` shifts its image's index."""
    document = read(status, headers, content, first=first)
    try:
        version = int(document["model"]["version"])
        return [_prediction(item, version) for item in document["predictions"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ServiceError("the answer is not that of a digits gateway", status=status) from error


def _prediction(item: dict[str, Any], version: int) -> Prediction:
    probabilities = tuple(float(probability) for probability in item["probabilities"])
    return Prediction(int(item["digit"]), float(item["confidence"]), probabilities, version)


def read(status: int, headers: Any, content: bytes, *, first: int = 0) -> dict[str, Any]:
    """The JSON document of an answer. Raises what an error answer means."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else None
    if status >= 400:
        raise _error(status, headers, document or {}, first)
    if document is None or status >= 300:
        raise ServiceError("the answer is not that of a digits gateway", status=status)
    return document


def _error(status: int, headers: Any, problem: dict[str, Any], first: int) -> DigitError:
    code = str(problem.get("code", ""))
    message = str(problem.get("detail") or problem.get("title") or f"the service answered with {status}")
    if code in _IMAGE_ERRORS:
        index = problem.get("index")
        return _IMAGE_ERRORS[code](message, index=index + first if isinstance(index, int) else None)
    request_id = problem.get("request_id") or headers.get("x-request-id")
    retry_after = _seconds(headers.get("retry-after"))
    kind = _STATUS_ERRORS.get(status, ServiceError)
    return kind(message, status=status, reason=code or None, request_id=request_id, retry_after=retry_after)


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value) if value else math.nan
    except ValueError:
        # The other form that HTTP allows is a date, which needs both clocks to agree.
        return None
    return seconds if 0 <= seconds < math.inf else None
