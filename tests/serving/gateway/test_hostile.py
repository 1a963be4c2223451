"""Hostile requests: a gateway process refuses them, stays alive and within its memory."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from digit_core.artifact.task_card import DIGITS
from digit_core.images import to_png
from tests import decompression_bombs
from tests.processes import answers, children, gateway_process, wait_until
from tests.serving.gateway.helpers import IMAGE
from tests.serving.gateway.stub_model_server import StubModelServer, TaskModels

MEBIBYTE = 2**20
# Bytes that decoding the default DIGITS_MAX_PIXELS may take: at most 30 per pixel.
MAX_MEMORY = 16_000_000 * 30
PREDICT = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
CHUNKED = PREDICT + b"Transfer-Encoding: chunked\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


PNG = to_png(IMAGE)


@dataclass(frozen=True)
class Target:
    """Port of a gateway, and the process ID of its only worker."""

    port: int
    worker: int

    def send(self, *parts: bytes) -> list[int]:
        """Return the statuses that arrive until the gateway closes the connection or is silent for 1 s."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(1)
            # The gateway may answer and close before it has received all parts.
            with suppress(OSError):
                for part in parts:
                    connection.sendall(part)
            with suppress(OSError):
                while data := connection.recv(65_536):
                    received += data
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]

    def post(self, body: bytes, content_type: str, query: str = "") -> tuple[int, str]:
        """Return an answer's status and problem code; fail if the worker needed more than MAX_MEMORY."""
        before = self.memory("VmRSS")
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")
        response = httpx.post(
            f"http://127.0.0.1:{self.port}/v1/predict{query}",
            content=body,
            headers={"content-type": content_type},
            timeout=60,
        )
        assert self.memory("VmHWM") - before < MAX_MEMORY
        return response.status_code, response.json().get("code", "")

    def is_alive(self) -> bool:
        """True if the gateway is ready and the worker process still exists."""
        return answers(f"http://127.0.0.1:{self.port}/readyz") and Path(f"/proc/{self.worker}").exists()

    def memory(self, name: str) -> int:
        """Return a size in /proc/<pid>/status, in bytes."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    # Several large pictures take longer than the default deadline.
    with closing(StubModelServer()) as stub, gateway_process(stub.target, deadline=60) as gateway:
        stub.answer = TaskModels(digits={1: DIGITS})
        wait_until(lambda: answers(f"{gateway.url}/readyz"), gateway.process)
        yield Target(gateway.port, children(gateway.process.pid)[-1])
        assert gateway.process.poll() is None


@pytest.fixture(autouse=True)
def stays_alive(target: Target) -> Iterator[None]:
    yield
    assert target.is_alive()


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        (decompression_bombs.oversized_files, {(422, "image_too_large")}),
        (decompression_bombs.malformed_files, {(400, "not_an_image"), (400, "truncated_image")}),
        pytest.param(decompression_bombs.largest_files, {(200, "")}, marks=pytest.mark.slow),
        (decompression_bombs.non_finite_files, {(422, "invalid_pixels")}),
    ],
    ids=["oversized", "malformed", "largest", "non-finite"],
)
def test_image_decompression_bomb_is_answered_within_memory(
    target: Target, files: Callable[[], dict[str, bytes]], allowed: set[tuple[int, str]]
) -> None:
    for name, data in files().items():
        assert target.post(data, "image/*") in allowed, name


def test_image_declared_as_svg_is_read_by_content(target: Target) -> None:
    assert target.post(PNG + b"<script>", "image/svg+xml") == (200, "")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 4 * MEBIBYTE,
        b'{"a":' * 1000,
        rb'{"images": ["\ud800"]}',
        b'{"instances": [[' + b"1" * 7 * MEBIBYTE + b"]]}",
        b'{"instances": [[1e999]]}',
        b"{" + b",".join(b'"%x":0' % number for number in range(100_000)) + b"}",
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_json_deep_or_huge_is_malformed(target: Target, body: bytes) -> None:
    assert target.post(body, "application/json") == (400, "malformed_body")


@pytest.mark.parametrize("item", [b"[]", b"{}"])
@pytest.mark.parametrize(
    "head", [b'{"images": [', b'{"instances": [', b'{"instances": [[', b'{"images": [""], "box": [']
)
def test_json_millions_of_lists_or_objects_are_too_large(target: Target, head: bytes, item: bytes) -> None:
    body = head + (item + b",") * 2 * MEBIBYTE + item + b"]" * (head.count(b"[[") + 1) + b"}"
    assert target.post(body, "application/json") == (413, "body_too_large")


def test_json_millions_of_texts_are_too_large(target: Target) -> None:
    assert target.post(b'{"a":' * MEBIBYTE, "application/json") == (413, "body_too_large")


@pytest.mark.parametrize(
    "number",
    ["1e-400", "5e-324", "-0", "0." + "1" * MEBIBYTE, str(2**64)],
    ids=["1e-400", "5e-324", "-0", "a million digits", "2^64"],
)
def test_json_extreme_numbers_are_answered(target: Target, number: str) -> None:
    row = f"[{','.join([number] + ['1'] * 783)}]"
    assert target.post(f'{{"instances": [{row}]}}'.encode(), "application/json") == (200, "")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 150_000 + b"--x--", 413),
        (b"--x\r\n\r\n\r\n" * 900_000 + b"--x--", 413),
        (b"--x\r\n" + b"A: b\r\n" * MEBIBYTE, 413),
        (b"--x\r\nA: " + b"a" * 7 * MEBIBYTE, 413),
        (b"--x\r\n\r\n" + b"\r" * 7 * MEBIBYTE, 400),
        (b'--x\r\nContent-Disposition: form-data; name="image"; filename="\xff"\r\n\r\n--x--', 400),
        (b'--x\r\nContent-Disposition: form-data; name="image"; filename="/a"\r\n\r\n--x--', 200),
    ],
    ids=["parts", "nameless parts", "headers", "long header", "no line ends", "no UTF-8", "a path"],
)
def test_form_malformed_is_refused_or_its_image_is_an_error(target: Target, body: bytes, status: int) -> None:
    assert target.post(body, "multipart/form-data; boundary=x")[0] == status


def test_body_refused_leaves_no_memory(target: Target) -> None:
    large = PNG + bytes(7 * MEBIBYTE)
    target.post(large, "image/png", "?version=77")
    before = target.memory("VmRSS")
    for _ in range(40):
        assert target.post(large, "image/png", "?version=77") == (404, "model_not_found")
    assert target.memory("VmRSS") - before < 40 * MEBIBYTE


def test_body_too_large_declared_or_chunked_is_refused(target: Target) -> None:
    size = b"Content-Length: %d\r\n\r\n" % 2**63
    assert target.send(PREDICT + size, b"x") == [413]
    many = b"100000\r\n" + bytes(MEBIBYTE) + b"\r\n"
    assert target.send(CHUNKED + b"\r\n", *[many] * 9, b"0\r\n\r\n") == [413]


@pytest.mark.parametrize(
    ("line", "status"),
    [("POST /nowhere", 404), ("POST /", 405), ("GET /v1/models", 200), ("OPTIONS /v1/predict", 200)],
)
def test_body_of_a_route_that_takes_none_is_not_received(target: Target, line: str, status: int) -> None:
    head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {8 * MEBIBYTE}\r\n\r\n"
    assert target.send(head.encode(), b"x") == [status]


def test_body_slow_senders_delay_no_other_request(target: Target) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", target.port)))
            caller.sendall(PREDICT + b"Content-Length: 100\r\n\r\nabc")
        time.sleep(0.5)
        assert target.post(PNG, "image/png") == (200, "")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"),
        (b"Content-Length: +5\r\n", b"hello"),
        (b"Content-Length: %d\r\n" % 2**64, b"hello"),
        (b"Transfer-Encoding: chunked, identity\r\n", b"hello"),
        (b"Transfer-Encoding : chunked\r\n", b"hello"),
        (b"X-A: b\r\n c\r\n", b"hello"),
        (b"X-A: \0\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"0x5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    ],
    ids=lambda part: part.decode()[:40],
)
def test_request_ambiguous_framing_gets_400(target: Target, head: bytes, body: bytes) -> None:
    assert target.send(PREDICT + head + b"\r\n" + body + LIVEZ) == [400]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nX-A: " + b"a" * MEBIBYTE + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/3.0\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 400),
        (b"\x16\x03\x01\x02\x00" + bytes(100), 400),
    ],
    ids=["headers", "long header", "HTTP/3", "HTTP/0.9", "HTTP/2", "TLS"],
)
def test_request_flood_or_other_protocol_is_refused(target: Target, request_: bytes, status: int) -> None:
    assert target.send(request_) == [status]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../api.py",
        "/static/..%2fapi.py",
        "/static/%2e%2e/api.py",
        "/static/index.html%00.js",
        "/docs/..%2fapi.py",
        "/docs//etc/passwd",
        "/docs/start.js/..",
        "/v1/%2e%2e/livez",
        "/v1\\models",
    ],
)
def test_path_traversal_is_not_found(target: Target, path: str) -> None:
    assert target.send(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()) == [404]


@pytest.mark.parametrize("label", ["a" * 15_000, "%C3%A9" * 2_000, "%00", "%FF", "%ED%A0%80", "a%0D%0Ab"])
def test_label_unusual_is_not_found(target: Target, label: str) -> None:
    assert target.post(PNG, "image/png", f"?label={label}") == (404, "model_not_found")


def test_flood_of_incomplete_bodies_stays_within_body_memory(target: Target) -> None:
    before = target.memory("VmRSS")
    Path(f"/proc/{target.worker}/clear_refs").write_text("5")
    body = bytes(8 * MEBIBYTE - 1024)
    with ExitStack() as connections:
        for _ in range(60):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", target.port)))
            # The gateway may answer and close before it has received the whole body.
            with suppress(OSError):
                connection.sendall(PREDICT + b"Content-Length: %d\r\n\r\n" % (8 * MEBIBYTE) + body)
        assert target.send(LIVEZ) == [200]
        # 480 MiB were sent; 128 MiB may be held, and buffers of the connections.
        assert target.memory("VmHWM") - before < 200 * MEBIBYTE
    wait_until(lambda: target.post(PNG, "image/png")[0] == 200)
