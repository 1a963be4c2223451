"""Labelling: stored pictures are shown to API keys with the permission, and get labels by hand."""

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_core.artifact.task_card import NO_CLASS
from digit_core.feedback.store import FeedbackStore
from digit_core.images import decode, to_png
from digit_serving.gateway.auth import KeyFile
from tests.records import sample, sample_reading
from tests.serving.gateway.helpers import StartGateway, assert_problem
from tests.serving.gateway.stub_model_server import SHAPES, StubModelServer, TaskModels, predict_sevens


@pytest.fixture
def http(label_http: FlaskClient) -> FlaskClient:
    return label_http


def shown(http: FlaskClient, query: str = "") -> Any:
    response = http.get(f"/v1/feedback/unlabelled{query}")
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "no-store"
    return response.get_json()


def label(http: FlaskClient, record: dict[str, Any], text: str | None, **fields: object) -> TestResponse:
    """Label a picture that was shown."""
    return http.post("/v1/feedback/labels", json={"picture": record["picture"], "label": text} | fields)


def number_of(record: dict[str, Any]) -> int:
    """Return the number of the sample that is shown."""
    number: int = decode(base64.b64decode(record["image"]))[0, 0]
    return number


@pytest.fixture
def record(http: FlaskClient, store: FeedbackStore) -> Any:
    """Record of the only stored sample, as it is shown."""
    store.save([sample(1)])
    return shown(http)["records"][0]


def test_unlabelled_answers_are_shown_without_the_predicted_label(
    http: FlaskClient, store: FeedbackStore
) -> None:
    store.save([sample(3, index=2, position=1, box=(1, 2, 3, 4)), *map(sample, range(4, 9))])
    document = shown(http, "?limit=6")
    (record,) = [each for each in document["records"] if number_of(each) == 3]
    assert np.array_equal(decode(base64.b64decode(record["image"])), np.full((28, 28), 3))
    assert record.keys() == {"picture", "image", "box", "boxes", "candidates"}
    assert (record["box"], record["boxes"], record["candidates"]) == ([1, 2, 3, 4], [], None)
    assert document["unlabelled"] == 6
    assert len(shown(http, "?limit=2")["records"]) == 2


def hand_labels(store: FeedbackStore) -> list[str | None]:
    return [record.hand_label for record in store.records()]


def test_whole_reading_is_shown_once_with_boxes_and_candidates(
    http: FlaskClient, store: FeedbackStore
) -> None:
    store.save([sample(1, confidence=0.125), *sample_reading("17")])
    document = shown(http)
    assert document["unlabelled"] == 2
    _, record = document["records"]
    assert record["boxes"] == [[0, 0, 9, 9], [10, 0, 9, 9]]
    assert record["candidates"] == ["17", "77"]
    assert "0.25" not in str(record)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("77", ["77", "7", "7"]), ("1 177", ["1177", None, None]), (NO_CLASS, [NO_CLASS] * 3)],
)
def test_number_labels_the_digits_of_a_reading_where_the_lengths_agree(
    http: FlaskClient, store: FeedbackStore, text: str, expected: list[str | None]
) -> None:
    store.save(sample_reading("17"))
    store.save([replace(record, caller="other") for record in sample_reading("17")])
    (record,) = shown(http)["records"]
    assert label(http, record, text).status_code == 200
    assert sorted(hand_labels(store), key=str) == sorted(2 * expected, key=str)
    assert [each.hand_label for each in store.records(caller="other")] == expected
    assert shown(http)["records"] == []
    assert label(http, record, None).status_code == 200
    assert hand_labels(store) == [None] * 6
    assert shown(http)["records"] == [record]


def test_text_that_is_no_number_labels_no_reading(http: FlaskClient, store: FeedbackStore) -> None:
    store.save(sample_reading("17"))
    (record,) = shown(http)["records"]
    assert_problem(label(http, record, "x"), 422, "feedback_mismatch")
    assert_problem(label(http, record, "1" * 1001), 400, "malformed_body")
    assert hand_labels(store) == [None] * 3


def test_reading_of_which_a_digit_is_gone_takes_its_number(http: FlaskClient, store: FeedbackStore) -> None:
    whole, _, _, last = sample_reading("127")
    store.save([whole, last])
    (record,) = shown(http)["records"]
    assert label(http, record, "345").status_code == 200
    assert hand_labels(store) == ["345", "5"]


def test_number_is_no_label_of_a_single_digit(http: FlaskClient, store: FeedbackStore) -> None:
    store.save([sample(1, position=3)])
    (record,) = shown(http)["records"]
    assert_problem(label(http, record, "42"), 422, "feedback_mismatch")
    assert label(http, record, "4").status_code == 200
    assert hand_labels(store) == ["4"]


