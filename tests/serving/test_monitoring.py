"""Prometheus configuration, alerts and Grafana dashboard: valid, with queries of existing metrics only."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from flask.testing import FlaskClient

from digit_client.images import to_png
from digit_serving.drift.analysis import Drift
from digit_serving.drift.gauges import registry
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.processes import answers, free_port, running, wait_until

CONFIG = Path(__file__).parent.parent.parent / "serving" / "config"
ALERTS = [
    rule["expr"]
    for group in yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((CONFIG / "grafana" / "dashboards" / "digits.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
SCRAPE_CONFIGS: list[dict[str, Any]] = yaml.safe_load((CONFIG / "prometheus.yml").read_text())[
    "scrape_configs"
]
PROMETHEUS_METRICS = {"up"}
"""Metrics that Prometheus itself adds."""

SHADOW_QUERIES = re.findall(
    r"`([^`]*\(digits_shadow_[^`]*)`", (CONFIG.parents[1] / "docs/how-to/train-and-release.md").read_text()
)


def metrics_in_query(query: str) -> set[str]:
    """Return the metric names in a query: all names except labels, label values and functions."""
    without_labels = re.sub(r"\{.*?\}|\[.*?\]|\b(by|on|group_left) \(.*?\)", "", query)
    return set(re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", without_labels))


def metrics_in_exposition(text: str) -> set[str]:
    return set(re.findall(r"^[a-zA-Z_:][\w:]*", text, re.MULTILINE))


USED_METRICS = set().union(*map(metrics_in_query, (*ALERTS, *QUERIES))) - PROMETHEUS_METRICS


@pytest.fixture(scope="module")
def gateway_http(model_server: str) -> FlaskClient:
    return greenlet_loop.client(Settings(model_server=model_server, default_label=""))


@pytest.fixture(scope="module")
def model_server_url(models: Path) -> Iterator[str]:
    """Base URL of a model server process with monitoring over REST."""
    grpc_port, rest_port = free_port(), free_port()
    flags = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--model_name=digits",
        f"--model_base_path={models}",
        f"--monitoring_config_file={CONFIG / 'monitoring.config'}",
    ]
    url = f"http://127.0.0.1:{rest_port}"
    with running("model-server", *flags) as process:
        wait_until(lambda: answers(f"{url}/v1/models/digits"), process)
        yield url


@pytest.fixture(scope="module")
def drift_metrics() -> set[str]:
    """Names of the gauges of `digits drift`."""
    nothing = Drift(datetime.now(UTC), timedelta(days=7), timedelta(days=28), None, None)
    return {metric.name for metric in registry(nothing).collect()}


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    return program


@pytest.mark.parametrize("query", [*ALERTS, *QUERIES, *SHADOW_QUERIES])
def test_query_names_at_least_one_metric(query: str) -> None:
    assert metrics_in_query(query)


def test_gateway_metrics_in_queries_exist(
    gateway_http: FlaskClient, digits: Any, drift_metrics: set[str]
) -> None:
    image = to_png(digits.one(7))
    for query, body in (("", image), ("", b"no image"), ("?version=99", image)):
        gateway_http.post(f"/v1/predict{query}", data=body, content_type="image/png")
    # Metrics of what is off by default.
    optional = Metrics()
    optional.count_feedback("digits", 1, True)
    optional.count_shadow("digits", 1, 2, agreeing=1, differing=0, seconds=0.01)
    optional.count_dropped_shadow("digits", "busy")
    exposed = gateway_http.get("/metrics").text + optional.exposition().decode()
    used = {name for name in USED_METRICS if name.startswith("digits_")} - drift_metrics
    assert used
    assert used <= metrics_in_exposition(exposed)


def test_drift_metrics_are_all_queried(drift_metrics: set[str]) -> None:
    assert drift_metrics <= USED_METRICS


@pytest.mark.e2e
def test_model_server_metrics_in_queries_exist(model_server_url: str) -> None:
    (path,) = [config["metrics_path"] for config in SCRAPE_CONFIGS if "metrics_path" in config]
    instances = {"instances": [[0.0] * 784]}
    httpx.post(f"{model_server_url}/v1/models/digits:predict", json=instances).raise_for_status()
    used = {name for name in USED_METRICS if not name.startswith("digits_")}
    assert used
    assert used <= metrics_in_exposition(httpx.get(f"{model_server_url}{path}").text)


def test_scrape_configs_name_services_and_ports() -> None:
    targets = {config["job_name"]: config["static_configs"][0]["targets"] for config in SCRAPE_CONFIGS}
    assert targets == {
        "gateway": ["gateway:8080"],
        "model-server": ["model-server:8501"],
        "pushgateway": ["pushgateway:9091"],
    }


def test_promtool_accepts_configuration(promtool: str) -> None:
    subprocess.run([promtool, "check", "config", CONFIG / "prometheus.yml"], check=True)


def test_promtool_accepts_queries(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"query_{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate((*QUERIES, *SHADOW_QUERIES))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", file], check=True)


@dataclass(frozen=True)
class Case:
    """Time series with one value per `minutes`; `fires` is True if the alert fires after `hours`."""

    alert: str
    series: dict[str, str]
    fires: bool
    hours: float = 1
    minutes: int = 1
    severity: str = "critical"
    summary: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.alert}-{'fires' if self.fires else 'is-silent'}"


def requests(status: int, each_minute: int) -> dict[str, str]:
    series = f'digits_requests_total{{route="/v1/predict",method="POST",status="{status}"}}'
    return {series: f"0+{each_minute}x3000"}


def confidence(before: float, after: float) -> dict[str, str]:
    """Mean confidences of 1,000 images per 10 minutes: `before` for 25 hours, then `after` for 4 hours."""
    labels = '{model="digits",version="1"}'
    return {
        f"digits_confidence_sum{labels}": f"0+{1000 * before}x150 {150_000 * before}+{1000 * after}x24",
        f"digits_confidence_count{labels}": "0+1000x174",
    }


def psi(of: str, value: float) -> dict[str, str]:
    return {f'digits_drift_psi{{job="digits-drift",model="digits",of="{of}"}}': f"{value}x60"}


def agreement(current: float, reference: float | None) -> dict[str, str]:
    """Agreement of feedback on version 2, and on the answers before if there was enough."""
    series = {'digits_feedback_agreement{job="digits-drift",model="digits",version="2"}': f"{current}x60"}
    if reference is not None:
        series['digits_feedback_reference_agreement{job="digits-drift",model="digits"}'] = f"{reference}x60"
    return series


LAST_RUN = 'digits_drift_last_run_timestamp_seconds{job="digits-drift"}'
FAILED_LOAD = ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/digits/2",status="fail"}'
LATENCY = 'digits_request_duration_seconds_bucket{{route="/v1/predict",le="{}"}}'
IMAGES = 'digits_images_total{{result="{}"}}'
CASES = [
    Case(
        "GatewayDown",
        {'up{job="gateway"}': "0x60"},
        True,
        summary="The gateway does not answer. Predictions are unavailable.",
    ),
    Case("GatewayDown", {'up{job="gateway"}': "1x60"}, False),
    Case(
        "ModelServerDown",
        {'up{job="gateway"}': "1x60"},
        True,
        summary="The model server does not answer. Predictions fail with 503 until it is back.",
    ),
    Case(
        "RequestsFail",
        requests(200, 97) | requests(503, 3),
        True,
        summary="3% of the requests fail with a server error.",
    ),
    Case("RequestsFail", requests(200, 97) | requests(422, 3), False),
    Case(
        "PredictionsSlow",
        {LATENCY.format("0.5"): "0+0x60", LATENCY.format("1"): "0+60x60", LATENCY.format("+Inf"): "0+60x60"},
        True,
        severity="warning",
        summary="The slowest 1% of predictions take 995ms or more.",
    ),
    Case("PredictionsSlow", {LATENCY.format("0.5"): "0+60x60", LATENCY.format("+Inf"): "0+60x60"}, False),
    Case(
        "ImagesRefused",
        {IMAGES.format("answered"): "0+70x60", IMAGES.format("no_digit"): "0+30x60"},
        True,
        severity="warning",
        summary="30% of the images are refused or can't be used.",
    ),
    Case(
        "ImagesRefused",
        {IMAGES.format("answered"): "0+90x60", IMAGES.format("not_an_image"): "0+10x60"},
        False,
    ),
    Case(
        "ConfidenceFalls",
        confidence(0.99, 0.9),
        True,
        hours=27,
        minutes=10,
        severity="warning",
        summary="Mean confidence of digits is 90%, over 5 points below that of the last day.",
        labels={"model": "digits"},
    ),
    Case("ConfidenceFalls", confidence(0.99, 0.97), False, hours=27, minutes=10),
    Case(
        "VersionCannotBeLoaded",
        {FAILED_LOAD: "1x60"},
        True,
        severity="warning",
        summary="/models/digits/2 can't be loaded. The previous version keeps serving.",
        labels={"model_path": "/models/digits/2"},
    ),
    Case(
        "LabelsDrift",
        psi("label", 0.3),
        True,
        severity="warning",
        summary="The labels that digits answers have shifted (PSI 0.30). digits drift shows which.",
        labels={"model": "digits"},
    ),
    Case("LabelsDrift", psi("label", 0.25) | psi("confidence", 0.3), False),
    Case(
        "ConfidencesDrift",
        psi("confidence", 0.3),
        True,
        severity="warning",
        summary="The confidences of digits have shifted (PSI 0.30). digits drift shows where to.",
        labels={"model": "digits"},
    ),
    Case("ConfidencesDrift", psi("confidence", 0.25) | psi("label", 0.3), False),
    Case(
        "FeedbackDisagrees",
        agreement(0.6, 0.8),
        True,
        severity="warning",
        summary="Users confirm 60% of the answers of digits, version 2, over 15 points fewer than before.",
        labels={"model": "digits", "version": "2"},
    ),
    Case("FeedbackDisagrees", agreement(0.66, 0.8), False),
    Case("FeedbackDisagrees", agreement(0.1, None), False),
    # The times of promtool begin at 0: the last run was at noon of the first day.
    Case(
        "DriftNotMeasured",
        {LAST_RUN: "43200x120"},
        True,
        hours=61,
        minutes=60,
        severity="warning",
        summary="The figures of drift are out of date: the last run of digits drift was 2d 1h 0m 0s ago.",
    ),
    # A Pushgateway that starts without its gauges.
    Case(
        "DriftNotMeasured",
        {LAST_RUN: "43200x13 _x100"},
        True,
        hours=61,
        minutes=60,
        severity="warning",
        summary="The figures of drift are out of date: the last run of digits drift was 2d 1h 0m 0s ago.",
    ),
    Case("DriftNotMeasured", {LAST_RUN: "43200x120"}, False, hours=59, minutes=60),
    Case("DriftNotMeasured", {'up{job="gateway"}': "1x120"}, False, hours=61, minutes=60),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alert_fires_as_expected(case: Case, promtool: str, tmp_path: Path) -> None:
    expected = {
        "exp_labels": {"severity": case.severity, **case.labels},
        "exp_annotations": {"summary": case.summary},
    }
    test = {
        "interval": f"{case.minutes}m",
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


def test_every_alert_has_a_firing_case() -> None:
    rules = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {case.alert for case in CASES if case.fires} == {rule["alert"] for rule in rules}
