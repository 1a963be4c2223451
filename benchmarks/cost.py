"""What a request costs: CPU time of the gateway and the model server, and the pods for several rates of them.

CPU time, unlike time, hardly depends on what else the machine does. Needs Linux and a published model in
models/digits; see `digits train`. Run as python -m benchmarks.cost.
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
from digit_client import images as pictures
from digit_client.images import to_png

# As in k8s/base.
FLAGS = [
    "--tensorflow_intra_op_parallelism=2",
    "--tensorflow_inter_op_parallelism=2",
    "--grpc_max_threads=16",
]
MANY = 256
# The share of the CPU that a pod asks for which the autoscaler keeps it at.
BUSY = 0.7
RATES = (100, 10_000, 1_000_000)


def main() -> None:
    """Print the costs of each kind of request, and the pods for the first."""
    photo = Path("docs/five.jpg").read_bytes()
    pixels = pictures.normalise(pictures.decode(photo))
    batch = io.BytesIO()
    np.save(batch, np.repeat(pixels[np.newaxis], MANY, axis=0))
    kinds = {
        "a photo of 640 x 480": (photo, "image/jpeg", 1, 2000),
        "a drawing of 28 x 28": (to_png(pixels), "image/png", 1, 2000),
        f"{MANY} arrays at once, each": (batch.getvalue(), "application/x-npy", MANY, 100),
    }
    with service(Path("models/digits"), FLAGS) as running:
        gateway, model_server = running.gateway.pid, running.model_server.pid
        costs = {name: cost(gateway, model_server, *kind) for name, kind in kinds.items()}
        bulk = bulk_cost(model_server, photo)
    line("CPU ms", "gateway", "model server")
    for name, figures in costs.items():
        line(name, *(f"{each * 1000:.3f}" for each in figures))
    line("CPU ms, without a gateway", "caller", "model server")
    line("many photos, each", *(f"{each * 1000:.3f}" for each in bulk))
    line("pods of one core, for photos", "gateway", "model server")
    for rate in RATES:
        pods = (f"{math.ceil(rate * each / BUSY):,}" for each in costs["a photo of 640 x 480"])
        line(f"{rate:,} a second", *pods)


def cost(
    gateway: int, model_server: int, body: bytes, kind: str, images: int, requests: int
) -> tuple[float, float]:
    """CPU seconds of both for an image, from so many requests by eight callers."""
    with httpx.Client(base_url=URL, headers={"Content-Type": kind}, timeout=60) as http:

        def ask(_: int) -> None:
            http.post("/v1/predict", content=body).raise_for_status()

        with ThreadPoolExecutor(8) as callers:
            list(callers.map(ask, range(requests // 10)))
            before = [cpu_seconds(pid) for pid in (gateway, model_server)]
            list(callers.map(ask, range(requests)))
            after = [cpu_seconds(pid) for pid in (gateway, model_server)]
    one, other = ((end - start) / requests / images for start, end in zip(before, after, strict=True))
    return one, other


def bulk_cost(model_server: int, photo: bytes) -> tuple[float, float]:
    """CPU seconds of this process and the model server for one of many photos through ModelServerClient."""
    with ModelServerClient(f"127.0.0.1:{PORTS['DIGITS_GRPC_PORT']}", timeout=60) as client:
        before = time.process_time(), cpu_seconds(model_server)
        client.predict_many([photo] * 4 * MANY)
        after = time.process_time(), cpu_seconds(model_server)
    one, other = ((end - start) / 4 / MANY for start, end in zip(before, after, strict=True))
    return one, other


def cpu_seconds(pid: int) -> float:
    """Of a process and those that it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in children(pid))


def line(*columns: str) -> None:
    """Print a row."""
    name, *figures = columns
    sys.stdout.write(f"{name:32}" + "".join(f"{figure:>16}" for figure in figures) + "\n")


if __name__ == "__main__":
    main()
