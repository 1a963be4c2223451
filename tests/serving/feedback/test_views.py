"""Feedback: pictures with labels, and samples of the traffic, in a real SQLite store."""

import base64
import io
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_core.artifact.task_card import NO_CLASS
from digit_core.feedback.records import WHOLE, Record, Seen
from digit_core.feedback.store import FeedbackStore
from digit_core.images import decode, to_png
from digit_core.results import Box
from digit_serving.feedback import sampler, worker_store
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.door import in_share
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.drawn_numbers import draw_number
from tests.core.feedback.conftest import full_disk
from tests.processes import wait_until
from tests.serving.gateway.helpers import FIVE, IMAGE, MetricsDelta, StartGateway, assert_problem, predict
from tests.serving.gateway.stub_model_server import (
    SHAPES,
    StubModelServer,
    TaskModels,
    TemplateModel,
    predict_response,
)


@pytest.fixture
def http(feedback_http: FlaskClient) -> FlaskClient:
    return feedback_http


def stored(sqlite_url: str) -> list[Record]:
    return FeedbackStore(sqlite_url).records(pictures=True)


def give(
    http: FlaskClient, label: str, *boxes: Box, picture: Any = IMAGE, query: str = "", **headers: str
) -> TestResponse:
    """Send a picture with its label as a form."""
    form = {"image": (io.BytesIO(to_png(picture)), "picture"), "label": label}
    form |= {"box": [",".join(map(str, box)) for box in boxes]}
    return http.post(f"/v1/feedback{query}", data=form, headers=headers)


def give_by_id(http: FlaskClient, request_id: str = "id-1", **fields: Any) -> TestResponse:
    return http.post("/v1/feedback", json={"request_id": request_id, **fields})


def read(http: FlaskClient, number: np.ndarray, request_id: str = "id-1") -> Any:
    response = http.post("/v1/read", data=to_png(number), headers={"X-Request-ID": request_id})
    assert response.status_code == 200, response.text
    return response.get_json()["readings"][0]


@pytest.mark.parametrize("is_json", [False, True])
def test_picture_is_stored_with_its_label_and_the_answer(
    http: FlaskClient, sqlite_url: str, is_json: bool
) -> None:
    document = {"image": base64.b64encode(to_png(IMAGE)).decode(), "label": "1"}
    headers = {"X-Request-ID": "mine"}
    sent = (
        http.post("/v1/feedback", json=document, headers=headers) if is_json else give(http, "1", **headers)
    )
    assert sent.status_code == 200, sent.text
    entry = {"request_id": "mine", "index": 0, "pictures": 1}
    assert sent.get_json() == {"feedback": entry, "request_id": "mine"}
    (record,) = stored(sqlite_url)
    assert (record.request_id, record.index, record.position, record.caller) == ("mine", 0, 0, "")
    assert (record.model, record.version, record.predicted, record.confidence) == ("digits", 1, "7", 1.0)
    assert (record.label, record.hand_label, record.box) == ("1", None, None)
    assert np.array_equal(decode(record.picture), IMAGE)


def test_number_has_a_part_for_each_box_and_is_counted_by_agreement(
    stub: StubModelServer, http: FlaskClient, sqlite_url: str, digits: Any
) -> None:
    stub.answer = TemplateModel(digits)
    number = draw_number(digits, "27")
    reading = read(http, number)
    boxes = [tuple(digit["box"]) for line in reading["lines"] for digit in line["digits"]]
    delta = MetricsDelta(http)
    response = give(http, " 2 1\n", *boxes, picture=number)
    assert response.get_json()["feedback"]["pictures"] == 2
    for record, predicted, label, (left, top, width, height) in zip(
        stored(sqlite_url), "27", "21", boxes, strict=True
    ):
        assert (record.predicted, record.label) == (predicted, label)
        assert record.box
        inner_left, inner_top, *size = record.box
        assert (*size,) == (width, height)
        rows, columns = slice(inner_top, inner_top + height), slice(inner_left, inner_left + width)
        shown = number[top : top + height, left : left + width]
        assert np.array_equal(decode(record.picture)[rows, columns], shown)
    for agrees in ("true", "false"):
        assert delta("digits_feedback_total", model="digits", version="1", agrees=agrees) == 1
    assert give(http, NO_CLASS, *boxes, picture=number).status_code == 200
    assert [record.label for record in stored(sqlite_url)] == [NO_CLASS, NO_CLASS]


