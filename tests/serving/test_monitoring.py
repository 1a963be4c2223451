"""Prometheus's files and Grafana's dashboard: well formed, and about metrics that there are."""

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

from digit_client import DigitClient
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
    """The names of all that a gateway and a model server tell after a prediction."""
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


def test_a_version_that_can_not_be_loaded_alerts(promtool: str, tmp_path: Path) -> None:
    series = ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/digits/2",status="fail"}'
    alert = {"exp_labels": {"model_path": "/models/digits/2", "severity": "warning"}}
    alert["exp_annotations"] = {
        "summary": "/models/digits/2 can't be loaded. The version before it still serves."
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": "1 1"}],
        "alert_rule_test": [{"eval_time": "1m", "alertname": "VersionCannotBeLoaded", "exp_alerts": [alert]}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(CONFIG / "alerts.yml")], "tests": [test]}))
    subprocess.run([promtool, "test", "rules", file], check=True)
