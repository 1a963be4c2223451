"""Event loop: no request that is permitted, and none that is refused, keeps it from others for long."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray

from benchmarks.attacks import scribbles
from digit_core.artifact.task_card import CardInput, TaskCard
from digit_core.images import to_png
from digit_core.reading.expectations import MAX_STEPS
from digit_core.schema import MAX_NUMBERS, MAX_PATTERN
from digit_serving.gateway import bridge
from digit_serving.gateway.settings import Settings
from tests import decompression_bombs, greenlet_loop
from tests.serving.gateway.stub_model_server import StubModelServer, TaskModels, TemplateModel

LONGEST = 0.1
"""CPU time of an iteration, in seconds, after which other callers notice it."""
MEBIBYTE = 2**20


@pytest.fixture
def http(stub: StubModelServer, digits: Any) -> FlaskClient:
    """Test client of a gateway with the default limits, on a machine that may be busy."""
    stub.answer = TemplateModel(digits)
    return greenlet_loop.client(Settings(model_server=stub.target, default_label="", deadline=120))


def post(http: FlaskClient, path: str, body: bytes, content_type: str) -> tuple[Any, float]:
    """Return the response to a request, and the seconds as `post_at_once` does."""
    (response,), longest = post_at_once(http, path, body, content_type)
    return response, longest


def post_at_once(
    http: FlaskClient, path: str, body: bytes, content_type: str, count: int = 1
) -> tuple[list[Any], float]:
    """Return the responses, and the CPU time of the loop's thread in its longest iteration, in seconds.

    CPU time, unlike time, does not grow with what else runs on the machine.
    """

    def send() -> Any:
        # The method of the base class: the loop's thread can't wait for itself.
        return FlaskClient.open(http, path, method="POST", data=body, content_type=content_type)

    async def measure() -> tuple[list[Any], float]:
        calls, longest = [asyncio.create_task(bridge.run(send)) for _ in range(count)], 0.0
        while not all(call.done() for call in calls):
            started = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - started)
        return [await call for call in calls], longest

    return greenlet_loop.run(measure())


def as_json(**members: Any) -> bytes:
    return json.dumps(members).encode()


def encoded(*files: bytes) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


SCRIBBLES = scribbles(6, 10)
OPTIONAL = "#{0,1}" * (MAX_PATTERN // 6)
LARGEST = "|".join(["#{0,64}"] * (MAX_STEPS // 65))
"""Pattern of as many steps as are permitted, about."""
NUMBERS = [f"{number:08}" for number in range(MAX_NUMBERS)]


@pytest.mark.parametrize(
    ("members", "files"),
    [
        ({"expect": OPTIONAL}, [SCRIBBLES]),
        ({"expect": OPTIONAL, "check": "mod97"}, [SCRIBBLES]),
        ({"expect": LARGEST, "check": "luhn"}, [SCRIBBLES]),
        ({"check": "mod97"}, [SCRIBBLES] * 20),
        ({}, [SCRIBBLES] * 20),
        ({"expect": NUMBERS}, [SCRIBBLES]),
        ({"expect": OPTIONAL, "turn": "auto"}, [scribbles(12, 24)]),
    ],
    ids=["optional", "optional, check", "largest", "check", "no expectation", "list", "288 digits"],
)
def test_reading_of_what_could_be_anything_leaves_the_loop_to_others(
    http: FlaskClient, members: dict[str, Any], files: list[bytes]
) -> None:
    body = as_json(images=encoded(*files), **members)
    response, longest = post(http, "/v1/read", body, "application/json")
    assert response.status_code == 200, response.text
    assert len(response.get_json()["readings"]) == len(files)
    assert longest < LONGEST


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: as_json(images=encoded(SCRIBBLES), box=[[1, 2, 3, 4]] * 500_000), 413),
        (lambda: as_json(images=encoded(SCRIBBLES), box=list(range(MEBIBYTE))), 413),
        (lambda: as_json(images=encoded(SCRIBBLES), box=[[0] * 2_600_000]), 413),
        (lambda: as_json(images=encoded(SCRIBBLES), form={"a": {"box": [[[0] * 2_600_000, 1, 1, 1]]}}), 413),
        (lambda: as_json(images=encoded(SCRIBBLES), expect=["1"] * 1_500_000), 413),
        (lambda: as_json(images=encoded(SCRIBBLES), expect=["1" * 7 * MEBIBYTE]), 400),
        (lambda: as_json(images=encoded(SCRIBBLES), turn=[[[7] * 1_000_000]]), 413),
        (lambda: as_json(images=encoded(SCRIBBLES), **{"expect" * MEBIBYTE: 1}), 400),
        (lambda: as_json(images=encoded(SCRIBBLES), **{str(number): 1 for number in range(600_000)}), 413),
        (lambda: as_json(images=encoded(SCRIBBLES), label="a" * 7 * MEBIBYTE), 400),
        (lambda: as_json(images=[1] * 2_000_000), 413),
        (lambda: as_json(instances=[[0.5] * 784] * 256, min_confidence=[0] * 100_000), 400),
    ],
    ids=[
        *("boxes", "a box", "numbers of a box", "lists of a box", "numbers", "a number", "nested", "a name"),
        *("names", "a label", "pictures", "instances"),
    ],
)
def test_options_of_any_size_leave_the_loop_to_others(
    http: FlaskClient, make: Callable[[], bytes], status: int
) -> None:
    response, longest = post(http, "/v1/read", make(), "application/json")
    assert response.status_code == status, response.text
    assert len(response.data) < 2000
    assert longest < LONGEST


@pytest.mark.parametrize(
    "body",
    [
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"\r\n--" * 2 * MEBIBYTE + b"\r\n--x--",
        b"--x\r\n\r\n" + b"\r" * 7 * MEBIBYTE,
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n1\r\n--x--' % (b"a;" * 3 * MEBIBYTE),
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 80 + b"--x--",
        b"--x\r\nContent-Disposition: form-data%s\r\n\r\n1\r\n--x--" % (b";a=b" * 110_000),
    ],
    ids=["delimiters", "line ends", "a name", "fields", "parameters"],
)
def test_form_of_any_size_leaves_the_loop_to_others(http: FlaskClient, body: bytes) -> None:
    response, longest = post(http, "/v1/read", body, "multipart/form-data; boundary=x")
    assert 400 <= response.status_code < 500
    assert longest < LONGEST


def drawing(side: int) -> bytes:
    """Return a drawing of a digit, of which the model is not sure."""
    picture: NDArray[np.uint8] = np.full((side, side), 255, np.uint8)
    cv2.polylines(picture, [np.array([[side // 3, side // 4], [side // 2, side // 2]])], False, 0, side // 20)
    return to_png(picture)


@pytest.mark.parametrize(("side", "count"), [(28, 256), (100, 256), (280, 256), (1000, 100)])
@pytest.mark.parametrize("path", ["/v1/predict?include=image", "/v1/read?include=image"])
def test_many_pictures_leave_the_loop_to_others(http: FlaskClient, path: str, side: int, count: int) -> None:
    response, longest = post(http, path, as_json(images=encoded(drawing(side)) * count), "application/json")
    assert response.status_code == 200, response.text
    assert longest < LONGEST


def test_input_of_a_large_model_leaves_the_loop_to_others(stub: StubModelServer) -> None:
    stub.answer = TaskModels(
        large={1: TaskCard("large", ("a", "b"), CardInput((1024, 1024, 3), (0.0, 255.0)))}
    )
    http = greenlet_loop.client(
        Settings(model_server=stub.target, model_name="large", default_label="", deadline=120)
    )
    noise = np.random.default_rng(7).integers(0, 256, (512, 512), np.uint8)
    response, longest = post(http, "/v1/predict?include=image", to_png(noise), "image/png")
    assert len(response.get_json()["predictions"][0]["image"]) > MEBIBYTE
    assert longest < LONGEST


@pytest.mark.parametrize(
    "file",
    [
        lambda: decompression_bombs.png(28, 28, surplus=300 * MEBIBYTE),
        lambda: decompression_bombs.png(28, 28, extra=decompression_bombs.png_chunk(b"tEXt", b"") * 600_000),
        lambda: b"P2\n" + b"#a\n" * MEBIBYTE + b"28 28 255\n" + b"0 " * 784,
        lambda: b"P3 1000 1000 255\n" + b"0 " * 3_000_000,
        lambda: decompression_bombs.bmp(28, 28, compression=1, bits=8, rest=bytes(7 * MEBIBYTE)),
        lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 2_000_000 + b"\xff\xd9",
        lambda: b"GIF89a" + bytes(7) + b"!\xfe" + b"\1a" * 3_000_000,
    ],
    ids=["PNG inflates", "PNG chunks", "P2", "P3", "BMP RLE", "JPEG comments", "GIF comments"],
)
def test_file_of_any_content_leaves_the_loop_to_others(http: FlaskClient, file: Callable[[], bytes]) -> None:
    response, longest = post(http, "/v1/predict", file(), "image/*")
    assert 400 <= response.status_code < 500
    assert longest < LONGEST


def test_requests_at_once_share_the_iterations_of_the_loop(http: FlaskClient) -> None:
    body = as_json(images=encoded(drawing(60)) * 256)
    responses, longest = post_at_once(http, "/v1/predict?include=image", body, "application/json", 16)
    assert {response.status_code for response in responses} <= {200, 429}
    assert longest < LONGEST
