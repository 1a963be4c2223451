"""Routing to models, versions and labels, the canary's included, in front of a stub model server."""

import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_core.artifact import traffic
from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.task_card import CardPreparation
from digit_core.images import decode, to_png
from digit_core.tfserving.protos import ModelVersionStatus, PredictRequest, PredictResponse
from digit_serving.gateway.door import in_share
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.load import load
from tests.processes import wait_until
from tests.serving.gateway.helpers import IMAGE, assert_problem, npy, write_traffic
from tests.serving.gateway.stub_model_server import (
    FASHION,
    SHAPES,
    StubModelServer,
    TaskModels,
)

REQUESTS = [f"request-{number}" for number in range(24)]
PNG = to_png(IMAGE)


def gateway(stub: StubModelServer, **settings: Any) -> FlaskClient:
    """Return a test client of a gateway of the stub, with `stable` as default label."""
    return greenlet_loop.client(
        Settings(model_server=stub.target, **({"default_label": "stable"} | settings))
    )


def post(http: FlaskClient, query: str = "", request_id: str = "any") -> TestResponse:
    return http.post(f"/v1/predict{query}", data=PNG, headers={"X-Request-ID": request_id})


def predict_model(http: FlaskClient, query: str = "", request_id: str = "any") -> dict[str, Any]:
    """Return the model that answers a picture."""
    response = post(http, query, request_id)
    assert response.status_code == 200, response.text
    model: dict[str, Any] = response.get_json()["model"]
    return model


def predict_version(http: FlaskClient, query: str = "", request_id: str = "any") -> int:
    version: int = predict_model(http, query, request_id)["version"]
    return version


def test_share_is_one_of_the_request_ids_by_purpose_and_a_larger_one_keeps_them() -> None:
    requests = [f"request-{number}" for number in range(2000)]
    few, more, others = (
        {each for each in requests if in_share(share, each, purpose)}
        for share, purpose in ((0.3, b""), (0.5, b""), (0.3, b"shadow"))
    )
    # Within four standard deviations.
    assert abs(len(few) - 600) < 82
    assert few < more
    assert abs(len(few & others) - 180) < 52, "purposes are independent"


def test_canaries_answer_their_shares_until_the_file_is_gone(
    stub: StubModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "READ_SECONDS", 0)
    stub.answer = models = TaskModels(digits=dict.fromkeys((1, 2, 3), SHAPES))
    models.labels = {"stable": 1, "canary": 2, "next": 3}
    # The file may come after the start.
    http = gateway(stub, models_traffic=tmp_path / "models.traffic.json")
    assert predict_version(http) == 1
    file = write_traffic(tmp_path, canary=0.25, next=0.25)
    expected = {each: 2 if in_share(0.25, each) else 3 if in_share(0.5, each) else 1 for each in REQUESTS}
    assert {*expected.values()} == {1, 2, 3}
    for content in (file.read_text(), '{"digits": {"canary": 2}}'):
        file.write_text(content)
        assert {each: predict_version(http, "", each) for each in REQUESTS} == expected
    del models.labels["canary"]
    assert {predict_version(http, "", each) for each in REQUESTS if expected[each] == 2} == {1}
    file.unlink()
    assert {predict_version(http, "", each) for each in REQUESTS} == {1}


@pytest.mark.parametrize("has_config", [True, False])
def test_canary_that_is_not_loaded_yet_leaves_its_share_to_the_default(
    stub: StubModelServer, tmp_path: Path, has_config: bool
) -> None:
    stub.answer = models = TaskModels(digits={1: SHAPES})
    models.labels = {"stable": 1}
    file = write_config(tmp_path, digits=[1, 2])
    file.write_text(str(ModelsConfig.parse(file.read_text()).with_label("digits", "canary", 2)))
    options = {"models_config": file} if has_config else {}
    http = gateway(stub, models_traffic=write_traffic(tmp_path, canary=1), **options)
    assert [predict_version(http) for _ in range(2)] == [1, 1]
    # Cards of the two versions, and the call; then the canary's card again, and the call.
    assert stub.asked == ["Predict"] * 5