def test_digit_that_the_reader_finds_on_a_photo_is_cut_out(
    start: StartGateway, model_server: str, sqlite_url: str
) -> None:
    http, photo = start(model_server=model_server), FIVE.read_bytes()
    (found,) = http.post("/v1/predict", data=photo).get_json()["predictions"]
    form = {"image": (io.BytesIO(photo), "five.jpg"), "label": "6"}
    assert http.post("/v1/feedback", data=form).status_code == 200
    (record,) = stored(sqlite_url)
    assert record.box
    assert record.box[2:] == (*found["box"][2:],)
    assert decode(record.picture).size < decode(photo).size
    assert (record.predicted, record.label) == ("5", "6")


@pytest.mark.parametrize(("label", "boxes"), [("123", 2), ("42", 0), ("42", 1)])
def test_number_of_another_length_than_the_boxes_is_that_of_the_whole(
    http: FlaskClient, sqlite_url: str, label: str, boxes: int
) -> None:
    picture = np.zeros((40, 60), np.uint8)
    picture[2:10, 2:18] = 255
    given: list[Box] = [(2, 2, 8, 8), (10, 2, 8, 8)][:boxes]
    response = give(http, label, *given, picture=picture)
    assert response.get_json()["feedback"]["pictures"] == 1
    (record,) = stored(sqlite_url)
    assert (record.position, record.label) == (WHOLE, label)
    assert record.reading == Seen(boxes=given, candidates=[])
    # Half a digit is around the boxes.
    shown = picture[:14, : 22 if boxes == 2 else 14] if boxes else picture
    assert np.array_equal(decode(record.picture), shown)


def test_latest_number_of_a_caller_counts_whatever_its_length(http: FlaskClient, sqlite_url: str) -> None:
    boxes = [(1, 1, 9, 9), (12, 1, 9, 9)]
    for label, labels in (("12", ["1", "2"]), ("123", [None, None, "123"]), ("4/5", ["4", "5", "45"])):
        assert give(http, label, *boxes).status_code == 200
        records = sorted(stored(sqlite_url), key=lambda each: (each.position == WHOLE, each.position))
        assert [record.label for record in records] == labels


@pytest.mark.parametrize("label", ["1 x", "4²", "--", "١٢"])
def test_label_that_is_no_number_is_a_mismatch(http: FlaskClient, sqlite_url: str, label: str) -> None:
    response = give(http, label, (1, 1, 9, 9), (10, 1, 9, 9))
    detail = "The label has to be a number: digits, and signs and white space."
    assert assert_problem(response, 422, "feedback_mismatch")["detail"] == detail
    assert stored(sqlite_url) == []


def test_label_is_one_of_the_asked_models(
    stub: StubModelServer, start: StartGateway, sqlite_url: str
) -> None:
    stub.answer = TaskModels(digits={3: SHAPES}, more={1: SHAPES})
    http, picture = start(model_names=("more",)), np.zeros((64, 48, 3), np.uint8)
    problem = assert_problem(give(http, "7", picture=picture), 422, "feedback_mismatch")
    assert problem["detail"] == "The label is none of the model's labels."
    several = give(http, NO_CLASS, (2, 2, 9, 9), (1, 1, 3, 3), picture=picture)
    assert_problem(several, 422, "feedback_mismatch")
    assert give(http, "cross", (2, 2, 9, 9), picture=picture).status_code == 200
    assert give(http, "star", picture=picture, query="?model=more").status_code == 200
    first, second = stored(sqlite_url)
    assert (first.model, first.version, first.predicted, first.label) == ("digits", 3, "circle", "cross")
    assert (second.model, second.label) == ("more", "star")
    assert_problem(give(http, "7", query="?model=none"), 404, "model_not_found")


