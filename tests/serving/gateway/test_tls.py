"""TLS from callers to the gateway, and from the gateway to the model server."""

import re
import shutil
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
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
from tests.serving.gateway.helpers import ManualClock, StartGateway, probe


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


def test_readyz_warns_of_an_expired_certificate(
    start_gateway: StartGateway, pairs: Pairs, tmp_path: Path
) -> None:
    past = certificates.ending(pairs.server, tmp_path / "past.pem", datetime.now(UTC) - timedelta(minutes=1))
    warning = "The certificate of DIGITS_TLS_CERTIFICATE has expired: callers refuse it."
    for pair, warnings in ((pairs.server, None), (past, [warning])):
        ready = start_gateway(tls_certificate=pair.certificate, tls_key=pair.key).get("/readyz")
        assert (ready.status_code, ready.get_json().get("warnings")) == (200, warnings)


def test_certificate_is_read_again_once_its_files_fit_each_other(pairs: Pairs, tmp_path: Path) -> None:
    certificate, key, clock = tmp_path / "tls.crt", tmp_path / "tls.key", ManualClock()

    def write(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())
        clock.now += 1

    write(pairs.server.certificate, certificate)
    write(pairs.server.key, key)
    served = tls.ServerCertificate(certificate, key, clock)
    first, first_expiry = served.context, served.expiry
    assert served.context is first
    renewed = certificates.ending(pairs.client, tmp_path / "new", datetime.now(UTC) + timedelta(days=9))
    # An issuer that writes one file after the other.
    write(renewed.certificate, certificate)
    assert (served.context, served.expiry) == (first, first_expiry)
    write(renewed.key, key)
    assert served.expiry == tls.expiry(renewed.certificate, renewed.key) > first_expiry
    assert served.context is not first
    key.unlink()
    clock.now += 1
    assert served.expiry > first_expiry


@pytest.mark.parametrize("setting", ["certificate", "key"])
def test_unusable_file_is_named(pairs: Pairs, tmp_path: Path, setting: str) -> None:
    missing = tmp_path / "missing.pem"
    files = {"certificate": pairs.server.certificate, "key": pairs.server.key, setting: missing}
    settings = Settings.model_construct(**{**pairs.settings(), f"model_server_{setting}": missing})
    for use in (lambda: tls.server_context(**files), lambda: tls.channel_credentials(settings)):
        with pytest.raises(OSError, match=str(missing)):
            use()


def test_key_of_another_certificate_is_refused(pairs: Pairs) -> None:
    key = pairs.server.key
    settings = Settings.model_construct(**{**pairs.settings(), "model_server_key": key})
    for use in (
        lambda: tls.server_context(pairs.client.certificate, key),
        lambda: tls.channel_credentials(settings),
    ):
        with pytest.raises(OSError, match=f"{key} are not a certificate and its private key"):
            use()


@pytest.mark.e2e
def test_gateway_process_follows_a_renewed_secret(
    tls_model_server: str, pairs: Pairs, tmp_path: Path
) -> None:
    """The kubelet moves the link `..data` to the folder of the Secret's new state."""

    def publish(pair: Pair, state: str) -> None:
        (tmp_path / state).mkdir()
        shutil.copy(pair.certificate, tmp_path / state / "tls.crt")
        shutil.copy(pair.key, tmp_path / state / "tls.key")
        (tmp_path / "new").symlink_to(state)
        (tmp_path / "new").rename(tmp_path / "..data")

    publish(pairs.server, "..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    port = free_port()
    environment = {
        "DIGITS_PORT": str(port),
        "DIGITS_MODEL_SERVER": tls_model_server,
        "DIGITS_TLS_CERTIFICATE": str(tmp_path / "tls.crt"),
        "DIGITS_TLS_KEY": str(tmp_path / "tls.key"),
    }

    def shown() -> tuple[str, float]:
        """Return the certificate of a new handshake, and the expiry among the metrics."""
        certificate = ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
        metrics = httpx.get(f"https://127.0.0.1:{port}/metrics", verify=False).text
        (expiry,) = re.findall(r"^digits_tls_certificate_expiry_\w+ (\S+)", metrics, re.M)
        return certificate, float(expiry)

    def shown_is(expected: list[tuple[str, float]]) -> bool:
        return [shown() for _ in expected] == expected

    renewed = certificates.ending(pairs.client, tmp_path / "renewed", datetime.now(UTC) + timedelta(hours=9))
    with running("gateway", environment=environment) as process:
        wait_until(lambda: accepts(port), process)
        for state, pair in (("", pairs.server), ("..2", renewed)):
            if state:
                publish(pair, state)
            expected = [(pair.certificate.read_text(), tls.expiry(pair.certificate, pair.key))] * 8
            wait_until(partial(shown_is, expected), process)


@pytest.mark.e2e
def test_gateway_process_with_certificate_answers_over_tls_only(
    tls_model_server: str, pairs: Pairs, digits: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    port, server = free_port(), pairs.server
    settings: dict[str, Any] = {"port": port, "model_server": tls_model_server, **pairs.settings()}
    settings |= {"tls_certificate": server.certificate, "tls_key": server.key}
    environment = {f"DIGITS_{name.upper()}": str(value) for name, value in settings.items()}
    trust = ssl.create_default_context(cafile=server.certificate)
    with (
        running("gateway", environment=environment) as process,
        httpx.Client(base_url=f"https://localhost:{port}", verify=trust) as http,
    ):
        wait_until(lambda: accepts(port), process)
        assert http.get("/readyz").status_code == 200
        assert probe(port=port, tls_certificate=server.certificate) == (0, "")
        (expiry,) = re.findall(r"^digits_tls_certificate_expiry_\w+ (\S+)", http.get("/metrics").text, re.M)
        assert float(expiry) == tls.expiry(server.certificate, server.key)
        headers = {"Content-Type": "image/png"}
        answer = http.post("/v1/predict", content=to_png(digits.one(7)), headers=headers)
        assert answer.json()["predictions"][0]["digit"] == 7
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://localhost:{port}/livez")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://localhost:{port}/livez")
    foreign = pairs.settings() | {"model_server_ca": pairs.client.certificate}
    for wrong in ({}, {"model_server_ca": server.certificate}, foreign):
        client = greenlet_loop.client(Settings(model_server=tls_model_server, **wrong))
        assert client.get("/v1/models").status_code == 503, wrong
    assert "eof_received" not in capfd.readouterr().err
