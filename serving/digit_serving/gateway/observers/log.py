"""Log: a line for each request, and the format of all lines, JSON or readable text."""

import asyncio
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson

from digit_core.results import Prediction
from digit_serving.gateway.observers import Observer
from digit_serving.gateway.request import Facts
from digit_serving.gateway.settings import Settings

_FIELDS_IN_MESSAGE = {"method", "route", "status"}


class RequestLog(Observer):
    """Log of completed requests, at level INFO.

    The requests of an event-loop iteration share one write, and skip logging.LogRecord: both are expensive.
    """

    def __init__(self, settings: Settings) -> None:
        self._format = json_line if settings.log_format == "json" else pretty_line
        self._is_on = settings.log_level in ("debug", "info")
        self._lines: list[str] = []

    def ended(self, facts: Facts) -> None:
        """Log a completed request."""
        if self._is_on:
            if not self._lines:
                asyncio.get_running_loop().call_soon(self._write)
            context = facts.context
            message = f"{context.method} {context.rule} {context.status}"
            self._lines.append(self._format(time.time(), "info", message, _fields(facts)))

    def _write(self) -> None:
        text = "\n".join([*self._lines, ""])
        self._lines.clear()
        # A closed standard error, such as a broken pipe, must not fail a request.
        with suppress(OSError, ValueError):
            sys.stderr.write(text)


def _fields(facts: Facts) -> dict[str, Any]:
    context = facts.context
    fields: dict[str, Any] = {
        "request_id": context.request_id,
        "method": context.method,
        "route": context.rule,
        "status": context.status,
        "client": context.client,
        "ms": _milliseconds(facts.seconds),
    }
    if context.key:
        fields["key"] = context.key
    for stage, seconds in facts.stages.items():
        if seconds:
            fields[f"{stage}_ms"] = _milliseconds(seconds)
    if context.waits:
        fields["model_server_ms"] = _milliseconds(facts.model_server_seconds)
    fields |= facts.outcome
    if len(context.results) == 1 and isinstance(prediction := context.results[0], Prediction):
        fields["label"] = prediction.label
        fields["confidence"] = round(prediction.confidence, 4)
    if context.problem_code:
        fields["code"] = context.problem_code
    if parent := context.trace.get("traceparent"):
        fields["trace_id"] = parent.split("-")[1]
    return fields


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1e6) / 1000


def log_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig: JSON or readable text on standard error.

    The level of gunicorn's logger, whose handlers uvicorn also uses, is ERROR: at lower levels each malformed
    request and each start and end of a process would be logged.
    """
    formatter = _JsonFormatter if settings.log_format == "json" else _PrettyFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"fields": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "fields"}},
        "loggers": {"gunicorn.error": {"level": "ERROR", "handlers": ["stderr"], "propagate": False}},
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
    }


def json_line(seconds: float, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """Return one JSON object; `seconds` is Unix time."""
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    document = {"time": moment, "level": level, "message": message, **fields}
    return orjson.dumps(document, default=str).decode()


def pretty_line(seconds: float, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """Return readable text, with the fields as name=value.

    Unprintable characters are escaped: a caller's text could begin a line, or control a terminal.
    """
    moment = time.strftime("%H:%M:%S", time.localtime(seconds))
    pairs = (f"{name}={value}" for name, value in fields.items() if name not in _FIELDS_IN_MESSAGE)
    line = " ".join((moment, level.upper(), message, *pairs))
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line
    )


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, with the record's `fields` and its traceback as members."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json_line(record.created, record.levelname.lower(), record.getMessage(), fields)


class _PrettyFormatter(logging.Formatter):
    """Readable line with the record's `fields` as name=value, followed by a traceback if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging.Formatter
        return pretty_line(record.created, record.levelname, record.message, getattr(record, "fields", {}))
