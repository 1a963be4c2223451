"""Prometheus's files and Grafana's dashboard: well formed, and about metrics that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from digit_client import DigitClient
from digit_client.images import to_png
from tests.processes import answers, free_port, running, wait_until

CONFIG = Path(__file__).parent.parent.parent / "serving" / "config"
ALERTS = [
    rule["expr"]
    for group in yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((CONFIG / "grafana" / "dashboards" / "digits.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
# Prometheus's own.
KNOWN = {"up"}


@pytest.fixture(scope="module")
def metrics(models: Path, digits: Any) -> Iterator[set[str]]:
    """The names of all that a gateway and a model server tell after predictions, also ones that failed."""
    port, grpc_port, rest_port = free_port(), free_port(), free_port()
    flags = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--model_name=digits",
        f"--model_base_path={models}",
        f"--monitoring_config_file={CONFIG / 'monitoring.config'}",
    ]
    environment = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": f"127.0.0.1:{grpc_port}"}
    url = f"http://127.0.0.1:{port}"
    with running("model-server", *flags), running("gateway", environment=environment) as gateway:
        wait_until(lambda: answers(f"{url}/readyz"), gateway)
        with DigitClient(url) as client:
            client.predict(digits.one(7))
        for query, body in (("", b"no image"), ("?version=99", to_png(digits.one(7)))):
            httpx.post(f"{url}/v1/predict{query}", content=body, headers={"Content-Type": "image/png"})
        pages = [f"{url}/metrics"] + [
            f"http://127.0.0.1:{rest_port}{job['metrics_path']}" for job in scraped() if "metrics_path" in job
        ]
        yield {
            match[0]
            for page in pages
            for match in re.finditer(r"^[a-zA-Z_:][\w:]*", httpx.get(page).text, re.MULTILINE)
        }


def scraped() -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    return jobs


def named_in(query: str) -> set[str]:
    """The metrics of a query: its words that are neither labels, nor their values, nor functions."""
    bare = re.sub(r"\{.*?\}|\[.*?\]|by \(.*?\)", "", query)
    return set(re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare))


@pytest.mark.parametrize("query", [*ALERTS, *QUERIES])
def test_queries_are_about_metrics_that_there_are(query: str, metrics: set[str]) -> None:
    assert named_in(query)
    assert named_in(query) <= metrics | KNOWN


def test_both_services_are_scraped_at_their_ports() -> None:
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped()}
    assert targets == {"gateway": ["gateway:8080"], "model-server": ["model-server:8501"]}


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    return program


def test_prometheus_takes_its_files(promtool: str) -> None:
    subprocess.run([promtool, "check", "config", CONFIG / "prometheus.yml"], check=True)


def test_prometheus_takes_the_dashboards_queries(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"query_{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", file], check=True)


@dataclass(frozen=True)
class Case:
    """Series, each a value a minute, and whether the alert is there after `hours`."""

    alert: str
    series: dict[str, str]
    fires: bool
    hours: float = 1
    severity: str = "critical"
    summary: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.alert}-{'fires' if self.fires else 'is-silent'}"


def answered(status: int, each_minute: int) -> dict[str, str]:
    series = f'digits_requests_total{{route="/v1/predict",method="POST",status="{status}"}}'
    return {series: f"0+{each_minute}x3000"}


def confident(before: float, after: float) -> dict[str, str]:
    """A hundred images a minute, for 40 hours and then for 4 more."""
    return {
        'digits_confidence_sum{version="1"}': f"0+{100 * before}x2400 {240_000 * before}+{100 * after}x240",
        'digits_confidence_count{version="1"}': "0+100x2640",
    }


FAILED_LOAD = ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/digits/2",status="fail"}'
LATENCY = 'digits_request_duration_seconds_bucket{{route="/v1/predict",le="{}"}}'
REFUSED = 'digits_images_refused_total{code="no_digit"}'
CASES = [
    Case(
        "GatewayDown",
        {'up{job="gateway"}': "0x60"},
        True,
        summary="Nobody reads digits. The gateway does not answer.",
    ),
    Case("GatewayDown", {'up{job="gateway"}': "1x60"}, False),
    Case(
        "ModelServerDown",
        {'up{job="gateway"}': "1x60"},
        True,
        summary="The gateway has nobody to ask. It answers with 503 until the model server is back.",
    ),
    Case(
        "RequestsFail",
        answered(200, 97) | answered(503, 3),
        True,
        summary="3% of the requests end with a server error.",
    ),
    Case("RequestsFail", answered(200, 97) | answered(422, 3), False),
    Case(
        "PredictionsSlow",
        {LATENCY.format("0.5"): "0+0x60", LATENCY.format("1"): "0+60x60", LATENCY.format("+Inf"): "0+60x60"},
        True,
        severity="warning",
        summary="One prediction in a hundred takes 995ms or more.",
    ),
    Case("PredictionsSlow", {LATENCY.format("0.5"): "0+60x60", LATENCY.format("+Inf"): "0+60x60"}, False),
    Case(
        "ImagesRefused",
        answered(200, 70) | answered(422, 30) | {REFUSED: "0+30x60"},
        True,
        severity="warning",
        summary="30% of the requests are refused for an image.",
    ),
    Case("ImagesRefused", answered(200, 90) | answered(422, 10) | {REFUSED: "0+10x60"}, False),
    Case(
        "ConfidenceFalls",
        confident(0.99, 0.9),
        True,
        hours=42,
        severity="warning",
        summary="Confidence is 90% on average, less than in the last day.",
    ),
    Case("ConfidenceFalls", confident(0.99, 0.97), False, hours=42),
    Case(
        "VersionCannotBeLoaded",
        {FAILED_LOAD: "1x60"},
        True,
        severity="warning",
        summary="/models/digits/2 can't be loaded. The version before it still serves.",
        labels={"model_path": "/models/digits/2"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_alert_fires_when_it_should(case: Case, promtool: str, tmp_path: Path) -> None:
    expected = {
        "exp_labels": {"severity": case.severity, **case.labels},
        "exp_annotations": {"summary": case.summary},
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{round(case.hours * 60)}m",
                "alertname": case.alert,
                "exp_alerts": [expected] if case.fires else [],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(CONFIG / "alerts.yml")], "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    rules = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {case.alert for case in CASES if case.fires} == {rule["alert"] for rule in rules}
