"""`digits models verify`, `check`, `ls` and `show`, and mutual TLS."""

import json
import shutil
from pathlib import Path

import pytest

from tests import certificates
from tests.processes import wait_until
from tests.serving.releases.conftest import Serve, Service


@pytest.mark.usefixtures("verified_by_files")
def test_verify_enters_a_whole_version_and_verifies_it_again(published: Service) -> None:
    whole = published.copy(4)
    assert published.run("verify", 4).output == f"{whole} can be served.\n"
    assert published.config.listed("digits") == {1, 2, 3, 4}
    assert published.config.labels("digits") == {"stable": 1}
    shutil.rmtree(whole / "variables")
    result = published.run("verify", 4)
    assert (result.exit_code, result.stderr) == (1, f"Error: {whole} can't be served: no variables\n")


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
        f"{root / 'digits' / '2'} is missing or incomplete, so it is not served; "
        "once it is restored, run `digits models verify 2 --model digits`\n"
    )
    text = (root / "models.config").read_text()
    assert f'base_path: "{root.resolve() / "digits"}"' in text
    assert "versions: 2" not in text


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


def test_ls_prints_a_table_newest_first(service: Service) -> None:
    service.promote(3)
    service.promote(3, "--version-label", "canary")
    (service.versions / "12").mkdir()
    shutil.copytree(service.versions / "1", service.folder.root / "shapes" / "1")
    result = service.run("ls", "--model", "digits")
    assert result.exit_code == 0
    assert result.stderr == (
        "The model shapes is not served: version 1 is not in models.config; "
        "`digits models verify 1 --model shapes` adds it, or says why not\n"
    )
    shutil.rmtree(service.folder.root / "shapes")
    headings, *lines = result.stdout.splitlines()
    assert headings.split() == ["VERSION", "PUBLISHED", "ACCURACY", "STATE", "LABELS", "SIZE"]
    assert {len(line) for line in lines} == {len(headings)}
    assert [line.split()[0] for line in lines] == ["12", "3", "2", "1"]
    assert lines[0].split() == ["12", "–", "–", "not", "entered", "–", "0.0", "kB"]
    assert lines[1].split()[3:7] == ["0.9712", "AVAILABLE", "canary,", "stable"]
    document = json.loads(service.run("ls", "--json").stdout)
    assert (document["model"], document["reachable"]) == ("digits", True)
    row = document["versions"][1]
    assert (row["version"], row["state"], row["labels"]) == (3, "AVAILABLE", ["canary", "stable"])
    assert (row["accuracy"], row["bytes"]) == (0.9712, service.folder.version("digits", 3).size())


def test_ls_marks_accuracies_on_other_pictures_than_the_stable_versions(published: Service) -> None:
    for number, checksum in ((1, "a"), (2, "b"), (3, "a")):
        file = published.versions / str(number) / "assets.extra" / "model.json"
        file.write_text(json.dumps({"accuracy": 0.5, "data": {"test_checksum": checksum}}))
    _, *lines, note = published.run("ls").stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["0.5000", "0.5000*", "0.5000"]
    assert note == (
        "* marks an accuracy measured on different test pictures than version 1's; don't compare it"
    )
    rows = json.loads(published.run("ls", "--json").stdout)["versions"]
    assert [row["pictures"] for row in rows] == ["a", "b", "a"]


def test_ls_says_why_versions_are_not_served(service: Service) -> None:
    # The server loads a version without checksums whose graph is broken, and fails.
    (service.copy(4) / "saved_model.pb").write_bytes(b"none")
    with service.folder.lock():
        service.folder.enter(service.config, service.folder.version("digits", 4))
    wait_until(lambda: "not served" in service.run("ls").stderr, seconds=20)
    assert service.run("ls").stderr.startswith("Version 4 is not served: Cannot parse file")
    row, *_ = json.loads(service.run("ls", "--json").stdout)["versions"]
    assert (row["version"], row["state"], row["reason"][:17]) == (4, "END", "Cannot parse file")


def test_ls_without_server_tells_what_is_missing_and_not_entered(published: Service) -> None:
    shutil.rmtree(published.versions / "1")
    (published.versions / "4").mkdir()
    result = published.run("ls")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"States are unknown: the model server at 127.0.0.1:{published.port}")
    document = json.loads(published.run("ls", "--json").stdout)
    assert document["reachable"] is False
    assert [(row["version"], row["state"], row["labels"]) for row in document["versions"]] == [
        (4, "not entered", []),
        (3, None, []),
        (2, None, []),
        (1, "missing", ["stable"]),
    ]


def test_ls_and_show_choose_a_model_of_several_by_name(published: Service) -> None:
    root, pixels = published.folder.root, {"shape": [8, 6], "range": [0, 1]}
    task = {"name": "flowers", "labels": ["daisy", "rose"], "input": pixels}
    shutil.copytree(published.versions / "1", root / "flowers" / "4")
    (root / "flowers" / "4" / "assets.extra" / "model.json").write_text(json.dumps({"task": task}))
    document = json.loads(published.run("ls", "--json", "--model", "flowers").stdout)
    assert (document["model"], [row["version"] for row in document["versions"]]) == ("flowers", [4])
    assert "  labels   daisy, rose\n" in published.run("show", 4, "--model", "flowers").stdout
    result = published.run("show", 1, "--model", "flowers")
    assert f"version 1 does not exist in {root / 'flowers'}" in result.stderr
    result = published.run("ls")
    assert result.exit_code == 1
    assert "has several models; choose one with --model: digits, flowers" in result.stderr


def test_show_prints_the_card(published: Service) -> None:
    assert published.run("show", 2).stdout.splitlines() == [
        "created     2026-11-25T03:18:10+00:00",
        "accuracy    0.9712",
        "parameters  135,594",
        "canonical   no",
        "error       –",
        "data",
        "  name      MNIST",
        "  digits    5,000",
    ]


def test_show_without_version_or_card_fails(published: Service) -> None:
    (published.versions / "2" / "assets.extra" / "model.json").unlink()
    for version, message in ((9, "version 9 does not exist in"), (2, "has no model card")):
        result = published.run("show", version)
        assert (result.exit_code, message in result.stderr) == (1, True)
