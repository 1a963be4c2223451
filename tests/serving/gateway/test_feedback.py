"""Feedback: answers are kept for a while, and get labels by /v1/feedback, in a real SQLite store."""

import base64
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_core.artifact.task_card import DIGITS, NO_CLASS
from digit_core.images import decode, prepare, to_png
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore
from digit_serving.gateway import views
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.observers import keeper
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import in_share
from tests import greenlet_loop
from tests.processes import wait_until
from tests.serving.gateway.conftest import (
    IMAGE,
    SHAPES,
    StartGateway,
    StubModelServer,
    TaskModels,
    TemplateModel,
    draw_number,
    predict,
    predict_response,
)
from tests.serving.gateway.test_observe import MetricsDelta
from tests.serving.gateway.test_routes import assert_problem


@pytest.fixture
def url(feedback_url: str) -> str:
    return feedback_url


@pytest.fixture
def start(start_feedback: StartGateway) -> StartGateway:
    return start_feedback


@pytest.fixture
def http(feedback_http: FlaskClient) -> FlaskClient:
    return feedback_http


def stored(url: str) -> list[Record]:
    with closing(FeedbackStore(url)) as store:
        return list(store.records(originals=True))


def read(http: FlaskClient, number: np.ndarray, request_id: str = "id-1") -> Any:
    headers = {"X-Request-ID": request_id}
    response = http.post("/v1/read?include=image", data=to_png(number), headers=headers)
    assert response.status_code == 200, response.text
    return response.get_json()["readings"][0]


def give(http: FlaskClient, request_id: str = "id-1", **fields: Any) -> TestResponse:
    """Give feedback on an answer, which a busy machine may not have written yet."""
    end = time.monotonic() + 10
    while True:
        response = give_once(http, request_id, **fields)
        if response.status_code != 404 or time.monotonic() > end:
            return response


def give_once(http: FlaskClient, request_id: str = "id-1", **fields: Any) -> TestResponse:
    return http.post("/v1/feedback", json={"request_id": request_id, **fields})


def is_known(http: FlaskClient, request_id: str) -> bool:
    """Predict and give feedback. True if the answer was kept."""
    predict(http, request_id=request_id)
    return give_once(http, request_id, label="1").status_code == 200


def is_forgotten(http: FlaskClient) -> bool:
    """Predict once more: expiry is part of writing an answer. True if the answer id-1 is not kept."""
    predict(http, request_id="id-2")
    return give_once(http, label="1").status_code == 404


def test_feedback_label_is_stored_with_the_models_input(http: FlaskClient, url: str) -> None:
    answer = predict(http, query="?include=image")
    response = give(http, label="1")
    assert response.status_code == 200, response.text
    assert response.get_json() == {
        "feedback": {"request_id": "id-1", "index": 0, "inputs": 1, "original": False},
        "request_id": response.headers["X-Request-ID"],
    }
    (record,) = stored(url)
    assert (record.request_id, record.index, record.position) == ("id-1", 0, 0)
    assert (record.kind, record.model, record.version) == ("predict", "digits", 1)
    assert (record.predicted, record.confidence, record.is_digit) == ("7", 1.0, None)
    assert (record.label, record.source, record.original) == ("1", "feedback", None)
    assert record.labelled_at
    assert record.labelled_at > record.answered_at
    shown = decode(base64.b64decode(answer["predictions"][0]["image"]))
    assert np.array_equal(decode(record.input), shown)


@pytest.mark.parametrize(
    ("fields", "label"), [({"is": "right"}, NO_CLASS), ({"label": "1"}, "1"), ({"label": ""}, NO_CLASS)]
)
def test_feedback_on_a_refused_picture_is_stored(
    stub: StubModelServer,
    http: FlaskClient,
    url: str,
    digits: Any,
    fields: dict[str, str],
    label: str,
) -> None:
    stub.answer = TemplateModel(digits)
    answer = predict(http, IMAGE, draw_number(digits, "27"), query="?include=image")
    delta = MetricsDelta(http)
    for index, refused in enumerate(answer["predictions"]):
        assert refused["refusal"] == ("several_digits" if index else "no_digit")
        assert give(http, index=index, **fields).status_code == 200
        record = stored(url)[index]
        assert (record.predicted, record.label) == (NO_CLASS, label)
        assert record.is_digit == pytest.approx(refused["is_digit"])
        assert np.array_equal(decode(record.input), decode(base64.b64decode(refused["image"])))
    agrees = str(label == NO_CLASS).lower()
    assert delta("digits_feedback_total", agrees=agrees) == delta("digits_feedback_total") == 2


