"""Prometheus metrics: names, labels and text format."""

import re

import numpy as np
import pytest
from werkzeug.test import Client

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.metrics import Metrics
from tests.serving.model_server.conftest import GrpcServer
from tests.serving.model_servers import predict_request


def test_page_has_counts_and_latencies_by_model(grpc_server: GrpcServer, http: Client) -> None:
    grpc_server.prediction.Predict(predict_request("versions", x=np.array([0.0], np.float32)), 5)
    http.post("/v1/models/versions:predict", json={"instances": [0.0]})
    http.post("/v1/models/asked_once:predict", json={"instances": [0.0]})
    page = http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    lines = page.text.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert "# TYPE :tensorflow:serving:request_latency histogram" in lines
    assert ':tensorflow:serving:request_count{model_name="asked_once",status="NOT_FOUND"} 1.0' in lines
    for labels in (
        'API="Predict",entrypoint="GRPC",model_name="versions"',
        'API="predict",entrypoint="REST",model_name="versions"',
    ):
        count = rf":tensorflow:serving:request_latency_count{{{labels}}} [1-9]"
        assert re.search(f"^{count}", page.text, re.MULTILINE)
    labels = 'API="Predict",le="10.0",model_name="versions",runtime="TF1"'
    assert f":tensorflow:serving:runtime_latency_bucket{{{labels}}}" in page.text
    assert re.search(r'load_attempt_count\{model_path="[^"]*/versions/2",status="success"\} 1', page.text)


def test_first_count_is_that_of_the_first_label_or_0() -> None:
    metrics = Metrics()
    for path, records in (("/m/2", 2), ("/m/1", 1)):
        metrics.add("model_warmup_records_read", records, path)
    assert metrics.first_count("/tensorflow/serving/model_warmup_records_read") == 1
    for name in ("request_count", "request_latency", "unknown"):
        assert metrics.first_count(f"/tensorflow/serving/{name}") == 0


def test_page_escapes_labels() -> None:
    metrics = Metrics()
    with metrics.count("request_count", 'a"b\\_total'):
        pass
    assert r':tensorflow:serving:request_count{model_name="a\"b\\_total",status="OK"} 1.0' in metrics.page()


def test_failed_load_is_counted_under_the_label_of_the_alert() -> None:
    metrics = Metrics()
    with pytest.raises(ServingError), metrics.count("load_attempt_count", "/m/1", "success", "fail"):
        raise ServingError("unreadable")
    assert (
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/m/1",status="fail"} 1.0' in metrics.page()
    )


def test_unexpected_exception_is_counted_as_a_failure() -> None:
    metrics = Metrics()
    with pytest.raises(ModuleNotFoundError), metrics.count("load_attempt_count", "/m/1", "success", "fail"):
        raise ModuleNotFoundError("model_signing")
    with pytest.raises(MemoryError), metrics.request("m", "Predict", "GRPC"):
        raise MemoryError
    assert 'load_attempt_count{model_path="/m/1",status="fail"} 1.0' in metrics.page()
    assert 'request_count{model_name="m",status="UNKNOWN"} 1.0' in metrics.page()
