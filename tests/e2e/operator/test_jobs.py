"""A call of many pictures while the service restarts, as an application makes it."""

import time
from pathlib import Path
from threading import Thread

import pytest

from digit_client import Client, Reading
from tests.processes import Ports, wait_until
from tests.readme import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SHEETS = ROOT / "docs" / "examples" / "numbers" / "sheets"
OUTAGE = 30.0
"""Seconds between the end of the service and its next start."""


def test_read_many_loses_none_of_1000_pictures_to_a_restart(models: Path) -> None:
    ports = Ports()
    pictures = [path.read_bytes() for path in sorted(SHEETS.glob("*.jpg"))]
    images = [pictures[index % len(pictures)] for index in range(1000)]
    done: list[int] = []
    ended: list[bool] = []

    def serve_twice() -> None:
        with ports.up(models.parent):
            wait_until(lambda: len(done) > 300, seconds=300)
        time.sleep(OUTAGE)
        with ports.up(models.parent):
            wait_until(lambda: bool(ended), seconds=500)

    service = Thread(target=serve_twice)
    service.start()
    try:
        with Client(ports.url) as client:
            wait_until(lambda: client.ready(timeout=2), seconds=120)
            readings = client.read_many(images, progress=lambda count, _: done.append(count))
    finally:
        ended.append(True)
        service.join()
    assert [type(reading) for reading in readings] == [Reading] * 1000
    texts = [getattr(reading, "text", None) for reading in readings]
    assert texts == [texts[index % len(pictures)] for index in range(1000)]