def test_version_or_label_of_the_request_overrides_canary_and_default(
    stub: StubModelServer, tmp_path: Path
) -> None:
    stub.answer = models = TaskModels(digits=dict.fromkeys((1, 2, 9), SHAPES))
    models.labels = {"stable": 1, "canary": 2}
    canary = gateway(stub, models_traffic=write_traffic(tmp_path, canary=1))
    assert [predict_version(canary, query) for query in ("?version=1", "?label=stable")] == [1, 1]
    assert predict_version(gateway(stub), "?label=canary") == 2
    assert predict_version(gateway(stub, default_label="")) == 9


@pytest.mark.parametrize(("label", "option"), [("stable", ""), ("beta", " --version-label beta")])
def test_default_label_without_version_names_model_label_and_command(
    stub: StubModelServer, label: str, option: str
) -> None:
    stub.answer = models = TaskModels(digits={2: SHAPES}, fashion={1: FASHION})
    models.labels = {"canary": 2}
    http = gateway(stub, default_label=label)
    sentence = (
        f"No loaded version of the model digits has the label {label}; "
        f"`digits models promote N --model digits{option}` gives it to version N."
    )
    for response, code in ((post(http), "model_unavailable"), (http.get("/readyz"), "not_ready")):
        assert response.headers["Retry-After"] == "1"
        assert assert_problem(response, 503, code)["detail"] == sentence
    assert http.get("/v1/models").get_json()["task"] is None
    models.labels[label] = 2
    assert predict_version(http) == 2
    assert http.get("/readyz").status_code == 200


def test_default_version_that_loads_is_named_without_a_command(stub: StubModelServer) -> None:
    stub.answer = TaskModels(digits={2: SHAPES})
    stub.state = ModelVersionStatus.LOADING
    http = gateway(stub)
    for response in (post(http), http.get("/readyz")):
        detail = response.get_json(force=True)["detail"]
        assert detail == "The model digits is loading, version 2. Try again later."


