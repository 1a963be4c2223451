"""`digits models ls` and `show`."""

import json

import pytest

from tests.serving.releases.conftest import Service


def test_a_line_for_each_version(service: Service) -> None:
    service.promote(3)
    service.promote(3, "--label", "canary")
    (service.models / "12").mkdir()
    done = service.run("ls")
    assert (done.returncode, done.stderr) == (0, "")
    headings, *lines = done.stdout.splitlines()
    assert headings.split() == ["VERSION", "PUBLISHED", "ACCURACY", "STATE", "LABELS", "SIZE"]
    assert {len(line) for line in lines} == {len(headings)}
    assert [line.split()[0] for line in lines] == ["12", "3", "2", "1"]
    assert lines[0].split() == ["12", "–", "–", "–", "–", "0.0", "kB"]
    card = json.loads((service.models / "3" / "assets.extra" / "model.json").read_text())
    assert lines[1].split()[3:7] == [f"{card['accuracy']:.4f}", "AVAILABLE", "canary,", "stable"]
    for heading in ("PUBLISHED", "ACCURACY", "STATE", "LABELS"):
        assert all(line[headings.index(heading) - 1] == " " for line in lines)


def test_programs_get_json(service: Service) -> None:
    service.promote(3)
    document = json.loads(service.run("ls", "--json").stdout)
    assert (document["model"], document["reachable"]) == ("digits", True)
    newest, *rest = document["versions"]
    assert (newest["version"], newest["state"], newest["labels"]) == (3, "AVAILABLE", ["stable"])
    assert 0 < newest["accuracy"] <= 1
    assert newest["bytes"] > 100_000
    assert [(each["version"], each["state"], each["labels"]) for each in rest] == [
        (2, None, []),
        (1, None, []),
    ]


def test_without_a_server_there_are_no_states(published: Service) -> None:
    done = published.run("ls")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr.startswith(f"No states: the model server at 127.0.0.1:{published.port}")
    document = json.loads(published.run("ls", "--json").stdout)
    assert document["reachable"] is False
    assert {each["state"] for each in document["versions"]} == {None}


def test_the_card_is_told(published: Service) -> None:
    lines = published.run("show", 2).stdout.splitlines()
    figures = {line[:22].strip(): line[22:].strip() for line in lines}
    assert figures["parameters"] == "135,594"
    assert figures["canonical"] == "no"
    assert figures["data"] == ""
    assert float(figures["accuracy"]) > 0.9


@pytest.mark.parametrize("version", [9, 2])
def test_a_card_that_is_not_there_is_told(published: Service, version: int) -> None:
    (published.models / "2" / "assets.extra" / "model.json").unlink()
    done = published.run("show", version)
    assert done.returncode == 1
    assert ("has no model card" if version == 2 else "there is no version 9") in done.stderr


def test_an_empty_folder_has_only_headings(published: Service) -> None:
    done = published.run("ls", "--models", published.models / "none")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
