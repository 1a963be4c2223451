"""Changes of labels: who moved which label, and the version to which a rollback returns."""

import socket
import sys
from datetime import UTC, datetime, timedelta

import pytest

from digit_core.artifact.models_folder import ModelsFolder
from tests.core.artifact.folders import move_label, publish

HOUR = timedelta(hours=1)


def test_previous_after_a_return_is_the_version_before_that(folder: ModelsFolder) -> None:
    publish(folder, 4)
    move_label(folder, 3, "canary")
    for version, previous in ((2, 1), (3, 2), (2, 1), (4, 2), (2, 1), (1, None), (3, 1)):
        move_label(folder, version)
        assert folder.previous("digits", "stable", version) == previous
    assert folder.needed("digits", {"stable": 3, "canary": 3}) == {1, 3}


def test_previous_after_a_change_that_was_killed_before_its_line_is_known(folder: ModelsFolder) -> None:
    publish(folder, 3)
    move_label(folder, 2)
    for version, previous in ((3, 2), (1, None)):
        folder.config_path.write_text(str(folder.read_config().with_label("digits", "stable", version)))
        assert folder.previous("digits", "stable", version) == previous
    # The next line tells of the missing change.
    move_label(folder, 3)
    assert folder.previous("digits", "stable", 3) == 1


def test_previous_of_a_model_that_was_removed_and_published_anew_is_unknown(folder: ModelsFolder) -> None:
    publish(folder, 2)
    move_label(folder, 2)
    folder.write_config(folder.read_config().without("digits"))
    folder.remove("digits")
    publish(folder)
    assert folder.previous("digits", "stable", 1) is None


def test_each_change_of_a_label_is_a_line_and_no_other_change_is(
    folder: ModelsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_USER", "ann")
    monkeypatch.setattr(sys, "argv", ["/bin/digits", "models", "promote", "2"])
    publish(folder, 2)
    publish(folder, 1, "fashion")
    move_label(folder, 2)
    move_label(folder, 2)
    move_label(folder, 1, "canary")
    path = folder.root / "models.changes.jsonl"
    path.write_text(path.read_text() + "torn\n[]\n")
    with folder.lock():
        folder.write_config(folder.read_config().without("fashion"))
    assert [(each.model, each.label, each.previous, each.version) for each in folder.changes()] == [
        ("digits", "stable", None, 1),
        ("fashion", "stable", None, 1),
        ("digits", "stable", 1, 2),
        ("digits", "canary", None, 1),
        ("fashion", "stable", 1, None),
    ]
    assert {(each.by, each.command) for each in folder.changes()} == {("ann", "digits models promote 2")}
    assert all(abs(datetime.now(UTC) - datetime.fromisoformat(each.time)) < HOUR for each in folder.changes())


def test_changes_of_a_command_with_secrets_have_none(
    folder: ModelsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIGITS_USER", raising=False)
    url = "postgresql://eve:secret@db/feedback?password=secret"
    monkeypatch.setattr(sys, "argv", ["__main__.py", "train", "--feedback", url, f"--feedback={url}"])
    publish(folder)
    (change,) = folder.changes()
    assert change.command == (
        "digits train --feedback postgresql://db/feedback --feedback=postgresql://db/feedback"
    )
    assert change.by.endswith(f"@{socket.gethostname()}")