def test_refused_picture_and_error_of_a_picture(
    stub: StubModelServer, http: FlaskClient, sqlite_url: str, digits: Any
) -> None:
    stub.answer = TemplateModel(digits)
    assert give(http, NO_CLASS).status_code == 200
    (record,) = stored(sqlite_url)
    assert (record.predicted, record.label) == (NO_CLASS, NO_CLASS)
    response = http.post("/v1/feedback", json={"image": base64.b64encode(b"text").decode(), "label": "1"})
    assert_problem(response, 400, "not_an_image")
    assert_problem(give(http, "1", (28, 0, 1, 1)), 422, "wrong_shape")
    assert len(stored(sqlite_url)) == 1


def test_each_caller_has_one_vote_on_a_picture(
    start: StartGateway, key_file: KeyFile, sqlite_url: str
) -> None:
    keys = {name: key_file.add(name) for name in ("ann", "bob")}
    http = start(api_keys=key_file.path, feedback_open=False)
    assert_problem(give(http, "1"), 401, "unauthorized")
    for name, label in (("ann", "1"), ("bob", "2"), ("ann", "3")):
        assert give(http, label, Authorization=f"Bearer {keys[name]}").status_code == 200
    assert {record.caller: record.label for record in stored(sqlite_url)} == {"ann": "3", "bob": "2"}


@pytest.fixture
def sampled(stub: StubModelServer, start: StartGateway, digits: Any) -> FlaskClient:
    """Test client of a gateway that samples all requests."""
    stub.answer = TemplateModel(digits)
    return start(feedback_sample=1)


def wait_for(sqlite_url: str, count: int) -> list[Record]:
    """Return the stored records once there are `count`."""
    wait_until(lambda: len(stored(sqlite_url)) >= count)
    return stored(sqlite_url)


def test_sampled_pictures_wait_for_a_label_by_their_request_id(
    sampled: FlaskClient, sqlite_url: str, digits: Any
) -> None:
    def labels_of(request_id: str) -> list[str | None]:
        return [record.label for record in stored(sqlite_url) if record.request_id == request_id]

    delta = MetricsDelta(sampled)
    reading = read(sampled, draw_number(digits, "27"))
    predict(sampled, digits.one(3), IMAGE, request_id="id-2")
    read(sampled, IMAGE[::-1], "id-3")
    records = {(each.request_id, each.index, each.position): each for each in wait_for(sqlite_url, 7)}
    boxes = [digit["box"] for line in reading["lines"] for digit in line["digits"]]
    assert [each.predicted for each in records.values()] == ["27", "2", "7", "3", *[NO_CLASS] * 3]
    assert [each.box is None for each in records.values()] == [False] * 3 + [True] * 4
    assert {each.label for each in records.values()} == {None}
    whole, seven = records["id-1", 0, WHOLE], records["id-1", 0, 1]
    assert whole.reading
    assert [place[2:] for place in whole.reading["boxes"]] == [(*box[2:],) for box in boxes]
    assert {each["text"] for each in reading["candidates"]} >= {*whole.reading["candidates"]}
    assert seven.box
    assert seven.box[2:] == (boxes[1][2], boxes[1][3])
    wait_until(lambda: delta("digits_feedback_sampled_total", model="digits", version="1") == 7)
    assert delta("digits_feedback_dropped_total") == 0
    receipt = {"request_id": "id-1", "index": 0, "pictures": 2}
    assert give_by_id(sampled, label="2 1").get_json()["feedback"] == receipt
    assert labels_of("id-1") == ["21", "2", "1"]
    # In JSON Schema, 1.0 is an integer.
    assert give_by_id(sampled, "id-2", index=1.0, label=NO_CLASS).status_code == 200
    assert labels_of("id-2") == [None, NO_CLASS]
    assert_problem(give_by_id(sampled, "id-2", label="42"), 422, "feedback_mismatch")
    assert give_by_id(sampled, "id-3", label="123").status_code == 200
    assert labels_of("id-3") == ["123", None]


