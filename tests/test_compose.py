"""Properties of docker-compose.yml and the Dockerfiles, without Docker."""

import os
import re
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from digit_serving.gateway.settings import Settings
from digit_serving.model_server import flags
from tests.commands import fake_digits, parse
from tests.readme import blocks

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
# The service `drop-in` only builds an image.
RUNNING = sorted(SERVICES.keys() - {"drop-in"})
DOCKERFILES = [ROOT / "training" / "Dockerfile", ROOT / "serving" / "Dockerfile"]
MODEL_SERVER = SERVICES["model-server"]
RELEASE_JOB = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]["images"]
PAGE = (ROOT / "docs" / "how-to" / "deploy-with-compose.md").read_text()
STORE = "sqlite:////feedback/feedback.db"


def interpolated(text: str, **settings: str) -> str:
    """Replace variables of Compose's syntax `${NAME:-default}` by settings or defaults."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: settings.get(match[1]) or match[2], text)


def test_model_server_flags_are_known_and_name_files_of_the_volumes() -> None:
    """TensorFlow Serving ignores an unknown flag after a line in its log."""
    options = flags.parse([interpolated(argument) for argument in MODEL_SERVER["command"]])
    assert not options.enable_profiler
    file = Path(options.monitoring_config_file).relative_to("/config")
    assert (ROOT / "serving" / "config" / file).is_file()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment with a fake command `digits`."""
    return fake_digits(tmp_path)


def run_service(name: str, environment: dict[str, str], **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a service's command in this environment, with the variables `settings` of Compose."""
    command = [interpolated(part, **settings).replace("$$", "$") for part in SERVICES[name]["command"]]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("settings", "status", "calls"),
    [
        ({}, 0, ["train --if-needed", "models check --model digits"]),
        ({}, 4, ["train --if-needed"]),
        ({"DIGITS_MODEL_NAME": "flowers"}, 0, ["models check --model flowers"]),
    ],
)
def test_training_service_publishes_the_digits_only_and_checks_the_folder(
    environment: dict[str, str], settings: dict[str, str], status: int, calls: list[str]
) -> None:
    done = run_service("training", environment | {"STATUS": str(status)}, **settings)
    assert (done.returncode, done.stdout.splitlines()) == (status, calls)


@pytest.mark.parametrize(
    ("status", "ends", "published"),
    [("0", 0, True), ("4", 0, False), ("1", 1, False)],
    ids=["published", "refused-by-the-gate", "failed"],
)
def test_retrain_service_succeeds_unless_training_fails(
    environment: dict[str, str], status: str, ends: int, published: bool
) -> None:
    done = run_service("retrain", environment | {"STATUS": status, "DIGITS_FEEDBACK": STORE})
    assert done.returncode == ends
    trained, *rest = done.stdout.splitlines()
    assert trained == f"train --feedback {STORE} --from stable --min-gain 0.01"
    assert ("docker compose run --rm releases" in done.stdout) == published
    assert ("models prune" in rest) == (ends == 0)


def test_service_commands_of_digits_are_valid(environment: dict[str, str]) -> None:
    for name in ("training", "releases", "retrain"):
        for call in run_service(name, environment | {"DIGITS_FEEDBACK": STORE}).stdout.splitlines():
            if "docker compose" not in call:
                parse(shlex.split(call))


def test_gateway_passes_on_every_setting_that_needs_no_file() -> None:
    environment = SERVICES["gateway"]["environment"]
    left_out = {name for name in Settings.model_fields if f"DIGITS_{name.upper()}" not in environment}
    files = {name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)}
    # The image's address and port; DIGITS_PORT is the published one.
    assert left_out == files - {"models_config"} | {"host", "port"}


def run_health_check(answer: bytes | None, patience: str) -> tuple[int, bool]:
    """Run the model server's health check; return its status, and whether it would kill the server.

    The server gives this answer, or none.
    """
    *shell, script = MODEL_SERVER["healthcheck"]["test"][1:]
    with socket.create_server(("127.0.0.1", 0)) as server:
        for old, new in {
            "$$": "$",
            "8501": str(server.getsockname()[1]),
            "-rt 20": f"-rt {patience}",
            "kill -KILL -1": "echo killed",
        }.items():
            script = script.replace(old, new)
        check = subprocess.Popen([*shell, interpolated(script)], stdout=subprocess.PIPE)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1024)
            if answer is not None:
                connection.sendall(answer)
                connection.close()
            out, _ = check.communicate(timeout=20)
    return check.returncode, out == b"killed\n"


@pytest.mark.parametrize(
    ("answer", "patience", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", "20", (True, False)),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "20", (False, False)),
        (b"", "20", (False, False)),
        (None, "1", (False, True)),
    ],
    ids=["answers", "has-no-model", "ends", "hangs"],
)
def test_model_server_is_killed_only_if_it_hangs(
    answer: bytes | None, patience: str, expected: tuple[bool, bool]
) -> None:
    status, killed = run_health_check(answer, patience)
    assert (status == 0, killed) == expected


