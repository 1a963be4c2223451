"""`digits models verify`, `check`, the Jobs of `promote` and `rollback`, and mutual TLS."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests import certificates
from tests.serving.releases.conftest import Serve, Service


def test_verify_refuses_a_half_version(published: Service) -> None:
    half = published.copy(4)
    shutil.rmtree(half / "variables")
    result = published.run("verify", 4)
    assert result.exit_code == 1
    assert f"{half} can't be served: " in result.stderr
    assert published.config.listed("digits") == {1, 2, 3}


@pytest.mark.usefixtures("verified_by_files")
def test_verify_enters_a_whole_version_and_verifies_it_again(published: Service) -> None:
    whole = published.copy(4)
    assert published.run("verify", 4).output == f"{whole} can be served.\n"
    assert published.config.listed("digits") == {1, 2, 3, 4}
    assert published.config.labels("digits") == {"stable": 1}
    shutil.rmtree(whole / "variables")
    assert published.run("verify", 4).exit_code == 1


@pytest.mark.usefixtures("verified_by_files")
def test_verify_with_a_foreign_models_config_leaves_it_alone(published: Service) -> None:
    published.folder.config_path.write_text("# Mine.")
    assert "Digits did not write" in published.run("verify", 1).stdout
    assert published.folder.config_path.read_text() == "# Mine."


def test_check_corrects_a_copied_folder(published: Service) -> None:
    shutil.rmtree(published.versions / "2")
    root = published.folder.root.rename(published.folder.root.with_name("copied"))
    result = published.run("check", "--models", root)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{root / 'digits' / '2'} is missing or incomplete, and not served; "
        "once it is mended: `digits models verify 2 --model digits`\n"
    )
    text = (root / "models.config").read_text()
    assert f'base_path: "{root.resolve() / "digits"}"' in text
    assert "versions: 2" not in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("promote", 2, "--model", "fashion"), ["promote", "2", "--version-label", "stable"]),
        (("rollback", "--model", "fashion"), ["rollback", "--version-label", "stable"]),
    ],
)
def test_job_runs_the_command_in_the_cluster(
    published: Service, command: tuple[str, ...], words: list[str]
) -> None:
    result = published.run(*command, "--job", "--image", "registry/gateway:1")
    job = yaml.safe_load(result.stdout)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["digits", "models", *words, "--model", "fashion"]
    assert container["image"] == "registry/gateway:1"
    assert job["metadata"]["name"].startswith(f"{words[0]}-")
    assert job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "releases"


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