def test_labelled_answers_and_other_models_are_left_out(
    start_labelling: StartGateway, store: FeedbackStore
) -> None:
    http = start_labelling(model_names=("shapes",))
    store.save([sample(1), sample(2, model="shapes"), sample(3, label="1"), sample(3, caller="eve")])
    assert [number_of(record) for record in shown(http)["records"]] == [1]
    (other,) = shown(http, "?model=shapes")["records"]
    assert number_of(other) == 2
    assert_problem(label(http, other, "3"), 404, "feedback_unknown")
    assert shown(http)["unlabelled"] == 1


def test_invalid_query_is_refused(http: FlaskClient) -> None:
    for query in ("limit=0", "limit=101", "limit=x", "above=0.5"):
        assert_problem(http.get(f"/v1/feedback/unlabelled?{query}"), 400, "invalid_selection")
    assert_problem(http.get("/v1/feedback/unlabelled?model=.x"), 404, "model_not_found")


@pytest.mark.parametrize("text", ["3", NO_CLASS])
def test_label_is_stored_and_the_answer_no_longer_shown(
    http: FlaskClient, store: FeedbackStore, record: Any, text: str
) -> None:
    assert label(http, record, text).get_json()["label"] == text
    (after,) = store.records()
    assert (after.label, after.hand_label) == (None, text)
    document = shown(http)
    assert (document["records"], document["unlabelled"]) == ([], 0)


def test_null_withdraws_the_label_and_the_latest_one_counts(
    http: FlaskClient, store: FeedbackStore, record: Any
) -> None:
    label(http, record, "3")
    assert label(http, record, None).get_json()["label"] is None
    assert hand_labels(store) == [None]
    assert shown(http)["records"] == [record]
    for text in ("4", "8"):
        assert label(http, record, text).status_code == 200
    assert hand_labels(store) == ["8"]


def test_label_must_be_one_of_the_served_models(
    stub: StubModelServer, http: FlaskClient, store: FeedbackStore
) -> None:
    stub.answer = TaskModels(digits={9: SHAPES})
    store.save([sample(1, picture=to_png(np.zeros((64, 48, 3), np.uint8)))])
    (record,) = shown(http)["records"]
    assert_problem(label(http, record, "7"), 422, "feedback_mismatch")
    assert label(http, record, "cross").status_code == 200


def test_label_without_a_model_is_unavailable_and_of_a_deleted_picture_unknown(
    stub: StubModelServer, http: FlaskClient, store: FeedbackStore, record: Any
) -> None:
    stub.answer = TaskModels(other={1: SHAPES})
    assert_problem(label(http, record, "7"), 503, "model_unavailable")
    stub.answer = predict_sevens
    store.delete(request_id="request-1")
    assert_problem(label(http, record, "7"), 404, "feedback_unknown")


@pytest.mark.parametrize("change", [{"label": 7}, {"picture": None}, {"picture": "id 1"}, {"more": 1}])
def test_malformed_label_is_refused(http: FlaskClient, record: Any, change: dict[str, object]) -> None:
    assert_problem(label(http, record, "7", **change), 400, "malformed_body")


def test_key_without_permission_is_forbidden_and_changes_nothing(
    start_labelling: StartGateway, key_file: KeyFile, store: FeedbackStore
) -> None:
    store.save([sample(1)])
    shop = key_file.add("shop")
    http = start_labelling()
    (record,) = shown(http)["records"]
    for key, status, code in (("digits_wrong", 401, "unauthorized"), (shop, 403, "forbidden")):
        http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        assert_problem(http.get("/v1/feedback/unlabelled"), status, code)
        assert_problem(label(http, record, "7"), status, code)
    assert [record.hand_label for record in store.records()] == [None]


def test_labelling_without_keys_or_store_is_not_found(start_labelling: StartGateway) -> None:
    for settings in ({"api_keys": None, "feedback_open": True}, {"feedback": ""}):
        http = start_labelling(**settings)
        for path, method in (("unlabelled", "GET"), ("labels", "POST")):
            assert_problem(http.open(f"/v1/feedback/{path}", method=method), 404, "not_found")
            assert f"/v1/feedback/{path}" not in http.get("/openapi.json").get_json()["paths"]
        assert_problem(http.get("/label"), 404, "not_found")


def test_label_page_is_served_with_keys_and_store(http: FlaskClient) -> None:
    page = http.get("/label")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
