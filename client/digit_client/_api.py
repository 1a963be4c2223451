"""Codec of the gateway's HTTP API: images to request bodies, responses to results or errors."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from digit_client._batches import Batch
from digit_client._options import Boxes, Feedback, Options
from digit_core import inputs as _inputs
from digit_core.errors import (
    AuthenticationError,
    DigitError,
    ImageError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_core.inputs import ImageSource
from digit_core.results import Models, Prediction, Reading, Result

# Bytes of a body beside its picture: boundaries and headers of a form.
_OVERHEAD = 1024

_IMAGE_ERRORS: dict[str, type[ImageError]] = {error.code: error for error in ImageError.__subclasses__()}
_SERVICE_ERRORS: dict[str, type[ServiceError]] = {
    error.code: error for error in ServiceError.__subclasses__()
}
# The status decides on a proxy's error, which lacks the gateway's `code`.
_STATUS_ERRORS: dict[int, type[ServiceError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}

_HINT = "is this the URL of a Digits gateway?"
_KEY_HINT = "give an API key that it knows, as --api-key, api_key or DIGITS_API_KEY"

_Answer = TypeVar("_Answer")


def auth_headers(api_key: str | None) -> dict[str, str]:
    """Return the Authorization header for the API key, or no header without a key.

    Raise ValueError for a key that no header can hold, without the key in the message.
    """
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("the API key has a line break or another character that no header can hold")
    return {"Authorization": f"Bearer {api_key}"}


def encode_feedback(
    picture: "ImageSource | Prediction | Reading", label: str | int | None, box: Boxes
) -> dict[str, Any]:
    """Return httpx's keyword arguments for the body of a request that labels a picture or an answer.

    Raise ValueError without a label or a picture.
    """
    image: Any = picture
    if isinstance(picture, (Prediction, Reading)):
        image, (answered, found) = picture.picture, _label_and_boxes(picture)
        label, box = answered if label is None else label, box or found
        if image is None and picture.request_id:
            sent = {"request_id": picture.request_id, "index": picture.request_index}
            return {"json": sent | {"label": str(label)}}
        if image is None:
            raise ValueError("the answer has no picture and no request ID; use a client with keep_picture")
    if label is None:
        raise ValueError("an image needs a label: pass `label`")
    data = _inputs.read_source(image)
    boxes: Any = (box,) if box and isinstance(box[0], int) else box or ()
    fields = {"label": str(label), "box": [",".join(map(str, each)) for each in boxes]}
    return {"data": fields, "files": [("image", ("image", data, _inputs.media_type(data)))]}


def _label_and_boxes(answer: Prediction | Reading) -> tuple[str, Boxes]:
    """Return the label that confirms an answer, and the parts of the picture that it is about."""
    if isinstance(answer, Reading):
        return answer.text, [digit.box for digit in answer.digits] or answer.box
    return answer.label or "", answer.box


def room(max_body: int, options: Options) -> int:
    """Return the largest file, in bytes, that fits into a body of this size beside the options in it."""
    if options.numbers is None:
        return max_body - _OVERHEAD - (len(options.form_to_json()) if options.fields else 0)
    # JSON adds two quotes and a comma to a number, and base64 takes four bytes for three.
    return max(1, (max_body - _OVERHEAD - sum(len(number) + 3 for number in options.numbers)) * 3 // 4)


def encode_batch(batch: Batch) -> dict[str, Any]:
    """Return httpx's keyword arguments for a request's body: a file, a form of files, or npy for an array.

    The body is JSON if there are valid numbers. An array is sent as files if only parts of it are read.
    """
    images: Any = batch.images
    options = batch.options
    if isinstance(images, np.ndarray):
        if options.numbers is None and not options.get("box"):
            buffer = io.BytesIO()
            np.save(buffer, images, allow_pickle=False)
            return {"content": buffer.getvalue(), "headers": {"Content-Type": "application/x-npy"}}
        images = map(_inputs.to_png, images)
    files = {index: data for index, data in enumerate(images, batch.start) if isinstance(data, bytes)}
    if options.numbers is not None:
        encoded = [base64.b64encode(data).decode() for data in files.values()]
        return {"json": {"images": encoded, "expect": options.numbers}}
    if batch.is_only and not options.fields:
        (data,) = files.values()
        return {"content": data, "headers": {"Content-Type": _inputs.media_type(data)}}
    parts = [("image", (f"{index}", data, _inputs.media_type(data))) for index, data in files.items()]
    return {"files": parts, "data": {"form": options.form_to_json()} if options.fields else {}}


def parse_response(
    parse: Callable[[dict[str, Any]], _Answer], status: int, headers: Mapping[str, str], content: bytes
) -> _Answer:
    """Return what `parse` makes of the JSON object in a response.

    Raise the DigitError that an error response describes, or ServiceError if no gateway sent the response.
    """
    try:
        document = msgspec.json.decode(content)
    except ValueError:
        document = None
    if status >= 400:
        raise _parse_problem(status, headers, document if isinstance(document, dict) else {})
    if status >= 300:
        target = headers.get("location", "another URL")
        raise ServiceError(f"the service redirects to {target}; use the gateway's own URL", status=status)
    kind = headers.get("content-type", "no content type").partition(";")[0]
    if not isinstance(document, dict) and kind != "application/json":
        raise ServiceError(f"the service answered with {kind} instead of JSON: {_HINT}", status=status)
    try:
        return parse(document)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ServiceError(
            f"the response does not come from a Digits gateway: {_HINT}", status=status
        ) from error


def parse_models(document: dict[str, Any]) -> Models:
    """Return the model in a response's document."""
    # Older services have `labels` only.
    return msgspec.convert({"version_labels": document["labels"], **document}, Models)


