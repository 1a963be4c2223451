"""Exception hierarchy of the package."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    import httpx


_Error = TypeVar("_Error", bound=BaseException)


class DigitError(Exception):
    """Base class of this package's errors.

        DigitError
        ├── ImageError               the image can't be decoded, taken or answered; send another image
        │   ├── NotAnImageError      unknown file format
        │   ├── TruncatedImageError  the file ends early or is damaged
        │   ├── ImageTooLargeError   more pixels, parts or data than the limit
        │   ├── ImageShapeError      an array without the shape of an image
        │   ├── PixelValueError      a pixel is NaN, infinite or out of range
        │   ├── TooManyDigitsError   an image with more digits than are read
        │   └── InvalidOutputError   the model's numbers for the image are not probabilities
        ├── InvalidOptionError       the options of one image among many are invalid
        ├── NoInkError               nothing is written on the image; only functions of `images` raise it
        ├── ClientClosedError        the client was closed, or belongs to another event loop
        ├── ConnectionFailedError    the service can't be reached
        ├── DeadlineExceededError    no answer in time
        └── ServiceError             the service answered with an error
            ├── AuthenticationError       no API key, or one that is not valid here
            ├── ModelNotFoundError        unknown model, version or label
            ├── ReadingNotSupportedError  the model's classes are not the ten digits
            ├── ReaderMissingError        the service has no reader, which finds digits on a page
            ├── OverloadedError           the service is overloaded; retry later
            └── UnavailableError          the service is temporarily unavailable; retry later

    `code` is the stable, machine-readable name, the same as in the HTTP API. `request_id` is the ID to report
    to the service's operator, None if no request was sent. `response` is the HTTP response, from a
    client with `keep_response`. `str` adds the HTTP status and the request ID to the `message`.
    """

    code: ClassVar[str] = "error"
    response: "httpx.Response | None" = None
    status: int | None = None

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        status = "" if self.status is None else f"status {self.status}"
        request = "" if self.request_id is None else f"request {self.request_id}"
        details = ", ".join(filter(None, (status, request)))
        return f"{self.message} ({details})" if details else self.message


class ImageError(DigitError):
    """The image can't be decoded, taken or answered.

    `index` is its position among several images, or None. `status` is the HTTP status of the image alone,
    even among others; None over gRPC, and if the image was not sent.
    """

    code = "invalid_image"
    index: int | None = None


class NotAnImageError(ImageError):
    """The bytes are in no known image format."""

    code = "not_an_image"


class TruncatedImageError(ImageError):
    """The file ends early or is damaged."""

    code = "truncated_image"


class ImageTooLargeError(ImageError):
    """The image has more pixels, parts or scans than the limit, or far more data than its pixels need."""

    code = "image_too_large"


class ImageShapeError(ImageError):
    """The array does not have the shape of an image, or not the requested shape."""

    code = "wrong_shape"


class PixelValueError(ImageError):
    """A pixel is not a number, infinite, or out of range."""

    code = "invalid_pixels"


class TooManyDigitsError(ImageError):
    """The image shows more digits than are read."""

    code = "too_many_digits"


class InvalidOutputError(ImageError):
    """The model's numbers for the image are not probabilities: NaN, infinite or out of range.

    `model_version` is the version that answered, 0 if it is unknown.
    """

    code = "invalid_output"
    model_version: int = 0


class InvalidOptionError(DigitError, ValueError):
    """The options that one image among many has are invalid; those of the call raise ValueError."""

    code = "invalid_option"


class NoInkError(DigitError):
    """The image is blank, or nothing on it looks like the strokes of a digit."""

    code = "no_ink"


class ClientClosedError(DigitError, RuntimeError):
    """The client was closed, or an asyncio client's connections belong to another event loop."""

    code = "client_closed"


class ConnectionFailedError(DigitError):
    """The service could not be reached, or the connection broke."""

    code = "connection_failed"


class DeadlineExceededError(DigitError):
    """The service did not answer in time."""

    code = "deadline_exceeded"


class ServiceError(DigitError):
    """The service answered with an error.

    `status` is the HTTP status (None over gRPC), `reason` the service's own error code, `retry_after` the
    service's Retry-After in seconds.
    """

    code = "service_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        reason: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class AuthenticationError(ServiceError):
    """The request has no API key, or one that is not valid here."""

    code = "unauthorized"


class ModelNotFoundError(ServiceError):
    """The service has no such model, version or label."""

    code = "model_not_found"


class ReadingNotSupportedError(ServiceError):
    """The model's task has no reading: its classes are not the ten digits."""

    code = "reading_not_supported"


class ReaderMissingError(ServiceError):
    """The service has no reader, the model that finds digits on a page."""

    code = "reader_missing"


class OverloadedError(ServiceError):
    """The service is overloaded; retry later."""

    code = "overloaded"


class UnavailableError(ServiceError):
    """The service is temporarily unavailable; retry later."""

    code = "model_unavailable"


def how_to_install(extra: str) -> str:
    """Return the end of a message about a missing module: the command that installs it."""
    return f"install it: pip install 'digits[{extra}]', or '.[{extra}]' in a clone"


def without_tracebacks(error: _Error) -> _Error:
    """Remove the tracebacks of an error that is kept, and of its causes: their frames hold pixels."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


@contextmanager
def adding_request_id(request_id: str) -> Iterator[None]:
    """Add the ID of the block's request to an error that has none."""
    try:
        yield
    except DigitError as error:
        error.request_id = error.request_id or request_id
        raise


def mebibytes(size: int) -> str:
    """Return a number of bytes as messages say it, such as `4.2 MiB`."""
    return f"{size / 2**20:,.1f} MiB"
