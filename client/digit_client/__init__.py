"""Python client of the Digits service. The names in `__all__` are its public API.

    from digit_client import Client

    with Client() as client:
        print(client.predict("five.png").digit)

Each client is for any task, and is imported on first use, so `import digit_client` stays light.
`ModelServerClient` and `AsyncModelServerClient` need the extra `[grpc]`.
"""

import importlib
import importlib.util
import typing

from digit_client._options import CallOptions, Feedback, ReadOptions
from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard, TaskCardError
from digit_core.errors import (
    AuthenticationError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    ImageError,
    ImageShapeError,
    ImageTooLargeError,
    InvalidOptionError,
    InvalidOutputError,
    ModelNotFoundError,
    NotAnImageError,
    OverloadedError,
    PixelValueError,
    ReaderMissingError,
    ReadingNotSupportedError,
    ServiceError,
    TooManyDigitsError,
    TruncatedImageError,
    UnavailableError,
)
from digit_core.options import Field
from digit_core.results import Candidate, Digit, Line, Models, ModelVersion, Prediction, Reading

if typing.TYPE_CHECKING:
    from digit_client._client import AsyncClient, Client
    from digit_client._model_server_client import AsyncModelServerClient, ModelServerClient
    from digit_client._retries import RetryPolicy
    from digit_core.drawing import draw
    from digit_core.inputs import ImageSource
    from digit_core.tables import to_arrow

__all__ = [
    "DIGITS",
    "AsyncClient",
    "AuthenticationError",
    "CallOptions",
    "Candidate",
    "CardInput",
    "CardPreparation",
    "Client",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "Digit",
    "DigitError",
    "Feedback",
    "Field",
    "ImageError",
    "ImageShapeError",
    "ImageSource",
    "ImageTooLargeError",
    "InvalidOptionError",
    "InvalidOutputError",
    "Line",
    "ModelNotFoundError",
    "ModelVersion",
    "Models",
    "NotAnImageError",
    "OverloadedError",
    "PixelValueError",
    "Prediction",
    "ReadOptions",
    "ReaderMissingError",
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
# Names that can't be imported would break `import *` and pydoc.
if importlib.util.find_spec("grpc"):
    __all__ += ["AsyncModelServerClient", "ModelServerClient"]
if importlib.util.find_spec("PIL") and importlib.util.find_spec("cv2"):
    __all__ += ["draw"]
if importlib.util.find_spec("pyarrow"):
    __all__ += ["to_arrow"]

_LAZY_MODULES = {
    "AsyncClient": "digit_client._client",
    "AsyncModelServerClient": "digit_client._model_server_client",
    "Client": "digit_client._client",
    "ImageSource": "digit_core.inputs",
    "ModelServerClient": "digit_client._model_server_client",
    "RetryPolicy": "digit_client._retries",
    "draw": "digit_core.drawing",
    "to_arrow": "digit_core.tables",
}
_EXTRAS = {
    "draw": "images",
    "AsyncModelServerClient": "grpc",
    "ModelServerClient": "grpc",
    "images": "images",
    "to_arrow": "arrow",
}


# Type checkers see the imports above: with a __getattr__ they would accept any name.
if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        try:
            if name == "images":
                return importlib.import_module("digit_core.images")
            if name in _LAZY_MODULES:
                return getattr(importlib.import_module(_LAZY_MODULES[name]), name)
        except ModuleNotFoundError as error:
            if name not in _EXTRAS:
                raise
            from digit_core.errors import how_to_install

            raise ModuleNotFoundError(
                f"{__name__}.{name} needs digits[{_EXTRAS[name]}]; {how_to_install(_EXTRAS[name])}",
                name=error.name,
            ) from error
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
