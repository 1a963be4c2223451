"""Options of a call and of all clients, with their defaults and limits."""

import os
import re
import uuid
from dataclasses import dataclass
from typing import Literal, TypedDict

_DEFAULT_TIMEOUT = 10.0
# The operating system's timers overflow far above a day.
_MAX_TIMEOUT = 86_400.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of a call; None stands for the default. Raise ValueError for a value out of range."""

    version: int | None = None
    label: str | None = None
    min_is_digit: float | None = None
    include: Literal["image"] | None = None
    timeout: float | None = None
    request_id: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise ValueError("name a version or a label, not both")
        if self.min_is_digit is not None and not 0 <= self.min_is_digit <= 1:
            raise ValueError(f"min_is_digit is a probability, from 0 to 1, not {self.min_is_digit:g}")
        if self.timeout is not None:
            check_timeout(self.timeout)
        if self.request_id is not None:
            _check_request_id(self.request_id)


class ModelServerKeywords(TypedDict, total=False):
    """Types of the keyword options of a call to the model server, for overloads."""

    version: int | None
    label: str | None
    min_is_digit: float | None
    timeout: float | None
    request_id: str | None


class GatewayKeywords(ModelServerKeywords, total=False):
    """Types of the keyword options of a call to the gateway, for overloads."""

    include: Literal["image"] | None


def default_timeout() -> float:
    """Return DIGITS_TIMEOUT, or 10 seconds. Raise ValueError if it is no timeout."""
    text = os.environ.get("DIGITS_TIMEOUT")
    try:
        return check_timeout(float(text)) if text else _DEFAULT_TIMEOUT
    except ValueError as error:
        raise ValueError(f"DIGITS_TIMEOUT is a number of seconds, up to a day, not {text!r}") from error


def check_timeout(seconds: float) -> float:
    """Return the timeout. Raise ValueError unless it is positive and at most a day."""
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise ValueError(f"a timeout is a positive number of seconds, up to a day, not {seconds:g}")
    return seconds


def new_request_id() -> str:
    """Return a random ID of 32 hexadecimal digits."""
    return uuid.uuid4().hex


def _check_request_id(request_id: str) -> None:
    """Raise ValueError for an ID that the gateway would replace."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise ValueError(
            f"a request ID has 1 to 128 letters, digits, and characters of '._:-', unlike {request_id!r}"
        )
