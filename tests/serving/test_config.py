"""Files in serving/config, parsed as the model server parses them."""

from pathlib import Path
from typing import Any

from digit_serving.gateway.settings import Settings
from digit_serving.model_server import config

FOLDER = Path(__file__).parent.parent.parent / "serving" / "config"


def read(name: str, message: str) -> Any:
    return config.read(str(FOLDER / name), message)


def test_monitoring_config_enables_the_path_that_prometheus_scrapes() -> None:
    monitoring = read("monitoring.config", "MonitoringConfig").prometheus_config
    assert monitoring.enable
    assert f"metrics_path: {monitoring.path}\n" in (FOLDER / "prometheus.yml").read_text()
    # `digits up` has a copy: an installed package has no folder `config`.
    copy = FOLDER.parent / "digit_serving" / "monitoring.config"
    assert copy.read_text() == (FOLDER / "monitoring.config").read_text()


def test_batching_config_fits_the_largest_request_of_the_gateway() -> None:
    batching = read("batching.config", "BatchingParameters")
    assert batching.max_batch_size.value >= Settings().max_images
    assert batching.num_batch_threads.value >= 1
