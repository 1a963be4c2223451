"""Error of the model server: a canonical status code and a message."""

from grpc import StatusCode

from digit_serving.errors import DigitServingError


class ServingError(DigitServingError):
    """Failed call or load. The text is `CODE: message`, as TensorFlow Serving prints a status.

    `code` is a gRPC status code, or its number: TensorFlow's errors have the same numbers.
    """

    def __init__(self, message: str, code: StatusCode | int = StatusCode.INVALID_ARGUMENT) -> None:
        self.code = next(status for status in StatusCode if code in (status, status.value[0]))
        self.message = message
        super().__init__(f"{self.code.name}: {message}")