@pytest.mark.parametrize(
    ("expect", "refusal", "has_candidates"), [("#{1,2}", "unsure", True), ("####", "unexpected", False)]
)
def test_refused_part_is_sampled_with_its_box_and_the_candidates_that_fit(
    sampled: FlaskClient, sqlite_url: str, digits: Any, expect: str, refusal: str, has_candidates: bool
) -> None:
    page, box = draw_number(digits, "27", "13"), (30, 110, 180, 100)
    query = {"box": ",".join(map(str, box)), "expect": expect, "min_confidence": "1"}
    answer = sampled.post("/v1/read", data=to_png(page), query_string=query).get_json()["readings"][0]
    assert answer["refusal"] == refusal
    assert any(each["text"] == "13" for each in answer["candidates"])
    whole, part = wait_for(sqlite_url, 2)
    assert whole.reading
    assert whole.reading["boxes"] == []
    assert whole.box
    assert part.box == whole.box
    left, top, *size = whole.box
    assert tuple(size) == box[2:]
    shown = decode(whole.picture)
    assert np.array_equal(shown[top : top + 100, left : left + 180], page[110:210, 30:210])
    texts = whole.reading["candidates"]
    assert ("13" in texts) == has_candidates
    assert bool(texts) == has_candidates


def test_refused_field_of_a_form_is_sampled_with_its_part_and_expectation(
    sampled: FlaskClient, sqlite_url: str, digits: Any
) -> None:
    page, box = draw_number(digits, "27", "13"), (30, 110, 180, 100)
    form = {"sure": {"box": [30, 20, 180, 90]}, "unsure": {"box": box, "expect": ["13", "18", "73"]}}
    body = {"images": [base64.b64encode(to_png(page)).decode()], "form": form, "min_confidence": 1}
    sure, unsure = sampled.post("/v1/read", json=body).get_json()["readings"]
    assert (sure["field"], unsure["field"], unsure["refusal"]) == ("sure", "unsure", "unsure")
    records = [record for record in wait_for(sqlite_url, 4) if record.index == 1]
    (whole,) = [record for record in records if record.reading]
    assert whole.box
    left, top, *size = whole.box
    assert tuple(size) == box[2:]
    assert np.array_equal(decode(whole.picture)[top : top + 100, left : left + 180], page[110:210, 30:210])
    assert whole.reading
    assert {*whole.reading["candidates"]} <= {"13", "18", "73"}


def test_sampled_pixels_of_an_array_are_a_picture(sampled: FlaskClient, sqlite_url: str, digits: Any) -> None:
    instance = (digits.one(5) / 255).ravel().tolist()
    assert sampled.post("/v1/predict", json={"instances": ["no", instance]}).status_code == 200
    (record,) = wait_for(sqlite_url, 1)
    assert (record.index, record.predicted) == (1, "5")
    assert np.array_equal(decode(record.picture), digits.one(5))


def test_request_id_of_no_sample_or_of_another_caller_is_unknown(
    start: StartGateway, key_file: KeyFile, sqlite_url: str
) -> None:
    keys = [key_file.add(name) for name in ("shop", "stranger")]
    http = start(api_keys=key_file.path, feedback_open=False, feedback_sample=1)
    http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {keys[0]}"
    predict(http)
    wait_for(sqlite_url, 1)
    unknown = assert_problem(give_by_id(http, "id-2", label="1"), 404, "feedback_unknown")
    assert "a picture of the sample, of the same caller, for 30 days. Send the picture" in unknown["detail"]
    assert_problem(give_by_id(http, index=1, label="1"), 404, "feedback_unknown")
    http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {keys[1]}"
    assert assert_problem(give_by_id(http, label="1"), 404, "feedback_unknown")["detail"] == unknown["detail"]
    assert [record.label for record in stored(sqlite_url)] == [None]


