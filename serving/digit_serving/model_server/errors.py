"""The core's one error: a canonical status code and a message in TensorFlow Serving's words."""

from grpc import StatusCode


class ServingError(Exception):
    """Reads `CODE: message`, as the original prints a status; the codes have TensorFlow's numbers."""

    def __init__(self, message: str, code: StatusCode | int = StatusCode.INVALID_ARGUMENT) -> None:
        self.code = next(each for each in StatusCode if code in (each, each.value[0]))
        self.message = message
        super().__init__(f"{self.code.name}: {message}")