def test_feedback_index_selects_the_picture(stub: StubModelServer, http: FlaskClient, url: str) -> None:
    sevens = np.eye(10, dtype=np.float32)[[7] * 3]
    stub.answer = lambda _request, _context: predict_response(sevens)
    # Pixels in the model's input format stay as they are.
    instances = [(picture / 255).ravel().tolist() for picture in (IMAGE, IMAGE[::-1], IMAGE)]
    http.post("/v1/predict", json={"instances": instances}, headers={"X-Request-ID": "id-1"})
    # In JSON Schema, 1.0 is an integer.
    assert give(http, index=1.0, label=NO_CLASS).get_json()["feedback"]["index"] == 1
    (record,) = stored(url)
    assert (record.index, record.label) == (1, NO_CLASS)
    assert np.array_equal(decode(record.input), IMAGE[::-1])


def test_feedback_label_must_be_one_of_the_models(
    stub: StubModelServer, start: StartGateway, url: str
) -> None:
    stub.answer = TaskModels(digits={3: SHAPES})
    http = start()
    predict(http, np.zeros((64, 48, 3), np.uint8))
    assert_problem(give(http, label="7"), 422, "feedback_mismatch")
    # Another worker knows neither the answer nor the model's labels.
    assert give(start(), label="cross").status_code == 200
    (record,) = stored(url)
    assert (record.model, record.version, record.predicted) == ("digits", 3, "circle")
    assert (record.label, decode(record.input).shape) == ("cross", (64, 48, 3))


@pytest.mark.parametrize(
    ("fields", "labels", "agreeing"),
    [
        ({"label": "2\n1"}, ["2", "1"], 1),
        ({"label": ""}, [NO_CLASS, NO_CLASS], 0),
        ({"is": "right"}, ["2", "7"], 2),
        # A number of another length does not tell which digits differ.
        ({"label": "2"}, [None, None], 0),
        ({"label": "274"}, [None, None], 0),
    ],
)
def test_feedback_labels_each_digit_and_is_counted_by_agreement(
    stub: StubModelServer,
    http: FlaskClient,
    url: str,
    digits: Any,
    fields: dict[str, str],
    labels: list[str | None],
    agreeing: int,
) -> None:
    stub.answer = TemplateModel(digits)
    reading = read(http, draw_number(digits, "27"))
    delta = MetricsDelta(http)
    assert give(http, **fields).get_json()["feedback"]["inputs"] == 2
    records = stored(url)
    assert [(record.kind, record.position, record.source) for record in records] == [
        ("read", 0, "feedback"),
        ("read", 1, "feedback"),
    ]
    assert [record.predicted for record in records] == ["2", "7"]
    assert [record.label for record in records] == labels
    assert [record.text for record in records] == [fields.get("label", "27"), None]
    shown = [digit["image"] for line in reading["lines"] for digit in line["digits"]]
    for record, image in zip(records, shown, strict=True):
        assert np.array_equal(decode(record.input), decode(base64.b64decode(image)))
    for agrees, count in (("true", agreeing), ("false", 2 - agreeing)):
        name = "digits_feedback_total"
        assert delta(name, model="digits", version="1", agrees=agrees) == count


