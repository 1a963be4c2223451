"""Shadow: a second version also answers, unseen by the callers, in front of a stub model server."""

import base64
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from flask.testing import FlaskClient

from digit_core.artifact.task_card import CardInput, CardPreparation, TaskCard
from digit_core.images import prepare, to_png
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.door import in_share
from digit_serving.gateway.settings import Settings
from digit_serving.shadow import door as shadow
from tests import greenlet_loop
from tests.core.drawn_numbers import draw_number
from tests.core.grpc_model_server import abort_without_label, card_response
from tests.processes import gateway_process, wait_until
from tests.serving.gateway.helpers import IMAGE, MetricsDelta, npy, predict, write_traffic
from tests.serving.gateway.stub_model_server import (
    FASHION,
    Answer,
    StubModelServer,
    TaskModels,
    TemplateModel,
    answer,
    predict_response,
)

DROPPED = "digits_shadow_dropped_total"
COMPARED = "digits_shadow_predictions_total"
SETTINGS: dict[str, Any] = {"default_label": "stable", "shadow_label": "canary", "shadow_share": 1}


class LabelledVersions:
    """Predict handler of version 1, which is `stable`, and of others by their labels.

    `answers` are the handlers of the other versions' labels, which answer as version 2.
    """

    def __init__(self, **answers: Answer) -> None:
        self.stable: Answer = answer(7)
        self.answers = answers
        self.shadowed: list[int] = []
        """Number of images of each call by one of these labels."""

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        label, count = request.model_spec.version_label, request.inputs["images"].tensor_shape.dim[0].size
        if label in ("", "stable"):
            return self.stable(request, context)
        self.shadowed.append(count)
        if label not in self.answers:
            abort_without_label(request.model_spec, context)
        return self.answers[label](request, context)


