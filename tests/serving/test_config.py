"""The model server's files, read with the official messages where the wheel has them."""

from pathlib import Path
from typing import Any

from digit_serving.gateway.settings import Settings
from digit_serving.model_server import config
from digit_serving.releases.config import MODEL_NAME

FOLDER = Path(__file__).parent.parent.parent / "serving" / "config"


def read(name: str, message: str) -> Any:
    return config.read(str(FOLDER / name), message)


def test_the_newest_version_is_served_beside_the_one_before() -> None:
    (model,) = read("models.config", "ModelServerConfig").model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (
        MODEL_NAME,
        "/models/digits",
        "tensorflow",
    )
    assert model.model_version_policy.WhichOneof("policy_choice") == "latest"
    assert model.model_version_policy.latest.num_versions == 2


def test_the_gateway_looks_up_every_label_from_the_start() -> None:
    (model,) = read("models.config", "ModelServerConfig").model_config_list.config
    assert set(model.version_labels) == set(Settings().labels)
    assert model.version_labels["stable"] == 1


def test_prometheus_may_ask() -> None:
    monitoring = read("monitoring.config", "MonitoringConfig").prometheus_config
    assert monitoring.enable
    assert monitoring.path == "/monitoring/prometheus/metrics"


def test_a_batch_holds_whatever_the_gateway_lets_through() -> None:
    batching = read("batching.config", "BatchingParameters")
    assert batching.max_batch_size.value >= Settings().max_images
    assert batching.num_batch_threads.value >= 1
