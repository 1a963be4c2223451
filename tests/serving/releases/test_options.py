"""Options of `digits models` that name its services: addresses, and files for mutual TLS."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from digit_serving.releases.cli import models
from tests import certificates
from tests.serving.releases.conftest import Serve, Service

NO_SERVICE: dict[str, str | None] = {"DIGITS_MODEL_SERVER": None, "DIGITS_URL": None}


def test_commands_use_the_client_certificate(serve: Serve, tmp_path: Path) -> None:
    server, client = (certificates.make(tmp_path, name) for name in ("server", "client"))
    config = certificates.ssl_config(tmp_path, server, client)
    service = serve(f"--ssl_config_file={config}")
    tls_options = ("--ca", server.certificate, "--certificate", client.certificate, "--key", client.key)
    assert service.run("promote", 2, *tls_options).stdout.endswith("Version 2 is stable.\n")
    assert "AVAILABLE" in service.run("ls", *tls_options).stdout
    for incomplete in ((), tls_options[:2]):
        assert "States are unknown" in service.run("ls", *incomplete).stderr


@pytest.mark.parametrize("given", [["certificate"], ["ca", "key"], ["certificate", "key"]])
def test_incomplete_tls_options_are_a_usage_error(
    published: Service, tmp_path: Path, given: list[str]
) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    result = published.run("ls", *(word for name in given for word in (f"--{name}", file)))
    assert result.exit_code == 2
    assert "--certificate needs --key and --ca" in result.stderr


def test_change_without_a_known_service_asks_none(published: Service) -> None:
    config, root = published.config, published.folder.root
    for command in (["promote", "2"], ["rollback"], ["prune"], ["remove", "digits", "--yes"]):
        result = CliRunner().invoke(models, [*command, "--models", str(root)], env=NO_SERVICE)
        assert result.exit_code == 1
        assert f"Error: no `digits up` is running with {root}: start it with `digits up" in result.stderr
        assert "--offline" in result.stderr
    assert published.config == config
    listed = CliRunner().invoke(models, ["ls", "--models", str(root)], env=NO_SERVICE)
    assert "States are unknown: no `digits up` is running with " in listed.stderr
    assert "--offline" not in listed.stderr