@pytest.mark.parametrize(
    ("fields", "label", "text"),
    [
        ({"is": "right"}, NO_CLASS, ""),
        ({"label": ""}, NO_CLASS, ""),
        ({"label": "4"}, "4", "4"),
        ({"label": "42"}, None, "42"),
    ],
)
def test_feedback_on_an_empty_reading_is_stored_with_the_whole_picture(
    stub: StubModelServer,
    http: FlaskClient,
    url: str,
    digits: Any,
    fields: dict[str, str],
    label: str | None,
    text: str,
) -> None:
    stub.answer = TemplateModel(digits)
    assert read(http, IMAGE)["refusal"] == "no_digit"
    assert give(http, **fields).status_code == 200
    (record,) = stored(url)
    assert (record.predicted, record.label, record.text) == (NO_CLASS, label, text)
    assert np.array_equal(decode(record.input), prepare(IMAGE, DIGITS))


@pytest.mark.parametrize("label", ["2x", "2²", " "])
def test_feedback_text_of_letters_is_a_mismatch(
    stub: StubModelServer, http: FlaskClient, url: str, digits: Any, label: str
) -> None:
    stub.answer = TemplateModel(digits)
    read(http, draw_number(digits, "27"))
    assert_problem(give(http, label=label), 422, "feedback_mismatch")
    assert stored(url) == []


def test_feedback_on_another_callers_answer_is_not_found_and_changes_nothing(
    start: StartGateway, key_file: KeyFile, url: str
) -> None:
    keys = [key_file.add(name) for name in ("shop", "stranger")]
    shop, stranger = (start(api_keys=key_file.path, feedback_open=False) for _ in keys)
    for client, key in ((shop, keys[0]), (stranger, keys[1])):
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    predict(shop)
    assert give(shop, **{"is": "right"}).status_code == 200
    before = stored(url)
    refused = assert_problem(give_once(stranger, label="1"), 404, "feedback_unknown")
    unknown = assert_problem(give_once(stranger, "id-unknown", label="1"), 404, "feedback_unknown")
    assert refused["detail"] == unknown["detail"]
    assert stored(url) == before


def test_feedback_unknown_id_or_index_is_not_found(http: FlaskClient) -> None:
    predict(http)
    assert_problem(give_once(http, "id-2", label="1"), 404, "feedback_unknown")
    assert_problem(give_once(http, index=1, label="1"), 404, "feedback_unknown")


def test_feedback_on_answer_before_shutdown_is_stored(
    stub: StubModelServer, start: StartGateway, url: str
) -> None:
    with greenlet_loop.keeping(Settings(model_server=stub.target, feedback=url, feedback_open=True)) as http:
        predict(http)
    assert give(start(), label="1").status_code == 200


@pytest.mark.parametrize(("setting", "limits"), [({"feedback_keep": 0.1}, {}), ({}, {"kept_inputs": 1})])
def test_answer_expires_after_its_time_and_beyond_the_rows(
    start: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
    setting: dict[str, Any],
    limits: dict[str, Any],
) -> None:
    monkeypatch.setattr(keeper, "_LIMITS", replace(keeper._LIMITS, **limits))
    http = start(**setting)
    predict(http)
    assert give(http, label="1").status_code == 200
    wait_until(lambda: is_forgotten(http), seconds=20)


def test_full_disk_gets_room_by_expiry(start: StartGateway, url: str) -> None:
    http = start(feedback_keep=0.1)
    predict(http)
    assert give(http, label="1").status_code == 200
    file = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON kept "
            "WHEN EXISTS (SELECT 1 FROM kept WHERE request_id = 'id-1') "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    wait_until(lambda: is_forgotten(http), seconds=20)
    wait_until(lambda: is_known(http, "id-2"), seconds=20)


@pytest.mark.parametrize("keeps", [False, True])
def test_original_is_stored_only_if_kept(
    stub: StubModelServer, start: StartGateway, url: str, digits: Any, keeps: bool
) -> None:
    stub.answer = TemplateModel(digits)
    number = draw_number(digits, "27")
    http = start(feedback_originals=keeps)
    read(http, number)
    assert give(http, **{"is": "right"}).get_json()["feedback"]["original"] is keeps
    original = to_png(number) if keeps else None
    assert [record.original for record in stored(url)] == [original, None]


