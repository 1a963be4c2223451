"""Structured logging: one line per request, and errors, as JSON or as readable text on standard error."""

import asyncio
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.context import RequestContext

_FIELDS_IN_MESSAGE = {"method", "route", "status"}


def dict_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig.

    The level of gunicorn's logger, whose handlers uvicorn also uses, is ERROR: at lower levels each malformed
    request and each start and end of a process would be logged.
    """
    formatter = _JsonFormatter if settings.log_format == "json" else _PrettyFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"fields": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "fields"}},
        "loggers": {
            "gunicorn.error": {"level": "ERROR", "handlers": ["stderr"], "propagate": False},
        },
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
    }


class RequestLog:
    """Log of completed requests, at level INFO.

    The requests of an event-loop iteration share one write, and skip logging.LogRecord: both are dear.
    """

    def __init__(self, settings: Settings) -> None:
        self._format = _json_line if settings.log_format == "json" else _pretty_line
        self._is_on = settings.log_level in ("debug", "info")
        self._lines: list[str] = []

    def add(self, context: "RequestContext") -> None:
        """Log a request, in the event loop."""
        if self._is_on:
            if not self._lines:
                asyncio.get_running_loop().call_soon(self._write)
            message = f"{context.method} {context.route} {context.status}"
            self._lines.append(self._format(time.time(), "info", message, _fields(context)))

    def _write(self) -> None:
        text = "\n".join([*self._lines, ""])
        self._lines.clear()
        # A closed standard error, such as a pipe's, fails no request.
        with suppress(OSError, ValueError):
            sys.stderr.write(text)


def _fields(context: "RequestContext") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": context.request_id,
        "method": context.method,
        "route": context.route,
        "status": context.status,
        "client": context.client,
        "ms": _milliseconds(context.duration),
    }
    if context.key:
        fields["key"] = context.key
    if context.decode_seconds:
        fields["decode_ms"] = _milliseconds(context.decode_seconds)
    if context.normalise_seconds:
        fields["normalise_ms"] = _milliseconds(context.normalise_seconds)
    if context.find_seconds:
        fields["find_ms"] = _milliseconds(context.find_seconds)
    if context.waits:
        fields["queue_ms"] = _milliseconds(context.queue_seconds)
        fields["model_server_ms"] = _milliseconds(context.model_server_seconds)
    if context.model_version is not None:
        fields["model"] = context.model
        fields["version"] = context.model_version
    if context.images:
        fields["images"] = context.images
    if len(context.predictions) == 1:
        (prediction,) = context.predictions
        fields["label"] = prediction.label
        fields["confidence"] = round(prediction.confidence, 4)
    for result, count in context.image_results.items():
        if result != "answered":
            fields[result] = count
    if context.readings:
        # The count only: a number, such as a card's, may be confidential.
        fields["digits"] = len(context.digits)
    if context.problem_code:
        fields["code"] = context.problem_code
    if context.span:
        fields["trace_id"] = context.trace_id
    return fields


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _json_line(seconds: float, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """Return one JSON object; `seconds` is Unix time."""
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    document = {"time": moment, "level": level, "message": message, **fields}
    return orjson.dumps(document, default=str).decode()


def _pretty_line(seconds: float, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """Return readable text, with the fields as name=value."""
    moment = time.strftime("%H:%M:%S", time.localtime(seconds))
    pairs = (f"{name}={value}" for name, value in fields.items() if name not in _FIELDS_IN_MESSAGE)
    return " ".join((moment, level.upper(), message, *pairs))


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, with the record's `fields` and its traceback as members."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _json_line(record.created, record.levelname.lower(), record.getMessage(), fields)


class _PrettyFormatter(logging.Formatter):
    """Readable line with the record's `fields` as name=value, followed by a traceback if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging.Formatter
        fields = getattr(record, "fields", {})
        return _pretty_line(record.created, record.levelname, record.message, fields)
