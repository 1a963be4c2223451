"""Files of serving/config: valid, with queries of existing metrics only."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from flask.testing import FlaskClient

from digit_core.images import to_png
from digit_serving.feedback.metrics import FeedbackMetrics
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.settings import Settings
from digit_serving.model_server import config
from digit_serving.shadow.door import ShadowMetrics
from tests import greenlet_loop
from tests.processes import answers, free_port, running, wait_until

CONFIG = Path(__file__).parent.parent.parent / "serving" / "config"
RULES = [
    rule for group in yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
RULE_QUERIES = [rule["expr"] for rule in RULES]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((CONFIG / "grafana" / "dashboards" / "digits.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
SCRAPE_CONFIGS: list[dict[str, Any]] = yaml.safe_load((CONFIG / "prometheus.yml").read_text())[
    "scrape_configs"
]
PROMETHEUS_METRICS = {"up", "ALERTS"}
"""Metrics that Prometheus itself adds."""
EXPORTERS = ("node_", "kubelet_", "kube_")
"""Prefixes of node_exporter, the kubelet and kube-state-metrics."""
KEYWORDS = {"and", "or", "unless", "offset"}

SHADOW_QUERIES = re.findall(
    r"`([^`]*\(digits_shadow_[^`]*)`", (CONFIG.parents[1] / "docs/how-to/release.md").read_text()
)


def metrics_in_query(query: str) -> set[str]:
    """Return the metric names in a query: all names except labels, label values, functions and keywords."""
    labels = r"\{.*?\}|\[.*?\]|\".*?\"|\b(by|on|group_left|ignoring) \(.*?\)"
    without_labels = re.sub(labels, "", query, flags=re.DOTALL)
    return set(re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", without_labels)) - KEYWORDS


def metrics_in_exposition(text: str) -> set[str]:
    return set(re.findall(r"^[a-zA-Z_:][\w:]*", text, re.MULTILINE))


USED_METRICS = set().union(*map(metrics_in_query, (*RULE_QUERIES, *QUERIES))) - PROMETHEUS_METRICS - RECORDED


@pytest.fixture(scope="module")
def gateway_http(model_server: str, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """Return a client with an API key."""
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys")
    key = keys.add("app")
    client = greenlet_loop.client(Settings(model_server=model_server, default_label="", api_keys=keys.path))
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return client


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
def exposition(gateway_http: FlaskClient, digits: Any) -> str:
    """Metrics of a gateway that has answered, refused and failed, and of what is off by default."""
    image = to_png(digits.one(7))
    for query, body in (("", image), ("", b"no image"), ("?version=99", image)):
        gateway_http.post(f"/v1/predict{query}", data=body, content_type="image/png")
    optional = Metrics()
    FeedbackMetrics(optional).labelled("digits", 1, "true").inc()
    optional.count_overload("/v1/predict")
    shadow = ShadowMetrics(optional)
    for agrees in ("true", "false"):
        shadow.compared("digits", 1, 2, agrees).inc()
    shadow.seconds("digits", 2).observe(0.01)
    shadow.dropped("digits", "busy").inc()
    return str(gateway_http.get("/metrics").text) + optional.exposition().decode()


def test_gateway_metrics_and_bucket_bounds_in_queries_exist(exposition: str) -> None:
    # Only a gateway's process with TLS has the first, `digits models pull` the other.
    used = {name for name in USED_METRICS if name.startswith("digits_")} - {
        "digits_tls_certificate_expiry_timestamp_seconds",
        "digits_models_pulled_timestamp_seconds",
    }
    assert used
    assert used <= metrics_in_exposition(exposition)
    bucket = re.compile(r'(digits_\w+_bucket)\{.*?le="(.*?)"')
    bounds = set(bucket.findall(" ".join(RULE_QUERIES)))
    assert bounds
    assert bounds <= set(bucket.findall(exposition))


def test_refusals_that_alerts_count_have_their_status(model_server: str, tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "keys").add("app")
    gateway = greenlet_loop.client(
        Settings(model_server=model_server, api_keys=tmp_path / "keys", rate_limit="1/minute")
    )
    for headers in ({}, *[{"Authorization": f"Bearer {key}"}] * 2):
        gateway.get("/v1/models", headers=headers)
    counted = re.findall(
        r'^digits_requests_total\{.*route="/v1/models",status="(\d+)"', gateway.get("/metrics").text, re.M
    )
    assert {"401", "429"} <= set(counted)


@pytest.mark.e2e
def test_model_server_metrics_in_queries_exist(model_server_url: str) -> None:
    (path,) = [job["metrics_path"] for job in SCRAPE_CONFIGS if "metrics_path" in job]
    instances = {"instances": [[0.0] * 784]}
    httpx.post(f"{model_server_url}/v1/models/digits:predict", json=instances).raise_for_status()
    used = {name for name in USED_METRICS if not name.startswith(("digits_", *EXPORTERS))}
    assert used
    assert used <= metrics_in_exposition(httpx.get(f"{model_server_url}{path}").text)


def test_monitoring_config_enables_the_path_that_prometheus_scrapes() -> None:
    monitoring = config.read(str(CONFIG / "monitoring.config"), "MonitoringConfig").prometheus_config
    assert monitoring.enable
    assert monitoring.path in {job.get("metrics_path") for job in SCRAPE_CONFIGS}
    # `digits up` has a copy: an installed package has no folder `config`.
    copy = CONFIG.parent / "digit_serving" / "monitoring.config"
    assert copy.read_text() == (CONFIG / "monitoring.config").read_text()


def test_batching_config_fits_the_largest_request_of_the_gateway() -> None:
    batching = config.read(str(CONFIG / "batching.config"), "BatchingParameters")
    assert batching.max_batch_size.value >= Settings().max_images
    assert batching.num_batch_threads.value >= 1


def test_promtool_accepts_configuration(promtool: str) -> None:
    subprocess.run([promtool, "check", "config", CONFIG / "prometheus.yml"], check=True)


def test_amtool_accepts_configuration() -> None:
    program = shutil.which("amtool")
    if program is None:
        pytest.skip("amtool is not installed; Debian's package prometheus-alertmanager has it")
    file = CONFIG / "alertmanager.yml"
    subprocess.run([program, "check-config", file], check=True)
    for label, receiver in (
        ("severity=critical", "pager"),
        ("severity=warning", "tickets"),
        ("alertname=Watchdog", "heartbeat"),
    ):
        test = ("config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receiver}")
        subprocess.run([program, *test, label], check=True)
    # Rules that inhibit, or are inhibited, exist.
    rules = yaml.safe_load(file.read_text())["inhibit_rules"]
    named = " ".join(matcher for rule in rules for side in rule.values() for matcher in side)
    alerts = {rule["alert"] for rule in RULES if "alert" in rule}
    assert set(re.findall(r"\b[A-Z]\w+", named)) <= alerts


def test_promtool_accepts_queries(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"query_{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate((*QUERIES, *SHADOW_QUERIES))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", file], check=True)
