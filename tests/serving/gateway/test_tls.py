"""Encrypted from the caller to the model server, through real processes."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from click.testing import CliRunner

from digit_client import ModelServerClient, RetryPolicy, UnavailableError
from digit_client.images import to_png
from digit_serving.gateway.cli import gateway as command
from digit_serving.gateway.settings import Settings
from tests import certificates, greenlet_loop
from tests.certificates import Pair
from tests.processes import accepts, free_port, running, wait_until


@dataclass(frozen=True)
class Stack:
    """A model server that lets in the client's certificate only, and the files around it."""

    target: str
    server: Pair
    client: Pair

    @property
    def settings(self) -> dict[str, Any]:
        """How the gateway finds and trusts it."""
        return {
            "model_server_ca": self.server.certificate,
            "model_server_certificate": self.client.certificate,
            "model_server_key": self.client.key,
        }


@pytest.fixture(scope="module")
def stack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    server, client = certificates.make(folder, "server"), certificates.make(folder, "client")
    config = certificates.ssl_config(folder, server, client)
    flags = ["--model_name=digits", f"--model_base_path={models}", f"--ssl_config_file={config}"]
    with running("model-server", f"--port={port}", *flags) as process:
        wait_until(lambda: accepts(port), process)
        yield Stack(f"127.0.0.1:{port}", server, client)


def test_nothing_travels_in_the_clear(stack: Stack, digits: Any) -> None:
    port = free_port()
    files = {f"DIGITS_{name.upper()}": str(path) for name, path in stack.settings.items()}
    own = {
        "DIGITS_TLS_CERTIFICATE": str(stack.server.certificate),
        "DIGITS_TLS_KEY": str(stack.server.key),
    }
    where = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": stack.target}
    with ExitStack() as ends:
        process = ends.enter_context(running("gateway", environment=where | own | files))
        wait_until(lambda: accepts(port), process)
        trust = ssl.create_default_context(cafile=stack.server.certificate)
        http = ends.enter_context(httpx.Client(base_url=f"https://localhost:{port}", verify=trust))
        assert http.get("/readyz").status_code == 200
        answer = http.post(
            "/v1/predict", content=to_png(digits.one(7)), headers={"Content-Type": "image/png"}
        )
        assert answer.json()["predictions"][0]["digit"] == 7
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://localhost:{port}/livez")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://localhost:{port}/livez")


def test_a_gateway_that_shows_nothing_is_not_ready(stack: Stack) -> None:
    ready, cases = (
        {},
        {
            "known": stack.settings,
            "unknown": {"model_server_ca": stack.server.certificate},
            "in the clear": {},
            "distrustful": {**stack.settings, "model_server_ca": stack.client.certificate},
        },
    )
    for name, settings in cases.items():
        http = greenlet_loop.client(Settings(model_server=stack.target, deadline=1, **settings))
        ready[name] = http.get("/readyz").status_code
    assert ready == {"known": 200, "unknown": 503, "in the clear": 503, "distrustful": 503}


def test_the_client_speaks_to_it_too(stack: Stack, digits: Any) -> None:
    authority = stack.server.certificate.read_bytes()
    own = stack.client.key.read_bytes(), stack.client.certificate.read_bytes()
    credentials = grpc.ssl_channel_credentials(authority, *own)
    with ModelServerClient(stack.target, credentials=credentials) as client:
        assert client.predict(digits.one(7)).digit == 7
    once = RetryPolicy(attempts=1)
    strange = grpc.ssl_channel_credentials(authority)
    for each in (strange, None):
        with (
            ModelServerClient(stack.target, credentials=each, retries=once, timeout=5) as client,
            pytest.raises(UnavailableError),
        ):
            client.predict(digits.one(7))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TLS_CERTIFICATE", "DIGITS_TLS_KEY: Value error, goes together with DIGITS_TLS_CERTIFICATE"),
        ("TLS_KEY", "DIGITS_TLS_KEY: Value error, goes together with DIGITS_TLS_CERTIFICATE"),
        ("MODEL_SERVER_CERTIFICATE", "needs DIGITS_MODEL_SERVER_CA, else nothing is encrypted"),
        ("MODEL_SERVER_KEY", "goes together with DIGITS_MODEL_SERVER_CERTIFICATE"),
    ],
)
def test_half_of_it_is_refused(name: str, said: str, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DIGITS_{name}", str(stack.server.key))
    result = CliRunner().invoke(command)
    assert result.exit_code == 2
    assert said in result.output
