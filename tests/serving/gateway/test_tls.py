"""TLS from callers to the gateway, and from the gateway to the model server."""

import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.images import to_png
from digit_serving.gateway import tls
from digit_serving.gateway.settings import Settings
from tests import certificates, greenlet_loop
from tests.certificates import Pair
from tests.processes import accepts, free_port, running, wait_until
from tests.serving.gateway.stub_model_server import StubModelServer
from tests.serving.gateway.test_probe import probe


@dataclass(frozen=True)
class Pairs:
    """Certificates of a server, and of the only client that the server accepts."""

    server: Pair
    client: Pair

    def settings(self) -> dict[str, Any]:
        """Return the gateway's settings for a model server with these certificates."""
        return {
            "model_server_ca": self.server.certificate,
            "model_server_certificate": self.client.certificate,
            "model_server_key": self.client.key,
        }

    def wrong_settings(self) -> dict[str, dict[str, Any]]:
        """Return settings with which a connection must fail."""
        return {
            "no client certificate": {"model_server_ca": self.server.certificate},
            "no TLS": {},
            "foreign authority": {**self.settings(), "model_server_ca": self.client.certificate},
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Pairs:
    return Pairs(certificates.make(folder, "server"), certificates.make(folder, "client"))


@pytest.fixture(scope="module")
def tls_model_server(models: Path, folder: Path, pairs: Pairs) -> Iterator[str]:
    """gRPC address of a model server process that requires the client's certificate."""
    port = free_port()
    config = certificates.ssl_config(folder, pairs.server, pairs.client)
    flags = ["--model_name=digits", f"--model_base_path={models}", f"--ssl_config_file={config}"]
    with running("model-server", f"--port={port}", *flags) as process:
        wait_until(lambda: accepts(port), process)
        yield f"127.0.0.1:{port}"


def test_server_context_takes_only_tls_1_3(pairs: Pairs) -> None:
    context = tls.server_context(pairs.server.certificate, pairs.server.key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


def test_expiry_is_that_of_the_certificate_also_after_its_end(pairs: Pairs, tmp_path: Path) -> None:
    two_days = tls.expiry(pairs.server.certificate, pairs.server.key) - time.time()
    assert 0 < two_days <= 2 * 86400
    end = datetime(2020, 2, 1, tzinfo=UTC)
    past = certificates.ending(pairs.server, tmp_path / "past.pem", end)
    assert tls.expiry(past.certificate, past.key) == end.timestamp()


def test_readyz_warns_of_an_expired_certificate(stub: StubModelServer, pairs: Pairs, tmp_path: Path) -> None:
    past = certificates.ending(pairs.server, tmp_path / "past.pem", datetime.now(UTC) - timedelta(minutes=1))
    warning = "The certificate of DIGITS_TLS_CERTIFICATE has expired: callers refuse it."
    for pair, warnings in ((pairs.server, None), (past, [warning])):
        settings = Settings(model_server=stub.target, tls_certificate=pair.certificate, tls_key=pair.key)
        ready = greenlet_loop.client(settings).get("/readyz")
        assert (ready.status_code, ready.get_json().get("warnings")) == (200, warnings)


@pytest.mark.parametrize("setting", ["certificate", "key"])
def test_unusable_file_is_named(pairs: Pairs, tmp_path: Path, setting: str) -> None:
    missing = tmp_path / "missing.pem"
    files = {"certificate": pairs.server.certificate, "key": pairs.server.key, setting: missing}
    settings = Settings.model_construct(**{**pairs.settings(), f"model_server_{setting}": missing})
    with pytest.raises(OSError, match=str(missing)):
        tls.server_context(**files)
    with pytest.raises(OSError, match=str(missing)):
        tls.channel_credentials(settings)


@pytest.mark.e2e
def test_gateway_process_with_certificate_answers_over_tls_only(
    tls_model_server: str, pairs: Pairs, digits: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    environment = {
        "DIGITS_PORT": str(port),
        "DIGITS_MODEL_SERVER": tls_model_server,
        "DIGITS_TLS_CERTIFICATE": str(pairs.server.certificate),
        "DIGITS_TLS_KEY": str(pairs.server.key),
    }
    environment |= {f"DIGITS_{name.upper()}": str(path) for name, path in pairs.settings().items()}
    trust = ssl.create_default_context(cafile=pairs.server.certificate)
    with (
        running("gateway", environment=environment) as process,
        httpx.Client(base_url=f"https://localhost:{port}", verify=trust) as http,
    ):
        wait_until(lambda: accepts(port), process)
        assert http.get("/readyz").status_code == 200
        assert probe(port=port, tls_certificate=pairs.server.certificate) == (0, "")
        (expiry,) = re.findall(r"^digits_tls_certificate_expiry_\w+ (\S+)", http.get("/metrics").text, re.M)
        assert float(expiry) == tls.expiry(pairs.server.certificate, pairs.server.key)
        answer = http.post(
            "/v1/predict", content=to_png(digits.one(7)), headers={"Content-Type": "image/png"}
        )
        assert answer.json()["predictions"][0]["digit"] == 7
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://localhost:{port}/livez")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://localhost:{port}/livez")
    for name, settings in pairs.wrong_settings().items():
        client = greenlet_loop.client(Settings(model_server=tls_model_server, **settings))
        assert client.get("/v1/models").status_code == 503, name
    assert "eof_received" not in capfd.readouterr().err
