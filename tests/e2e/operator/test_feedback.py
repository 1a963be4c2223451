"""Feedback in processes: a gateway of two workers, its store, and faults of both."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.images import decode, to_png
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore
from tests.load import load
from tests.processes import GatewayProcess, children, gateway_process, wait_until

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Service:
    """Gateway of two workers with feedback, and the store's file."""

    gateway: GatewayProcess
    store: Path
    picture: bytes

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.store}"

    def give(self, label: str, picture: bytes | None = None) -> httpx.Response:
        """Give feedback over a connection of its own, which any worker may accept."""
        files = {"image": self.picture if picture is None else picture}
        return httpx.post(f"{self.gateway.url}/v1/feedback", files=files, data={"label": label}, timeout=10)

    def takes_feedback(self) -> bool:
        """True if a picture gets feedback."""
        try:
            return self.give("7").status_code == 200
        except httpx.HTTPError:
            return False

    def stored(self) -> list[Record]:
        return FeedbackStore(self.store_url).records(pictures=True)


@pytest.fixture
def service(model_server: str, tmp_path: Path, digits: Any) -> Iterator[Service]:
    store = tmp_path / "feedback.db"
    with gateway_process(
        model_server, workers=2, feedback=f"sqlite:///{store}", feedback_open=True, feedback_sample=1
    ) as gateway:
        wait_until(lambda: len(children(gateway.process.pid)) == 2, gateway.process)
        service = Service(gateway, store, to_png(digits.one(7)))
        # Workers open the store after their start.
        wait_until(service.takes_feedback)
        yield service


def test_feedback_reaches_any_worker_and_samples_are_labelled_by_another(service: Service) -> None:
    for label in "0123456789":
        assert service.give(label).status_code == 200
    (record,) = service.stored()
    assert (record.label, record.predicted) == ("9", "7")
    assert (decode(record.picture) == decode(service.picture)).all()
    headers = {"X-Request-ID": "sampled", "Content-Type": "image/png"}
    sample = to_png(decode(service.picture)[:, ::-1])
    httpx.post(f"{service.gateway.url}/v1/predict", content=sample, headers=headers).raise_for_status()
    wait_until(lambda: "sampled" in {record.request_id for record in service.stored()})
    for worker in children(service.gateway.process.pid):
        os.kill(worker, signal.SIGKILL)
    wait_until(service.takes_feedback)
    document = {"request_id": "sampled", "label": "4"}
    httpx.post(f"{service.gateway.url}/v1/feedback", json=document).raise_for_status()
    assert {record.request_id: record.label for record in service.stored()}["sampled"] == "4"


def test_feedback_answered_before_a_worker_is_killed_is_stored(service: Service) -> None:
    numbers = count()

    def call() -> bytes | None:
        """Return a picture whose feedback is answered."""
        picture = to_png(decode(service.picture) // (1 + next(numbers) % 250))
        with suppress(httpx.HTTPError):
            if service.give("1", picture).status_code == 200:
                return picture
        return None

    def has_answers(number: int) -> bool:
        return len(list(filter(None, answered))) >= number

    with load(call) as answered:
        for number in range(1, 4):
            wait_until(partial(has_answers, 10 * number))
            os.kill(children(service.gateway.process.pid)[0], signal.SIGKILL)
    stored = {record.picture: record.label for record in service.stored()}
    given = list(filter(None, answered))
    assert [stored.get(picture) for picture in given] == ["1"] * len(given)
