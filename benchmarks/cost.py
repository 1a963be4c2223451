"""CPU cost of a request in gateway and model server, and the number of pods for several request rates.

CPU time, unlike elapsed time, hardly depends on the machine's other load. Needs Linux and published models
in models; see `digits train`. Run as python -m benchmarks.cost.
"""

import io
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks.service import service
from benchmarks.startup import PORTS, URL, children
from digit_client import ModelServerClient
from digit_core import images
from digit_core.images import to_png

# Flags of the model server in k8s/chart.
FLAGS = [
    "--tensorflow_intra_op_parallelism=2",
    "--tensorflow_inter_op_parallelism=2",
    "--grpc_max_threads=96",
    # With the reader, which finds the digit on a photo.
    "--model_config_file=models/models.config",
    "--allow_version_labels_for_unavailable_models=true",
]
BATCH_SIZE = 256
# Target utilisation of the autoscaler, as a share of the CPU that a pod requests.
BUSY = 0.7
# Images per second.
RATES = (100, 10_000, 1_000_000)


def main() -> None:
    """Print the cost of each kind of request, and the number of pods for the first kind."""
    photo = Path("docs/five.jpg").read_bytes()
    pixels = images.normalise(images.decode(photo))
    batch = io.BytesIO()
    np.save(batch, np.repeat(pixels[np.newaxis], BATCH_SIZE, axis=0))
    kinds = {
        "a photo of 640 x 480": (photo, "image/jpeg", 1, 2000),
        "a drawing of 28 x 28": (to_png(pixels), "image/png", 1, 2000),
        f"{BATCH_SIZE} arrays at once, each": (batch.getvalue(), "application/x-npy", BATCH_SIZE, 100),
    }
    with service(Path("models/digits"), FLAGS) as running:
        gateway, model_server = running.gateway.pid, running.model_server.pid
        costs = {name: cost(gateway, model_server, *kind) for name, kind in kinds.items()}
        bulk = bulk_cost(model_server, photo)
    print_row("CPU ms", "gateway", "model server")
    for name, figures in costs.items():
        print_row(name, *(f"{seconds * 1000:.3f}" for seconds in figures))
    print_row("CPU ms, without a gateway", "caller", "model server")
    print_row("many photos, each", *(f"{seconds * 1000:.3f}" for seconds in bulk))
    print_row("pods of one core, for photos", "gateway", "model server")
    for rate in RATES:
        figures = costs["a photo of 640 x 480"]
        pods = (f"{math.ceil(rate * seconds / BUSY):,}" for seconds in figures)
        print_row(f"{rate:,} a second", *pods)


def cost(
    gateway: int, model_server: int, body: bytes, content_type: str, count: int, requests: int
) -> tuple[float, float]:
    """Return the CPU seconds of gateway and model server per image.

    Eight threads send `requests` requests of `count` images each.
    """
    with httpx.Client(base_url=URL, headers={"Content-Type": content_type}, timeout=60) as http:

        def send(_: int) -> None:
            http.post("/v1/predict", content=body).raise_for_status()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(send, range(requests // 10)))
            before = [cpu_seconds(pid) for pid in (gateway, model_server)]
            list(threads.map(send, range(requests)))
            after = [cpu_seconds(pid) for pid in (gateway, model_server)]
    first, second = ((end - start) / requests / count for start, end in zip(before, after, strict=True))
    return first, second


def bulk_cost(model_server: int, photo: bytes) -> tuple[float, float]:
    """Return the CPU seconds of this process and the model server per photograph, by ModelServerClient."""
    with ModelServerClient(f"127.0.0.1:{PORTS['DIGITS_GRPC_PORT']}", timeout=60) as client:
        before = time.process_time(), cpu_seconds(model_server)
        client.predict_many([photo] * 4 * BATCH_SIZE)
        after = time.process_time(), cpu_seconds(model_server)
    first, second = ((end - start) / 4 / BATCH_SIZE for start, end in zip(before, after, strict=True))
    return first, second


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in children(pid))


def print_row(*columns: str) -> None:
    """Print a row."""
    name, *figures = columns
    sys.stdout.write(f"{name:32}" + "".join(f"{figure:>16}" for figure in figures) + "\n")


if __name__ == "__main__":
    main()