def test_requests_outside_the_sample_store_nothing(start: StartGateway, sqlite_url: str) -> None:
    http = start(feedback_sample=0.5)
    requests = [f"id-{number}" for number in range(16)]
    chosen = {request for request in requests if in_share(0.5, request, b"sample")}
    for number, request in enumerate(requests):
        predict(http, IMAGE // (number + 1), request_id=request)
    assert 0 < len(chosen) < len(requests)
    assert {record.request_id for record in wait_for(sqlite_url, len(chosen))} == chosen


def test_sample_beyond_the_queue_or_without_a_store_is_dropped_and_counted(
    start: StartGateway, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_MAX_PENDING_BYTES", 2 * len(to_png(IMAGE)))
    http = start(feedback_sample=1)
    delta = MetricsDelta(http)
    predict(http, IMAGE, IMAGE, IMAGE)
    assert delta("digits_feedback_dropped_total") == 3
    predict(http, IMAGE, request_id="id-2")
    assert [record.request_id for record in wait_for(sqlite_url, 1)] == ["id-2"]
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other:
        other.execute("DROP TABLE feedback_picture")
    predict(http, IMAGE[::-1], request_id="id-3")
    wait_until(lambda: delta("digits_feedback_dropped_total") == 4)


def test_samples_of_closing_worker_are_stored(stub: StubModelServer, sqlite_url: str) -> None:
    settings = Settings(model_server=stub.target, feedback=sqlite_url, feedback_open=True, feedback_sample=1)
    with greenlet_loop.keeping(settings) as http:
        for number in range(8):
            predict(http, IMAGE // (number + 1), request_id=f"id-{number}")
    assert len(stored(sqlite_url)) == 8


def test_store_is_checked_without_requests_and_loses_expired_samples(
    start: StartGateway, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_store, "_CHECK_SECONDS", 0.1)
    name = "digits_feedback_written_timestamp_seconds"
    http = start(feedback_days=0.3 / 86400, feedback_sample=1)
    delta = MetricsDelta(http)
    predict(http)
    assert give(http, "1", picture=IMAGE[::-1]).status_code == 200
    wait_until(lambda: [record.label for record in stored(sqlite_url)] == ["1"])
    assert delta(name) > 0
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    (damaged := file.with_name("damaged")).write_bytes(b"no database" * 1000)
    # At once: a check would create a file that is missing.
    damaged.replace(file)
    wait_until(lambda: "warnings" in http.get("/readyz").get_json())
    failed = MetricsDelta(http)
    file.unlink()
    wait_until(lambda: failed(name) > 0)
    assert "warnings" not in http.get("/readyz").get_json()
    assert name not in greenlet_loop.client(Settings()).get("/metrics").text


def test_predictions_go_on_while_the_store_cannot_be_opened(start: StartGateway, tmp_path: Path) -> None:
    http = start(feedback=f"sqlite:///{tmp_path}/missing/feedback.db", feedback_sample=1)
    delta = MetricsDelta(http)
    predict(http, IMAGE, IMAGE)
    wait_until(lambda: delta("digits_feedback_dropped_total") == 2)
    response = give(http, "1")
    assert_problem(response, 503, "feedback_unavailable")
    assert response.headers["Retry-After"] == "1"
    ready = http.get("/readyz")
    warnings = ["The store of DIGITS_FEEDBACK can't be used: there is no feedback."]
    assert (ready.status_code, ready.get_json()["warnings"]) == (200, warnings)
    (tmp_path / "missing").mkdir()
    assert give(http, "1").status_code == 200
    assert "warnings" not in http.get("/readyz").get_json()


def test_predictions_go_on_while_the_disk_of_the_store_is_full_and_readyz_says_so(
    start: StartGateway, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_store, "_CHECK_SECONDS", 0.1)
    name = "digits_feedback_written_timestamp_seconds"
    http = start()
    assert give(http, "1").status_code == 200
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", Mock(return_value=Mock(free=2**20)))
        problem = assert_problem(give(http, "2"), 503, "feedback_unavailable")
        assert problem["detail"] == "The store of feedback has no room. Try again later."
        predict(http)
        file = sqlite_url.removeprefix("sqlite:///")
        said = f"the disk of {file} has 1.0 MiB free, and pictures are stored while it has 8 MiB"
        warnings = [f"The store of DIGITS_FEEDBACK can't be used: {said}."]
        assert http.get("/readyz").get_json()["warnings"] == warnings
        # The timestamp stands still, on which the alert is.
        delta = MetricsDelta(http)
        time.sleep(0.5)
        assert delta(name) == 0
    wait_until(lambda: "warnings" not in http.get("/readyz").get_json())
    assert give(http, "2").status_code == 200


@pytest.mark.slow
def test_readyz_warns_while_the_disk_of_postgresql_is_full(start: StartGateway, postgresql_url: str) -> None:
    http = start(feedback=postgresql_url)
    assert give(http, "1").status_code == 200
    with full_disk(postgresql_url):
        problem = assert_problem(give(http, "2"), 503, "feedback_unavailable")
        assert problem["detail"] == "The store of feedback has no room. Try again later."
        said = "The store of DIGITS_FEEDBACK can't be used: the disk of its database is full."
        for _ in range(3):
            assert http.get("/readyz").get_json()["warnings"] == [said]
            time.sleep(0.6)
    wait_until(lambda: "warnings" not in http.get("/readyz").get_json())
    assert give(http, "2").status_code == 200


def test_predictions_go_on_while_the_store_is_locked_and_readyz_warns(
    start: StartGateway, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = start()
    assert give(http, "1").status_code == 200
    monkeypatch.setattr(worker_store, "_CALL_SECONDS", 0.3)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert_problem(give(http, "2"), 503, "feedback_unavailable")
        assert http.get("/readyz").get_json()["warnings"]
        predict(http, request_id="id-2")
    wait_until(lambda: give(http, "2").status_code == 200, seconds=10)
    assert [record.label for record in stored(sqlite_url)] == ["2"]


def test_first_probe_of_a_worker_whose_store_hangs_has_a_warning(
    start: StartGateway, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_store, "_CHECK_SECONDS", 0.1)
    monkeypatch.setattr(worker_store, "_CALL_SECONDS", 0.3)
    http = start()
    assert give(http, "1").status_code == 200
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(1)
        assert http.get("/readyz").get_json()["warnings"]
    wait_until(lambda: "warnings" not in http.get("/readyz").get_json(), seconds=10)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"image": "AA==", "request_id": "id-1", "label": "1"}',
        b'{"image": "AA=="}',
        b'{"image": "AA==", "label": "%b"}' % (b"1" * 1001),
        b'{"image": "AA==", "label": "1", "boxes": [[1, 2, 3]]}',
        b'{"image": "AA==", "label": "1", "boxes": [[1, 2, 3, -4]]}',
        b'{"image": "AA==", "label": "1", "boxes": [%b]}' % b",".join([b"[1, 2, 3, 4]"] * 65),
        b'{"request_id": "id-1", "label": "1", "indx": 1}',
        b'{"request_id": "id 1", "label": "1"}',
    ],
)
def test_feedback_malformed_body_is_refused(http: FlaskClient, body: bytes) -> None:
    response = http.post("/v1/feedback", data=body, content_type="application/json")
    assert_problem(response, 400, "malformed_body")


@pytest.mark.parametrize(
    ("site", "origin", "is_refused"),
    [
        (None, None, False),
        (None, "http://localhost", False),
        (None, "https://evil.example", True),
        (None, "null", True),
        ("same-origin", "https://behind.a.proxy", False),
        ("cross-site", "https://evil.example", True),
        ("same-site", "http://localhost:3000", True),
        ("cross-site", "https://app.example", False),
    ],
)
def test_feedback_form_of_another_site_is_refused(
    start: StartGateway, site: str | None, origin: str | None, is_refused: bool
) -> None:
    http = start(cors_origins=("https://app.example",))
    sent = {"Origin": origin, "Sec-Fetch-Site": site}
    headers = {name: value for name, value in sent.items() if value}
    response = give(http, "7", **headers)
    if is_refused:
        assert_problem(response, 403, "forbidden")
    else:
        assert response.status_code == 200


def test_feedback_with_a_key_needs_no_origin(start_labelling: StartGateway) -> None:
    assert give(start_labelling(), "7", Origin="https://behind.a.proxy").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"image": "", "label": "1", "boxes": [[%b]]}' % b",".join([b"[]"] * 100_000),
        b'{"label": "1", %b}' % b",".join(b'"%d": 1' % number for number in range(100_000)),
    ],
    ids=["lists", "members"],
)
def test_feedback_of_more_values_than_boxes_have_is_too_large(http: FlaskClient, body: bytes) -> None:
    response = http.post("/v1/feedback", data=body, content_type="application/json")
    assert_problem(response, 413, "body_too_large")


