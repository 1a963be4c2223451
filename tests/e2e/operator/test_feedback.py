"""Feedback in processes: a gateway of two workers, its store, and faults of both."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.images import decode, to_png
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore
from tests.load import load
from tests.processes import children, wait_until
from tests.serving.gateway.conftest import GatewayProcess, gateway_process

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

    def predict(self) -> str:
        """Send the picture over a connection of its own; return the request's ID. Raise HTTPError."""
        headers = {"Content-Type": "image/png"}
        response = httpx.post(f"{self.gateway.url}/v1/predict", content=self.picture, headers=headers)
        return str(response.raise_for_status().json()["request_id"])

    def give(self, request_id: str, label: str) -> httpx.Response:
        """Give feedback over a connection of its own, which any worker may accept."""
        body = {"request_id": request_id, "label": label}
        return httpx.post(f"{self.gateway.url}/v1/feedback", json=body, timeout=10)

    def takes_feedback(self) -> bool:
        """True if a new answer gets feedback."""
        try:
            return self.give(self.predict(), "7").status_code == 200
        except httpx.HTTPError:
            return False

    def stored(self) -> list[Record]:
        with closing(FeedbackStore(self.store_url)) as store:
            return list(store.records())


@pytest.fixture
def service(model_server: str, tmp_path: Path, digits: Any) -> Iterator[Service]:
    store = tmp_path / "feedback.db"
    with gateway_process(
        model_server, workers=2, feedback=f"sqlite:///{store}", feedback_open=True
    ) as gateway:
        wait_until(lambda: len(children(gateway.process.pid)) == 2, gateway.process)
        service = Service(gateway, store, to_png(digits.one(7)))
        # Workers open the store after their start.
        wait_until(service.takes_feedback)
        yield service


def test_feedback_reaches_any_worker_and_answers_kept_by_a_killed_one(service: Service) -> None:
    for label in "0123456789":
        response = service.give(service.predict(), label)
        assert response.status_code == 200, response.text
    records = service.stored()[-10:]
    assert [record.label for record in records] == list("0123456789")
    assert {record.predicted for record in records} == {"7"}
    assert (decode(records[0].input) == decode(service.picture)).all()
    request_id = service.predict()
    with closing(FeedbackStore(service.store_url)) as kept:
        wait_until(lambda: bool(kept.find_kept(request_id, 0, "")))
    for worker in children(service.gateway.process.pid):
        os.kill(worker, signal.SIGKILL)
    wait_until(service.takes_feedback)
    assert service.give(request_id, "7").status_code == 200


def test_feedback_answered_before_a_worker_is_killed_is_stored(service: Service) -> None:
    def call() -> str | None:
        """Return the ID of a request whose feedback is answered."""
        with suppress(httpx.HTTPError):
            request_id = service.predict()
            if service.give(request_id, "1").status_code == 200:
                return request_id
        return None

    def has_answers(count: int) -> bool:
        return len(list(filter(None, answered))) >= count

    with load(call) as answered:
        for number in range(1, 4):
            wait_until(partial(has_answers, 10 * number))
            os.kill(children(service.gateway.process.pid)[0], signal.SIGKILL)
    labels = {record.request_id: record.label for record in service.stored()}
    given = list(filter(None, answered))
    assert [labels.get(request_id) for request_id in given] == ["1"] * len(given)
