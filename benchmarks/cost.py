"""CPU cost of a request in gateway and model server, and the number of pods for several request rates.

CPU time, unlike elapsed time, hardly depends on the machine's other load. Settings of the gateway in the
environment apply, such as those of a shadow version. Needs Linux and published models in models; see `digits
train`. Run as python -m benchmarks.cost.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks.service import URL, cpu_seconds, digits, gateway_and_model_server, memory, print_row
from digit_core import images
from digit_core.images import to_png

BATCH_SIZE = 256
PHOTO = "a photo of 640 x 480"
BUSY = 0.7
"""Target utilisation of the autoscaler, as a share of the CPU that a pod requests."""
RATES = (100, 10_000, 1_000_000)
"""Images per second."""


def main() -> None:
    """Print the cost of each kind of request, the number of pods for photos, and the memory."""
    photo = Path("docs/five.jpg").read_bytes()
    pixels = images.normalise(images.decode(photo))
    batch = io.BytesIO()
    np.save(batch, np.repeat(pixels[np.newaxis], BATCH_SIZE, axis=0))
    kinds = {
        PHOTO: (photo, "image/jpeg", 1, 2000),
        "a drawing of 28 x 28": (to_png(pixels), "image/png", 1, 2000),
        f"{BATCH_SIZE} arrays at once, each": (batch.getvalue(), "application/x-npy", BATCH_SIZE, 100),
    }
    with digits().running() as up:
        services = gateway_and_model_server(up)
        costs = {name: cost(services, *kind) for name, kind in kinds.items()}
        megabytes = [memory(pid) for pid in services]
    print_row("CPU ms", "gateway", "model server")
    for name, figures in costs.items():
        print_row(name, *(1000 * seconds for seconds in figures))
    print_row("pods of one core, for photos", "gateway", "model server")
    for rate in RATES:
        print_row(f"{rate:,} a second", *(math.ceil(rate * seconds / BUSY) for seconds in costs[PHOTO]))
    print_row("MB", *megabytes)


def cost(
    services: tuple[int, int], body: bytes, content_type: str, count: int, requests: int
) -> tuple[float, ...]:
    """Return the CPU seconds of each service per image.

    Eight threads send `requests` requests of `count` images each.
    """
    with httpx.Client(base_url=URL, headers={"Content-Type": content_type}, timeout=60) as http:

        def send(_: int) -> None:
            http.post("/v1/predict", content=body).raise_for_status()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(send, range(requests // 10)))
            before = [cpu_seconds(pid) for pid in services]
            list(threads.map(send, range(requests)))
            after = [cpu_seconds(pid) for pid in services]
    return tuple((end - start) / requests / count for start, end in zip(before, after, strict=True))


if __name__ == "__main__":
    main()
