"""Readiness probe of the gateway's image, as a process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from digit_serving.gateway import tls
from tests import certificates
from tests.processes import free_port


@contextmanager
def gateway(status: int, pair: certificates.Pair | None = None) -> Iterator[dict[str, str]]:
    """Answer /readyz with the status during the block; yield the gateway's settings."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(b"The model server does not answer.")

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        settings = {"DIGITS_HOST": "0.0.0.0", "DIGITS_PORT": str(server.server_port)}
        if pair:
            server.socket = tls.server_context(pair.certificate, pair.key).wrap_socket(
                server.socket, server_side=True
            )
            settings["DIGITS_TLS_CERTIFICATE"] = str(pair.certificate)
        Thread(target=server.serve_forever).start()
        try:
            yield settings
        finally:
            server.shutdown()


def probe(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "digit_serving.gateway.probe"]
    return subprocess.run(command, env=settings, capture_output=True, text=True)


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "tls"])
def test_probe_of_a_ready_gateway_succeeds(tmp_path: Path, encrypted: bool) -> None:
    pair = certificates.make(tmp_path, "server") if encrypted else None
    with gateway(200, pair) as settings:
        assert probe(settings).returncode == 0


def test_probe_of_a_gateway_without_model_server_tells_the_reason() -> None:
    with gateway(503) as settings:
        done = probe(settings)
    assert (done.returncode, done.stderr) == (1, "The model server does not answer.\n")


def test_probe_without_gateway_fails() -> None:
    done = probe({"DIGITS_PORT": str(free_port())})
    assert (done.returncode, "Connection refused" in done.stderr) == (1, True)
