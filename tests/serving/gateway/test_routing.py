"""Routing to models, versions and labels, the canary's included, in front of a stub model server."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from flask.testing import FlaskClient

from digit_core.artifact.models_config import ModelsConfig
from digit_core.images import to_png
from digit_core.tfserving.protos import ModelVersionStatus, PredictRequest, PredictResponse
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.conftest import (
    FASHION,
    IMAGE,
    NETWORK,
    SHAPES,
    StubModelServer,
    TaskModels,
    card_response,
    predict_sevens,
)

REQUESTS = [f"request-{number}" for number in range(1000)]
PNG = to_png(IMAGE)

StartCanaryGateway = Callable[[float], FlaskClient]


def predict_labelled(**labels: int) -> Callable[[PredictRequest, grpc.ServicerContext], PredictResponse]:
    """Return a Predict handler of a model with these labels, whose newest version is 9."""

    def predict(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        spec = request.model_spec
        version = spec.version.value or 9
        if spec.version_label:
            if spec.version_label not in labels:
                message = f"Unrecognized servable version label: {spec.version_label}"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
            version = labels[spec.version_label]
        return predict_sevens(request, context, version)

    return predict


@pytest.fixture
def start_canary_gateway(stub: StubModelServer) -> StartCanaryGateway:
    """Function that creates a gateway of the stub, with `stable` as default label and a canary's share."""

    def start(canary_share: float) -> FlaskClient:
        return greenlet_loop.client(
            Settings(model_server=stub.target, default_label="stable", canary_share=canary_share)
        )

    return start


def predict_version(http: FlaskClient, request_id: str, query: str = "") -> int:
    """Return the version that answers a request."""
    headers = {"X-Request-ID": request_id}
    response = http.post(f"/v1/predict{query}", data=PNG, content_type="image/png", headers=headers)
    assert response.status_code == 200, response.text
    version: int = response.get_json()["model"]["version"]
    return version


def test_canary_answers_its_share_and_a_larger_share_keeps_its_requests(
    stub: StubModelServer, start_canary_gateway: StartCanaryGateway
) -> None:
    stub.answer = predict_labelled(stable=1, canary=2)
    few, more = (
        {request_id: predict_version(http, request_id) for request_id in REQUESTS[:400]}
        for http in (start_canary_gateway(0.3), start_canary_gateway(0.5))
    )
    # Within four standard deviations of 400 draws.
    assert abs(Counter(few.values())[2] - 120) < 37
    assert set(few.values()) == {1, 2}
    assert {key for key in few if few[key] == 2} < {key for key in more if more[key] == 2}
    stub.answer = predict_labelled(stable=1)
    assert predict_version(start_canary_gateway(1), "any") == 1, "without the label the default answers"


def test_version_or_label_of_the_request_overrides_canary_and_default(
    stub: StubModelServer, start_canary_gateway: StartCanaryGateway
) -> None:
    stub.answer = predict_labelled(stable=1, canary=2)
    assert predict_version(start_canary_gateway(1), "any", "?version=1") == 1
    assert predict_version(start_canary_gateway(1), "any", "?label=stable") == 1
    assert predict_version(start_canary_gateway(0), "any", "?label=canary") == 2
    assert predict_version(greenlet_loop.client(Settings(model_server=stub.target)), "any") == 9


@pytest.mark.parametrize(
    ("label", "command"),
    [
        ("stable", "digits models promote N --model digits"),
        ("beta", "digits models promote N --model digits --version-label beta"),
    ],
)
def test_default_label_without_version_names_model_label_and_command(
    stub: StubModelServer, label: str, command: str
) -> None:
    stub.answer = models = TaskModels(digits={2: SHAPES}, fashion={1: FASHION})
    models.labels = {"canary": 2}
    http = greenlet_loop.client(Settings(model_server=stub.target, default_label=label))
    sentence = (
        f"No loaded version of the model digits has the label {label}; `{command}` gives it to version N."
    )
    for response, code in (
        (http.post("/v1/predict", data=PNG, content_type="image/png"), "model_unavailable"),
        (http.get("/readyz"), "not_ready"),
    ):
        assert response.headers["Retry-After"] == "1"
        problem = response.get_json(force=True)
        assert (response.status_code, problem["code"], problem["detail"]) == (503, code, sentence)
    models.labels[label] = 2
    assert predict_model(http, "")["version"] == 2
    assert http.get("/readyz").status_code == 200


def test_default_version_that_loads_is_named_without_a_command(stub: StubModelServer) -> None:
    stub.answer = TaskModels(digits={2: SHAPES})
    stub.state = ModelVersionStatus.LOADING
    http = greenlet_loop.client(Settings(model_server=stub.target, default_label="stable"))
    for response in (http.post("/v1/predict", data=PNG), http.get("/readyz")):
        detail = response.get_json(force=True)["detail"]
        assert detail == "The model digits is loading, version 2. Try again later."


