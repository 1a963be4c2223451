"""Properties of docker-compose.yml and the Dockerfiles, without Docker."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from digit_serving.model_server import flags
from digit_serving.releases.config import ConfigFile, ModelsConfig

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
# The service `drop-in` only builds an image.
RUNNING = sorted(SERVICES.keys() - {"drop-in"})
DOCKERFILES = [ROOT / "training" / "Dockerfile", ROOT / "serving" / "Dockerfile"]


def interpolated(text: str, **settings: str) -> str:
    """Replace variables of Compose's syntax `${NAME:-default}` by settings or defaults."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: settings.get(match[1]) or match[2], text)


@pytest.fixture
def model_server() -> Any:
    return SERVICES["model-server"]


def test_model_server_flags_are_known(model_server: Any) -> None:
    """TensorFlow Serving ignores an unknown flag after a line in its log."""
    options = flags.parse([interpolated(argument) for argument in model_server["command"]])
    assert (options.port, options.rest_api_port) == (8500, 8501)
    assert options.allow_version_labels_for_unavailable_models
    assert not options.enable_profiler
    assert (
        ROOT / "serving" / "config" / Path(options.monitoring_config_file).relative_to("/config")
    ).is_file()


def test_model_server_reads_models_config_of_the_named_model(model_server: Any) -> None:
    for name, settings in (("digits", {}), ("flowers", {"DIGITS_MODEL_NAME": "flowers"})):
        arguments = [interpolated(argument, **settings) for argument in model_server["command"]]
        assert Path(flags.parse(arguments).model_config_file) == ConfigFile(Path("/models", name)).path
        assert f"GET /v1/models/{name}/metadata " in interpolated(
            model_server["healthcheck"]["test"][-1], **settings
        )
        gateway, releases = (SERVICES[service]["environment"] for service in ("gateway", "releases"))
        assert interpolated(gateway["DIGITS_MODEL_NAME"], **settings) == name
        assert interpolated(releases["DIGITS_MODELS"], **settings) == f"/models/{name}"
    assert model_server["depends_on"] == {"releases": {"condition": "service_completed_successfully"}}


def run_releases_service(models: Path, name: str) -> ConfigFile:
    """Run the command of the service `releases` for a model in this folder; return the model's file."""
    shell, option, script = SERVICES["releases"]["command"]
    folders = {"/models/": f"{models}/", "/config/": f"{ROOT}/serving/config/"}
    script = interpolated(script, DIGITS_MODEL_NAME=name)
    script = re.sub("/models/|/config/", lambda match: folders[match[0]], script)
    subprocess.run([shell, option, script], check=True)
    return ConfigFile(models / name)


@pytest.mark.parametrize("name", ["digits", "my-flowers_2"])
def test_releases_service_creates_models_config_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for _ in range(2):
        file = run_releases_service(tmp_path, name)
        config = file.read()
        assert config.base_paths == {name: tmp_path / name}
        assert config.labels(name)["canary"] == 2
        file.write(str(config.promote(name, 2, "stable")))
    assert file.read().labels(name)["stable"] == 2


def test_releases_service_corrects_base_path_of_digits_up(tmp_path: Path) -> None:
    folder = tmp_path / "flowers"
    folder.mkdir()
    written = ModelsConfig.of_newest({"flowers": Path("/home/me/models/flowers")})
    ConfigFile(folder).write(str(written.promote("flowers", 1, "stable").promote("flowers", 2, "stable")))
    config = run_releases_service(tmp_path, "flowers").read()
    assert config.base_paths == {"flowers": folder}
    assert (config.labels("flowers"), config.history("flowers")) == ({"stable": 2}, {"stable": (1,)})


def test_releases_service_without_folder_of_model_fails(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_releases_service(tmp_path, "flowers")


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, "train --if-needed"),
        ({"DIGITS_TRAIN": "--recipe full --seed 1"}, "train --recipe full --seed 1"),
        ({"DIGITS_MODEL_NAME": "flowers"}, ""),
    ],
)
def test_training_service_trains_the_digits_only(
    tmp_path: Path, settings: dict[str, str], trained: str
) -> None:
    (tmp_path / "digits").write_text('#!/bin/sh\necho "$@"')
    (tmp_path / "digits").chmod(0o755)
    command = [interpolated(argument, **settings) for argument in SERVICES["training"]["command"]]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == trained


def test_services_share_the_models_volume_or_folder() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    models = [mount for mount in mounts if isinstance(mount, str) and ":/models" in mount]
    assert {interpolated(mount).split(":")[0] for mount in models} == {"models"}
    folders = {interpolated(mount, DIGITS_MODELS_FOLDER="./models").split(":")[0] for mount in models}
    assert folders == {"./models"}
    assert next(mount for mount in SERVICES["model-server"]["volumes"] if mount in models).endswith(":ro")


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


def test_release_builds_every_image() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    images = {
        (str(dockerfile.relative_to(ROOT)), target, image)
        for dockerfile in DOCKERFILES
        for target, image in re.findall(
            r'^FROM .* AS (\S+)\nLABEL org\.opencontainers\.image\.title="(\S+)"',
            dockerfile.read_text(),
            re.MULTILINE,
        )
    }
    assert len(images) == 4
    assert images == {
        (entry["dockerfile"], entry["target"], entry["image"])
        for entry in release["jobs"]["images"]["strategy"]["matrix"]["include"]
    }
