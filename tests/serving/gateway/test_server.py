"""The gateway as a process."""

import signal
import threading
import time
from typing import Any

import httpx

from digit_client.arrays import to_png
from tests.processes import answers, free_port, running, wait_until


def test_it_stops_when_told_and_finishes_what_it_began(model_server: str, digits: Any) -> None:
    port = free_port()
    environment = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": model_server}
    url = f"http://127.0.0.1:{port}"
    image = to_png(digits.one(7))
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(headers={"content-type": "image/png"}) as client:
            while True:
                try:
                    statuses.append(client.post(f"{url}/v1/predict", content=image).status_code)
                except httpx.ConnectError:
                    return

    with running("gateway", environment=environment) as process:
        wait_until(lambda: answers(f"{url}/readyz"), process)
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        for thread in threads:
            thread.join(5)
    assert len(statuses) > 50
    assert set(statuses) == {200}
