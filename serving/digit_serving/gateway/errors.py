"""The gateway's errors, and how any error becomes the one shape of answer: RFC 9457 problem details.

    GatewayError                   knows its HTTP status and code
    ├── MalformedBodyError    400  the body is not what its content type says
    ├── InvalidSelectionError 400  ?version=, ?label= or ?include= makes no sense
    ├── NotReadyError         503  no version of the model is available
    └── TooManyImagesError    413  more images than a request may hold

The client's errors come through here too: its image errors, and what its connection to the model server says.
"""

import http
import logging
from typing import ClassVar

import orjson
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from digit_client.errors import (
    DeadlineExceededError,
    DigitError,
    ImageError,
    ModelNotFoundError,
    NotAnImageError,
    OverloadedError,
    ServiceError,
    TruncatedImageError,
    UnavailableError,
)

_log = logging.getLogger(__name__)


class GatewayError(Exception):
    """A request that the gateway itself refuses."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"


class MalformedBodyError(GatewayError):
    """The body is not what its content type says."""

    code = "malformed_body"


class InvalidSelectionError(GatewayError):
    """The query asks for what can not exist."""

    code = "invalid_selection"


class NotReadyError(GatewayError):
    """No version of the model is available."""

    status = 503
    code = "not_ready"


class TooManyImagesError(GatewayError):
    """The request holds more images than one may."""

    status = 413
    code = "too_many_images"


# What a caller can't mend is told without the model server's words.
_UPSTREAM: dict[type[DigitError], tuple[int, str]] = {
    ModelNotFoundError: (404, "The model server has no such version or label."),
    OverloadedError: (429, "The service has more to do than it can. Try again later."),
    UnavailableError: (503, "The model server can't be reached or has no model yet. Try again later."),
    DeadlineExceededError: (504, "The model server did not answer in time. Try again later."),
    ServiceError: (502, "The model server gave no usable answer."),
}
_RETRY_AFTER = {429, 503, 504}

_HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def problem(
    status: int, code: str, detail: str, *, index: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """An error answer: application/problem+json."""
    document = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": g.get("request_id"),
    }
    if index is not None:
        document["index"] = index
    retry = {"Retry-After": "1"} if status in _RETRY_AFTER else {}
    return Response(
        orjson.dumps(document), status, retry | (headers or {}), content_type="application/problem+json"
    )


def register(app: Flask) -> None:
    """Answer every error of the app in that shape."""
    app.register_error_handler(GatewayError, _on_gateway_error)
    app.register_error_handler(ImageError, _on_image_error)
    app.register_error_handler(DigitError, _on_model_server_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_unforeseen)


def _on_gateway_error(error: GatewayError) -> Response:
    return problem(error.status, error.code, str(error))


def _on_image_error(error: ImageError) -> Response:
    status = 400 if isinstance(error, (NotAnImageError, TruncatedImageError)) else 422
    return problem(status, error.code, _sentence(error.message), index=error.index)


def _on_model_server_error(error: DigitError) -> Response:
    _log.warning("%s: %s", g.get("request_id"), error)
    status, detail = next(answer for kind, answer in _UPSTREAM.items() if isinstance(error, kind))
    code = "model_server_error" if status == 502 else error.code
    return problem(status, code, detail)


def _on_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    headers = {"Allow": ", ".join(error.valid_methods or ())} if isinstance(error, MethodNotAllowed) else {}
    return problem(status, _HTTP_CODES.get(status, "bad_request"), error.description or "", headers=headers)


def _on_unforeseen(error: Exception) -> Response:
    _log.error("%s: unforeseen error", g.get("request_id"), exc_info=error)
    return problem(500, "internal_error", "Something went wrong here. Quote the request id to who runs this.")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
