"""Errors of this package. Each message is one sentence for a terminal.

    DigitServingError          a command fails with exit status 1
    ├── SettingError           an option or environment variable can't be used: exit status 2
    ├── NoServiceError         a command does not know which service to ask
    ├── ProcessDiedError       a child process has ended by itself
    ├── GatewayError           the gateway refuses a request; its tree is in `gateway.errors`
    └── ServingError           the model server refuses a call or can't load a version

Artifacts fail with ArtifactError, and calls of a service with DigitError, both of `digit_core`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from digit_core.errors import how_to_install


class DigitServingError(Exception):
    """Base class of the package's errors."""


class SettingError(DigitServingError):
    """A well-formed option or environment variable is unusable here; the message names it and the reason."""


class NoServiceError(DigitServingError):
    """No option or variable names a service, and no `digits up` runs for the folder."""


class ProcessDiedError(DigitServingError):
    """A process of the group has ended by itself. `process` is its name."""

    def __init__(self, message: str, process: str) -> None:
        self.process = process
        super().__init__(message)


class ServingError(DigitServingError):
    """The model server refuses a call, or can't load a version.

    `code` is the name of gRPC's status code. The text is `CODE: message`, as TensorFlow Serving prints it.
    """

    def __init__(self, message: str, code: str = "INVALID_ARGUMENT") -> None:
        self.message, self.code = message, code
        super().__init__(f"{code}: {message}")


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn the error of a missing module into one line that says how to install the extra with it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DigitServingError(f"this needs digits[{extra}]; {how_to_install(extra)}") from error