def test_missing_label_or_version_is_named_in_the_error(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(digits={2: SHAPES})
    models.labels = {"stable": 2}
    for query, sentence in (
        ("?label=next", "No version of the model digits has the label 'next'."),
        ("?version=3", "The model digits has no version 3 here."),
    ):
        problem = assert_problem(post(gateway(stub), query), 404, "model_not_found")
        assert problem["detail"] == sentence


def test_predict_unlisted_model_is_not_found(stub: StubModelServer) -> None:
    stub.answer = TaskModels(shapes={3: SHAPES}, secret={1: FASHION})
    http = gateway(stub, model_name="shapes", model_names=())
    for response in (post(http, "?model=secret"), http.get("/v1/models?model=secret")):
        assert_problem(response, 404, "model_not_found")
    assert stub.calls == stub.card_calls == 0


def test_new_model_answers_without_a_restart(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(shapes={3: SHAPES})
    http = gateway(stub, default_label="", model_name="shapes")
    for response in (post(http, "?model=new"), http.get("/v1/models?model=new")):
        assert_problem(response, 404, "model_not_found")
    assert 'model="new"' not in http.get("/metrics").text
    models.tasks["new"] = {1: FASHION, 2: FASHION}
    answered = {"name": "new", "version": 2, "labels": list(FASHION.labels)}
    assert predict_model(http, "?model=new") == answered
    assert predict_version(http, "?model=new&version=1") == 1
    document = http.get("/v1/models?model=new").get_json()
    assert (document["name"], document["models"]) == ("new", ["shapes", "new"])
    assert http.get("/v1/models").get_json()["models"] == ["shapes"]
    assert predict_model(http) == {"name": "shapes", "version": 3, "labels": list(SHAPES.labels)}


def write_config(folder: Path, **versions: list[int]) -> Path:
    """Write models.config of these models, whose first version is stable."""
    config = ModelsConfig.empty()
    for name, numbers in versions.items():
        config = config.with_versions(name, numbers, folder).with_label(name, "stable", numbers[0])
    file = folder / "models.config"
    file.write_text(str(config))
    return file


def test_removed_model_is_not_found(stub: StubModelServer, tmp_path: Path) -> None:
    stub.answer = TaskModels(digits={1: SHAPES}, removed={1: FASHION})
    stub.state = ModelVersionStatus.END
    file = write_config(tmp_path, digits=[1])
    http = gateway(stub, model_names=("removed", "gone"), models_config=file)
    # `gone` was removed before the model server's last start.
    for name in ("removed", "gone"):
        for response in (post(http, f"?model={name}"), http.get(f"/v1/models?model={name}")):
            problem = assert_problem(response, 404, "model_not_found")
            assert problem["detail"] == f"The service has no model {name}."
    assert_problem(post(http), 503, "model_unavailable")


@pytest.mark.parametrize("names", [("*",), ("shapes",)])
def test_model_of_models_config_that_the_server_lacks_is_unavailable_until_it_is_removed(
    stub: StubModelServer, tmp_path: Path, names: tuple[str, ...]
) -> None:
    stub.answer = models = TaskModels(digits={1: SHAPES})
    models.labels = {"stable": 1}
    # The model is published after the gateway's start.
    http = gateway(stub, model_names=names, models_config=write_config(tmp_path, digits=[1]))
    assert_problem(post(http, "?model=shapes"), *(404, "model_not_found"))
    write_config(tmp_path, digits=[1], shapes=[2, 3])
    queries = ("?model=shapes", "?model=shapes&version=3", "?model=shapes&label=stable")
    for response in (*(post(http, query) for query in queries), http.get("/v1/models?model=shapes")):
        assert_problem(response, 503, "model_unavailable")
        assert response.headers["Retry-After"] == "1"
    # One of its versions is loaded, the other one is not yet.
    models.tasks["shapes"] = {3: FASHION}
    assert predict_version(http, "?model=shapes&version=3") == 3
    assert_problem(post(http, "?model=shapes&version=2"), 503, "model_unavailable")
    assert_problem(post(http, "?model=shapes&version=4"), 404, "model_not_found")
    del models.tasks["shapes"]
    assert_problem(post(http, "?model=shapes&version=3"), 503, "model_unavailable")
    write_config(tmp_path, digits=[1])
    assert_problem(post(http, "?model=shapes&version=3"), 404, "model_not_found")


def test_what_models_config_does_not_name_costs_no_call(stub: StubModelServer, tmp_path: Path) -> None:
    stub.answer = models = TaskModels(digits={1: SHAPES}, gone={1: SHAPES})
    models.labels = {"stable": 1}
    traffic = write_traffic(tmp_path, canary=1)
    file = write_config(tmp_path, digits=[1])
    http = gateway(stub, models_config=file, models_traffic=traffic)
    assert predict_version(http) == 1
    stub.asked.clear()
    for query in ("?model=gone", "?model=gone&version=1", "?version=2", "?label=canary"):
        assert_problem(post(http, query), 404, "model_not_found")
    assert_problem(http.get("/v1/models?model=gone"), 404, "model_not_found")
    assert stub.asked == []
    # The label of a share that no version has, neither.
    assert predict_version(http) == 1
    assert stub.asked == ["Predict"]
    # A policy other than `specific` does not say which versions exist.
    file.write_text('model_config_list {config {name: "digits" base_path: "/models/digits"}}')
    assert_problem(post(http, "?version=2"), 404, "model_not_found")
    assert predict_version(http, "?version=1") == 1


def test_model_that_answered_lately_is_unavailable_where_models_config_is_not_known(
    stub: StubModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answer = models = TaskModels(digits={1: SHAPES}, shapes={2: FASHION, 3: FASHION})
    http = gateway(stub, default_label="")
    assert predict_version(http, "?model=shapes&version=3") == 3
    # Another model server has not loaded it yet.
    del models.tasks["shapes"]
    for query in ("?model=shapes", "?model=shapes&version=3"):
        assert_problem(post(http, query), 503, "model_unavailable")
        assert post(http, query).headers["Retry-After"] == "1"
    assert_problem(http.get("/v1/models?model=shapes"), 503, "model_unavailable")
    assert_problem(post(http, "?model=shapes&version=4"), 404, "model_not_found")
    assert_problem(post(http, "?model=other"), 404, "model_not_found")
    # The model server has unloaded it.
    models.tasks["shapes"], stub.state = {3: FASHION}, ModelVersionStatus.END
    models.labels = {"stable": 9}
    assert_problem(post(http, "?model=shapes&label=stable"), 404, "model_not_found")
    stub.state = ModelVersionStatus.LOADING
    assert_problem(post(http, "?model=shapes&label=stable"), 503, "model_unavailable")
    del models.tasks["shapes"]
    monkeypatch.setattr("digit_serving.gateway.upstream._EXPECTED_SECONDS", 0)
    assert_problem(post(http, "?model=shapes"), 404, "model_not_found")


def test_models_of_models_config_are_listed_as_they_come(stub: StubModelServer, tmp_path: Path) -> None:
    def listed() -> list[str]:
        names: list[str] = http.get("/v1/models").get_json()["models"]
        return names

    stub.answer, file = TaskModels(shapes={3: SHAPES}), tmp_path / "models.config"
    file.touch()
    http = gateway(stub, default_label="", model_name="shapes", models_config=file)
    assert listed() == ["shapes"]
    config = ModelsConfig.empty()
    for name in ("reader", "shapes", "later"):
        config = config.with_versions(name, [1], tmp_path)
    file.write_text(str(config))
    assert listed() == ["shapes", "later"]
    file.unlink()
    assert listed() == ["shapes"]


def test_models_file_and_traffic_route_each_model_by_its_own_labels(
    stub: StubModelServer, tmp_path: Path
) -> None:
    stub.answer = models = TaskModels(digits={1: SHAPES}, fashion=dict.fromkeys((1, 2, 3), FASHION))
    models.labels = {"stable": 1, "next": 2, "beta": 3}
    file, config = tmp_path / "models.toml", write_config(tmp_path, digits=[1], fashion=[1, 2, 3])
    file.write_text('[fashion]\ndefault_label = "beta"\n')
    config.write_text(str(ModelsConfig.parse(config.read_text()).with_label("fashion", "next", 2)))
    config.with_name("models.traffic.json").write_text('{"fashion": {"next": 0.5}}')
    http = gateway(stub, model_names=("fashion",), models_file=file, models_config=config)
    for each in REQUESTS:
        assert predict_version(http, "?model=digits", each) == 1
        assert predict_version(http, "?model=fashion", each) == (2 if in_share(0.5, each) else 3)
    document = http.get("/v1/models?model=fashion").get_json()
    assert document["labels"] == document["version_labels"] == {"stable": 1, "next": 2, "beta": 3}
    assert document["traffic"] == {"next": 0.5}


def test_models_file_deadline_ends_calls_of_a_slow_model_alone(stub: StubModelServer, tmp_path: Path) -> None:
    models = TaskModels(digits={1: SHAPES}, fashion={1: FASHION})
    remaining, end = [], threading.Event()

    def predict(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        if request.model_spec.name == "fashion" and "images" in request.inputs:
            remaining.append(context.time_remaining())
            end.wait(10)
        return models(request, context)

    stub.answer, stub.answer_card = predict, models
    file = tmp_path / "models.toml"
    file.write_text("[fashion]\ndeadline = 0.5\n")
    http = gateway(stub, default_label="", model_names=("fashion",), models_file=file)
    assert_problem(post(http, "?model=fashion"), 504, "deadline_exceeded")
    assert predict_version(http, "?model=digits") == 1
    end.set()
    assert max(remaining) < 0.6, "the model server knows the deadline"


WIDE = np.full((20, 60), 255, np.uint8)
"""White picture with black sides: `crop` sees white alone, the last class; `stretch` sees the sides, too."""
WIDE[:, :20] = WIDE[:, 40:] = 0
CROP = CardPreparation(fit="crop")
OTHERS = {
    "larger": replace(FASHION, input=replace(FASHION.input, shape=(56, 56)), prepare=CROP),
    "cropped": replace(FASHION, prepare=CROP),
    "renamed": replace(FASHION, prepare=CROP, labels=tuple("abcdefghij")),
}
"""Cards of a version that prepares WIDE in another way than FASHION."""


def ask_wide(http: FlaskClient, query: str = "") -> tuple[int, str, tuple[int, int]]:
    """Return version, label and size of the input of the answer to WIDE."""
    response = http.post(f"/v1/predict{query or '?'}&include=image", data=to_png(WIDE))
    assert response.status_code == 200, response.text
    answer = response.get_json()
    (prediction,) = answer["predictions"]
    assert prediction["label"] == answer["model"]["labels"][prediction["index"]]
    image = decode(base64.b64decode(prediction["image"]))
    return answer["model"]["version"], prediction["label"], image.shape[:2]


def test_promotion_under_eight_callers_prepares_for_the_version_that_answers(stub: StubModelServer) -> None:
    stub.answer = models = TaskModels(digits={1: FASHION, 2: OTHERS["cropped"]})
    models.labels = {"stable": 1}
    http = gateway(stub)
    own = {version: ask_wide(http, query=f"?version={version}") for version in (1, 2)}
    assert own[1][1:] != own[2][1:]
    assert ask_wide(http) == own[1]
    with load(lambda: ask_wide(http), callers=8) as answers:
        wait_until(lambda: len(answers) >= 24)
        before = len(answers)
        models.labels = {"stable": 2}
        wait_until(lambda: len(answers) >= before + 32)
    assert all(answer == own[answer[0]] for answer in answers)
    assert {version for version, *_ in answers[:before]} == {1}
    assert own[2] in answers
    assert ask_wide(http) == own[2]
    assert "digits_model_failures_total{" not in http.get("/metrics").text


def test_canary_with_another_card_prepares_its_own_pictures_until_it_is_gone(
    stub: StubModelServer, tmp_path: Path
) -> None:
    stub.answer = models = TaskModels(digits={1: FASHION, 2: OTHERS["larger"], 3: OTHERS["cropped"]})
    models.labels = {"stable": 1, "canary": 2}
    http = gateway(stub, models_traffic=write_traffic(tmp_path, canary=1))
    assert ask_wide(http)[::2] == (2, (56, 56))
    models.labels = {"stable": 1, "canary": 3}
    assert ask_wide(http) == (3, FASHION.labels[-1], (28, 28))
    models.labels = {"stable": 1}
    version, label, _ = ask_wide(http)
    assert (version, label != FASHION.labels[-1]) == (1, True)


@pytest.mark.parametrize("form", ["instances", "npy", "form"])
def test_bodies_of_all_forms_are_prepared_again_for_the_promoted_version(
    stub: StubModelServer, form: str
) -> None:
    stub.answer = models = TaskModels(digits={1: FASHION, 2: OTHERS["renamed"]})
    models.labels = {"stable": 1}
    http = gateway(stub)
    white = np.full((2, 28, 28), 255, np.uint8)
    bodies: dict[str, Any] = {
        "instances": {"json": {"instances": [*(white / 255).tolist(), [1]]}},
        "npy": {"data": npy(white), "content_type": "application/x-npy"},
        "form": {"data": {"image": [(io.BytesIO(to_png(each)), "0.png") for each in white]}},
    }
    ask_wide(http)
    models.labels = {"stable": 2}
    response = http.post("/v1/predict", **bodies[form])
    assert response.status_code == 200, response.text
    labels = [prediction.get("label") for prediction in response.get_json()["predictions"]]
    assert labels == ["j", "j", None] if form == "instances" else ["j", "j"]


def test_predict_slow_card_ends_at_deadline(stub: StubModelServer, release: threading.Event) -> None:
    stub.answer_card = stub.answer
    http = gateway(stub, default_label="", deadline=0.5)
    with ThreadPoolExecutor(4) as threads:
        assert [answer.status_code for answer in threads.map(lambda _: post(http), range(4))] == [504] * 4
    assert stub.card_calls
    assert not release.is_set()
