"""Feedback in processes: a gateway of two workers that are killed, and its store."""

import os
import signal
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.feedback.store import FeedbackStore
from digit_core.images import to_png
from tests.load import load
from tests.processes import children, gateway_process, wait_until

pytestmark = pytest.mark.e2e


def test_feedback_answered_before_a_worker_is_killed_is_stored(
    model_server: str, tmp_path: Path, digits: Any
) -> None:
    store, numbers = f"sqlite:///{tmp_path}/feedback.db", count()

    def give() -> bytes | None:
        """Return a picture whose feedback is answered, over a connection that any worker may accept."""
        picture = to_png(digits.one(7) // (1 + next(numbers) % 250))
        address, label = f"{gateway.url}/v1/feedback", {"label": "1"}
        with suppress(httpx.HTTPError):
            if httpx.post(address, files={"image": picture}, data=label, timeout=10).status_code == 200:
                return picture
        return None

    def has_answers(number: int) -> bool:
        return len(list(filter(None, answered))) >= number

    with gateway_process(model_server, workers=2, feedback=store, feedback_open=True) as gateway:
        with load(give) as answered:
            for number in range(1, 4):
                wait_until(partial(has_answers, 10 * number))
                os.kill(children(gateway.process.pid)[0], signal.SIGKILL)
        stored = {record.picture: record.label for record in FeedbackStore(store).records(pictures=True)}
    given = list(filter(None, answered))
    assert [stored.get(picture) for picture in given] == ["1"] * len(given)
