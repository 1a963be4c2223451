"""Alerts with Prometheus and Alertmanager: outages of real processes, and who is told of them.

All durations of the rules are a twentieth, so that a quarter of an hour lasts 45 seconds.
"""

import json
import os
import re
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import yaml

from digit_core.images import to_png
from digit_serving.gateway.auth import KeyFile
from tests import certificates
from tests.load import load
from tests.processes import (
    accepts,
    answers,
    children,
    free_port,
    gateway_process,
    running,
    wait_until,
)
from tests.serving.gateway.helpers import IMAGE
from tests.serving.gateway.stub_model_server import StubModelServer, predict_sevens

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONFIG = Path(__file__).parents[3] / "serving" / "config"
FASTER = 20
"""Speed of the rules' and the Alertmanager's clocks."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
CERTIFICATE_SECONDS = 90
PNG = to_png(IMAGE)

Told = defaultdict[str, set[tuple[str, str]]]
"""Name and namespace of the alerts that each receiver was told of."""


def faster(text: str) -> str:
    """Divide the durations in a query or a setting."""
    return re.sub(
        r"(?:(?<=\[)|(?<=offset )|^)(\d+)([smhdw])\b",
        lambda found: f"{int(found[1]) * UNITS[found[2]] * 1000 // FASTER}ms",
        text,
    )


@contextmanager
def receivers(told: Told) -> Iterator[str]:
    """Run the receivers of the Alertmanager, whose page for Prometheus is empty; yield their address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()

        def do_POST(self) -> None:
            for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]:
                labels = alert["labels"]
                # Before the first scrape, services of no namespace are down.
                if alert["status"] == "firing" and "namespace" in labels:
                    told[self.path[1:]].add((labels["alertname"], labels["namespace"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_rules(file: Path) -> None:
    # A busy machine answers a prediction in 0.5 s not always, but in 5 s.
    rules = yaml.safe_load((CONFIG / "alerts.yml").read_text().replace('le="0.5"}[5m]', 'le="5.0"}[5m]'))
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            for name in {"expr", "for", "keep_firing_for"} & rule.keys():
                rule[name] = faster(rule[name])
    file.write_text(yaml.safe_dump(rules))


def write_alertmanager(file: Path, address: str) -> None:
    config = yaml.safe_load((CONFIG / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route |= {name: faster(route[name]) for name in route.keys() & {"group_wait", "group_interval"}}
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"http://{address}/{receiver['name']}"}]
    file.write_text(yaml.safe_dump(config))


def write_prometheus(
    file: Path, targets: dict[str, dict[str, str]], authority: Path, alertmanager: int
) -> None:
    """Write a configuration of targets by job and namespace; the namespace `certificate` has HTTPS."""
    jobs = []
    for job, addresses in targets.items():
        for namespace, address in addresses.items():
            scrape: dict[str, Any] = {
                "job_name": f"{job}-{namespace}",
                "scrape_interval": "1s",
                "static_configs": [{"targets": [address], "labels": {"job": job, "namespace": namespace}}],
            }
            if (job, namespace) == ("gateway", "certificate"):
                scrape |= {"scheme": "https", "tls_config": {"ca_file": str(authority)}}
            jobs.append(scrape)
    alerting = {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]}
    config = {"rule_files": ["alerts.yml"], "alerting": alerting, "scrape_configs": jobs}
    file.write_text(yaml.safe_dump(config))


def require_program(*names: str) -> str:
    """Return the first of the programs that is installed, or skip the test."""
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip(f"{names[0]} is not installed")
    return found


def test_outages_page_or_open_tickets_by_their_cause(tmp_path: Path) -> None:
    prometheus = require_program("prometheus")
    alertmanager = require_program("alertmanager", "prometheus-alertmanager")
    ports = {name: free_port() for name in ("prometheus", "alertmanager")}
    keys = KeyFile(tmp_path / "keys")
    old, other = keys.add("old"), keys.add("other")
    store = tmp_path / "store"
    store.mkdir()
    hung = Event()
    with ExitStack() as stack:
        told: Told = defaultdict(set)
        address = stack.enter_context(receivers(told))
        stubs = [StubModelServer() for _ in range(2)]
        for stub in stubs:
            stack.callback(stub.close)
        stack.callback(hung.set)

        # One gateway has callers with keys and a store of feedback, one a model server that will hang.
        digits = stack.enter_context(
            gateway_process(
                stubs[0].target,
                workers=2,
                deadline=60,
                api_keys=keys.path,
                feedback=f"sqlite:///{store}/feedback.db",
            )
        )
        hanging = stack.enter_context(gateway_process(stubs[1].target, deadline=6))
        pair = certificates.make(tmp_path, "localhost")
        expiry = datetime.now(UTC) + timedelta(seconds=CERTIFICATE_SECONDS)
        pair = certificates.ending(pair, tmp_path / "ending.pem", expiry)
        secure = free_port()
        tls = {"DIGITS_TLS_CERTIFICATE": str(pair.certificate), "DIGITS_TLS_KEY": str(pair.key)}
        environment = {"DIGITS_PORT": str(secure), "DIGITS_MODEL_SERVER": stubs[0].target, **tls}
        stack.enter_context(running("gateway", environment=environment))
        wait_until(lambda: accepts(secure))

        gateways = {
            "digits": f"127.0.0.1:{digits.port}",
            "hung": f"127.0.0.1:{hanging.port}",
            "certificate": f"localhost:{secure}",
        }
        targets = {
            "gateway": gateways,
            "model-server": dict.fromkeys(gateways, address),
        }
        write_rules(tmp_path / "alerts.yml")
        write_alertmanager(tmp_path / "alertmanager.yml", address)
        write_prometheus(tmp_path / "prometheus.yml", targets, pair.certificate, ports["alertmanager"])
        start_watch(stack, tmp_path, prometheus, alertmanager, ports)

        for key, callers in ((old, 2), (other, 1)):
            stack.enter_context(calling(digits.url, key, callers))
        stack.enter_context(calling(hanging.url, callers=4))
        # The hour before, to which callers' answers are compared, is three minutes here.
        time.sleep(30)
        assert told["pager"] == set()
        assert told["tickets"] == {("CertificateEnds", "certificate")}

        keys.remove("old")
        stubs[1].answer = lambda request, context: (hung.wait(), predict_sevens(request, context))[1]
        shutil.rmtree(store)
        for worker in children(digits.process.pid):
            os.kill(worker, signal.SIGKILL)
            time.sleep(3)

        pages = {("RequestsFail", "hung"), ("WorkersRestart", "digits"), ("CertificateEnds", "certificate")}
        tickets = {("CallersUnauthorized", "digits"), ("FeedbackStoreFails", "digits")}
        end = time.monotonic() + 180
        while time.monotonic() < end and not (pages <= told["pager"] and tickets <= told["tickets"]):
            time.sleep(1)
        assert tickets <= told["tickets"]
        # Each outage has one page.
        assert told["pager"] == pages


@contextmanager
def calling(url: str, key: str = "", callers: int = 1) -> Iterator[None]:
    """Send a prediction a second and caller until the end of the block, whatever the answers are."""
    headers = {"Content-Type": "image/png", **({"Authorization": f"Bearer {key}"} if key else {})}

    def call() -> None:
        # Callers that wait for answers only would send more, once others have ended.
        time.sleep(1)
        with suppress(httpx.HTTPError):
            httpx.post(f"{url}/v1/predict", content=PNG, headers=headers, timeout=10)

    with load(call, callers):
        yield


def start_watch(
    stack: ExitStack, folder: Path, prometheus: str, alertmanager: str, ports: dict[str, int]
) -> None:
    """Start Prometheus and Alertmanager with the configurations in the folder."""
    watching = {
        "alertmanager": [
            alertmanager,
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/alerts",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            prometheus,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/metrics",
            # Alerts of before Prometheus finds Alertmanager are lost; by default the next are a minute later.
            "--rules.alert.resend-delay=3s",
        ],
    }
    for name, command in watching.items():
        address = f"127.0.0.1:{ports[name]}"
        stack.enter_context(running(f"--web.listen-address={address}", "--log.level=error", command=command))
        wait_until(lambda address=address: answers(f"http://{address}/-/ready"))  # type: ignore[misc]
