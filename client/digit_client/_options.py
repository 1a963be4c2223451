"""Options of a call, and the result of feedback."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, get_args

from digit_core.results import Box, Response

if TYPE_CHECKING:
    from digit_core.reading.expectations import Expectation

DEFAULT_URL = "http://127.0.0.1:8080"
"""Default of a client's URL: the gateway of `digits up`."""

# The operating system's timers overflow far above a day.
_MAX_TIMEOUT = 86_400.0
# The gateway replaces other request IDs.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


Include: TypeAlias = Literal["image", "opinions"]
Boxes: TypeAlias = Box | Sequence[Box] | None
"""Part of a picture, several parts, or None for all of it."""


class CallOptions(TypedDict, total=False):
    """Keyword options of a call for answers; one that is missing or None has its default."""

    version: int | None
    """Number of the model's version."""
    label: str | None
    """Label of the model's version, such as "canary", in place of a number."""
    min_is_digit: float | None
    """Least `is_digit` of a digit, from 0 to 1: what is below is refused."""
    include: Include | Sequence[Include] | None
    """"image" adds the model's input to each result, as a PNG file; "opinions" adds what each network alone
    takes a digit of a reading for."""
    timeout: float | None
    """Seconds for all attempts of each request, in place of the client's."""
    request_id: str | None
    """ID of the requests in the service's log, in place of a random one for each."""


class ReadOptions(CallOptions, total=False):
    """Keyword options of a call for readings."""

    expect: str | Sequence[str] | None
    """What the number must look like: a pattern such as "##/##/####", "#{4,6}", "date" or "amount", or a list
    of the valid numbers, each a text of digits. What fits is read, or nothing."""
    check: str | None
    """Check of the number's digits: "luhn", "mod11", "mod97", or a range such as "0..9999" or "48210.."."""
    min_confidence: float | None
    """Least confidence of a reading, from 0 to 1: it is `unsure` below."""
    box: Box | None
    """Part of each picture that is read: left, top, width and height in its pixels."""
    turn: Literal["auto"] | None
    """"auto" reads a picture that is not upright as its `orientation` says."""


@dataclass(frozen=True, slots=True)
class Options:
    """Values of CallOptions and ReadOptions. Raise ValueError for a value out of range."""

    version: int | None = None
    label: str | None = None
    min_is_digit: float | None = None
    include: Include | Sequence[Include] | None = None
    timeout: float | None = None
    request_id: str | None = None
    expect: str | Sequence[str] | None = None
    check: str | None = None
    min_confidence: float | None = None
    box: Box | None = None
    turn: Literal["auto"] | None = None
    expectation: "Expectation | None" = field(init=False, default=None)
    """What `expect` and `check` say."""

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise ValueError("name a version or a label, not both")
        for name in ("min_is_digit", "min_confidence"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1, not {value:g}")
        if self.box is not None and (len(self.box) != 4 or min(self.box) < 0):
            raise ValueError(f"a box is left, top, width and height, not {self.box!r}")
        if self.turn not in (None, "auto"):
            raise ValueError(f'turn is "auto", not {self.turn!r}')
        if self.expect is not None or self.check is not None:
            # Lazy import: it needs NumPy, which takes long.
            from digit_core.reading.expectations import parse_expectation

            object.__setattr__(self, "expectation", parse_expectation(self.expect, self.check))
        if unknown := self.included - set(get_args(Include)):
            raise ValueError(f'include is "image" or "opinions", not {min(unknown)!r}')
        if self.timeout is not None:
            check_timeout(self.timeout)
        if self.request_id is not None and not _REQUEST_ID.fullmatch(self.request_id):
            raise ValueError(
                "a request ID has 1 to 128 letters, digits, and characters of '._:-', "
                f"unlike {self.request_id!r}"
            )

    @property
    def numbers(self) -> list[str] | None:
        """The valid numbers, if `expect` is a list of them."""
        return None if self.expect is None or isinstance(self.expect, str) else [*self.expect]

    @property
    def included(self) -> set[str]:
        """Parts that the results include besides the answers."""
        return {self.include} if isinstance(self.include, str) else {*(self.include or ())}


def check_timeout(seconds: float) -> float:
    """Return the timeout. Raise ValueError unless it is positive and at most a day."""
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise ValueError(f"a timeout is a positive number of seconds, up to a day, not {seconds:g}")
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