@pytest.mark.parametrize(
    ("pictures", "fields"),
    [
        (1, {}),
        (2, {"label": "1"}),
        (1, {"label": ["1", "2"]}),
        (1, {"label": "1", "box": "1,2,-3,4"}),
        (1, {"label": "1", "box": f"1,2,3,{'4' * 5000}"}),
    ],
)
def test_feedback_malformed_form_is_refused(http: FlaskClient, pictures: int, fields: dict[str, Any]) -> None:
    files = [(io.BytesIO(to_png(IMAGE)), "picture") for _ in range(pictures)]
    assert_problem(http.post("/v1/feedback", data={"image": files, **fields}), 400, "malformed_body")


def test_feedback_of_other_type_or_size_is_refused(start: StartGateway) -> None:
    http = start(max_body=10_000)
    response = http.post("/v1/feedback", data=b"{}", content_type="text/plain")
    assert_problem(response, 415, "unsupported_media_type")
    response = http.post("/v1/feedback", data=bytes(20_000), content_type="application/json")
    assert_problem(response, 413, "body_too_large")


def test_index_and_models_say_whether_feedback_is_possible(http: FlaskClient, start: StartGateway) -> None:
    without = start(feedback="")
    for client, has_feedback in ((http, True), (without, False)):
        index = client.get("/", headers={"Accept": "application/json"}).get_json()
        assert ("feedback" in index["links"]) is has_feedback
        assert client.get("/v1/models").get_json()["feedback"] is has_feedback
    assert_problem(give(without, "1"), 404, "not_found")


