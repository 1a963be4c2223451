"""Published models and versions on disk."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from digit_client import TaskCard
from digit_serving.releases.config import ReleaseError, ensure_config
from digit_serving.releases.versions import (
    PublishedModel,
    PublishedVersion,
    find_model,
    list_models,
    list_versions,
    remove_leftovers,
)


@pytest.fixture
def version(tmp_path: Path) -> PublishedVersion:
    extra = tmp_path / "1" / "assets.extra"
    extra.mkdir(parents=True)
    (extra / "model.json").write_text('{"accuracy": 0.5}')
    (tmp_path / "1" / "saved_model.pb").write_bytes(bytes(100))
    return PublishedVersion(1, tmp_path / "1")


def test_list_versions_returns_numbered_folders_newest_first(tmp_path: Path) -> None:
    for name in ("2", "00010", "9", "canary", "1.5", "-3", "²", ".publishing-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    found = list_versions(tmp_path)
    assert list(found) == [10, 9, 2]
    assert found[10].path == tmp_path / "00010"
    assert list_versions(tmp_path / "none") == {}


def publish(folder: Path, version: int, task: str | None = None) -> None:
    """Write a version with a model card; `task` is the name in its task card."""
    extra = folder / str(version) / "assets.extra"
    extra.mkdir(parents=True)
    card: dict[str, Any] = {"created": "2026-11-25"}
    if task:
        card["task"] = TaskCard(task, ("left", "right"), (8, 6), (0.0, 1.0)).to_document()
    (extra / "model.json").write_text(json.dumps(card))


def test_list_models_of_folder_of_versions_returns_its_model(tmp_path: Path) -> None:
    publish(tmp_path, 1, "earlier")
    publish(tmp_path, 2, "flowers")
    (tmp_path / "3").mkdir()  # a damaged version without a card
    publish(tmp_path / "nested", 1)
    assert list_models(tmp_path) == [PublishedModel("flowers", tmp_path, tmp_path)]


def test_list_models_of_several_folders_returns_them_by_name(tmp_path: Path) -> None:
    publish(tmp_path / "a", 1, "zebras")
    publish(tmp_path / "b", 1)
    (tmp_path / "empty").mkdir()
    assert list_models(tmp_path) == [
        PublishedModel("digits", tmp_path / "b", tmp_path),
        PublishedModel("zebras", tmp_path / "a", tmp_path),
    ]
    assert list_models(tmp_path / "empty") == []


def test_list_models_of_the_same_name_raises(tmp_path: Path) -> None:
    for name in ("a", "b"):
        publish(tmp_path / name, 1, "flowers")
    with pytest.raises(ReleaseError, match="have models of the same name, flowers"):
        list_models(tmp_path)


@pytest.mark.parametrize("task", [None, 1, {}, {"name": "x"}])
def test_list_models_with_an_invalid_task_card_raises(tmp_path: Path, task: object) -> None:
    publish(tmp_path, 1)
    (tmp_path / "1" / "assets.extra" / "model.json").write_text(json.dumps({"task": task}))
    with pytest.raises(ReleaseError, match=r"1 has an invalid task card in its model\.json: .* lacks"):
        list_models(tmp_path)


@pytest.mark.parametrize("name", ["a,b", "a\nb", " "])
def test_list_models_with_an_invalid_name_raises(tmp_path: Path, name: str) -> None:
    publish(tmp_path / "a", 1, "flowers")
    publish(tmp_path / "b", 1, name)
    with pytest.raises(ReleaseError, match="name must consist of letters") as caught:
        list_models(tmp_path)
    assert "\n" not in str(caught.value)


def test_find_model_names_the_folder_of_the_models_config_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "flowers"
    publish(folder, 1, "flowers")
    assert find_model(folder, None).root == folder
    ensure_config(tmp_path, {"flowers": folder}, print)
    assert find_model(folder, None).root == tmp_path
    ensure_config(folder, {"flowers": folder}, print)
    assert find_model(folder, None).root == folder


def test_find_model_returns_the_named_or_only_model(tmp_path: Path) -> None:
    for name in ("flowers", "colors"):
        publish(tmp_path / name, 1, name)
    assert find_model(tmp_path, "flowers").path == tmp_path / "flowers"
    assert find_model(tmp_path / "flowers", None).name == "flowers"
    refused: list[tuple[Path, str | None, str]] = [
        (tmp_path, None, "has several models; choose one with --model: colors, flowers"),
        (tmp_path, "digits", "has no model named digits, but colors, flowers"),
        (tmp_path / "none", None, "has no model; create one with"),
    ]
    for folder, wanted, message in refused:
        with pytest.raises(ReleaseError, match=message):
            find_model(folder, wanted)


def test_published_version_has_card_and_size(version: PublishedVersion) -> None:
    assert version.card() == {"accuracy": 0.5}
    assert version.size() == 117


@pytest.mark.parametrize("content", ["", "[1]", "\udcff"])
def test_card_missing_or_unreadable_is_empty(version: PublishedVersion, content: str) -> None:
    path = version.path / "assets.extra" / "model.json"
    path.write_text(content, errors="surrogateescape")
    assert version.card() == {}
    path.unlink()
    assert version.card() == {}


def test_remove_leaves_nothing(version: PublishedVersion) -> None:
    version.remove()
    assert list(version.path.parent.iterdir()) == []


def test_remove_killed_leaves_no_version_and_remove_leftovers_cleans_up(version: PublishedVersion) -> None:
    # The process is killed when it deletes the first file.
    code = """
import os, signal, sys
from pathlib import Path
from digit_serving.releases.versions import PublishedVersion
sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.remove" else None)
PublishedVersion(1, Path(sys.argv[1])).remove()
"""
    assert subprocess.run([sys.executable, "-c", code, version.path]).returncode == -9
    (leftover,) = version.path.parent.iterdir()
    assert not leftover.name.isdigit()
    assert list_versions(version.path.parent) == {}
    remove_leftovers(version.path.parent)
    assert list(version.path.parent.iterdir()) == []