def test_missing_label_or_version_is_named_in_the_error(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(digits={2: SHAPES})
    models.labels = {"stable": 2}
    http = greenlet_loop.client(Settings(model_server=stub.target, default_label="stable"))
    for query, sentence in (
        ("label=next", "No version of the model digits has the label 'next'."),
        ("version=3", "The model digits has no version 3 here."),
    ):
        response = http.post(f"/v1/predict?{query}", data=PNG, content_type="image/png")
        problem = response.get_json(force=True)
        assert (response.status_code, problem["code"], problem["detail"]) == (
            404,
            "model_not_found",
            sentence,
        )


def predict_model(http: FlaskClient, query: str, request_id: str = "any") -> dict[str, Any]:
    """Return the model that answers a picture."""
    headers = {"X-Request-ID": request_id}
    response = http.post(f"/v1/predict{query}", data=PNG, content_type="image/png", headers=headers)
    assert response.status_code == 200, response.text
    model: dict[str, Any] = response.get_json()["model"]
    return model


def test_predict_named_model_answers_with_its_labels(stub: StubModelServer) -> None:
    stub.answer = TaskModels(shapes={3: SHAPES}, fashion={5: FASHION, 6: FASHION})
    http = greenlet_loop.client(
        Settings(model_server=stub.target, model_name="shapes", model_names=("fashion", "lost"))
    )
    assert predict_model(http, "") == {"name": "shapes", "version": 3, "labels": list(SHAPES.labels)}
    assert predict_model(http, "?model=shapes")["version"] == 3
    fashion = {"name": "fashion", "version": 6, "labels": list(FASHION.labels)}
    assert predict_model(http, "?model=fashion") == fashion
    assert predict_model(http, "?model=fashion&version=5")["version"] == 5
    lost = http.post("/v1/predict?model=lost", data=PNG, content_type="image/png")
    assert (lost.status_code, lost.get_json(force=True)["code"]) == (503, "model_unavailable")


def test_predict_unlisted_model_is_not_found(stub: StubModelServer) -> None:
    stub.answer = TaskModels(shapes={3: SHAPES}, secret={1: FASHION})
    http = greenlet_loop.client(Settings(model_server=stub.target, model_name="shapes", model_names=()))
    for send in (http.post, http.get):
        path = "/v1/predict" if send == http.post else "/v1/models"
        response = send(f"{path}?model=secret", data=PNG if send == http.post else None)
        assert (response.status_code, response.get_json(force=True)["code"]) == (404, "model_not_found")
    assert stub.calls == stub.card_calls == 0


def test_new_model_answers_without_a_restart(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(shapes={3: SHAPES})
    http = greenlet_loop.client(Settings(model_server=stub.target, model_name="shapes"))
    for response in (http.post("/v1/predict?model=new", data=PNG), http.get("/v1/models?model=new")):
        assert (response.status_code, response.get_json(force=True)["code"]) == (404, "model_not_found")
    assert 'model="new"' not in http.get("/metrics").text
    models.tasks["new"] = {1: FASHION}
    assert predict_model(http, "?model=new")["labels"] == list(FASHION.labels)
    document = http.get("/v1/models?model=new").get_json()
    assert (document["name"], document["models"]) == ("new", ["shapes", "new"])
    assert http.get("/v1/models").get_json()["models"] == ["shapes"]


def test_models_of_models_config_are_listed_as_they_come(stub: StubModelServer, tmp_path: Path) -> None:
    stub.answer = TaskModels(shapes={3: SHAPES})
    file = tmp_path / "models.config"
    file.write_text("")
    http = greenlet_loop.client(Settings(model_server=stub.target, model_name="shapes", models_config=file))
    assert http.get("/v1/models").get_json()["models"] == ["shapes"]
    config = ModelsConfig.empty()
    for name in ("reader", "shapes", "later"):
        config = config.with_versions(name, [1], tmp_path)
    file.write_text(str(config))
    assert http.get("/v1/models").get_json()["models"] == ["shapes", "later"]
    file.unlink()
    assert http.get("/v1/models").get_json()["models"] == ["shapes"]


def test_models_describes_each_model(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(shapes={3: SHAPES}, fashion={5: FASHION})
    models.labels = {"stable": 5}
    http = greenlet_loop.client(
        Settings(model_server=stub.target, model_name="shapes", model_names=("fashion",))
    )
    document = http.get("/v1/models?model=fashion").get_json()
    assert document.pop("request_id")
    assert document == {
        "name": "fashion",
        "versions": [{"version": 5, "state": "AVAILABLE", "network": NETWORK}],
        "labels": {"stable": 5},
        "task": FASHION.to_document(),
        "models": ["shapes", "fashion"],
        "feedback": False,
    }
    assert http.get("/v1/models").get_json()["name"] == "shapes"


def test_models_without_default_version_has_no_task(stub: StubModelServer) -> None:
    stub.answer = TaskModels(digits={3: SHAPES})
    http = greenlet_loop.client(Settings(model_server=stub.target, default_label="stable"))
    assert http.get("/v1/models").get_json()["task"] is None


def test_models_file_routes_each_model_by_its_own_labels(stub: StubModelServer, tmp_path: Path) -> None:
    stub.answer = models = TaskModels(
        digits={1: SHAPES, 2: SHAPES}, fashion={1: FASHION, 2: FASHION, 3: FASHION}
    )
    models.labels = {"stable": 1, "next": 2, "beta": 3}
    file = tmp_path / "models.toml"
    file.write_text('[fashion]\ndefault_label = "beta"\ncanary_label = "next"\ncanary_share = 0.5\n')
    http = greenlet_loop.client(
        Settings(model_server=stub.target, model_names=("fashion",), default_label="stable", models_file=file)
    )
    answers = Counter(
        predict_model(http, query, request_id)["version"]
        for query in ("?model=digits", "?model=fashion")
        for request_id in REQUESTS[:40]
    )
    assert answers[1] == 40
    assert answers[2] + answers[3] == 40
    assert answers[2] > 5
    assert answers[3] > 5
    assert http.get("/v1/models?model=fashion").get_json()["labels"] == {"stable": 1, "next": 2, "beta": 3}


def test_candidate_is_listed_without_label_and_answers_by_number(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(digits={1: SHAPES, 2: SHAPES})
    models.labels = {"stable": 1}
    http = greenlet_loop.client(Settings(model_server=stub.target, default_label="stable"))
    document = http.get("/v1/models").get_json()
    assert {version["version"] for version in document["versions"]} == {1, 2}
    assert document["labels"] == {"stable": 1}
    assert [predict_model(http, query)["version"] for query in ("", "?version=2")] == [1, 2]


def test_task_is_asked_by_the_first_requests_only(stub: StubModelServer) -> None:
    stub.answer = TaskModels(digits={1: SHAPES})
    http = greenlet_loop.client(Settings(model_server=stub.target))
    predict_model(http, "")
    with ThreadPoolExecutor(8) as threads:
        models = list(threads.map(lambda _: predict_model(http, ""), range(24)))
    assert {model["version"] for model in models} == {1}
    assert http.get("/v1/models").status_code == 200
    # One for the default, one for the list of the versions.
    assert stub.card_calls == 2
    for _ in range(2):
        assert predict_model(http, "?version=1")["version"] == 1
    assert stub.card_calls == 2


def test_promoted_version_of_another_shape_gets_its_own_pictures(stub: StubModelServer) -> None:
    larger = replace(SHAPES, shape=(2 * SHAPES.shape[0], 2 * SHAPES.shape[1], *SHAPES.shape[2:]))
    stub.answer = models = TaskModels(digits={1: SHAPES, 2: larger})
    models.labels = {"stable": 1}
    http = greenlet_loop.client(Settings(model_server=stub.target, default_label="stable"))
    assert predict_model(http, "")["version"] == 1
    models.labels = {"stable": 2}
    # The first call after the promotion is prepared for the old shape, which the model server refuses.
    http.post("/v1/predict", data=PNG, content_type="image/png")
    assert predict_model(http, "")["version"] == 2
    assert models.inputs[-1].shape[1:] == larger.shape


def test_predict_slow_card_ends_at_deadline(stub: StubModelServer, hasty_http: FlaskClient) -> None:
    released = threading.Event()

    def wait(_request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
        released.wait(3)
        return PredictResponse()

    stub.answer_card = wait
    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        send = partial(hasty_http.post, "/v1/predict", data=PNG, content_type="image/png")
        answers = [future.result() for future in [threads.submit(send) for _ in range(4)]]
    assert {answer.status_code for answer in answers} == {504}
    assert time.monotonic() - started < 2
    released.set()


@pytest.mark.parametrize(
    "card",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps({**SHAPES.to_document(), "labels": ["a"]}),
        json.dumps({**SHAPES.to_document(), "labels": ["a", "a"]}),
        json.dumps({**SHAPES.to_document(), "input": {"shape": [10**9, 10**9], "range": [0, 1]}}),
        json.dumps(SHAPES.to_document()).replace("1.0", "1e999"),
    ],
    ids=lambda card: card[:20],
)
def test_predict_unusable_card_is_bad_gateway(
    stub: StubModelServer, stub_http: FlaskClient, card: str
) -> None:
    stub.answer_card = lambda _request, _context: card_response(card)
    response = stub_http.post("/v1/predict", data=PNG, content_type="image/png")
    assert (response.status_code, response.get_json(force=True)["code"]) == (502, "model_server_error")


def test_predict_labels_that_contradict_output_are_bad_gateway(
    stub: StubModelServer, stub_http: FlaskClient
) -> None:
    stub.answer_card = lambda _request, _context: card_response(json.dumps(SHAPES.to_document()))
    response = stub_http.post("/v1/predict", data=PNG, content_type="image/png")
    assert (response.status_code, response.get_json(force=True)["code"]) == (502, "model_server_error")
