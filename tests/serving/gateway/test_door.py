"""Features behind the door: what they bring, and that their errors fail no request."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from flask import Blueprint, Request
from flask.testing import FlaskClient

from digit_core.artifact.task_card import TaskCard
from digit_serving.gateway import features
from digit_serving.gateway.door import Feature
from digit_serving.gateway.observers import Observer, Observers
from digit_serving.gateway.openapi import describe
from digit_serving.gateway.request import Facts, RequestContext
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Upstream
from tests import greenlet_loop
from tests.serving.gateway.helpers import predict
from tests.serving.gateway.stub_model_server import StubModelServer

FEEDBACK_DOOR = "digit_serving.feedback.door"
APP_WITHOUT_FEATURES = f"""
import sys
from digit_serving.gateway.door import features
from digit_serving.gateway.settings import Settings
import digit_serving.gateway.app
assert features(Settings()) == []
assert "{FEEDBACK_DOOR}" not in sys.modules
"""


class Greeting(Feature):
    """Feature that brings something everywhere, and fails wherever it may."""

    links: ClassVar = {"greeting": "/v1/greeting"}
    events: ClassVar[list[str]] = []

    class _Observer(Observer):
        def began(self, context: RequestContext, received: Request) -> None:
            raise ValueError("began")

        def ended(self, facts: Facts) -> None:
            Greeting.events.append(facts.context.rule)

    observer = _Observer()

    @classmethod
    def operations(cls, settings: Settings) -> dict[str, Any]:
        return {"/v1/greeting": {"operationId": "greet"}}

    def routes(self, api: Blueprint, upstream: Upstream) -> None:
        api.get("/greeting")(lambda: "Hello")

    def model_members(self, name: str, task: TaskCard | None) -> Mapping[str, Any]:
        return {"feedback": True}

    def warnings(self) -> list[str]:
        raise ValueError("warnings")

    async def close(self) -> None:
        raise ValueError("close")


@pytest.fixture
def http(stub: StubModelServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """Test client of a gateway with the feature, which every setting with a value turns on."""
    monkeypatch.setitem(features.FEATURES, "host", f"{__name__}:Greeting")
    with greenlet_loop.keeping(Settings(model_server=stub.target)) as client:
        yield client


def test_feature_brings_routes_operations_links_members_and_observer(http: FlaskClient) -> None:
    assert http.get("/v1/greeting").text == "Hello"
    assert http.get("/", headers={"Accept": "application/json"}).get_json()["links"]["greeting"]
    assert http.get("/v1/models").get_json()["feedback"] is True
    assert "/v1/greeting" in describe(Settings())["paths"]
    assert Greeting.events[-1] == "/v1/models"


def test_error_of_a_feature_is_logged_once_and_fails_no_request(
    http: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    predict(http)
    (record,) = caplog.records
    assert "_Observer.began failed" in record.message
    assert "ValueError: began" in caplog.text
    caplog.clear()
    assert http.get("/readyz").get_json() == {"status": "ready", "versions": [1]}
    assert [each.message for each in caplog.records] == ["the feature Greeting failed"]


def test_moment_that_no_observer_overrides_has_no_function() -> None:
    observers = Observers([Observer(), Greeting.observer])
    assert (len(observers.began), len(observers.ended)) == (1, 1)
    assert (observers.called, observers.answered) == ([], [])


def test_feature_that_is_off_is_not_imported() -> None:
    subprocess.run([sys.executable, "-c", APP_WITHOUT_FEATURES], check=True)