def test_documentation_has_every_variable() -> None:
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", PAGE, re.MULTILINE))))
    text = "".join(path.read_text() for path in ROOT.glob("docker-compose*.yml"))
    assert set(re.findall(r"(?<!\$)\$\{(\w+):", text)) <= documented


def test_model_server_is_the_pinned_one_on_the_inner_network() -> None:
    assert COMPOSE["networks"]["inner"]["internal"]
    assert MODEL_SERVER["networks"] == ["inner"]
    assert "ports" not in MODEL_SERVER
    pinned = re.search(r"^tensorflow-serving-api==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert MODEL_SERVER["image"] == f"${{MODEL_SERVER_IMAGE:-tensorflow/serving:{pinned[1]}}}"
    gpu = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]["model-server"]
    assert gpu["image"] == f"${{MODEL_SERVER_IMAGE:-tensorflow/serving:{pinned[1]}-gpu}}"


def test_published_ports_are_gateway_and_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    (gateway,) = published.pop("gateway")
    assert interpolated(gateway) == "127.0.0.1:8080:8080"
    assert interpolated(gateway, DIGITS_BIND="0.0.0.0", DIGITS_PORT="80") == "0.0.0.0:80:8080"
    # Ports for operators are published on loopback only.
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@pytest.mark.parametrize("name", RUNNING)
def test_service_is_hardened_bounded_and_of_an_exact_version(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["init"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    image = interpolated(service["image"])
    is_own = "build" in service or service.get("pull_policy") == "never"
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", image) or (is_own and ":" not in image)


def test_dockerfiles_have_an_unprivileged_user_and_one_base_image() -> None:
    """The release looks up the digest of one base image, and builds all images on it."""
    texts = [path.read_text() for path in DOCKERFILES]
    for text in texts:
        assert set(re.findall(r"^USER (.*)", text, re.MULTILINE)) == {"1000:1000"}
    assert len(set(re.findall(r"^ARG BASE=(.*)", "".join(texts), re.MULTILINE))) == 1


def test_image_of_the_gateway_listens_on_every_ipv4_and_ipv6_address() -> None:
    _, gateway = (ROOT / "serving" / "Dockerfile").read_text().split(" AS gateway\n")
    assert re.findall("^ENV DIGITS_HOST=(.*)", gateway, re.MULTILINE) == ["::"]
    assert "DIGITS_HOST" not in SERVICES["gateway"]["environment"]


def test_release_builds_every_image() -> None:
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
        for entry in RELEASE_JOB["strategy"]["matrix"]["include"]
    }


def test_release_gives_every_argument_of_the_dockerfiles_without_default() -> None:
    (build,) = [step["with"] for step in RELEASE_JOB["steps"] if step.get("id") == "build"]
    given = {line.partition("=")[0] for line in build["build-args"].splitlines()}
    text = "".join(dockerfile.read_text() for dockerfile in DOCKERFILES)
    assert given == {"BASE", *re.findall(r'^ARG (\w+)=""', text, re.MULTILINE)}


def test_documented_override_retrains_a_model_of_ones_own(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = (
        override["retrain"]["command"]
        for override in (yaml.safe_load(block)["services"] for block in blocks("yaml", PAGE))
        if "retrain" in override
    )
    (script,) = blocks('sh title="own/retrain.sh"', PAGE)
    assert command == ["sh", "-e", "/own/retrain.sh"]
    monkeypatch.setenv("DIGITS_FEEDBACK", STORE)
    done = subprocess.run(
        ["sh", "-ec", f"python() {{ :; }}\n{script}"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    exported, published, pruned = done.stdout.splitlines()
    for call in (exported, published, pruned):
        parse(shlex.split(call))
    assert published.endswith(f"--feedback {STORE}")


def test_documented_override_mounts_the_folder_of_keys() -> None:
    (block,) = (block for block in blocks("yaml", PAGE) if "DIGITS_API_KEYS" in block)
    gateway = yaml.safe_load(block)["services"]["gateway"]
    (volume,) = gateway["volumes"]
    source, target = volume.split(":")
    assert Path(gateway["environment"]["DIGITS_API_KEYS"]).parent == Path(target)
    assert f"\nmkdir {Path(source)}\n" in PAGE


def test_documented_override_pulls_into_the_models_volume() -> None:
    (block,) = (block for block in blocks("yaml", PAGE) if "models, pull" in block)
    (service,) = yaml.safe_load(block)["services"].items()
    name, override = service
    assert MODEL_SERVER["depends_on"].keys() == {name}
    program, *arguments = override["command"]
    assert program == "digits"
    parse(arguments)
