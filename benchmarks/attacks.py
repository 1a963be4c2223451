"""Attacks without a key on a running service: what other callers, and probes, notice of each.

    python -m benchmarks.attacks http://127.0.0.1:8080 --seconds 60

Each attack repeats a request that costs much for its size over a few connections. Meanwhile ten callers a
second send a digit, and a probe asks /livez. A row has the share of callers who got their answer within 2 s,
the slowest /livez in seconds, the attack's own answers by status, and the workers that ended.
"""

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import re
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digit_core.images import to_png
from digit_core.tfserving.protos import DT_FLOAT, PredictRequest, PredictResponse

PATIENCE = 2.0
"""Seconds in which a caller expects an answer."""
MEBIBYTE = 2**20
DIGIT = to_png(np.pad(np.eye(20, dtype=np.uint8) * 255, 4))


@dataclass(frozen=True)
class Attack:
    """Request that is repeated over this number of connections; to the model server without a path."""

    body: Callable[[], bytes]
    path: str = "/v1/predict"
    content_type: str = "image/png"
    connections: int = 6


def scribbles(rows: int, columns: int) -> bytes:
    """Return a picture of as many scribbles, which could be any digit."""
    rng = np.random.default_rng(7)
    picture: NDArray[np.uint8] = np.full((rows * 30, columns * 30), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        points = np.array([column, row]) * 30 + rng.uniform(6, 24, (6, 2))
        cv2.polylines(picture, [points.astype(np.int32)], False, 0, 2)
    return to_png(picture)


def digits(rows: int, columns: int) -> bytes:
    """Return a picture of as many digits."""
    picture: NDArray[np.uint8] = np.full((rows * 34, columns * 34), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        place = (column * 34 + 7, row * 34 + 27)
        cv2.putText(picture, str((row + column) % 10), place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, 0, 2)
    return to_png(picture)


def png(width: int, height: int, inflated: int) -> bytes:
    """Return a PNG whose pixels inflate to so many bytes."""
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(MEBIBYTE)) for _ in range(inflated // MEBIBYTE)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bmp_of_line_ends() -> bytes:
    """Return an RLE8 BMP of 28×28 pixels, whose rows end again and again."""
    header = struct.pack("<IiiHHIIiiII", 40, 28, 28, 1, 8, 1, *[0] * 5)
    head = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54 + 1024) + header + bytes(1024)
    return head + bytes(7 * MEBIBYTE)


def large(form: str, mode: str = "RGB", **options: Any) -> bytes:
    """Return a black picture of 16 megapixels."""
    buffer = io.BytesIO()
    Image.new(mode, (4000, 4000)).save(buffer, form, **options)
    return buffer.getvalue()


def as_json(*files: bytes, **members: Any) -> bytes:
    """Return a JSON body with these pictures and options."""
    return json.dumps({"images": [base64.b64encode(file).decode() for file in files], **members}).encode()


def tensor(rows: int) -> bytes:
    """Return a request for the model digits whose tensor declares so many rows, and has one number."""
    request = PredictRequest()
    request.model_spec.name = "digits"
    pixels = request.inputs["pixels"]
    pixels.dtype = DT_FLOAT
    for size in (rows, 784):
        pixels.tensor_shape.dim.add(size=size)
    pixels.float_val.append(0.5)
    return bytes(request.SerializeToString())


JSON = "application/json"
NUMBERS = [f"{number:08}" for number in range(100_000)]
ATTACKS = {
    "33 optional digits, 60 scribbles": Attack(
        lambda: as_json(scribbles(6, 10), expect="#{0,1}" * 33), "/v1/read", JSON
    ),
    "32 optional pairs, 288 digits": Attack(
        lambda: as_json(digits(12, 24), expect="#{0,2}" * 32), "/v1/read", JSON
    ),
    "largest pattern, 20 pages": Attack(
        lambda: as_json(*[scribbles(6, 10)] * 20, expect="|".join(["#{0,64}"] * 7), check="mod97"),
        "/v1/read",
        JSON,
    ),
    "100,000 valid numbers": Attack(lambda: as_json(scribbles(6, 10), expect=NUMBERS), "/v1/read", JSON),
    "PNG that inflates to 300 MB": Attack(lambda: png(28, 28, 300 * MEBIBYTE)),
    "PNG that inflates to 5 GB": Attack(lambda: png(28, 28, 5 * 1024 * MEBIBYTE)),
    "PNG of 600,000 empty chunks": Attack(
        lambda: DIGIT[:33] + (bytes(4) + b"tEXt" + bytes(4)) * 600_000 + DIGIT[33:]
    ),
    "P2 of a million comments": Attack(lambda: b"P2\n" + b"#a\n" * MEBIBYTE + b"28 28 255\n" + b"0 " * 784),
    "P3 of a megapixel": Attack(lambda: b"P3 1000 1000 255\n" + b"0 " * 3_000_000),
    "BMP of line ends": Attack(bmp_of_line_ends),
    "JPEG of 8 MB of comments": Attack(
        lambda: b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000 + large("JPEG", "L")[2:]
    ),
    "GIF of 16 MP": Attack(lambda: large("GIF", "P")),
    "500,000 boxes": Attack(lambda: as_json(DIGIT, box=[[1, 2, 3, 4]] * 500_000), "/v1/read", JSON),
    "500,000 boxes of feedback": Attack(
        lambda: json.dumps({"image": "", "label": "7", "boxes": [[1, 2, 3, 4]] * 500_000}).encode(),
        "/v1/feedback",
        JSON,
    ),
    "256 pages": Attack(lambda: as_json(*[scribbles(3, 3)] * 256), "/v1/read", JSON),
    "8 MB of JSON": Attack(lambda: b'{"instances": [[' + b"1," * 4_000_000 + b"1]]}", content_type=JSON),
    "8 MB of a form": Attack(
        lambda: b"--x\r\n\r\n" + b"\r" * 7 * MEBIBYTE, content_type="multipart/form-data; boundary=x"
    ),
    "tensor of 1,000,000 rows": Attack(lambda: tensor(1_000_000), path="", connections=2),
    "tensor of 20,000 rows": Attack(lambda: tensor(20_000), path=""),
}


def main() -> None:
    """Print a row for each attack."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("url", help="address of the gateway")
    parser.add_argument("--model-server", default="127.0.0.1:8500", help="address of the model server (gRPC)")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help="part of the attacks' names")
    arguments = parser.parse_args()
    sys.stdout.write("| attack | bytes | answered in 2 s | slowest /livez | statuses | workers lost |\n")
    sys.stdout.write("| --- | ---: | ---: | ---: | --- | ---: |\n")
    for name, attack in ATTACKS.items():
        if arguments.only in name:
            sys.stdout.write(f"| {name} | {run(attack, arguments)} |\n")
            sys.stdout.flush()


def run(attack: Attack, arguments: argparse.Namespace) -> str:
    """Run the attack in a process of its own, and return the cells of its row."""
    body = attack.body()
    before = worker_exits(arguments.url)
    statuses: multiprocessing.SimpleQueue[Counter[str]] = multiprocessing.SimpleQueue()
    attacking = multiprocessing.Process(target=repeat, args=(attack, body, arguments, statuses))
    attacking.start()
    answered, slowest = asyncio.run(others(arguments.url, arguments.seconds))
    counted = statuses.get()
    attacking.join()
    time.sleep(2)
    lost = worker_exits(arguments.url) - before
    listed = ", ".join(f"{count} × {status}" for status, count in counted.most_common(3))
    return f"{len(body):,} | {answered:.0%} | {slowest:.2f} s | {listed} | {lost:.0f}"


def repeat(
    attack: Attack, body: bytes, arguments: argparse.Namespace, statuses: "multiprocessing.SimpleQueue[Any]"
) -> None:
    """Send the request over and over for the duration, and put the number of answers by their status."""
    counted: Counter[str] = Counter()
    call = attack_gateway if attack.path else attack_model_server
    asyncio.run(call(attack, body, arguments, counted))
    statuses.put(counted)


async def attack_gateway(
    attack: Attack, body: bytes, arguments: argparse.Namespace, counted: Counter[str]
) -> None:
    """Attack the gateway."""
    end = time.monotonic() + arguments.seconds
    async with httpx.AsyncClient(base_url=arguments.url, timeout=30, trust_env=False) as client:

        async def one() -> None:
            while time.monotonic() < end:
                try:
                    response = await client.post(
                        attack.path, content=body, headers={"Content-Type": attack.content_type}
                    )
                    counted[str(response.status_code)] += 1
                except httpx.HTTPError as error:
                    counted[type(error).__name__] += 1
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(one() for _ in range(attack.connections)))


async def attack_model_server(
    attack: Attack, body: bytes, arguments: argparse.Namespace, counted: Counter[str]
) -> None:
    """Attack the model server."""
    end = time.monotonic() + arguments.seconds
    request = PredictRequest.FromString(body)
    async with grpc.aio.insecure_channel(arguments.model_server) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )

        async def one() -> None:
            while time.monotonic() < end:
                try:
                    await predict(request, timeout=5)
                    counted["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    counted[error.code().name] += 1
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(one() for _ in range(attack.connections)))


async def others(url: str, seconds: float) -> tuple[float, float]:
    """Return the share of other callers who are answered in time, and the slowest /livez in seconds."""
    end = time.monotonic() + seconds
    answered: list[bool] = []
    probes: list[float] = []

    async def call() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            try:
                response = await client.post("/v1/predict", content=DIGIT)
                answered.append(response.status_code == 200)
            except httpx.HTTPError:
                answered.append(False)

    async def probe() -> None:
        while time.monotonic() < end:
            started = time.monotonic()
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
                try:
                    await client.get("/livez")
                except httpx.HTTPError:
                    await asyncio.sleep(0.1)
            probes.append(time.monotonic() - started)
            await asyncio.sleep(0.25)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(probe())
        while time.monotonic() < end:
            tasks.create_task(call())
            await asyncio.sleep(0.1)
    return sum(answered) / len(answered), max(probes)


def worker_exits(url: str) -> float:
    """Return the number of workers that ended so far."""
    metrics = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).text
    found = re.search(r"^digits_worker_exits_total(?:{.*})? ([\d.e+]+)", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


if __name__ == "__main__":
    main()