@pytest.fixture
def hang() -> Iterator[Answer]:
    """Predict handler that hangs until the end of the test."""
    released = threading.Event()

    def predict(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        released.wait(30)
        return answer(7, 2)(request, context)

    yield predict
    released.set()


def start(stub: StubModelServer, **settings: Any) -> tuple[FlaskClient, MetricsDelta]:
    """Return a test client of a gateway whose shadow is `canary`, for all requests, and its metrics."""
    values: dict[str, Any] = SETTINGS | settings
    http = greenlet_loop.client(Settings(model_server=stub.target, **values))
    return http, MetricsDelta(http)


def test_shadow_of_one_model_is_counted_and_unseen(stub: StubModelServer, tmp_path: Path) -> None:
    stub.answer = versions = LabelledVersions(canary=answer(8, 2))
    file = tmp_path / "models.toml"
    file.write_text("[fashion]\nshadow_share = 0\n")
    http, delta = start(stub, model_names=("fashion",), models_file=file)
    predict(http, query="?model=fashion")
    assert delta("digits_predictions_total", model="fashion") == 1
    delta = MetricsDelta(http)
    document = predict(http, IMAGE, IMAGE)
    assert document["model"]["version"] == 1
    assert {prediction["digit"] for prediction in document["predictions"]} == {7}
    wait_until(lambda: delta(COMPARED) == 2)
    labels = {"model": "digits", "version": "1", "shadow_version": "2"}
    assert delta(COMPARED, agrees="false", **labels) == 2
    assert versions.shadowed == [2]
    assert stub.metadata["x-request-id"] == "id-1"
    assert delta("digits_shadow_duration_seconds_count", model="digits", version="2") == 1
    assert delta("digits_shadow_duration_seconds_sum") > 0
    for metric in ("digits_predictions_total", "digits_call_images_sum"):
        assert delta(metric) == 2, "only the answer is in the other metrics"
    assert delta("digits_model_duration_seconds_count", version="2") == 0
    assert delta(DROPPED) == 0


@pytest.mark.parametrize(
    ("shadowing", "agrees"),
    [
        (answer(7, 2, is_digit=0.6), "true"),
        # Version 2 would refuse the picture.
        (answer(7, 2, is_digit=0.3), "false"),
        (lambda _request, _context: predict_response(np.full((1, 10), np.nan, np.float32), 2), "false"),
    ],
)
def test_agreement_is_in_label_and_refusal(stub: StubModelServer, shadowing: Answer, agrees: str) -> None:
    stub.answer = LabelledVersions(canary=shadowing)
    http, delta = start(stub)
    predict(http)
    wait_until(lambda: delta(COMPARED) == 1)
    assert delta(COMPARED, agrees=agrees) == 1


def test_multi_label_versions_agree_on_the_same_labels(stub: StubModelServer) -> None:
    task = TaskCard("digits", ("day", "snow"), CardInput((28, 28), (0.0, 255.0)), threshold=(0.5, 0.5))
    stub.answer_card = lambda _request, _context: card_response(json.dumps(task.to_document()))
    stub.answer = versions = LabelledVersions()
    ours, theirs = np.array([[0.8, 0.9]] * 2, np.float32), np.array([[0.9, 0.6], [0.9, 0.4]], np.float32)
    versions.stable = lambda _request, _context: predict_response(ours, 1)
    versions.answers["canary"] = lambda _request, _context: predict_response(theirs, 2)
    http, delta = start(stub)
    predict(http, IMAGE, IMAGE)
    wait_until(lambda: delta(COMPARED) == 2)
    assert delta(COMPARED, agrees="true") == delta(COMPARED, agrees="false") == 1


def test_reading_is_compared_by_digit(stub: StubModelServer, digits: Any) -> None:
    stub.answer = versions = LabelledVersions(canary=answer(2, 2))
    versions.stable = TemplateModel(digits)
    http, delta = start(stub)
    response = http.post("/v1/read", data=to_png(draw_number(digits, "2026")))
    assert response.get_json()["readings"][0]["text"] == "2026"
    wait_until(lambda: delta(COMPARED) == 4)
    assert delta(COMPARED, agrees="true") == delta(COMPARED, agrees="false") == 2


def test_request_that_names_a_version_has_no_shadow(stub: StubModelServer) -> None:
    stub.answer = versions = LabelledVersions(canary=answer(7, 2))
    http, delta = start(stub)
    for query in ("?version=1", "?label=stable"):
        predict(http, query=query)
    predict(http, IMAGE, IMAGE)
    wait_until(lambda: delta(COMPARED) == 2)
    assert versions.shadowed == [2]


@pytest.mark.parametrize(("label", "compares_canary"), [("canary", False), ("next", True)])
def test_request_that_the_canary_answers_is_compared_with_another_label_only(
    stub: StubModelServer, label: str, compares_canary: bool, tmp_path: Path
) -> None:
    stub.answer = versions = LabelledVersions(canary=answer(7, 2), next=answer(7, 3))
    http, delta = start(stub, models_traffic=write_traffic(tmp_path, canary=0.5), shadow_label=label)
    requests = [f"id-{number}" for number in range(16)]
    for request in requests:
        predict(http, request_id=request)
    canaries = sum(in_share(0.5, request) for request in requests)
    compared = len(requests) if compares_canary else len(requests) - canaries
    assert 0 < canaries < len(requests)
    wait_until(lambda: delta(COMPARED) == compared)
    assert delta(COMPARED, version="2") == (canaries if compares_canary else 0)
    assert sum(versions.shadowed) == canaries + compared
    assert delta(DROPPED) == 0


WIDE = np.pad(np.full((20, 20), 255, np.uint8), ((0, 0), (20, 20)))
"""White picture with black sides, which `crop` does not see."""
CROPPED = replace(FASHION, input=replace(FASHION.input, shape=(56, 56)), prepare=CardPreparation(fit="crop"))
FILES = [base64.b64encode(file).decode() for file in (to_png(WIDE), b"no image", to_png(255 - WIDE))]


@pytest.mark.parametrize(
    ("body", "pictures"),
    [
        ({"data": to_png(WIDE)}, [WIDE]),
        ({"json": {"images": FILES}}, [WIDE, 255 - WIDE]),
        ({"data": npy(WIDE[None]), "content_type": "application/x-npy"}, [WIDE]),
        ({"json": {"instances": [[1], (IMAGE / 255).tolist()]}}, [IMAGE]),
    ],
    ids=["file", "files", "npy", "instances"],
)
def test_shadow_with_another_card_gets_pictures_of_its_own(
    stub: StubModelServer, body: dict[str, Any], pictures: list[np.ndarray]
) -> None:
    stub.answer = models = TaskModels(digits={1: FASHION, 2: CROPPED})
    models.labels = {"stable": 1, "canary": 2}
    http, delta = start(stub)
    assert http.post("/v1/predict", **body).status_code == 200
    wait_until(lambda: delta(COMPARED) == len(pictures))
    assert models.versions == [("digits", 1), ("digits", 2)]
    assert np.array_equal(models.inputs[1], [prepare(picture, CROPPED) for picture in pictures])
    if pictures[0] is WIDE:
        assert delta(COMPARED, agrees="false") == len(pictures)


def test_shadow_label_moved_to_version_with_another_card_is_compared(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(digits={1: FASHION, 2: FASHION, 3: CROPPED})
    models.labels = {"stable": 1, "canary": 2}
    http, delta = start(stub)
    predict(http, WIDE)
    wait_until(lambda: delta(COMPARED, shadow_version="2", agrees="true") == 1)
    models.labels = {"stable": 1, "canary": 3}
    predict(http, WIDE)
    wait_until(lambda: delta(COMPARED, shadow_version="3", agrees="false") == 1)
    assert np.array_equal(models.inputs[-1], [prepare(WIDE, CROPPED)])
    assert delta(DROPPED) == 0


@pytest.mark.parametrize(("reason", "first"), [("same_version", {"canary": answer(7)}), ("absent", {})])
def test_label_without_another_version_costs_a_call_a_second_until_it_has_one(
    stub: StubModelServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    first: dict[str, Answer],
) -> None:
    monkeypatch.setattr(shadow, "_RECHECK_SECONDS", 60)
    stub.answer = versions = LabelledVersions(**first)
    http, delta = start(stub)
    predict(http)
    wait_until(lambda: delta(DROPPED, reason=reason) == 1)
    for _ in range(3):
        predict(http)
    assert (delta(DROPPED, reason=reason), versions.shadowed) == (4, [1])
    assert delta(COMPARED) == delta("digits_shadow_duration_seconds_count") == 0
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == (reason == "absent")
    assert all(
        message.startswith("answers were not compared with digits, label 'canary': ") for message in messages
    )
    monkeypatch.setattr(shadow, "_RECHECK_SECONDS", 0)
    versions.answers["canary"] = answer(7, 2)
    predict(http)
    wait_until(lambda: delta(COMPARED) == 1)


@pytest.mark.parametrize(("limit", "value"), [("_MAX_PENDING", 3), ("_MAX_PENDING_BYTES", 3 * IMAGE.size)])
def test_hung_shadow_delays_no_answer_and_is_bounded(
    stub: StubModelServer, hang: Answer, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(shadow, limit, value)
    stub.answer = LabelledVersions(canary=hang)
    http, delta = start(stub, deadline=20)
    for _ in range(8):
        predict(http)
    assert delta(DROPPED, reason="busy") == delta(DROPPED) == 5


def test_timeouts_of_shadow_open_its_circuit_only(stub: StubModelServer, hang: Answer) -> None:
    stub.answer = LabelledVersions(canary=hang)
    http, delta = start(stub, deadline=0.5)
    for _ in range(3):
        predict(http)
    wait_until(lambda: delta(DROPPED, reason="deadline_exceeded") == 3)
    for _ in range(5):
        predict(http)
    wait_until(lambda: delta(DROPPED, reason="model_unavailable") == 4)
    stub.answer = LabelledVersions(canary=answer(8, 2))
    assert predict(http, query="?label=canary")["model"]["version"] == 2
    assert delta("digits_model_failures_total") == 0


def test_failure_of_shadow_is_counted_and_logged_once(
    stub: StubModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        raise context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "broken")

    stub.answer = LabelledVersions(canary=fail)
    http, delta = start(stub)
    for _ in range(3):
        predict(http)
    wait_until(lambda: delta(DROPPED) == 3)
    assert delta("digits_requests_total", status="200") == 3
    assert delta("digits_model_failures_total") == 0
    # A shadow of another test may fail as its model server ends.
    messages = [record.message for record in caplog.records if stub.target in record.message]
    assert len(messages) == 1
    assert messages[0].endswith("broken")


@pytest.mark.e2e
def test_gateway_with_hung_shadow_stops_at_once(
    stub: StubModelServer, hang: Answer, capfd: pytest.CaptureFixture[str]
) -> None:
    stub.answer = versions = LabelledVersions(canary=hang)
    with gateway_process(stub.target, deadline=30, **SETTINGS) as gateway:
        response = httpx.post(f"{gateway.url}/v1/predict", content=to_png(IMAGE))
        assert response.json()["model"]["version"] == 1
        wait_until(lambda: versions.shadowed == [1])
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) == 0
    assert "Traceback" not in capfd.readouterr().err
