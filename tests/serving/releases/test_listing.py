"""`digits models ls`, `show` and `history`."""

import json
import re
import shutil

import pytest

from tests.processes import wait_until
from tests.serving.releases.conftest import Service


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


def test_ls_says_what_was_forced_or_not_checked_before_publication(published: Service) -> None:
    unchecked = {"accuracy": None, "checked": "not checked: no pictures", "forced": ["without --data"]}
    forced = {"accuracy": 0.5, "checked": "on 60 pictures", "forced": ["the accuracy is below the minimum"]}
    passed = {"accuracy": 0.5, "checked": "on 60 pictures", "forced": None}
    for number, card in enumerate((unchecked, forced, passed), 1):
        (published.versions / str(number) / "assets.extra" / "model.json").write_text(json.dumps(card))
    lines = published.run("ls").stdout.splitlines()
    assert [re.split(r"  +", line.strip())[2] for line in lines[1:]] == [
        *("0.5000", "0.5000 forced", "not checked: no pictures")
    ]


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


@pytest.mark.usefixtures("verified_by_files")
def test_history_lists_who_moved_which_label_newest_first(service: Service) -> None:
    service.promote(2)
    service.promote(3, "--version-label", "canary")
    service.run("rollback")
    assert service.run("promote", 2, "--gateway", "http://127.0.0.1:1", "--timeout", 1).exit_code == 1
    headings, *lines = service.run("history").stdout.splitlines()
    assert headings.split() == ["TIME", "MODEL", "LABEL", "FROM", "VERSION", "SHARE", "BY", "COMMAND"]
    assert [line.split()[2:6] for line in lines] == [
        ["digits", "stable", "2", "1"],
        ["digits", "canary", "–", "3"],
        ["digits", "stable", "1", "2"],
        ["digits", "stable", "–", "1"],
    ]
    assert len(service.run("history", "--model", "other").stdout.splitlines()) == 1
