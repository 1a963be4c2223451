"""What `digits gateway` says of settings that it can't work with, before it listens."""

import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from digit_serving.gateway.cli import gateway
from digit_serving.gateway.settings import Settings
from tests import certificates
from tests.certificates import Pair


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_PORT", "9000")
    monkeypatch.setenv("DIGITS_LABELS", "stable, next")
    settings = Settings()
    assert (settings.port, settings.labels, settings.max_images) == (9000, ("stable", "next"), 256)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_PORT", "eighty")
    result = CliRunner().invoke(gateway)
    assert result.exit_code == 2
    assert "DIGITS_PORT" in result.output


def test_a_canary_needs_somebody_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_CANARY_PERCENT", "5")
    result = CliRunner().invoke(gateway)
    assert result.exit_code == 2
    assert "DIGITS_CANARY_PERCENT: Value error, needs DIGITS_DEFAULT_LABEL" in result.output
    monkeypatch.setenv("DIGITS_DEFAULT_LABEL", "stable")
    assert Settings().canary_percent == 5


@pytest.mark.parametrize(
    ("variable", "value"), [("DIGITS_RATE_LIMIT", "often"), ("DIGITS_API_KEYS", "/nowhere/keys")]
)
def test_a_setting_of_no_use_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(gateway)
    assert result.exit_code == 2
    assert variable in result.output


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("preflight"), "server")


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    path = tmp_path / "strange"
    path.write_bytes(b"\xff neither keys nor a certificate\n")
    return path


def refusal(environment: dict[str, object]) -> str:
    result = CliRunner().invoke(gateway, env={name: str(value) for name, value in environment.items()})
    assert result.exit_code == 2
    return result.output


def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refusal({"DIGITS_HOST": "localhost", "DIGITS_PORT": port})
    assert "DIGITS_HOST, DIGITS_PORT: " in said
    assert f"Address already in use (while attempting to bind on address ('127.0.0.1', {port}))" in said


@pytest.mark.parametrize("host", ["nowhere.test", "192.0.2.1"])
def test_an_address_that_is_not_this_machines(host: str) -> None:
    assert "DIGITS_HOST, DIGITS_PORT: [Errno" in refusal({"DIGITS_HOST": host})


def test_a_file_without_keys(strange: Path) -> None:
    said = refusal({"DIGITS_API_KEYS": strange})
    assert f"DIGITS_API_KEYS: {strange}: line 1 is no name and hash" in said


def test_files_without_a_certificate(strange: Path, pair: Pair) -> None:
    said = refusal({"DIGITS_TLS_CERTIFICATE": strange, "DIGITS_TLS_KEY": pair.key})
    assert f"DIGITS_TLS_KEY: {strange} and {pair.key} are no certificate and its key, in PEM" in said
    assert f"{strange} holds no certificate, in PEM" in refusal({"DIGITS_MODEL_SERVER_CA": strange})


def test_a_key_with_a_password(pair: Pair, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = f"openssl rsa -aes256 -passout pass:secret -in {pair.key} -out {locked}"
    subprocess.run(command.split(), check=True, capture_output=True)
    own = {"DIGITS_MODEL_SERVER_CERTIFICATE": pair.certificate, "DIGITS_MODEL_SERVER_KEY": locked}
    said = refusal({"DIGITS_MODEL_SERVER_CA": pair.certificate, **own})
    assert f"DIGITS_MODEL_SERVER_KEY: {pair.certificate} and {locked} are no certificate and its key" in said


def test_a_store_that_nobody_knows() -> None:
    said = refusal({"DIGITS_RATE_LIMIT": "10/minute", "DIGITS_RATE_LIMIT_STORE": "clay://tablet"})
    assert "DIGITS_RATE_LIMIT_STORE: unknown storage scheme : clay://tablet" in said
