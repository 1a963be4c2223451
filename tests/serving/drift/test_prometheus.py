"""Reader of Prometheus, in front of a stub; tests/e2e/test_drift.py has a real one."""

import json
from datetime import timedelta

import pytest

from digit_serving.drift.prometheus import PrometheusError, read_answers
from tests.processes import free_port
from tests.serving.drift.conftest import StubPrometheus

WEEK = timedelta(days=7)


def test_read_answers_sums_versions_of_each_model(prometheus: StubPrometheus) -> None:
    window = "[604800s]"
    prometheus.count(window, {"7": 60.5, "1": 30}, {"+Inf": 120.5}, version="10")
    prometheus.count(window, {"7": 30}, {}, version="9")
    prometheus.count(window, {"boot": 5}, {"+Inf": 5}, model="fashion")
    answers = read_answers(prometheus.url, WEEK)
    assert list(answers["digits"].labels.items()) == [("1", 30), ("7", 90.5)]
    assert list(answers["digits"].versions.items()) == [("9", 30), ("10", 90.5)]
    assert answers["fashion"].labels == {"boot": 5}


def test_read_answers_has_the_window_before_another(prometheus: StubPrometheus) -> None:
    prometheus.count("[2419200s] offset 604800s", {"1": 1}, {"+Inf": 1})
    assert read_answers(f"{prometheus.url}/", 4 * WEEK, ended=WEEK)["digits"].labels == {"1": 1}


def test_read_answers_turns_buckets_into_bins(prometheus: StubPrometheus) -> None:
    # A confidence of 1.0000001 is above the bucket to 1. Estimates of buckets need not increase.
    buckets = {"+Inf": 101, "0.999": 40, "1.0": 100, "0.2": 10, "0.5": 9.9}
    prometheus.count("[604800s]", {"1": 101}, buckets)
    confidences = read_answers(prometheus.url, WEEK)["digits"].confidences
    assert list(confidences.items()) == [
        ("0–20%", 10),
        ("20–50%", 0),
        ("50–99.9%", pytest.approx(30.1)),
        ("99.9–100%", 61),
    ]


def test_read_answers_of_no_series_is_empty(prometheus: StubPrometheus) -> None:
    assert read_answers(prometheus.url, WEEK) == {}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            (422, b'{"status": "error", "errorType": "execution", "error": "query timed out"}'),
            "Prometheus refuses the query: query timed out",
        ),
        ((404, b"<html>"), "the URL is not Prometheus': its answer has HTTP status 404"),
        ((200, b"[]"), "the URL is not Prometheus': its answer has HTTP status 200"),
        ((200, b'{"status": "success"}'), "the URL is not Prometheus': its answer has HTTP status 200"),
    ],
)
def test_read_answers_of_an_error_names_it(
    prometheus: StubPrometheus, raw: tuple[int, bytes], message: str
) -> None:
    prometheus.raw = raw
    with pytest.raises(PrometheusError) as failed:
        read_answers(prometheus.url, WEEK)
    assert str(failed.value) == message


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ({"model": "digits", "version": "1", "label": "7"}, "NaN"),
        ({"model": "digits", "version": "v2", "label": "7"}, "1"),
        ({"model": "digits", "version": "1"}, "1"),
    ],
    ids=["not a number", "displaced label", "missing label"],
)
def test_read_answers_of_other_series_raises_prometheus_error(
    prometheus: StubPrometheus, metric: dict[str, str], value: str
) -> None:
    result = [{"metric": metric, "value": [1.0, value]}]
    prometheus.raw = (200, json.dumps({"status": "success", "data": {"result": result}}).encode())
    with pytest.raises(PrometheusError, match="other labels than the gateways' label, model"):
        read_answers(prometheus.url, WEEK)


@pytest.mark.parametrize("place", ["user:secret@127.0.0.1:{port}", "user:secret@[", "", "/none"])
def test_read_answers_of_an_unreachable_server_hides_the_password(place: str) -> None:
    with pytest.raises(PrometheusError, match="can't reach Prometheus: ") as failed:
        read_answers(f"http://{place.format(port=free_port())}", WEEK)
    assert "secret" not in str(failed.value)
