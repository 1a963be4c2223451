"""The gateway's log: a line for each request, and what went wrong, for machines or for humans."""

import logging
from datetime import UTC, datetime
from typing import Any

import orjson

from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.settings import Settings

_IN_MESSAGE = {"method", "route", "status"}

_requests = logging.getLogger("digit_serving.gateway.requests")


def config(settings: Settings) -> dict[str, Any]:
    """Configuration for logging.config.dictConfig: all to standard error, in the settings' format.

    gunicorn's logger, with whose handlers uvicorn logs as well, tells errors alone: of requests that are
    malformed, and of its processes' lives, it would tell each one.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": _Json if settings.log_format == "json" else _Pretty}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "loggers": {"gunicorn.error": {"level": "ERROR", "handlers": ["stderr"], "propagate": False}},
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
    }


def write(record: RequestContext) -> None:
    """Log a request that has ended."""
    if _requests.isEnabledFor(logging.INFO):
        _requests.info(
            "%s %s %s", record.method, record.route, record.status, extra={"fields": _fields(record)}
        )


def _fields(record: RequestContext) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "ms": _milliseconds(record.duration),
    }
    if record.key:
        fields["key"] = record.key
    if record.read_from:
        fields["decode_ms"] = _milliseconds(record.decode)
        fields["normalise_ms"] = _milliseconds(record.normalise)
    if record.waits:
        fields["queue_ms"] = _milliseconds(record.queue)
        fields["model_server_ms"] = _milliseconds(record.model_server)
    if record.predictions:
        first = record.predictions[0]
        fields["version"] = first.model_version
        fields["images"] = len(record.predictions)
        if len(record.predictions) == 1:
            fields["digit"] = first.digit
            fields["confidence"] = round(first.confidence, 4)
    if record.problem:
        fields["code"] = record.problem
    if record.span:
        fields["trace_id"] = record.trace_id
    return fields


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


class _Pretty(logging.Formatter):
    """A line to read, with a traceback below it where there is one."""

    default_time_format = "%H:%M:%S"
    default_msec_format = ""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging names it so
        fields: dict[str, Any] = getattr(record, "fields", {})
        # The line begins with these.
        rest = (f"{name}={value}" for name, value in fields.items() if name not in _IN_MESSAGE)
        return " ".join((super().formatMessage(record), *rest))
