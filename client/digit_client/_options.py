"""Options of a call, and the result of feedback."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypedDict

from digit_core import options
from digit_core.options import PredictOptions
from digit_core.results import Box, Response

DEFAULT_URL = "http://127.0.0.1:8080"
"""Default of a client's URL: the gateway of `digits up`."""

# The operating system's timers overflow far above a day.
_MAX_TIMEOUT = 86_400.0
# The gateway replaces other request IDs.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Boxes: TypeAlias = Box | Sequence[Box] | None
"""Part of a picture, several parts, or None for all of it."""


_NO_OPTIONS = options.Options({}, ())


class RequestOptions(TypedDict, total=False):
    """Keyword options of every call; one that is missing or None has its default."""

    timeout: float | None
    """Seconds for each attempt of a request, counted from when it is sent, in place of the client's."""
    deadline: float | None
    """Seconds for the call as a whole, with all its attempts; without it, only attempts have an end."""
    request_id: str | None
    """ID of the requests in the service's log, in place of a random one for each."""


class CallOptions(PredictOptions, RequestOptions, total=False):
    """Keyword options of a call for predictions; one that is missing or None has its default."""


class ReadOptions(options.ReadOptions, RequestOptions, total=False):
    """Keyword options of a call for readings; one that is missing or None has its default."""


class Options(options.Options):
    """Checked options of a call, and those of its requests."""

    def __init__(
        self,
        checked: options.Options = _NO_OPTIONS,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(checked, checked.given, checked.expectation, checked.fields)
        self.timeout, self.deadline, self.request_id = timeout, deadline, request_id
        for seconds in (timeout, deadline):
            if seconds is not None:
                check_timeout(seconds)
        if request_id is not None and not _REQUEST_ID.fullmatch(request_id):
            raise ValueError(
                f"a request ID has 1 to 128 letters, digits, and characters of '._:-', unlike {request_id!r}"
            )


def parse(kind: Any, given: Mapping[str, Any]) -> Options:
    """Return the options of CallOptions or ReadOptions. Raise ValueError for a value out of range."""
    own = {name: given[name] for name in RequestOptions.__annotations__ if name in given}
    checked = options.parse(kind, {name: value for name, value in given.items() if name not in own})
    return Options(checked, **own)


def check_timeout(seconds: float) -> float:
    """Return the timeout. Raise ValueError unless it is positive and at most a day."""
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise ValueError(f"a timeout must be a positive number of seconds, up to a day, not {seconds:g}")
    return seconds


@dataclass(frozen=True, slots=True)
class Feedback:
    """Receipt of feedback: what the service has stored."""

    request_id: str
    """ID of the request that brought the picture."""
    index: int
    """Position of the image in that request."""
    pictures: int
    """Number of pictures that got a label: 1, or the digits of a number."""
    response: Response | None = field(default=None, compare=False, repr=False)
    """HTTP response, from a client with `keep_response`."""
