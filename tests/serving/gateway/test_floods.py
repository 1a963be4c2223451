"""Floods without a key, which two cores send: the gateway keeps its workers, its memory and its callers."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.images import to_png
from tests import floods
from tests.load import load
from tests.processes import children, gateway_process
from tests.serving.gateway.conftest import IMAGE
from tests.serving.gateway.stub_model_server import StubModelServer

SECONDS = float(os.environ.get("FLOOD_SECONDS", "15"))
MAX_MEMORY = 1.2 * 2**30


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.xdist_group("timing")
@pytest.mark.parametrize("name", floods.FLOODS)
def test_flood_costs_no_worker_and_few_callers_their_answers(stub: StubModelServer, name: str) -> None:
    request: dict[str, Any] = {"content": to_png(IMAGE), "headers": {"content-type": "image/png"}}

    def predict() -> int:
        try:
            return httpx.post(f"{gateway.url}/v1/predict", timeout=10, **request).status_code
        except httpx.HTTPError:
            return 0

    with gateway_process(stub.target, workers=2, log_level="warning") as gateway:
        # The first worker may be ready before the second one is started.
        workers, peak = children(gateway.process.pid), 0
        command = [sys.executable, floods.__file__, name, str(gateway.port), str(SECONDS)]
        with subprocess.Popen(command) as flood, load(predict) as statuses:
            while flood.poll() is None:
                peak = max(peak, sum(map(resident, workers)))
                time.sleep(0.1)
        assert children(gateway.process.pid) == workers
    answered = Counter(statuses)
    sys.stdout.write(f"{name}: at most {peak / 2**20:.0f} MiB, {dict(answered)}\n")
    assert peak < MAX_MEMORY
    assert answered[200] > 0.9 * answered.total()
