"""`digits drift` with a real Prometheus, whose history has a gateway's metrics, and a real Pushgateway."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from digit_client.images import to_png
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.conftest import Digits
from tests.processes import answers, free_port, wait_until
from tests.readme import ROOT, blocks

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs" / "how-to" / "operate.md").read_text()
(SHOWN_COMMAND,) = blocks("sh", PAGE)
(NIGHTLY_COMMAND,) = re.findall(r"^30 3 \* \* \* (digits drift .*)", PAGE, re.MULTILINE)
(SCRAPE_CONFIG,) = blocks("yaml", PAGE)

HOURS = 36 * 24
CURRENT_HOURS = 7 * 24
REFERENCE_HOURS = 28 * 24
RESTART_HOUR = 20 * 24
"""Hour, in the reference window, at which a gateway restarts: its counters begin at 0 again."""

COUNTERS = ("digits_predictions_total", "digits_confidence_bucket")

Samples = dict[str, float]


@dataclass(frozen=True)
class Services:
    """Prometheus and a Pushgateway, and a folder with a store of feedback."""

    prometheus: str
    pushgateway: str
    folder: Path

    def run(self, command: str) -> str:
        """Run a command of the documentation in the folder; return its output."""
        for documented, url in (("9090", self.prometheus), ("9091", self.pushgateway)):
            command = command.replace(f"http://localhost:{documented}", url)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=self.folder,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def firing(self) -> dict[str, str]:
        """Return the summaries of the alerts that fire, by name."""
        alerts = httpx.get(f"{self.prometheus}/api/v1/alerts").json()["data"]["alerts"]
        return {
            alert["labels"]["alertname"]: alert["annotations"]["summary"]
            for alert in alerts
            if alert["state"] == "firing"
        }

    def query(self, query: str) -> list[Any]:
        """Return the series that the query finds."""
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": query}).json()
        found: list[Any] = answer["data"]["result"]
        return found


@pytest.fixture(scope="module")
def services(
    model_server: str, digits: Digits, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("drift")
    port, push_port = free_port(), free_port()
    save_feedback(f"sqlite:///{folder / 'feedback.db'}", to_png(digits.one(7)))
    save_history(folder, *expositions(model_server, digits))
    config = yaml.safe_load(SCRAPE_CONFIG.replace("localhost:9091", f"127.0.0.1:{push_port}"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "serving" / "config" / "alerts.yml")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    prometheus = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=40d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    pushgateway = [program("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{push_port}"]
    url, push_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{push_port}"
    with (
        serving(prometheus, f"{url}/-/ready", folder / "prometheus.log"),
        serving(pushgateway, f"{push_url}/-/ready", folder / "pushgateway.log"),
    ):
        yield Services(url, push_url, folder)


def test_drift_counts_all_gateways_and_restarts(services: Services) -> None:
    lines = [line.split() for line in services.run(SHOWN_COMMAND).splitlines()]
    (row,) = [line for line in lines if line[:2] == ["digits", "label"]]
    current, reference = (float(cell.replace(",", "")) for cell in row[2:4])
    # Two gateways get ten digits an hour, and in the current window ten sevens more.
    assert current == pytest.approx(2 * 20 * CURRENT_HOURS, rel=0.02)
    assert reference == pytest.approx(2 * 10 * REFERENCE_HOURS, rel=0.02)
    assert row[5] == "shifted"
    assert row[6:] == ["7:", "10.0%", "→", "55.0%"]
    (row,) = [line for line in lines if line[:2] == ["digits", "confidence"]]
    assert float(row[2].replace(",", "")) == pytest.approx(current, rel=0.001)
    assert "Labels" in (services.folder / "drift.html").read_text()


def test_pushed_gauges_raise_the_alerts(services: Services) -> None:
    services.run(NIGHTLY_COMMAND)
    expected = {"LabelsDrift", "FeedbackDisagrees"}
    wait_until(lambda: services.firing().keys() >= expected)
    firing = services.firing()
    assert "DriftNotMeasured" not in firing
    assert firing["FeedbackDisagrees"].startswith("Users confirm 60% of the answers of digits, version 2,")
    (found,) = services.query('digits_drift_psi{of="label"}')
    assert found["metric"]["job"] == "digits-drift"
    assert float(found["value"][1]) > 0.25


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def serving(command: list[str], url: str, log: Path) -> Iterator[None]:
    """Run a server until the end of the block, which begins when the URL answers."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: answers(url), process)
        yield
    finally:
        process.terminate()
        process.wait(20)


def expositions(model_server: str, digits: Digits) -> tuple[Samples, Samples]:
    """Return a gateway's counters after one of each digit, and the increase by ten sevens."""
    http = greenlet_loop.client(Settings(model_server=model_server, default_label=""))

    def counters() -> Samples:
        lines = http.get("/metrics").text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line.startswith(COUNTERS))
        return {name: float(value) for name, value in samples}

    def predict(label: int) -> None:
        response = http.post("/v1/predict", data=to_png(digits.one(label)), content_type="image/png")
        assert response.get_json()["predictions"][0]["digit"] == label

    for label in range(10):
        predict(label)
    each = counters()
    for _ in range(10):
        predict(7)
    return each, {name: value - each[name] for name, value in counters().items()}


def save_history(folder: Path, each: Samples, sevens: Samples) -> None:
    """Write blocks of Prometheus: the counters of two gateways, an hour apart, until now."""
    start = time.time() - HOURS * 3600
    lines = []
    for name, value in each.items():
        for gateway in (1, 2):
            series = name.replace("{", f'{{instance="gateway-{gateway}",')
            for hour in range(HOURS + 1):
                counted = value * hour + sevens[name] * max(0, hour - (HOURS - CURRENT_HOURS))
                if gateway == 1 and hour >= RESTART_HOUR:
                    counted -= value * RESTART_HOUR
                lines.append(f"{series} {counted} {start + 3600 * hour:.3f}")
    file = folder / "history.txt"
    file.write_text("\n".join([*lines, "# EOF", ""]))
    create = [program("promtool"), "tsdb", "create-blocks-from"]
    # By default, a block has two hours: 432 blocks take minutes.
    create += ["--max-block-duration=500h", "openmetrics", str(file), str(folder / "data")]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)


def save_feedback(url: str, image: bytes) -> None:
    """Save feedback: 60 of 100 agree with version 2 of yesterday, and 90 of 100 with that of 20 days ago."""
    now = datetime.now(UTC)
    records = [
        Record(
            request_id=f"version-{version}-{number}",
            index=0,
            position=0,
            kind="predict",
            model="digits",
            version=version,
            predicted="7",
            confidence=0.75,
            is_digit=0.9375,
            input=image,
            answered_at=now - timedelta(days=days),
            held_out=False,
            label="7" if number < agreeing else "1",
            labelled_at=now,
            source="feedback",
        )
        for version, days, agreeing in ((1, 20, 90), (2, 1, 60))
        for number in range(100)
    ]
    with closing(FeedbackStore(url)) as store:
        store.save(records)
