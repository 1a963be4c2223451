"""The page for Prometheus."""

import re
from typing import Any

import numpy as np

from digit_serving.model_server.metrics import Metrics


def test_counts_and_latencies_by_model(server: Any) -> None:
    server.predict("versions", x=np.array([0.0], np.float32))
    server.rest("/v1/models/versions:predict", {"instances": [0.0]})
    server.rest("/v1/models/absent:predict", {"instances": [0.0]})
    page = server.rest("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    lines = page.text.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert "# TYPE :tensorflow:serving:request_latency histogram" in lines
    assert not any(line.startswith("# HELP") for line in lines)
    assert ':tensorflow:serving:request_count{model_name="absent",status="NOT_FOUND"} 1' in lines
    for labels in ('API="Predict",entrypoint="GRPC"', 'API="predict",entrypoint="REST"'):
        count = rf':tensorflow:serving:request_latency_count{{model_name="versions",{labels}}} \d+'
        assert re.search(f"^{count}$", page.text, re.MULTILINE)
    assert (
        ':tensorflow:serving:runtime_latency_bucket{model_name="versions",API="Predict",runtime="TF1",le="10"}'
        in page.text
    )
    assert re.search(r'load_attempt_count\{model_path="[^"]*/versions/2",status="success"\} 1', page.text)


def test_labels_are_quoted() -> None:
    metrics = Metrics()
    with metrics.counting("request_count", 'a"b\\'):
        pass
    assert r':tensorflow:serving:request_count{model_name="a\"b\\",status="OK"} 1' in metrics.page()
