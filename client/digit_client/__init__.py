"""Client of the digit-reading service.

    from digit_client import DigitClient

    with DigitClient() as client:
        print(client.predict("five.png").digit)

Names are imported when they are first used: `ModelServerClient` needs the extra `[grpc]`, the others don't.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from digit_client._exceptions import (
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    ImageError,
    ImageShapeError,
    ImageTooLargeError,
    ModelNotFoundError,
    NoDigitError,
    NotAnImageError,
    OverloadedError,
    PixelValueError,
    ServiceError,
    TruncatedImageError,
    UnavailableError,
)

if TYPE_CHECKING:
    from digit_client._client import AsyncDigitClient, DigitClient
    from digit_client._retries import RetryPolicy
    from digit_client._types import Prediction
    from digit_client.tfserving.client import ModelServerClient

__all__ = [
    "AsyncDigitClient",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "DigitClient",
    "DigitError",
    "ImageError",
    "ImageShapeError",
    "ImageTooLargeError",
    "ModelNotFoundError",
    "ModelServerClient",
    "NoDigitError",
    "NotAnImageError",
    "OverloadedError",
    "PixelValueError",
    "Prediction",
    "RetryPolicy",
    "ServiceError",
    "TruncatedImageError",
    "UnavailableError",
]

_HOMES = {
    "AsyncDigitClient": "_client",
    "DigitClient": "_client",
    "ModelServerClient": "tfserving.client",
    "Prediction": "_types",
    "RetryPolicy": "_retries",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
