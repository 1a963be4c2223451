"""Options that all clients share: timeouts and request IDs, with their defaults and limits."""

import os
import re
import uuid

_DEFAULT_TIMEOUT = 10.0
# The operating system's timers overflow far above a day.
_MAX_TIMEOUT = 86_400.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


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


def check_request_id(request_id: str) -> str:
    """Return the ID. Raise ValueError for one that the gateway would replace."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise ValueError(
            f"a request ID has 1 to 128 letters, digits, and characters of '._:-', unlike {request_id!r}"
        )
    return request_id


def new_request_id() -> str:
    """Return a random ID of 32 hexadecimal digits."""
    return uuid.uuid4().hex
