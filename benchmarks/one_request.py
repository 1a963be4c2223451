"""Way of one request through the gateway: modules, entries, lines, and CPU time, in process.

    python benchmarks/one_request.py [REQUESTS]

The ASGI application answers POST /v1/predict without HTTP; a stub in place of the gRPC channel answers at
once. An entry is a call, or a resumption of a generator or coroutine, of a function of the packages digit_*
whose module differs from that of the project's function before it. Lines are those of all modules entered.
"""

import asyncio
import contextlib
import io
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import grpc.aio
import numpy as np
import uvloop
from numpy.typing import NDArray

from digit_core.images import to_png
from digit_core.tfserving import codec
from digit_core.tfserving.protos import DT_FLOAT, ModelSpec, PredictResponse

FIVE = Path(__file__).parents[1] / "docs" / "five.jpg"
CONCURRENCIES = (1, 32)
RUNS = 5


def main() -> None:
    """Print the counts of one request for each picture, and the CPU time of many."""
    requests = int(sys.argv[1]) if sys.argv[1:] else 3000
    grpc.aio.insecure_channel = lambda *_, **__: StubChannel()  # type: ignore[assignment]
    from digit_serving.gateway.app import Gateway
    from digit_serving.gateway.settings import Settings

    # Log lines are formatted and written, but not shown.
    with contextlib.redirect_stderr(io.StringIO()):
        uvloop.run(measure(Gateway(Settings()), requests))


async def measure(app: Any, requests: int) -> None:
    """Measure each picture."""
    async with started(app):
        for name, content_type, body in (
            ("28×28 PNG", b"image/png", digit()),
            ("five.jpg", b"image/jpeg", FIVE.read_bytes()),
        ):
            for _ in range(50):
                await post(app, content_type, body)
            await asyncio.sleep(1.5)
            sys.stdout.write(f"{name}: {await count(app, content_type, body)}\n")
            for concurrency in CONCURRENCIES:
                total = requests if name != "five.jpg" else max(64, requests // 20)
                micros = [await cpu(app, content_type, body, total, concurrency) for _ in range(RUNS)]
                sys.stdout.write(
                    f"{name}: c={concurrency}: {statistics.median(micros):.0f} µs of CPU a request "
                    f"({min(micros):.0f} to {max(micros):.0f})\n"
                )


@contextlib.asynccontextmanager
async def started(app: Any) -> AsyncIterator[None]:
    """Run the application's lifespan around the block."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "lifespan.startup"})
    has_started = asyncio.Event()

    async def send(_: Any) -> None:
        has_started.set()

    lifespan = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
    await has_started.wait()
    yield
    messages.put_nowait({"type": "lifespan.shutdown"})
    await lifespan


def digit() -> bytes:
    """Return a PNG of 28×28 pixels that shows a stroke."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 12:16] = 255
    return to_png(pixels)


async def post(app: Any, content_type: bytes, body: bytes, done: Callable[[], None] = lambda: None) -> None:
    """Post a picture; call `done` when the answer has been sent."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50000),
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
        ],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
        elif not message.get("more_body"):
            done()

    await app(scope, receive, send)


async def count(app: Any, content_type: bytes, body: bytes) -> str:
    """Return the modules, entries and lines of one request; the modules are in the order of first entry."""
    entered = await entries(app, content_type, body)
    files = dict.fromkeys(entered)
    lines = sum(len(Path(file).read_bytes().splitlines()) for file in files)
    names = ", ".join(map(module_name, files))
    return f"{len(files)} modules, {len(entered)} entries, {lines} lines: {names}"


def module_name(file: str) -> str:
    """Return the name of a file's module, with its folder."""
    return "/".join(Path(file).with_suffix("").parts[-2:])


async def entries(app: Any, content_type: bytes, body: bytes) -> list[str]:
    """Return the file of each entry of one request, in order."""
    entered: list[str] = []
    current = ""

    def project_file(frame: FrameType | None) -> str:
        """Return the file of the innermost function of the project."""
        while frame:
            file = frame.f_code.co_filename
            if "/digit_" in file and "site-packages" not in file:
                return file
            frame = frame.f_back
        return ""

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal current
        if event == "call":
            file = project_file(frame)
            if file not in (current, ""):
                entered.append(file)
            current = file
        elif event == "return":
            current = project_file(frame.f_back)

    sys.setprofile(profile)
    try:
        await post(app, content_type, body, done=lambda: sys.setprofile(None))
    finally:
        sys.setprofile(None)
    return entered


async def cpu(app: Any, content_type: bytes, body: bytes, requests: int, concurrency: int) -> float:
    """Return the microseconds of this process's CPU time that a request takes."""

    async def call() -> None:
        for _ in range(requests // concurrency):
            await post(app, content_type, body)

    started = time.process_time()
    await asyncio.gather(*(call() for _ in range(concurrency)))
    return (time.process_time() - started) * 1e6 / (requests // concurrency * concurrency)


class StubChannel:
    """Channel of grpc.aio whose calls are answered at once: each digit is a five, each page shows one."""

    def unary_unary(self, method: str, **_: Any) -> Any:
        """Return the call of a method."""

        async def call(request: Any, **_: Any) -> Any:
            if method.endswith("GetModelMetadata"):
                from digit_core.tfserving.protos import GetModelMetadataResponse

                return GetModelMetadataResponse(model_spec=version_1())
            if request.model_spec.name == "reader":
                return respond(
                    scores=np.ones((1, 1), np.float32),
                    classes=np.eye(11, dtype=np.float32)[[[5]]],
                    boxes=np.array([[[40, 40, 60, 80]]], np.float32),
                )
            if request.model_spec.signature_name == codec.CARD_SIGNATURE:
                raise NoCardError
            count = request.inputs["images"].tensor_shape.dim[0].size
            return respond(
                probabilities=np.eye(10, dtype=np.float32)[[5] * count], is_digit=np.ones(count, np.float32)
            )

        return call

    async def close(self) -> None:
        """Close nothing."""


class NoCardError(grpc.RpcError):
    """Answer of a model without a task card."""

    def code(self) -> grpc.StatusCode:
        """Return the status."""
        return grpc.StatusCode.FAILED_PRECONDITION

    def details(self) -> str:
        """Return the message."""
        return "no signature card"


def version_1() -> ModelSpec:
    """Return the version that answers."""
    spec = ModelSpec(name="digits")
    spec.version.value = 1
    return spec


def respond(**outputs: NDArray[np.float32]) -> PredictResponse:
    """Return a response with these outputs."""
    response = PredictResponse(model_spec=version_1())
    for name, values in outputs.items():
        tensor = response.outputs[name]
        tensor.dtype = DT_FLOAT
        tensor.tensor_content = values.tobytes()
        for size in values.shape:
            tensor.tensor_shape.dim.add(size=size)
    return response


if __name__ == "__main__":
    main()