def test_model_without_feedback_takes_and_samples_none(
    start: StartGateway, stub: StubModelServer, tmp_path: Path, sqlite_url: str
) -> None:
    multi_label = replace(SHAPES, threshold=(0.5,) * 4)
    stub.answer = TaskModels(digits={1: SHAPES}, off={1: SHAPES}, multi={1: multi_label})
    file, picture = tmp_path / "models.toml", np.zeros((9, 9), np.uint8)
    file.write_text("[off]\nfeedback = false\n")
    http = start(model_names=("off", "multi"), models_file=file, feedback_sample=1)
    for name, status in (("off", 404), ("multi", 422), ("digits", 200)):
        assert http.get(f"/v1/models?model={name}").get_json()["feedback"] is (status == 200)
        predict(http, picture, query=f"?model={name}", request_id=name)
        assert give(http, "cross", picture=picture, query=f"?model={name}").status_code == status
    assert [record.model for record in stored(sqlite_url)] == ["digits"]


def test_version_without_valid_answer_is_an_error(
    stub: StubModelServer, http: FlaskClient, sqlite_url: str
) -> None:
    stub.answer = lambda _request, _context: predict_response(np.full((1, 10), np.nan, np.float32))
    assert_problem(give(http, "1"), 502, "invalid_output")
    assert stored(sqlite_url) == []
