"""Fixtures: a stub of Prometheus' HTTP API, and answers that it counted."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


class StubPrometheus(ThreadingHTTPServer):
    """Server that answers each query from `results`, and every request with `raw` if that is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.results: dict[str, list[tuple[dict[str, str], float]]] = {}
        self.raw: tuple[int, bytes] | None = None
        self.queries: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(
        self,
        window: str,
        labels: dict[str, float],
        confidences: dict[str, float],
        model: str = "digits",
        version: str = "1",
    ) -> None:
        """Add answers of one version in a window such as "[604800s]"; confidences cumulate."""
        self.results.setdefault(_labels_query(window), []).extend(
            ({"model": model, "version": version, "label": label}, value) for label, value in labels.items()
        )
        self.results.setdefault(_confidences_query(window), []).extend(
            ({"model": model, "le": bound}, value) for bound, value in confidences.items()
        )


class _Handler(BaseHTTPRequestHandler):
    server: StubPrometheus

    def do_GET(self) -> None:
        if self.server.raw:
            self._send(*self.server.raw)
            return
        address = urlsplit(self.path)
        assert address.path == "/api/v1/query"
        (query,) = parse_qs(address.query)["query"]
        self.server.queries.append(query)
        result = [
            {"metric": series, "value": [1.0, str(value)]}
            for series, value in self.server.results.get(query, [])
        ]
        answer: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": result}}
        self._send(200, json.dumps(answer).encode())

    def log_message(self, *_arguments: object) -> None:
        pass

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def prometheus() -> Iterator[StubPrometheus]:
    server = StubPrometheus()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _labels_query(window: str) -> str:
    return f"sum by (model, version, label) (increase(digits_predictions_total{window}))"


def _confidences_query(window: str) -> str:
    return f"sum by (model, le) (increase(digits_confidence_bucket{window}))"
