"""A canary's life: a model server of two versions with the labels of serving/config, before real gateways."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_client.images import to_png
from tests.processes import accepts, answers, free_port, running, wait_until

CONFIG = Path(__file__).parent.parent.parent.parent / "serving" / "config" / "models.config"
COUNTS = ("digits_predictions_total", "digits_model_duration_seconds_count")
REQUESTS = [f"request-{number}" for number in range(1000)]


@dataclass(frozen=True)
class Served:
    """A folder of versions, the model server's gRPC address, and the file that gives it labels."""

    models: Path
    target: str
    config: Path

    def publish(self, version: int) -> None:
        shutil.copytree(self.models / "1", self.models / "being-published")
        (self.models / "being-published").rename(self.models / str(version))

    def label(self, **versions: int) -> None:
        """Move labels. The model server reads the file every second."""
        text = self.config.read_text()
        for label, version in versions.items():
            text = re.sub(rf'key: "{label}" value: \d+', f'key: "{label}" value: {version}', text)
        self.config.write_text(text)


@pytest.fixture
def served(models: Path, tmp_path: Path) -> Iterator[Served]:
    shutil.copytree(models / "1", tmp_path / "models" / "1")
    config = tmp_path / "models.config"
    config.write_text(CONFIG.read_text().replace("/models/digits", str(tmp_path / "models")))
    port = free_port()
    flags = [
        f"--port={port}",
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
    ]
    with running("model-server", *flags) as process:
        wait_until(lambda: accepts(port), process)
        yield Served(tmp_path / "models", f"127.0.0.1:{port}", config)


@dataclass(frozen=True)
class Gateway:
    """A gateway's HTTP, and the picture that it is asked about."""

    http: httpx.Client
    picture: bytes

    def ask(self, request_id: str, **query: Any) -> httpx.Response:
        headers = {"Content-Type": "image/png", "X-Request-ID": request_id}
        return self.http.post("/v1/predict", content=self.picture, headers=headers, params=query)

    def version(self, request_id: str, **query: Any) -> int:
        """Which version answers."""
        answer = self.ask(request_id, **query)
        assert answer.status_code == 200, answer.text
        version: int = answer.json()["model"]["version"]
        return version

    def versions(self, request_ids: list[str] = REQUESTS) -> dict[str, int]:
        return {request_id: self.version(request_id) for request_id in request_ids}

    def counted(self, name: str) -> dict[str, float]:
        """A metric's sum by version."""
        sums: dict[str, float] = {}
        for version, count in re.findall(
            rf'^{name}{{.*version="(\d+)".*}} (\S+)$', self.http.get("/metrics").text, re.MULTILINE
        ):
            sums[version] = sums.get(version, 0) + float(count)
        return sums


@pytest.fixture
def gateway(served: Served, digits: Any, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway that answers from `stable`, except for the percentage of the test's parameter."""
    port = free_port()
    environment = {
        "DIGITS_PORT": str(port),
        "DIGITS_MODEL_SERVER": served.target,
        "DIGITS_DEFAULT_LABEL": "stable",
        "DIGITS_CANARY_PERCENT": request.param,
        "DIGITS_LOG_LEVEL": "warning",
    }
    url = f"http://127.0.0.1:{port}"
    with running("gateway", environment=environment) as process, httpx.Client(base_url=url) as http:
        wait_until(lambda: answers(f"{url}/livez"), process)
        yield Gateway(http, to_png(digits.one(7)))


@pytest.mark.parametrize("gateway", ["30"], indirect=True)
def test_a_share_goes_to_the_canary_always_the_same(served: Served, gateway: Gateway) -> None:
    assert set(gateway.versions(REQUESTS[:50]).values()) == {1}, "no version carries the label canary"

    served.publish(2)
    wait_until(lambda: 2 in gateway.versions(REQUESTS[:20]).values(), seconds=30)
    before = [gateway.counted(name) for name in COUNTS]
    chosen = gateway.versions()
    shares = Counter(chosen.values())
    # Four standard deviations of a thousand draws.
    assert abs(shares[2] - 300) < 58
    assert shares[1] + shares[2] == 1000
    after = [gateway.counted(name) for name in COUNTS]
    for b, a in zip(before, after, strict=True):
        assert {version: a[version] - b.get(version, 0) for version in a} == {"1": shares[1], "2": shares[2]}
    assert gateway.versions(REQUESTS[:100]).items() <= chosen.items()

    # Who names a version or label gets it.
    stable, canary = ({each for each in REQUESTS if chosen[each] == version} for version in (1, 2))
    assert gateway.version(canary.pop(), version=1) == 1
    assert gateway.version(stable.pop(), label="canary") == 2


@pytest.mark.parametrize("gateway", ["0"], indirect=True)
def test_a_new_version_waits_for_the_label(served: Served, gateway: Gateway) -> None:
    served.publish(2)
    wait_until(lambda: gateway.http.get("/v1/models").json()["labels"] == {"stable": 1, "canary": 2})
    assert set(gateway.versions(REQUESTS[:50]).values()) == {1}
    served.label(stable=2)
    wait_until(lambda: gateway.version("any") == 2, seconds=10)
    served.label(stable=1)
    wait_until(lambda: gateway.version("any") == 1, seconds=10)

    assert gateway.http.get("/readyz").status_code == 200
    # Of three versions the first is unloaded, which the label still stands for.
    served.publish(3)
    wait_until(lambda: "stable" in gateway.http.get("/readyz").text, seconds=10)
    assert gateway.ask("any").status_code == 503
