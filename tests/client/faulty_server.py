"""HTTP server in this process that sends the responses that a test sets."""

import json
import threading
from collections.abc import Callable
from typing import Any, Self

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

DIGITS: dict[str, Any] = {"name": "digits", "version": 1, "labels": [*"0123456789"]}
"""Model object of a gateway's answers."""


class FaultyServer:
    """HTTP server that sends the given responses in turn, the last one repeatedly."""

    def __init__(self, port: int = 0) -> None:
        self.responses: list[Callable[[], Response]] = []
        self.requests = self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self.queries: list[dict[str, str]] = []
        application = Request.application(self._count_and_respond)
        self._server = make_server("127.0.0.1", port, application, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def respond(self, request: Request) -> Response:
        """Return the response to the request. Called in the request's thread."""
        return (self.responses.pop(0) if len(self.responses) > 1 else self.responses[0])()

    def _count_and_respond(self, request: Request) -> Response:
        with self._lock:
            self.requests += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.queries.append(request.args.to_dict())
        # An unread body would reset the connection, which may discard the response.
        request.get_data()
        try:
            return self.respond(request)
        finally:
            with self._lock:
                self.in_flight -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def success() -> Response:
    """Return a gateway's response for one image: the digit 0 with probability 1."""
    return prediction(DIGITS, [1.0] + [0.0] * 9, digit=0)()


def prediction(model: dict[str, Any], probabilities: list[float], **fields: Any) -> Callable[[], Response]:
    """Create responses for one image: the most probable class of the model."""
    index, confidence = max(enumerate(probabilities), key=lambda pair: pair[1])
    answer = {"label": model["labels"][index], "index": index, "confidence": confidence}
    document = {"model": model, "predictions": [answer | {"probabilities": probabilities} | fields]}
    return lambda: Response(json.dumps(document))


def problem(status: int, code: str, detail: str) -> Callable[[], Response]:
    """Create responses with a problem document."""
    return lambda: Response(json.dumps({"status": status, "code": code, "detail": detail}), status)


def read_success() -> Response:
    """Return a gateway's response to `read` for one image of 60×120 pixels: the lines 12 and 3."""
    lines = [
        _line("12", [5, 5, 50, 30], [5, 5, 20, 30], [35, 5, 20, 30]) | {"separators": [[28, 30, 4, 4]]},
        _line("3", [5, 75, 20, 30], [5, 75, 20, 30]),
    ]
    return Response(
        json.dumps({"model": DIGITS, "readings": [{"text": "12\n3", "confidence": 0.8, "lines": lines}]})
    )


def _line(text: str, box: list[int], *boxes: list[int]) -> dict[str, Any]:
    digits = [
        {
            "digit": int(digit),
            "confidence": 1.0,
            "probabilities": [float(digit == str(other)) for other in range(10)],
            "is_digit": 0.9,
            "box": digit_box,
        }
        for digit, digit_box in zip(text, boxes, strict=True)
    ]
    return {"text": text, "confidence": 0.9, "box": box, "digits": digits}


def failure(status: int, **headers: str) -> Callable[[], Response]:
    """Create responses of this status without a problem document."""
    return lambda: Response("{}", status, headers)
