import subprocess
import sys

import pytest

from digit_serving.gateway import collector
from digit_serving.gateway.settings import Settings


def test_a_collector_without_the_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is None in sys.modules can't be imported."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    code = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from digit_serving.gateway.settings import Settings
        from tests import greenlet_loop

        assert greenlet_loop.client(Settings()).get("/livez").status_code == 200
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install '.[otel]'" in done.stderr


def test_without_one_there_are_no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert collector.traces(Settings()) is None
