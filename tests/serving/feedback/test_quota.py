"""Quota of feedback: keys that share a store, all workers alike."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_core.feedback.store import FeedbackStore
from digit_core.images import to_png
from digit_serving.feedback import quota, worker_store
from digit_serving.gateway.auth import KeyFile
from tests.processes import wait_until
from tests.serving.feedback.test_views import give, give_by_id
from tests.serving.gateway.helpers import IMAGE, MetricsDelta, StartGateway, assert_problem, predict

SIZE = len(to_png(IMAGE)) + 1024
"""Bytes of a picture in the store; pictures of the same digit may differ by a few."""


@pytest.mark.parametrize(
    ("sizes", "caller", "most"),
    [
        ({}, "", 100),
        ({}, "shop", 50),
        ({"shop": 50}, "shop", 50),
        ({"shop": 50}, "bank", 25),
        ({"shop": 50, "bank": 25}, "eve", 12),
        ({"shop": 50, "": 30}, "", 50),
        ({"shop": 150}, "bank", 0),
    ],
)
def test_limit_leaves_as_much_as_it_gives_to_a_key(sizes: dict[str, int], caller: str, most: int) -> None:
    assert quota.limit(sizes, caller, 100) == most


def test_warning_names_the_numbers_of_the_fullest_caller() -> None:
    mebibyte = 2**20
    assert quota.warnings({}, 1) == quota.warnings({"shop": 44, "bank": 1}, 100) == []
    (warning,) = quota.warnings({"shop": 45 * mebibyte, "bank": 3 * mebibyte}, 100 * mebibyte)
    assert warning == (
        "An API key's pictures take 45.0 MiB of the 48.5 MiB that they may take in the store of "
        "DIGITS_FEEDBACK: `digits feedback delete` makes room, or raise DIGITS_FEEDBACK_BYTES."
    )
    (warning,) = quota.warnings({"": 95 * mebibyte}, 100 * mebibyte)
    assert warning.startswith("The pictures take 95.0 MiB of the 100.0 MiB ")


def flood(http: FlaskClient, **headers: str) -> tuple[int, TestResponse]:
    """Give different pictures; return the number of those that are stored, and the first refusal."""
    for number in range(40):
        if (response := give(http, "1", picture=IMAGE // (number + 1), **headers)).status_code != 200:
            return number, response
    raise AssertionError("nothing is refused")


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each probe ask the store anew."""
    monkeypatch.setattr(worker_store, "_KEPT_SECONDS", -1)


@pytest.mark.usefixtures("no_delay")
def test_key_that_floods_leaves_room_for_another(
    start: StartGateway, key_file: KeyFile, sqlite_url: str
) -> None:
    eve, shop = ({"Authorization": f"Bearer {key_file.add(name)}"} for name in ("eve", "shop"))
    http, neighbour = (
        start(api_keys=key_file.path, feedback_open=False, feedback_bytes=20 * SIZE) for _ in range(2)
    )
    assert "warnings" not in http.get("/readyz").get_json()
    stored, refusal = flood(http, **eve)
    assert 8 <= stored <= 12
    assert_problem(refusal, 507, "feedback_full")
    assert "`digits feedback delete`" in refusal.get_json()["detail"]
    # A picture that is stored takes no room.
    assert give(http, "2", picture=IMAGE, **eve).status_code == 200
    assert 3 <= flood(neighbour, **shop)[0] <= stored
    for gateway in (http, neighbour):
        (warning,) = gateway.get("/readyz").get_json()["warnings"]
        assert warning.startswith("An API key's pictures take 0.0 MiB of ")
    FeedbackStore(sqlite_url).delete(caller="eve")
    assert give(http, "1", picture=IMAGE[::-1], **eve).status_code == 200


@pytest.mark.usefixtures("no_delay")
def test_store_without_keys_is_shared_by_all(start: StartGateway) -> None:
    http = start(feedback_bytes=10 * SIZE)
    assert 8 <= flood(http)[0] <= 12


@pytest.mark.usefixtures("no_delay")
def test_samples_beyond_the_quota_are_dropped_and_labels_go_on(
    start: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    http = start(feedback_bytes=SIZE * 3 // 2, feedback_sample=1)
    delta = MetricsDelta(http)
    predict(http, IMAGE, request_id="id-1")
    wait_until(lambda: delta("digits_feedback_sampled_total", model="digits", version="1") == 1)
    predict(http, IMAGE[::-1], request_id="id-2")
    wait_until(lambda: delta("digits_feedback_dropped_total") == 1)
    assert give_by_id(http, label="1").status_code == 200
    assert "a sample is not stored" not in caplog.text


@pytest.mark.usefixtures("no_delay")
def test_readyz_of_every_worker_warns_of_a_failure_that_one_has_seen(
    start: StartGateway, sqlite_url: str
) -> None:
    workers = [start(), start()]
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    wait_until(file.exists)
    assert give(workers[0], "1").status_code == 200
    assert ["warnings" in worker.get("/readyz").get_json() for worker in workers] == [False, False]
    file.write_bytes(b"no database" * 1000)
    assert_problem(give(workers[0], "1"), 503, "feedback_unavailable")
    assert ["warnings" in worker.get("/readyz").get_json() for worker in workers] == [True, True]
    file.unlink()
    assert give(workers[1], "1").status_code == 200
    assert ["warnings" in worker.get("/readyz").get_json() for worker in workers] == [False, False]
