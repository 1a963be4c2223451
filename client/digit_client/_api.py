"""Codec of the gateway's HTTP API: images to request bodies, responses to results or errors."""

import base64
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np

from digit_client import _batches
from digit_client._batches import Batch
from digit_client._options import Feedback, Models, Options
from digit_core import inputs as _inputs
from digit_core.artifact.task_card import TaskCard
from digit_core.errors import (
    AuthenticationError,
    DigitError,
    ImageError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_core.inputs import ImageSource
from digit_core.results import Box, Digit, Line, ModelVersion, Orientation, Prediction, Reading, Refusal

# Within the gateway's default limit of 8 MiB a request.
_MAX_BYTES = 6 * 1024 * 1024

_IMAGE_ERRORS: dict[str, type[ImageError]] = {error.code: error for error in ImageError.__subclasses__()}
_SERVICE_ERRORS: dict[str, type[ServiceError]] = {
    error.code: error for error in ServiceError.__subclasses__()
}
# A proxy's error has no code of ours.
_STATUS_ERRORS: dict[int, type[ServiceError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}

_Result = TypeVar("_Result")


def auth_headers(api_key: str | None) -> dict[str, str]:
    """Return the Authorization header for the API key, or no header without a key.

    Raise ValueError for a key that no header can hold, without the key in the message.
    """
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("the API key has a line break or another character that no header can hold")
    return {"Authorization": f"Bearer {api_key}"}


def query(options: Options) -> dict[str, str]:
    """Return the query parameters of the options."""
    values = {name: getattr(options, name) for name in ("version", "label", "min_is_digit", "include")}
    return {name: str(value) for name, value in values.items() if value is not None}


def encode_image(image: ImageSource) -> dict[str, Any]:
    """Return httpx's keyword arguments for the body of a request for one image."""
    data = _inputs.read_source(image)
    return {"content": data, "headers": {"Content-Type": _inputs.media_type(data)}}


def encode_feedback(
    answer: Prediction | Reading | str, label: str | int | None, index: int | None
) -> dict[str, Any]:
    """Return httpx's keyword arguments for the body of a request that says whether an answer is right.

    Raise ValueError for an answer without a request ID.
    """
    if isinstance(answer, str):
        request_id, position = answer, 0
    elif answer.request_id:
        request_id, position = answer.request_id, answer.request_index
    else:
        raise ValueError("the answer has no request ID: it does not come from a gateway")
    verdict = {"is": "right"} if label is None else {"label": str(label)}
    position = position if index is None else index
    return {"json": {"request_id": request_id, "index": position} | verdict}


def split(images: Iterable[ImageSource], max_files: int) -> Iterator[Batch]:
    """Yield the images of each request, of at most `max_files` files."""
    return _batches.split(images, _inputs.read_source, max_files, _MAX_BYTES)


def encode_batch(batch: Batch) -> dict[str, Any]:
    """Return httpx's keyword arguments for a request's body: npy for an array, multipart for files."""
    if isinstance(batch.images, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, batch.images, allow_pickle=False)
        return {"content": buffer.getvalue(), "headers": {"Content-Type": "application/x-npy"}}
    files = [(index, data) for index, data in enumerate(batch.images, batch.start) if isinstance(data, bytes)]
    return {"files": [("image", (f"{index}", data, _inputs.media_type(data))) for index, data in files]}


def parse_response(
    parse: Callable[[dict[str, Any]], _Result], status: int, headers: Mapping[str, str], content: bytes
) -> _Result:
    """Return what `parse` makes of the JSON object in a response.

    Raise the DigitError that an error response describes, ServiceError for what is no response of a gateway.
    """
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if status >= 400:
        raise _parse_problem(status, headers, document if isinstance(document, dict) else {})
    if status >= 300:
        target = headers.get("location", "another URL")
        raise ServiceError(f"the service redirects to {target}; use the gateway's own URL", status=status)
    kind = headers.get("content-type", "no content type").partition(";")[0]
    if not isinstance(document, dict) and kind != "application/json":
        raise ServiceError(
            f"the service answered with {kind} instead of JSON: is this the URL of a Digits gateway?",
            status=status,
        )
    try:
        return parse(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServiceError("the response does not come from a Digits gateway", status=status) from error


def parse_models(document: dict[str, Any]) -> Models:
    """Return the model in a response's document."""
    task = document["task"]
    return Models(
        name=str(document["name"]),
        versions=tuple(
            ModelVersion(int(item["version"]), str(item["state"])) for item in document["versions"]
        ),
        labels={str(label): int(version) for label, version in document["labels"].items()},
        task=None if task is None else TaskCard.from_document(task),
        models=tuple(map(str, document["models"])),
        request_id=_parse_request_id(document),
    )


def parse_feedback(document: dict[str, Any]) -> Feedback:
    """Return what the service keeps."""
    kept = document["feedback"]
    return Feedback(str(kept["request_id"]), int(kept["index"]), int(kept["inputs"]), bool(kept["original"]))


def _parse_items(
    key: str,
    parse: Callable[[dict[str, Any], int, tuple[str, ...]], Any],
    document: dict[str, Any],
    *,
    indices: Sequence[int | None] = (None,),
) -> list[Any]:
    """Return the result of each image in a response's document, or its error.

    `indices` are the positions of the request's images among all of the call, for the index of an ImageError.
    """
    version, labels = int(document["model"]["version"]), tuple(map(str, document["model"]["labels"]))
    request_id, items = _parse_request_id(document), document[key]
    if len(items) != len(indices):
        raise ServiceError(f"the service gave {len(items)} answers for {len(indices)} images", status=200)
    results: list[Any] = []
    for position, (index, item) in enumerate(zip(indices, items, strict=True)):
        if "error" in item:
            # A picture's error is in a response of status 200.
            error = _parse_problem(200, {"x-request-id": request_id}, item["error"])
            if isinstance(error, ImageError):
                error.index = index
            results.append(error)
        else:
            result = parse(item, version, labels)
            results.append(replace(result, request_id=request_id, request_index=position))
    return results


def _parse_request_id(document: dict[str, Any]) -> str | None:
    request_id = document.get("request_id")
    return None if request_id is None else str(request_id)


def _parse_prediction(item: dict[str, Any], version: int, labels: tuple[str, ...]) -> Prediction:
    index, probabilities, refusal = int(item["index"]), _parse_probabilities(item), item.get("refusal")
    if len(probabilities) != len(labels) or not 0 <= index < len(labels):
        raise ValueError("the prediction does not match the model's labels")
    if refusal not in (None, *get_args(Refusal)):
        raise ValueError(f"unknown refusal {refusal!r}")
    is_digit, count, named = item.get("is_digit"), item.get("count"), item.get("predicted_labels")
    return Prediction(
        index,
        float(item["confidence"]),
        probabilities,
        labels,
        version,
        None if is_digit is None else float(is_digit),
        refusal,
        None if count is None else int(count),
        image=_parse_image(item),
        predicted_labels=None if named is None else tuple(map(str, named)),
        box=_parse_box(item["box"]) if "box" in item else None,
    )


def _parse_reading(item: dict[str, Any], version: int, _labels: tuple[str, ...]) -> Reading:
    orientation = item.get("orientation")
    if orientation not in (None, *get_args(Orientation)):
        raise ValueError(f"unknown orientation {orientation!r}")
    lines = tuple(map(_parse_line, item["lines"]))
    return Reading(str(item["text"]), lines, version, orientation=orientation)


parse_predictions = partial(_parse_items, "predictions", _parse_prediction)
parse_readings = partial(_parse_items, "readings", _parse_reading)


def _parse_line(item: dict[str, Any]) -> Line:
    return Line(
        str(item["text"]),
        _parse_box(item["box"]),
        tuple(map(_parse_digit, item["digits"])),
        tuple(map(_parse_box, item.get("separators", ()))),
    )


def _parse_digit(item: dict[str, Any]) -> Digit:
    return Digit(
        int(item["digit"]),
        float(item["confidence"]),
        _parse_probabilities(item),
        _parse_box(item["box"]),
        _parse_image(item),
    )


def _parse_image(item: dict[str, Any]) -> bytes | None:
    return base64.b64decode(item["image"], validate=True) if "image" in item else None


def _parse_probabilities(item: dict[str, Any]) -> tuple[float, ...]:
    # The model's numbers are float32, written as the shortest decimals that read back the same.
    return tuple(np.array([*map(float, item["probabilities"])], np.float32).tolist())


def _parse_box(values: Sequence[Any]) -> Box:
    left, top, width, height = map(int, values)
    return left, top, width, height


def _parse_problem(status: int, headers: Mapping[str, str | None], problem: dict[str, Any]) -> DigitError:
    """Convert a problem document (RFC 9457) to an error."""
    code = str(problem.get("code", ""))
    message = str(problem.get("detail") or problem.get("title") or f"the service answered status {status}")
    request_id = _parse_request_id(problem) or headers.get("x-request-id")
    if code in _IMAGE_ERRORS:
        image_error = _IMAGE_ERRORS[code](message)
        image_error.request_id = request_id
        return image_error
    error_class = _SERVICE_ERRORS.get(code) or _STATUS_ERRORS.get(status, ServiceError)
    return error_class(
        message,
        status=status,
        reason=code or None,
        request_id=request_id,
        retry_after=_parse_retry_after(headers.get("retry-after")),
    )


def _parse_retry_after(value: str | None) -> float | None:
    """Return the seconds in a Retry-After header; None for a date, which needs synchronised clocks."""
    try:
        seconds = float(value) if value else math.nan
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
