"""Probes and their warnings."""

import shutil
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway.health import ModelWarnings
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.artifact.folders import write_files
from tests.serving.gateway.helpers import ManualClock, StartGateway, assert_problem
from tests.serving.gateway.stub_model_server import SHAPES, StubModelServer, TaskModels


def test_probes_with_available_model_succeed(stub_http: FlaskClient) -> None:
    assert stub_http.get("/livez").get_json() == {"status": "alive"}
    assert stub_http.get("/readyz").get_json() == {"status": "ready", "versions": [1]}


def test_readyz_names_each_model_that_is_left_out(
    stub: StubModelServer, start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = ModelsFolder(tmp_path, verify=lambda _: None)
    for name in ("shapes", "colors", "flowers"):
        folder.publish(name, write_files)
    shutil.rmtree(folder.version("flowers", 1).path / "variables")
    folder.write_config(folder.read_config().without("colors").without("flowers"))
    (tmp_path / "Not a name" / "1").mkdir(parents=True)
    write_files(tmp_path / "shapes" / "2")
    stub.answer = TaskModels(shapes={3: SHAPES})
    document = start_gateway(model_name="shapes", models_config=folder.config_path).get("/readyz").get_json()
    assert document["status"] == "ready"
    version, name, colors, flowers = document["warnings"]
    assert version.startswith("Version 2 of the model shapes is not served: it is not in models.config;")
    assert name.startswith("The model Not a name is not served: a model's name has")
    remedy = "`digits models verify 1 --model colors` adds it, or says why not"
    assert colors == f"The model colors is not served: version 1 is not in models.config; {remedy}."
    assert flowers == "The model flowers is not served: version 1 is missing or incomplete."


@pytest.mark.parametrize("content", [b"model_config_list {", b"\xff\xfe\x00"])
def test_readyz_warns_of_models_config_that_cannot_be_read(
    stub: StubModelServer, start_gateway: StartGateway, tmp_path: Path, content: bytes
) -> None:
    stub.answer = TaskModels(shapes={3: SHAPES})
    file = tmp_path / "models.config"
    file.write_bytes(content)
    document = start_gateway(model_name="shapes", models_config=file).get("/readyz").get_json()
    assert (document["status"], document["versions"]) == ("ready", [3])
    assert document["warnings"] == [
        "models.config can't be read, so changes of it wait; `digits models ls` says why."
    ]


def test_model_warnings_are_asked_for_once_a_second(stub: StubModelServer, tmp_path: Path) -> None:
    folder, clock = ModelsFolder(tmp_path, verify=lambda _: None), ManualClock()
    folder.publish("colors", write_files)
    settings = Settings(model_server=stub.target, models_config=folder.config_path)

    async def create() -> ModelWarnings:
        return ModelWarnings(settings, AsyncConnection(stub.target), clock)

    def get() -> list[str]:
        return greenlet_loop.run(warnings.get(time.monotonic() + 10))

    warnings = greenlet_loop.run(create())
    assert get() == []
    stub.failed = [4]
    folder.write_config(folder.read_config().without("colors"))
    clock.now = 0.9
    assert get() == []
    clock.now = 1.0
    failed, left_out = get()
    assert failed == "Version 4 of the model digits failed to load; the model server's log says why."
    assert left_out.startswith("The model colors is not served: ")
    clock.now = 1.9
    stub.failed = []
    assert len(get()) == 2


def test_readyz_warns_of_shares_without_an_effect(
    stub: StubModelServer, start_gateway: StartGateway, tmp_path: Path
) -> None:
    stub.answer = models = TaskModels(shapes={3: SHAPES})
    models.labels = {"stable": 3, "canary": 3}
    file, absent = tmp_path / "models.traffic.json", tmp_path / "absent.json"
    file.write_text('{"shapes": {"canary": 0.2, "stable": 0.1, "next": 0.1}, "gone": {"canary": 0.5}}')
    options = {"model_name": "shapes", "default_label": "stable"}
    document = start_gateway(**options, models_traffic=file).get("/readyz").get_json()
    shares = "The share of requests for the label"
    assert document["warnings"] == [
        f"{shares} stable of the model shapes has no effect: it answers the rest anyway.",
        f"{shares} next of the model shapes has no effect: no loaded version has it.",
        f"{shares} canary of the model gone has no effect: no loaded version has it.",
    ]
    file.write_text('{"shapes": {"canary": 0.6, "next": 0.8}}')
    (warning,) = start_gateway(**options, models_traffic=file).get("/readyz").get_json()["warnings"]
    assert warning.startswith("The shares of requests stay as they were, and a gateway that starts has none:")
    assert "'canary': 0.6, 'next': 0.8" in warning
    assert "warnings" not in start_gateway(**options, models_traffic=absent).get("/readyz").get_json()


def test_readyz_depends_on_default_model_only_and_warns_of_others(
    stub: StubModelServer, start_gateway: StartGateway, tmp_path: Path
) -> None:
    stub.answer, folder = TaskModels(shapes={3: SHAPES}), ModelsFolder(tmp_path, verify=lambda _: None)
    folder.publish("colors", write_files)
    ready = start_gateway(model_name="shapes", model_names=("lost",), models_config=folder.config_path)
    assert ready.get("/readyz").get_json() == {
        "status": "ready",
        "versions": [3],
        "warnings": [f"No version of the model {name} is available." for name in ("colors", "lost")],
    }
    lost = start_gateway(model_name="lost", model_names=("shapes",)).get("/readyz")
    assert assert_problem(lost, 503, "not_ready")["detail"] == "The model server has no model lost."
