"""The core's one error: a canonical status code and a message in TensorFlow Serving's words."""

from typing import Any

from grpc import StatusCode


class ServingError(Exception):
    """Reads `CODE: message`, as the original prints a status."""

    def __init__(self, message: str, code: StatusCode = StatusCode.INVALID_ARGUMENT) -> None:
        super().__init__(f"{code.name}: {message}")
        self.message, self.code = message, code

    @classmethod
    def of(cls, error: Any) -> "ServingError":
        """The same status as a `tf.errors.OpError`."""
        return cls(error.message, next(code for code in StatusCode if code.value[0] == error.error_code))