def test_answers_beyond_the_queue_are_dropped_and_counted(
    start: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(keeper._LIMITS, queued_bytes=2 * IMAGE.nbytes)
    monkeypatch.setattr(keeper, "_LIMITS", limits)
    http = start()
    delta = MetricsDelta(http)
    predict(http, IMAGE, IMAGE, IMAGE)
    assert delta("digits_feedback_dropped_total") == 3
    predict(http, IMAGE, IMAGE, request_id="id-2")
    assert give(http, "id-2", index=1, label="1").status_code == 200
    assert delta("digits_feedback_dropped_total") == 3


def test_answers_of_several_calls_are_dropped_and_counted(
    stub: StubModelServer, start: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MAX_CALL_BYTES", 64 * 48 * 3)
    stub.answer = TaskModels(digits={1: SHAPES})
    http = start()
    delta = MetricsDelta(http)
    predict(http, *np.zeros((2, 64, 48, 3), np.uint8))
    assert delta("digits_feedback_dropped_total") == 2


@pytest.fixture
def unsure(stub: StubModelServer) -> None:
    """Make the model answer a 3 with 0.75 and a 7 with 0.9375, in turn."""
    answers = np.zeros((2, 10), np.float32)
    answers[0, [3, 8]], answers[1, [7, 1]] = (0.75, 0.25), (0.9375, 0.0625)
    stub.answer = lambda request, _context: predict_response(
        answers[: request.inputs["images"].tensor_shape.dim[0].size]
    )


@pytest.mark.usefixtures("unsure")
def test_unsure_answers_are_stored_unlabelled_without_originals(start: StartGateway, url: str) -> None:
    http = start(feedback_sample=1, feedback_originals=True)
    delta = MetricsDelta(http)
    predict(http, IMAGE, IMAGE[::-1])
    wait_until(lambda: delta("digits_feedback_sampled_total", model="digits", version="1") == 1)
    (record,) = stored(url)
    assert (record.index, record.predicted, record.confidence) == (0, "3", 0.75)
    assert (record.source, record.label, record.labelled_at) == ("sample", None, None)
    assert record.original is None
    assert delta("digits_feedback_dropped_total") == 0


@pytest.mark.usefixtures("unsure")
def test_requests_outside_the_sample_store_nothing(start: StartGateway, url: str) -> None:
    http = start(feedback_sample=0.5)
    delta = MetricsDelta(http)
    requests = [f"id-{number}" for number in range(16)]
    sampled = [request for request in requests if in_share(0.5, request, b"sample")]
    for request in requests:
        predict(http, IMAGE, request_id=request)
    wait_until(lambda: delta("digits_feedback_sampled_total", model="digits", version="1") >= len(sampled))
    assert 0 < len(sampled) < len(requests)
    assert sorted(record.request_id for record in stored(url)) == sorted(sampled)


def test_predictions_go_on_while_the_store_cannot_be_opened(start: StartGateway, tmp_path: Path) -> None:
    http = start(feedback=f"sqlite:///{tmp_path}/missing/feedback.db", feedback_sample=1)
    delta = MetricsDelta(http)
    predict(http, IMAGE, IMAGE)
    wait_until(lambda: delta("digits_feedback_dropped_total") == 2)
    response = give(http, label="1")
    assert_problem(response, 503, "feedback_unavailable")
    assert response.headers["Retry-After"] == "1"
    ready = http.get("/readyz")
    warnings = ["The store of DIGITS_FEEDBACK can't be used: there is no feedback."]
    assert (ready.status_code, ready.get_json()["warnings"]) == (200, warnings)
    assert delta("digits_feedback_written_timestamp_seconds") == 0
    (tmp_path / "missing").mkdir()
    wait_until(lambda: is_known(http, "id-2") and "warnings" not in http.get("/readyz").get_json())


def test_store_is_used_without_requests_and_its_latest_use_is_a_metric(
    start: StartGateway, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_LIMITS", replace(keeper._LIMITS, idle=0.1, expiry=0.1))
    http = start()
    delta = MetricsDelta(http)
    name = "digits_feedback_written_timestamp_seconds"
    wait_until(lambda: delta(name) > 0)
    file = Path(url.removeprefix("sqlite:///"))
    file.unlink()
    file.mkdir()
    wait_until(lambda: "warnings" in http.get("/readyz").get_json())
    failed = MetricsDelta(http)
    time.sleep(0.5)
    assert failed(name) == 0
    file.rmdir()
    wait_until(lambda: failed(name) > 0)
    assert name not in greenlet_loop.client(Settings()).get("/metrics").text


def test_predictions_go_on_while_the_store_is_locked_and_readyz_warns(
    start: StartGateway, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = start()
    predict(http)
    assert give(http, label="1").status_code == 200
    monkeypatch.setattr(keeper, "_LIMITS", replace(keeper._LIMITS, call=0.3))
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert_problem(give(http, label="2"), 503, "feedback_unavailable")
        assert http.get("/readyz").get_json()["warnings"]
        predict(http, request_id="id-2")
    wait_until(lambda: give(http, label="2").status_code == 200, seconds=10)
    assert [record.label for record in stored(url)] == ["2"]


def test_removed_files_are_made_anew(start: StartGateway, url: str) -> None:
    http = start()
    predict(http)
    assert give(http, label="1").status_code == 200
    for file in Path(url.removeprefix("sqlite:///")).parent.glob("feedback.db*"):
        file.unlink()
    wait_until(lambda: is_known(http, "id-2"), seconds=20)
    assert [record.request_id for record in stored(url)] == ["id-2"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"request_id": "id-1"}',
        b'{"request_id": "id-1", "label": "1", "is": "right"}',
        b'{"request_id": "id-1", "is": "wrong"}',
        b'{"request_id": "id-1", "label": null}',
        b'{"request_id": "id-1", "label": 7}',
        b'{"request_id": "id-1", "label": "1", "indx": 1}',
        b'{"request_id": "id-1", "label": "1", "index": -1}',
        b'{"request_id": "id-1", "label": "1", "index": true}',
        b'{"request_id": "id-1", "label": "1", "index": 2147483648}',
        b'{"request_id": "id-1", "label": "%b"}' % (b"1" * 1001),
        b'{"request_id": "id 1", "label": "1"}',
        b'{"label": "1"}',
    ],
)
def test_feedback_malformed_body_is_refused(http: FlaskClient, body: bytes) -> None:
    response = http.post("/v1/feedback", data=body, content_type="application/json")
    assert_problem(response, 400, "malformed_body")


def test_feedback_of_other_type_or_size_is_refused(http: FlaskClient) -> None:
    response = http.post("/v1/feedback", data=b"{}", content_type="text/plain")
    assert_problem(response, 415, "unsupported_media_type")
    response = http.post("/v1/feedback", data=bytes(20_000), content_type="application/json")
    assert_problem(response, 413, "body_too_large")


def test_index_and_models_say_whether_feedback_is_possible(http: FlaskClient, stub_http: FlaskClient) -> None:
    for client, has_feedback in ((http, True), (stub_http, False)):
        index = client.get("/", headers={"Accept": "application/json"}).get_json()
        assert ("feedback" in index["links"]) is has_feedback
        assert client.get("/v1/models").get_json()["feedback"] is has_feedback
    assert_problem(give_once(stub_http, label="1"), 404, "not_found")


def test_model_without_feedback_keeps_no_answers(
    start: StartGateway, stub: StubModelServer, tmp_path: Path
) -> None:
    multi_label = replace(SHAPES, thresholds=(0.5,) * 4)
    stub.answer = TaskModels(digits={1: SHAPES}, off={1: SHAPES}, multi={1: multi_label})
    file = tmp_path / "models.toml"
    file.write_text("[off]\nfeedback = false\n")
    http = start(model_names=("off", "multi"), models_file=file)
    for name, keeps in (("off", False), ("multi", False), ("digits", True)):
        assert http.get(f"/v1/models?model={name}").get_json()["feedback"] is keeps
        headers = {"X-Request-ID": name}
        files = {"images": [base64.b64encode(to_png(np.zeros((9, 9), np.uint8))).decode()]}
        assert http.post(f"/v1/predict?model={name}", json=files, headers=headers).status_code == 200
        response = http.post("/v1/feedback", json={"request_id": name, "is": "right"})
        assert response.status_code == (200 if keeps else 404)
