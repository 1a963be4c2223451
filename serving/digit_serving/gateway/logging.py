"""Structured logging as JSON or as readable text on standard error."""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from digit_serving.gateway.settings import Settings

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
        fields = getattr(record, "fields", {})
        return pretty_line(record.created, record.levelname, record.message, fields)
