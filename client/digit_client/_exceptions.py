"""What can go wrong, as one tree.

    DigitError
    ├── ImageError               the image can't be read as a digit; the caller must send another one
    │   ├── NotAnImageError      no known file format
    │   ├── TruncatedImageError  the file ends early or is damaged
    │   ├── ImageTooLargeError   more pixels than are decoded
    │   ├── ImageShapeError      an array of a shape that is no image
    │   ├── PixelValueError      NaN, infinite or out of range
    │   └── NoDigitError         an image without a digit
    ├── ConnectionFailedError    nobody answered
    ├── DeadlineExceededError    no answer in time
    └── ServiceError             the service answered with an error
        ├── ModelNotFoundError   it doesn't serve that model, version or label
        ├── OverloadedError      it has more to do than it can; try later
        └── UnavailableError     it can't answer now; try later

`code` is the stable, machine-readable name that the HTTP API uses too.
"""

from typing import ClassVar


class DigitError(Exception):
    """Root of every error that this package raises."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ImageError(DigitError):
    """An image that can't be read. `index` is its place in the request when there were several."""

    code = "invalid_image"

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class NotAnImageError(ImageError):
    """The bytes are in no image format that is known."""

    code = "not_an_image"


class TruncatedImageError(ImageError):
    """The file ends early or is damaged."""

    code = "truncated_image"


class ImageTooLargeError(ImageError):
    """The image has more pixels, or comes in more scans, than are decoded."""

    code = "image_too_large"


class ImageShapeError(ImageError):
    """The array has a shape that is no image, or not the one asked for."""

    code = "wrong_shape"


class PixelValueError(ImageError):
    """A pixel is not a number, infinite, or out of range."""

    code = "invalid_pixels"


class NoDigitError(ImageError):
    """Nothing is drawn on the image, or nothing that looks like the strokes of a digit."""

    code = "no_digit"


class ConnectionFailedError(DigitError):
    """The service could not be reached, or the connection broke."""

    code = "connection_failed"


class DeadlineExceededError(DigitError):
    """The service did not answer in time."""

    code = "deadline_exceeded"


class ServiceError(DigitError):
    """The service answered with an error.

    `status` is the HTTP status (None over gRPC), `reason` the service's own error code, `request_id` what to
    quote to whoever runs it, `retry_after` the seconds that it asks to wait.
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
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after


class ModelNotFoundError(ServiceError):
    """The service has no such model, version or label."""

    code = "model_not_found"


class OverloadedError(ServiceError):
    """The service has more to do than it can; the request may be sent again later."""

    code = "overloaded"


class UnavailableError(ServiceError):
    """The service can't answer now; the request may be sent again later."""

    code = "model_unavailable"
