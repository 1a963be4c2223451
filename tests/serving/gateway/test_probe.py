"""Readiness probe of the gateway's image, as a process; test_tls.py has one with TLS."""

import socket
from threading import Thread

import pytest

from digit_serving.gateway import probe as probe_module
from tests.processes import free_port, gateway_process
from tests.serving.gateway.helpers import probe
from tests.serving.gateway.stub_model_server import StubModelServer


def test_probe_succeeds_if_ready_and_tells_the_reason_otherwise(stub: StubModelServer) -> None:
    with gateway_process(stub.target) as gateway:
        assert probe(host="127.0.0.1", port=gateway.port) == (0, "")
        stub.close()
        status, reason = probe(port=gateway.port)
        assert (status, "The model server does not answer." in reason) == (1, True)
    status, reason = probe(port=free_port())
    assert (status, "Connection refused" in reason) == (1, True)


def test_probe_of_every_address_uses_ipv4(stub: StubModelServer) -> None:
    with gateway_process(stub.target, host="::") as gateway:
        assert probe(host="::", port=gateway.port) == (0, "")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        status, reason = probe(host="::", port=server.getsockname()[1])
    assert (status, "Connection refused" in reason) == (1, True)


@pytest.mark.parametrize(("answer", "reason"), [(b"nonsense\r\n\r\n", "nonsense"), (b"", "timed out")])
def test_probe_of_another_service_tells_the_reason(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    monkeypatch.setattr(probe_module, "_TIMEOUT_SECONDS", 1.0)
    monkeypatch.delenv("DIGITS_HOST", raising=False)
    monkeypatch.delenv("DIGITS_TLS_CERTIFICATE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("DIGITS_PORT", str(server.getsockname()[1]))
        probing: list[str | None] = []
        thread = Thread(target=lambda: probing.append(probe_module.main()))
        thread.start()
        connection, _ = server.accept()
        with connection:
            connection.sendall(answer)
            thread.join(10)
    assert len(probing) == 1, "the probe hangs"
    assert reason in (probing[0] or "")
