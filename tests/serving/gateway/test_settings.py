"""Settings from the environment, and how `digits gateway` rejects unusable ones before it listens."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Le
from click.testing import CliRunner
from pydantic import ValidationError

from digit_serving.gateway import settings as settings_module
from digit_serving.gateway.cli import gateway
from digit_serving.gateway.edge.memory import container_memory
from digit_serving.gateway.settings import Settings
from tests import certificates
from tests.certificates import Pair
from tests.processes import free_port


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("settings"), "server")


def rejection(**environment: object) -> str:
    """Return the message with which `digits gateway` rejects this environment."""
    environment = {"DIGITS_PORT": free_port()} | environment
    result = CliRunner().invoke(gateway, env={name: str(value) for name, value in environment.items()})
    assert result.exit_code == 2
    return result.output


def test_settings_are_read_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_PORT", "9000")
    monkeypatch.setenv("DIGITS_LABELS", "stable, next")
    monkeypatch.setenv("DIGITS_MODEL_NAMES", "flowers, digits, flowers")
    monkeypatch.delenv("DIGITS_DEFAULT_LABEL")
    settings = Settings()
    assert (settings.port, settings.labels, settings.max_images) == (9000, ("stable", "next"), 256)
    assert settings.models == ("digits", "flowers")
    assert Settings(model_names=()).models == ("digits",)
    assert {settings.for_model(name).default_label for name in ("digits", "flowers", "new")} == {"stable"}
    assert not settings.has_shadow


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "eighty"}, "DIGITS_PORT: "),
        ({"HOST": "nowhere.test"}, "DIGITS_HOST, DIGITS_PORT: [Errno"),
        ({"API_KEYS": "/nowhere/keys"}, "DIGITS_API_KEYS: /nowhere/keys is not a file"),
        ({"SHADOW_LABEL": "a", "DEFAULT_LABEL": "a"}, "DIGITS_SHADOW_LABEL: must differ from the default"),
        ({"RATE_LIMIT": "often"}, "DIGITS_RATE_LIMIT: 'often' is not a limit, such as 100/minute"),
        ({"RATE_LIMIT": "0/minute"}, "DIGITS_RATE_LIMIT: '0/minute' is not a limit, such as 100/minute"),
        (
            {"RATE_LIMIT": "9/second;600/0 minute"},
            "DIGITS_RATE_LIMIT: '9/second;600/0 minute' is not a limit",
        ),
        ({"CORS_ORIGINS": "not a url"}, "DIGITS_CORS_ORIGINS: 'not a url' is not an origin as browsers send"),
        (
            {"CORS_ORIGINS": "https://a.example/"},
            "DIGITS_CORS_ORIGINS: 'https://a.example/' is not an origin",
        ),
        ({"CORS_ORIGINS": "https://A.example"}, "DIGITS_CORS_ORIGINS: 'https://A.example' is not an origin"),
        ({"CORS_ORIGINS": "https://a.example:443"}, "'https://a.example:443' is not an origin"),
        ({"CORS_ORIGINS": "*"}, "DIGITS_CORS_ORIGINS: '*' is not an origin"),
        ({"DEFAULT_LABEL": "my label"}, "DIGITS_DEFAULT_LABEL: 'my label' is not a version's label, such as"),
        ({"SHADOW_LABEL": "a/b"}, "DIGITS_SHADOW_LABEL: 'a/b' is not a version's label"),
        ({"LABELS": "stable, my label"}, "DIGITS_LABELS: 'my label' is not a version's label"),
        ({"MODEL_NAME": "a/b"}, "DIGITS_MODEL_NAME: 'a/b' is not the name of a model, such as digits"),
        ({"MODEL_NAME": "*"}, "DIGITS_MODEL_NAME: '*' is not the name of a model"),
        ({"MODEL_NAMES": "flowers, a b"}, "DIGITS_MODEL_NAMES: 'a b' is not the name of a model"),
        ({"READER": ""}, "DIGITS_READER: '' is not the name of a model"),
        (
            {"RATE_LIMIT": "10/minute", "RATE_LIMIT_STORE": "clay://tablet"},
            "DIGITS_RATE_LIMIT_STORE: unknown storage scheme : clay://tablet",
        ),
        ({"FEEDBACK_SAMPLE": 0.01}, "DIGITS_FEEDBACK_SAMPLE: requires DIGITS_FEEDBACK"),
        ({"FEEDBACK": "sqlite:///feedback.db"}, "needs DIGITS_API_KEYS, with which a caller has one vote"),
        ({"FEEDBACK": "clay://tablet", "FEEDBACK_OPEN": 1}, "DIGITS_FEEDBACK: the URL of a store is sqlite:"),
        ({"TLS_KEY": __file__}, "DIGITS_TLS_KEY: must be set together with DIGITS_TLS_CERTIFICATE"),
        ({"MODEL_SERVER_CERTIFICATE": __file__}, "requires DIGITS_MODEL_SERVER_CA, without which"),
        ({"MODEL_SERVER_KEY": __file__}, "must be set together with DIGITS_MODEL_SERVER_CERTIFICATE"),
    ],
    ids=str,
)
def test_unusable_values_are_rejected_by_name(environment: dict[str, object], message: str) -> None:
    assert message in rejection(**{f"DIGITS_{name}": value for name, value in environment.items()})


NUMBERS = {name: field for name, field in Settings.model_fields.items() if field.annotation in (int, float)}
ZERO = {"address_connections", "body_memory", "feedback_sample", "shadow_share", "trusted_proxies"}
"""Numbers that may be 0."""
MAXIMA: dict[str, Any] = {
    name: limit.le for name, field in NUMBERS.items() for limit in field.metadata if isinstance(limit, Le)
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, -1 if name in ZERO else 0) for name in NUMBERS]
    + [(name, limit + 1) for name, limit in MAXIMA.items()],
)
def test_number_out_of_bounds_is_rejected(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=rf"{name}\n  Input should be "):
        Settings.model_validate({name: value})


def models_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return path


def test_models_file_overrides_settings_by_model(tmp_path: Path) -> None:
    text = '[fashion]\nshadow_share = 1\nshadow_label = "next"\nfeedback = false\ndeadline = 2\n'
    file = models_file(tmp_path, text)
    common: dict[str, Any] = {"default_label": "stable", "shadow_share": 0.05, "feedback": "sqlite:///a.db"}
    settings = Settings(model_names=("fashion",), models_file=file, feedback_open=True, **common)
    digits, fashion = settings.for_model("digits"), settings.for_model("fashion")
    assert (digits.default_label, digits.shadow_share, digits.shadow_label) == ("stable", 0.05, "")
    assert (fashion.default_label, fashion.shadow_share, fashion.shadow_label) == ("stable", 1, "next")
    assert (digits.feedback, fashion.feedback) == (True, False)
    assert (digits.deadline, fashion.deadline) == (5, 2)
    assert settings.has_shadow
    file.unlink()
    assert settings.for_model("fashion") is fashion, "the file is read once"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[digits]\nfeedback = true\n", "digits.feedback: needs DIGITS_FEEDBACK, the store"),
        ("[lost]\n", "lost is not the table of a model; models: digits"),
        ("digits = 3\n", "digits is not the table of a model; models: digits"),
        ("[digits]\nmax_body = 5\n", "digits.max_body: unknown key; known keys: default_label, "),
        ("[digits]\ndeadline = 5.5\n", "digits.deadline: must not exceed DIGITS_DEADLINE"),
        ("[digits]\ndeadline = 0\n", "digits.deadline: Input should be greater than 0"),
        ("[digits]\nshadow_share = true\n", "digits.shadow_share: Input should be a valid number"),
        ('[digits]\ndefault_label = "a"\nshadow_label = "a"\n', "digits.shadow_label: must differ from"),
        ("[digits\n", "Expected ']' at the end of a table declaration"),
    ],
)
def test_unusable_models_file_is_rejected(tmp_path: Path, text: str, sentence: str) -> None:
    file = models_file(tmp_path, text)
    assert f"DIGITS_MODELS_FILE: {file}: {sentence}" in rejection(DIGITS_MODELS_FILE=file)


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com", "http://localhost:5173", "http://[::1]:8000", "capacitor://localhost"],
)
def test_origin_that_browsers_send_is_accepted(origin: str) -> None:
    assert Settings.model_validate({"cors_origins": f"https://a.example, {origin}"}).cors_origins[1] == origin


def test_taken_port_is_rejected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = rejection(DIGITS_HOST="localhost", DIGITS_PORT=port)
    assert "DIGITS_HOST, DIGITS_PORT: " in message
    assert f"Address already in use (while attempting to bind on address ('127.0.0.1', {port}))" in message


def test_malformed_file_is_rejected(pair: Pair, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xff neither keys nor a certificate\n")
    message = rejection(DIGITS_API_KEYS=garbage)
    assert f"DIGITS_API_KEYS: {garbage}: line 1: expected a name and a hash" in message
    message = rejection(DIGITS_TLS_CERTIFICATE=garbage, DIGITS_TLS_KEY=pair.key)
    assert f"DIGITS_TLS_KEY: {garbage} and {pair.key} are not a certificate and its private key" in message
    assert f"{garbage} contains no certificate in PEM" in rejection(DIGITS_MODEL_SERVER_CA=garbage)


def test_encrypted_key_is_rejected(pair: Pair, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.key"
    command = f"openssl rsa -aes256 -passout pass:secret -in {pair.key} -out {encrypted}"
    subprocess.run(command.split(), check=True, capture_output=True)
    message = rejection(
        DIGITS_MODEL_SERVER_CA=pair.certificate,
        DIGITS_MODEL_SERVER_CERTIFICATE=pair.certificate,
        DIGITS_MODEL_SERVER_KEY=encrypted,
    )
    assert f"DIGITS_MODEL_SERVER_KEY: {pair.certificate} and {encrypted} are not a certificate" in message


@pytest.mark.parametrize(
    ("gibibytes", "workers", "mebibytes"),
    [(None, 16, 128), (2, 1, 256), (2, 2, 128), (8, 8, 128), (1, 1, 128)],
)
def test_body_memory_follows_container_and_workers(
    monkeypatch: pytest.MonkeyPatch, gibibytes: int | None, workers: int, mebibytes: int
) -> None:
    limit = gibibytes and gibibytes * 2**30
    monkeypatch.setattr(settings_module, "container_memory", lambda: limit)
    settings = Settings(workers=workers)
    assert (settings.body_memory, settings.connection_memory) == (mebibytes * 2**20, mebibytes * 2**18)
    assert Settings(workers=workers, body_memory=10**7).body_memory == 10**7


def test_workers_beyond_the_container_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "container_memory", lambda: 2 * 2**30)
    message = "DIGITS_BODY_MEMORY: 16 workers may need 9.8 GiB of memory, but the container has 2.0 GiB: "
    assert message in rejection(DIGITS_WORKERS=16)
    assert "2 workers may need 2.2 GiB" in rejection(DIGITS_BODY_MEMORY=400 * 2**20)
    assert Settings(workers=8, max_pixels=100_000, max_body=2**20).body_memory == 32 * 2**20


def test_body_memory_below_largest_body_is_rejected() -> None:
    assert "must not be smaller than DIGITS_MAX_BODY" in rejection(DIGITS_BODY_MEMORY=10**6)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "2147483648\n", 2**31),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "2147483648\n", 2**31),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("other", "", None),
    ],
)
def test_container_memory_is_read_from_cgroups(
    tmp_path: Path, name: str, text: str, limit: int | None
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / name).write_text(text)
    assert container_memory(tmp_path) == limit
