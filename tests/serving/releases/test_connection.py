"""How `digits models` reaches a model server that speaks TLS and lets in nobody else."""

from pathlib import Path

import pytest

from tests import certificates
from tests.serving.releases.conftest import Serve, Service


def test_it_shows_its_certificate(serve: Serve, tmp_path: Path) -> None:
    server, client = (certificates.make(tmp_path, name) for name in ("server", "client"))
    config = certificates.ssl_config(tmp_path, server, client)
    service = serve("--model_config_file_poll_wait_seconds=1", f"--ssl_config_file={config}")
    own = ("--ca", server.certificate, "--certificate", client.certificate, "--key", client.key)
    assert service.run("promote", 2, *own).stdout.endswith("Version 2 is stable.\n")
    assert "AVAILABLE" in service.run("ls", *own).stdout
    for unknown in ((), own[:2]):
        assert "No states" in service.run("ls", *unknown).stderr


@pytest.mark.parametrize("given", [["certificate"], ["ca", "key"], ["certificate", "key"]])
def test_half_of_it_is_refused(published: Service, tmp_path: Path, given: list[str]) -> None:
    files = certificates.make(tmp_path, "client")
    which = {"ca": files.certificate, "certificate": files.certificate, "key": files.key}
    done = published.run("ls", *(word for name in given for word in (f"--{name}", which[name])))
    assert done.returncode == 2
    assert "--certificate and --key go together, and with --ca" in done.stderr
