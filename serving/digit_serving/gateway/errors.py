"""The gateway's errors, and how any error becomes the one shape of answer: RFC 9457 problem details.

    GatewayError                   knows its HTTP status and code
    ├── MalformedBodyError    400  the body is not what its content type says
    ├── InvalidSelectionError 400  ?version=, ?label= or ?include= makes no sense
    ├── NotReadyError         503  no version of the model is available
    ├── RateLimitedError      429  the caller asks more often than one may
    ├── TooManyImagesError    413  more images than a request may hold
    └── UnauthorizedError     401  the request has no key that is known here

The client's errors come through here too: its image errors, and what its connection to the model server says.
"""

import http
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import orjson
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from digit_client import (
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
from digit_serving.gateway.schemas import Problem

_log = logging.getLogger(__name__)


class GatewayError(Exception):
    """A request that the gateway itself refuses."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(self, message: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.headers = headers


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


class RateLimitedError(GatewayError):
    """The caller asks more often than one may."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, {"Retry-After": str(retry_after)})


class TooManyImagesError(GatewayError):
    """The request holds more images than one may."""

    status = 413
    code = "too_many_images"


class UnauthorizedError(GatewayError):
    """The request has no key that is known here."""

    status = 401
    code = "unauthorized"

    def __init__(self, message: str) -> None:
        super().__init__(message, {"WWW-Authenticate": 'Bearer realm="digits"'})


# What a caller can't mend is told without the model server's words.
_UPSTREAM: dict[type[DigitError], tuple[int, str]] = {
    ModelNotFoundError: (404, "The model server has no such version or label."),
    OverloadedError: (429, "The service has more to do than it can. Try again later."),
    UnavailableError: (503, "The model server can't be reached or has no model yet. Try again later."),
    DeadlineExceededError: (504, "The model server did not answer in time. Try again later."),
    ServiceError: (502, "The model server gave no usable answer."),
}
RETRY_AFTER = {429, 503, 504}
"""Statuses that come with the header Retry-After."""

_HTTP = {
    400: ("bad_request", "The request is malformed."),
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "What is at this path does not take this method."),
    413: ("body_too_large", "The body has more bytes or parts than one may."),
    415: ("unsupported_media_type", "The body is of a type that is not read."),
}


def status_and_code(kind: type[Exception]) -> tuple[int, str]:
    """The HTTP status and the code with which an error of this kind is answered."""
    if issubclass(kind, GatewayError):
        return kind.status, kind.code
    if issubclass(kind, ImageError):
        return 400 if issubclass(kind, (NotAnImageError, TruncatedImageError)) else 422, kind.code
    if issubclass(kind, DigitError):
        status, _ = _upstream(kind)
        return status, "model_server_error" if status == 502 else kind.code
    if issubclass(kind, HTTPException):
        status = kind.code or 500
        return status, _HTTP.get(status, _HTTP[400])[0]
    return 500, "internal_error"


def problem_fields(kind: type[DigitError]) -> tuple[int, str, str]:
    """The HTTP status, the code and the detail of an answer for want of the model server."""
    return *status_and_code(kind), _upstream(kind)[1]


def meaning(kind: type[Exception]) -> str:
    """What an error of this kind means, in a sentence."""
    if issubclass(kind, HTTPException):
        return _HTTP[kind.code or 400][1]
    if issubclass(kind, (GatewayError, DigitError)):
        return (kind.__doc__ or "").partition("\n")[0]
    return "Something went wrong here."


def document(status: int, code: str, detail: str, request_id: str) -> Problem:
    """What an error answer says."""
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }


def encode(content: Problem) -> bytes:
    """The document as JSON."""
    return orjson.dumps(content)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    index: int | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """An error answer: application/problem+json."""
    g.context.problem = code
    content = document(status, code, detail, g.context.request_id)
    if index is not None:
        content["index"] = index
    retry = {"Retry-After": "1"} if status in RETRY_AFTER else {}
    return Response(encode(content), status, retry | dict(headers), content_type="application/problem+json")


def register(app: Flask) -> None:
    """Answer every error of the app in that shape."""
    app.register_error_handler(GatewayError, _on_gateway_error)
    app.register_error_handler(ImageError, _on_image_error)
    app.register_error_handler(DigitError, _on_model_server_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_unexpected)


def _on_gateway_error(error: GatewayError) -> Response:
    return problem(*status_and_code(type(error)), str(error), headers=error.headers)


def _on_image_error(error: ImageError) -> Response:
    g.context.refused = error.code
    return problem(*status_and_code(type(error)), _sentence(error.message), index=error.index)


def _on_model_server_error(error: DigitError) -> Response:
    _log.warning("%s", error, extra=_who())
    return problem(*problem_fields(type(error)))


def _on_http_error(error: HTTPException) -> Response:
    headers = {"Allow": ", ".join(error.valid_methods or ())} if isinstance(error, MethodNotAllowed) else {}
    return problem(*status_and_code(type(error)), error.description or "", headers=headers)


def _on_unexpected(error: Exception) -> Response:
    _log.error("unforeseen error", exc_info=error, extra=_who())
    detail = "Something went wrong here. Quote the request id to who runs this."
    return problem(*status_and_code(type(error)), detail)


def _upstream(kind: type[DigitError]) -> tuple[int, str]:
    return next(answer for base, answer in _UPSTREAM.items() if issubclass(kind, base))


def _who() -> dict[str, dict[str, str]]:
    """What a line of the log says of its request."""
    return {"fields": {"request_id": g.context.request_id}}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
