"""Python client of the Digits service. The names in `__all__` are its public API.

    from digit_client import DigitClient

    with DigitClient() as client:
        print(client.predict("five.png").digit)

`ClassifierClient` is the client for models of other tasks. Each client is imported on first use, so
`import digit_client` stays light. `ModelServerClient` and `AsyncModelServerClient` need the extra `[grpc]`.
"""

import importlib
import typing

from digit_client._exceptions import (
    AuthenticationError,
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    ImageError,
    ImageShapeError,
    ImageTooLargeError,
    ModelNotFoundError,
    NotAnImageError,
    OverloadedError,
    PixelValueError,
    ReadingNotSupportedError,
    ServiceError,
    TooManyDigitsError,
    TruncatedImageError,
    UnavailableError,
)
from digit_client._types import (
    Digit,
    Feedback,
    Line,
    Models,
    ModelVersion,
    Prediction,
    Reading,
)
from digit_client.artifact.task_card import DIGITS, TaskCard, TaskCardError

if typing.TYPE_CHECKING:
    from digit_client._client import (
        AsyncClassifierClient,
        AsyncDigitClient,
        ClassifierClient,
        DigitClient,
    )
    from digit_client._inputs import ImageSource
    from digit_client._retries import RetryPolicy
    from digit_client.tfserving.client import AsyncModelServerClient, ModelServerClient

__all__ = [
    "DIGITS",
    "AsyncClassifierClient",
    "AsyncDigitClient",
    "AsyncModelServerClient",
    "AuthenticationError",
    "ClassifierClient",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "Digit",
    "DigitClient",
    "DigitError",
    "Feedback",
    "ImageError",
    "ImageShapeError",
    "ImageSource",
    "ImageTooLargeError",
    "Line",
    "ModelNotFoundError",
    "ModelServerClient",
    "ModelVersion",
    "Models",
    "NotAnImageError",
    "OverloadedError",
    "PixelValueError",
    "Prediction",
    "Reading",
    "ReadingNotSupportedError",
    "RetryPolicy",
    "ServiceError",
    "TaskCard",
    "TaskCardError",
    "TooManyDigitsError",
    "TruncatedImageError",
    "UnavailableError",
]

_LAZY_MODULES = {
    "AsyncClassifierClient": "_client",
    "AsyncDigitClient": "_client",
    "AsyncModelServerClient": "tfserving.client",
    "ClassifierClient": "_client",
    "DigitClient": "_client",
    "ImageSource": "_inputs",
    "ModelServerClient": "tfserving.client",
    "RetryPolicy": "_retries",
}


# Type checkers see the imports above: with a __getattr__ they would accept any name.
if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _LAZY_MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_LAZY_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_MODULES})
