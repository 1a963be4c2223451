"""Structured logging: one line per request, and errors, as JSON or as readable text on standard error."""

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.context import RequestContext

_FIELDS_IN_MESSAGE = {"method", "route", "status"}

_request_log = logging.getLogger("digit_serving.gateway.requests")


def dict_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig.

    The level of gunicorn's logger, whose handlers uvicorn also uses, is ERROR: at lower levels each malformed
    request and each start and end of a process would be logged. Alembic logs each opening of a store at INFO.
    """
    formatter = _JsonFormatter if settings.log_format == "json" else _PrettyFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"fields": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "fields"}},
        "loggers": {
            "alembic": {"level": "WARNING"},
            "gunicorn.error": {"level": "ERROR", "handlers": ["stderr"], "propagate": False},
        },
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
    }


def log_request(context: "RequestContext") -> None:
    """Log a completed request at level INFO."""
    if _request_log.isEnabledFor(logging.INFO):
        _request_log.info(
            "%s %s %s", context.method, context.route, context.status, extra={"fields": _fields(context)}
        )


def _fields(context: "RequestContext") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": context.request_id,
        "method": context.method,
        "route": context.route,
        "status": context.status,
        "ms": _milliseconds(context.duration),
    }
    if context.key:
        fields["key"] = context.key
    for stage in ("decode", "normalise", "segment"):
        if seconds := getattr(context, f"{stage}_seconds"):
            fields[f"{stage}_ms"] = _milliseconds(seconds)
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


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, with the record's `fields` as members."""

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


class _PrettyFormatter(logging.Formatter):
    """Readable line with the record's `fields` as name=value, followed by a traceback if there is one."""

    default_time_format = "%H:%M:%S"
    default_msec_format = ""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging.Formatter
        fields: dict[str, Any] = getattr(record, "fields", {})
        pairs = (f"{name}={value}" for name, value in fields.items() if name not in _FIELDS_IN_MESSAGE)
        return " ".join((super().formatMessage(record), *pairs))