def parse_feedback(document: dict[str, Any]) -> Feedback:
    """Return the receipt in a response's document."""
    return msgspec.convert(document["feedback"], Feedback)


def _parse_items(
    kind: type[Result], key: str, document: dict[str, Any], *, indices: Sequence[int | None] = (None,)
) -> list[Result | DigitError]:
    """Return the result of each image in a response's document, or its error.

    `indices` are the positions of the request's images in the call, for the index of an ImageError.
    """
    items: list[Any] = document[key]
    model, request_id = document["model"], document.get("request_id")
    call = {"labels": model["labels"], "model_version": model["version"], "request_id": request_id}
    if len(items) != len(indices):
        raise ServiceError(f"the service gave {len(items)} answers for {len(indices)} images", status=200)
    results: list[Result | DigitError] = []
    for position, (index, item) in enumerate(zip(indices, items, strict=True)):
        if "error" in item:
            error = _parse_problem(200, {"x-request-id": request_id}, item["error"])
            # The picture has a status of its own; the response's is 200.
            error.status = item["error"].get("status")
            if isinstance(error, ImageError):
                error.index = index
            results.append(error)
            continue
        if kind is Prediction and not 0 <= item["index"] < len(model["labels"]) == len(item["probabilities"]):
            raise ValueError("the prediction does not match the model's labels")
        _widen(item)
        results.append(msgspec.convert({**item, **call, "request_index": position}, kind))
    return results


def _widen(item: dict[str, Any]) -> None:
    """Restore the model's float32 numbers: JSON has the shortest decimals that read back the same."""
    for name in ("probabilities", "confidence", "is_digit"):
        if item.get(name) is not None:
            item[name] = np.array(item[name], np.float32).tolist()
    for each in (*item.get("lines", ()), *item.get("digits", ())):
        _widen(each)


parse_predictions = partial(_parse_items, Prediction, "predictions")
parse_readings = partial(_parse_items, Reading, "readings")


def _parse_problem(status: int, headers: Mapping[str, str | None], problem: dict[str, Any]) -> DigitError:
    """Convert a problem document (RFC 9457) to an error."""
    code = str(problem.get("code", ""))
    message = str(problem.get("detail") or problem.get("title") or f"the service answered status {status}")
    request_id = problem.get("request_id") or headers.get("x-request-id")
    if code in _IMAGE_ERRORS:
        image_error = _IMAGE_ERRORS[code](message)
        image_error.status, image_error.request_id = status, request_id
        return image_error
    error_class = _SERVICE_ERRORS.get(code) or _STATUS_ERRORS.get(status, ServiceError)
    if not code and (error_class is ServiceError or status == 401):
        message = f"{message.rstrip('.')}: {_KEY_HINT if status == 401 else _HINT}"
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
