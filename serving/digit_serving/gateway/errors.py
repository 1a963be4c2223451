"""Errors that the gateway raises, and their handler: every error is answered as RFC 9457 problem details.

Errors of digit_core are mapped as well: image errors and errors of the connection to the model server.
"""

import http
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import orjson
from flask import Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from digit_core.errors import (
    DeadlineExceededError,
    DigitError,
    ImageError,
    InvalidOutputError,
    ModelNotFoundError,
    NotAnImageError,
    OverloadedError,
    ReaderMissingError,
    ReadingNotSupportedError,
    ServiceError,
    TruncatedImageError,
    UnavailableError,
)
from digit_core.tfserving.codec import ModelRef
from digit_serving.errors import DigitServingError
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.schemas import Problem

RETRY_AFTER_STATUSES = {429, 503, 504}
"""Statuses that come with the header Retry-After."""

MAX_QUOTED = 100
"""Longest name that an error quotes."""

# Status and detail. The model server's own messages may reveal internals, and a caller can't act on them.
_MODEL_SERVER_ERRORS: dict[type[DigitError], tuple[int, str]] = {
    ModelNotFoundError: (404, "There is no such model, version or label."),
    ReaderMissingError: (
        404,
        "This service has no reader model, so it can't find digits on a page. `digits train` publishes one.",
    ),
    ReadingNotSupportedError: (404, "The model reads no numbers. Send the image to /v1/predict."),
    OverloadedError: (429, "The service is overloaded. Try again later."),
    UnavailableError: (503, "The model server is unreachable or has no model yet. Try again later."),
    DeadlineExceededError: (504, "The model server did not answer in time. Try again later."),
    ServiceError: (502, "The model server returned an invalid response."),
}
# Code and detail by status. Werkzeug's own texts are about browsers and forms.
_HTTP_ERRORS = {
    400: ("bad_request", "The request is malformed."),
    404: ("not_found", "There is nothing at this path; GET /openapi.json describes the paths."),
    405: ("method_not_allowed", "The path does not support this method."),
    413: ("body_too_large", "The body is larger than this service accepts."),
    415: ("unsupported_media_type", "The body's media type or content encoding is not supported."),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProblemKind:
    """Status, code and general detail of the response to an error."""

    status: int
    code: str
    detail: str


class GatewayError(DigitServingError):
    """A request that the gateway itself refuses."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"
    headers: Mapping[str, str] = MappingProxyType({})


class ForbiddenError(GatewayError):
    """The request's API key lacks a permission."""

    status, code = 403, "forbidden"


class MalformedBodyError(GatewayError):
    """The body does not match its content type."""

    code = "malformed_body"


class InvalidSelectionError(GatewayError):
    """A query parameter is unknown or invalid."""

    code = "invalid_selection"


class NotReadyError(GatewayError):
    """No version of the model is available."""

    status, code = 503, "not_ready"


class RateLimitedError(GatewayError):
    """The caller exceeded its rate limit."""

    status, code = 429, "rate_limited"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after)}


class TooManyImagesError(GatewayError):
    """The request holds more images than allowed."""

    status, code = 413, "too_many_images"


class UnauthorizedError(GatewayError):
    """The request has no valid API key."""

    status, code = 401, "unauthorized"
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer realm="digits"'})


class DefaultMissingError(UnavailableError):
    """No version answers by default; the message is a sentence for callers, with the command that helps."""


class UnknownModelError(GatewayError):
    """The request names a model that the service doesn't have."""

    status, code = 404, ModelNotFoundError.code


def problem_kind(kind: type[Exception]) -> ProblemKind:
    """Return the kind of problem of an error of this class, which the OpenAPI document describes."""
    if issubclass(kind, GatewayError):
        return ProblemKind(kind.status, kind.code, _summary(kind))
    if issubclass(kind, ImageError):
        status = 400 if issubclass(kind, (NotAnImageError, TruncatedImageError)) else 422
        # The model fails, not the caller: a version that gives no numbers at all has to alarm the operator.
        status = 502 if issubclass(kind, InvalidOutputError) else status
        return ProblemKind(status, kind.code, _summary(kind))
    if issubclass(kind, DigitError):
        status, detail = next(entry for base, entry in _MODEL_SERVER_ERRORS.items() if issubclass(kind, base))
        return ProblemKind(status, "model_server_error" if status == 502 else kind.code, detail)
    if issubclass(kind, HTTPException):
        status = kind.code or 500
        return ProblemKind(status, *_HTTP_ERRORS.get(status, _HTTP_ERRORS[400]))
    return ProblemKind(500, "internal_error", "Internal error. Report this request ID to the operator.")


def problem_document(kind: ProblemKind, request_id: str, detail: str | None = None) -> Problem:
    """Build problem details."""
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(kind.status).phrase,
        "status": kind.status,
        "code": kind.code,
        "detail": detail or kind.detail,
        "request_id": request_id,
    }


def image_problem(error: ImageError, request_id: str) -> Problem:
    """Build problem details of an image."""
    return problem_document(problem_kind(type(error)), request_id, _as_sentence(error.message))


def handle(error: Exception) -> Response:
    """Handle an error of the app: log what the operator should know, and answer what the caller may."""
    context: RequestContext = g.context
    kind = problem_kind(type(error))
    detail = kind.detail
    headers: dict[str, str] = {}
    if isinstance(error, GatewayError):
        detail, headers = str(error), dict(error.headers)
    elif isinstance(error, ImageError):
        context.image_errors.append(error.code)
        detail = _as_sentence(error.message)
    elif isinstance(error, DigitError):
        _log.warning("%s", error, extra={"fields": {"request_id": context.request_id}})
        if isinstance(error, DefaultMissingError):
            detail = error.message
        elif isinstance(error, ModelNotFoundError):
            detail = _describe_missing(context.requested)
    elif isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        detail = f"The path does not support this method; it supports {allowed}."
        headers = {"Allow": allowed}
    elif isinstance(error, HTTPException):
        # A description of the gateway's own differs from that of the class.
        if error.description and error.description != type(error).description:
            detail = error.description
    else:
        _log.error("unexpected error", exc_info=error, extra={"fields": {"request_id": context.request_id}})
    if kind.status in RETRY_AFTER_STATUSES:
        headers = {"Retry-After": "1"} | headers
    context.problem_code = kind.code
    content = problem_document(kind, context.request_id, detail)
    return Response(orjson.dumps(content), kind.status, headers, content_type="application/problem+json")


def _describe_missing(asked: ModelRef) -> str:
    if asked.version is not None:
        return f"The model {asked.name} has no version {asked.version} here."
    if asked.version_label is not None:
        return f"No version of the model {asked.name} has the label {asked.version_label[:MAX_QUOTED]!r}."
    return problem_kind(ModelNotFoundError).detail


def _summary(kind: type[Exception]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _as_sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
