"""Checks of a gateway's answers, metrics and readiness, which several test modules share."""

import re
import subprocess
import sys
from typing import Any

from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Fail unless the response is this problem; return its document."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = response.get_json(force=True)
    assert document["code"] == code
    assert document["status"] == status
    assert document["request_id"] == response.headers["X-Request-ID"]
    assert re.fullmatch(r"[A-Z].*\.", document["detail"], re.DOTALL), "detail is a sentence"
    return document


class MetricsDelta:
    """Difference of a gateway's metrics since this object was created."""

    def __init__(self, http: FlaskClient) -> None:
        self._http = http
        self._before = self._samples()

    def __call__(self, name: str, **labels: str) -> float:
        """Return the increase of the samples with this name and these labels, summed."""
        return sum(
            value - self._before.get(key, 0)
            for key, value in self._samples().items()
            if key[0] == name and labels.items() <= set(key[1])
        )

    def _samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(self._http.get("/metrics").text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def probe(**settings: object) -> tuple[int, str]:
    """Return the exit status and the errors of a probe with these settings."""
    environment = {f"DIGITS_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "digit_serving.gateway.probe"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr
