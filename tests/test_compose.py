"""Properties of docker-compose.yml and the Dockerfiles, without Docker."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from digit_serving.model_server import flags
from digit_serving.releases.config import ConfigFile

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
# The service `drop-in` only builds an image.
RUNNING = sorted(SERVICES.keys() - {"drop-in"})
DOCKERFILES = [ROOT / "training" / "Dockerfile", ROOT / "serving" / "Dockerfile"]


@pytest.fixture
def model_server() -> Any:
    return SERVICES["model-server"]


def test_model_server_flags_are_known(model_server: Any) -> None:
    """TensorFlow Serving ignores an unknown flag after a line in its log."""
    options = flags.parse(model_server["command"])
    assert (options.port, options.rest_api_port) == (8500, 8501)
    assert options.allow_version_labels_for_unavailable_models
    assert not options.enable_profiler
    assert (
        ROOT / "serving" / "config" / Path(options.monitoring_config_file).relative_to("/config")
    ).is_file()


def test_releases_service_creates_models_config_once(model_server: Any, tmp_path: Path) -> None:
    path = Path(flags.parse(model_server["command"]).model_config_file)
    assert path == ConfigFile(Path("/models/digits")).path
    assert model_server["depends_on"] == {"releases": {"condition": "service_completed_successfully"}}
    shell, option, script = SERVICES["releases"]["command"]
    for name, folder in (("/models/digits", tmp_path), ("/config", ROOT / "serving" / "config")):
        script = script.replace(name, str(folder))
    for _ in range(2):
        subprocess.run([shell, option, script], check=True)
        file = ConfigFile(tmp_path)
        config = file.read()
        assert config.base_path == Path("/models/digits")
        assert config.labels["canary"] == 2
        file.write(str(config.promote(2, "stable")))
    assert file.read().labels["stable"] == 2


def test_model_server_runs_binary_under_init(model_server: Any) -> None:
    assert model_server["entrypoint"] == ["/usr/bin/tensorflow_model_server"]
    assert model_server["init"]
    assert model_server["stop_grace_period"] == "5s"


def test_model_server_image_matches_serving_api(model_server: Any) -> None:
    pinned = re.search(r"^tensorflow-serving-api==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert model_server["image"] == f"${{MODEL_SERVER_IMAGE:-tensorflow/serving:{pinned[1]}}}"
    gpu = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]["model-server"]
    assert gpu["image"] == f"${{MODEL_SERVER_IMAGE:-tensorflow/serving:{pinned[1]}-gpu}}"


def test_model_server_is_on_inner_network_only(model_server: Any) -> None:
    assert COMPOSE["networks"]["inner"]["internal"]
    assert model_server["networks"] == ["inner"]
    assert "ports" not in model_server


def test_published_ports_are_gateway_and_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.pop("gateway") == ["${DIGITS_PORT:-8080}:8080"]
    # Ports for operators are published on loopback only.
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@pytest.mark.parametrize("name", RUNNING)
def test_service_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["init"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfile_names_an_unprivileged_user(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert set(re.findall(r"^USER (.*)", text, re.MULTILINE)) == {"1000:1000"}
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
