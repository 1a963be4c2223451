"""Models folder: publication, entry of copied versions, and repair before a start."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.models_folder import KEPT_VERSIONS, ModelsFolder
from digit_core.artifact.versions import ArtifactError
from tests.core.artifact.folders import move_label, publish, require_variables, write_files

FOREIGN = (
    'model_config_list { config { name: "digits" base_path: "/elsewhere" model_platform: "tensorflow" } }'
)


def prepare(folder: ModelsFolder) -> list[str]:
    """Prepare the folder, and return what is reported."""
    sentences: list[str] = []
    folder.prepare(sentences.append)
    for name in folder.names():
        folder.adopt(name, sentences.append)
    return sentences


def test_publish_first_version_is_stable_and_later_ones_are_loaded_beside_it(folder: ModelsFolder) -> None:
    publish(folder, 2)
    publish(folder, 1, "fashion")
    config = folder.read_config()
    assert folder.names() == ["digits", "fashion"]
    assert (config.listed("digits"), config.listed("fashion")) == ({1, 2}, {1})
    assert (config.labels("digits"), config.labels("fashion")) == ({"stable": 1}, {"stable": 1})
    assert config.base_paths == {name: folder.root.resolve() / name for name in ("digits", "fashion")}


def test_publish_beside_a_model_of_another_path_uses_that_path(folder: ModelsFolder) -> None:
    publish(folder)
    config = folder.read_config()
    folder.write_config(config.with_versions("digits", [1], Path("/models/digits")))
    publish(folder, 1, "fashion")
    assert folder.read_config().base_paths["fashion"] == Path("/models/fashion")


def test_publish_broken_version_publishes_nothing(folder: ModelsFolder) -> None:
    publish(folder)
    before = folder.config_path.read_text()
    with pytest.raises(ArtifactError, match="can't be served: no variables"):
        folder.publish("digits", lambda version: (version / "saved_model.pb").touch())
    assert list(folder.versions("digits")) == [1]
    assert folder.config_path.read_text() == before


def test_publish_keeps_the_newest_and_the_needed_versions(folder: ModelsFolder) -> None:
    publish(folder, 3)
    move_label(folder, 2)
    publish(folder, KEPT_VERSIONS)
    newest = {*range(4, 4 + KEPT_VERSIONS)}
    # The stable version, and the one that a rollback would return to.
    assert folder.read_config().listed("digits") == newest | {1, 2}
    assert len(folder.versions("digits")) == 3 + KEPT_VERSIONS


def test_publish_concurrently_gives_each_publisher_a_version(folder: ModelsFolder) -> None:
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(publish, [folder] * 5))
    assert folder.read_config().listed("digits") == {1, 2, 3, 4, 5}


def test_publish_leaves_a_foreign_file_alone(folder: ModelsFolder) -> None:
    folder.root.mkdir()
    folder.config_path.write_text(FOREIGN)
    publish(folder)
    assert prepare(folder) == []
    assert folder.config_path.read_text() == FOREIGN


def test_enter_verifies_a_copied_version(folder: ModelsFolder) -> None:
    publish(folder)
    write_files(folder.root / "digits" / "7")
    config = folder.enter(folder.read_config(), folder.version("digits", 7))
    assert folder.read_config() == config
    assert config.listed("digits") == {1, 7}
    (folder.root / "digits" / "8").mkdir()
    with pytest.raises(ArtifactError, match=r"digits/8 can't be served"):
        folder.enter(config, folder.version("digits", 8))
    assert folder.read_config().listed("digits") == {1, 7}
    # An entered version is not verified again.
    shutil.rmtree(folder.root / "digits" / "1" / "variables")
    folder.enter(config, folder.version("digits", 1))


def test_prepare_moved_folder_corrects_base_paths(folder: ModelsFolder, tmp_path: Path) -> None:
    publish(folder, 2)
    publish(folder, 1, "fashion")
    moved = ModelsFolder(folder.root.rename(tmp_path / "moved"), require_variables)
    write_files(moved.root / "alpha" / "1")
    assert prepare(moved) == ["Version 1 of alpha is stable: no other version of it was served."]
    config = moved.read_config()
    assert config.base_paths == {name: tmp_path / "moved" / name for name in ("alpha", "digits", "fashion")}
    assert (config.listed("digits"), config.labels("digits")) == ({1, 2}, {"stable": 1})


def test_prepare_without_a_file_enters_the_newest_version_that_can_be_served(folder: ModelsFolder) -> None:
    for number in (1, 2):
        write_files(folder.root / "digits" / str(number))
    (folder.root / "digits" / "3").mkdir()
    broken, stable = prepare(folder)
    assert "digits/3 can't be served" in broken
    assert stable == "Version 2 of digits is stable: no other version of it was served."
    assert folder.read_config().listed("digits") == {2}


def test_prepare_names_no_version_whose_files_are_missing(folder: ModelsFolder) -> None:
    publish(folder, 3)
    move_label(folder, 3)
    path = folder.root / "digits"
    os.truncate(path / "2" / "variables" / "variables.data-00000-of-00001", 0)
    shutil.rmtree(path / "3" / "variables")
    assert prepare(folder) == [
        f"{path / '2'} is damaged: variables/variables.data-00000-of-00001 is not as it was published, "
        "so it is not served; once it is restored, run `digits models verify 2 --model digits`",
        f"{path / '3'} is missing or incomplete, so it is not served; "
        "label stable needs another version: `digits models promote N --model digits`",
    ]
    assert folder.read_config().listed("digits") == {1}
    assert folder.read_config().labels("digits") == {"stable": 3}


def test_prepare_advises_no_promotion_without_a_version_to_promote(folder: ModelsFolder) -> None:
    publish(folder)
    path = folder.root / "digits" / "1"
    shutil.rmtree(path / "variables")
    assert prepare(folder)[0] == (
        f"{path} is missing or incomplete, so it is not served; once it is restored, run "
        "`digits models verify 1 --model digits`, or publish another version"
    )


def test_left_out_versions_are_labelled_or_newer_than_those_served(folder: ModelsFolder) -> None:
    publish(folder, 4)
    move_label(folder, 2, "canary")
    for number in (2, 3):
        shutil.rmtree(folder.root / "digits" / str(number) / "variables")
    write_files(folder.root / "digits" / "5")
    lines = prepare(folder)
    assert lines[0].endswith(
        "label canary needs another version: `digits models promote N --model digits --version-label canary`"
    )
    assert folder.left_out_versions() == [
        "Version 2 of the model digits is not served: it is missing or incomplete.",
        "Version 5 of the model digits is not served: it is not in models.config; `digits models verify 5 "
        "--model digits` adds it, or says why not.",
    ]


def test_prepare_with_load_names_no_version_that_fails_to_load(folder: ModelsFolder) -> None:
    publish(folder, 2)
    lines: list[str] = []

    def refuse(version: Path) -> None:
        if version.name == "2":
            raise ArtifactError(f"{version} is too large")

    picky = ModelsFolder(folder.root, refuse)
    assert not picky.prepare(lines.append)
    assert picky.prepare(lines.append, load=["digits"])
    assert lines == [
        f"{folder.root / 'digits' / '2'} is too large, so it is not served; "
        "once it is restored, run `digits models verify 2 --model digits`"
    ]
    assert folder.read_config().listed("digits") == {1}


def test_prepare_names_no_model_without_versions(folder: ModelsFolder) -> None:
    publish(folder)
    publish(folder, 1, "fashion")
    shutil.rmtree(folder.root / "fashion")
    assert prepare(folder)[-1] == (
        f"fashion has no version to serve; its entry in {folder.config_path} is removed"
    )
    assert list(folder.read_config().base_paths) == ["digits"]


def test_labelled_version_without_folder_is_an_error(folder: ModelsFolder) -> None:
    publish(folder)
    assert folder.labelled("digits", "canary") is None
    shutil.rmtree(folder.root / "digits" / "1")
    with pytest.raises(ArtifactError, match="version 1 does not exist in"):
        folder.labelled("digits")


def test_choose_names_the_models(folder: ModelsFolder) -> None:
    with pytest.raises(ArtifactError, match="has no model; create one with `digits train`"):
        folder.choose(None)
    publish(folder, 1, "reader")
    assert folder.choose(None) == "reader"
    publish(folder)
    assert (folder.choose(None), folder.classifiers()) == ("digits", ["digits"])
    publish(folder, 1, "fashion")
    assert folder.choose("fashion") == "fashion"
    with pytest.raises(ArtifactError, match=r"choose .*: digits, fashion, reader"):
        folder.choose(None)
    with pytest.raises(ArtifactError, match=r"has no model named shapes; it has digits, fashion, reader"):
        folder.choose("shapes")


def test_names_of_one_models_folder_tells_the_folder_above(folder: ModelsFolder) -> None:
    publish(folder)
    with pytest.raises(ArtifactError, match=rf"name the folder of all models: --models {folder.root}$"):
        ModelsFolder(folder.root / "digits").names()


def test_folders_without_a_model_name_are_not_served(folder: ModelsFolder) -> None:
    for name in ("2024", "a.b", "reader", "digits"):
        publish(folder, 1, name)
    (folder.root / "reader" / "1" / "assets.extra" / "model.json").write_text('{"task": {}}')
    assert (folder.names(), folder.choose(None)) == (["digits"], "digits")
    lines = prepare(folder)
    assert [line.partition(" ")[0] for line in lines] == [
        str(folder.root / name) for name in ("2024", "a.b", "reader")
    ]
    assert "neither a number nor 'reader'; publish the model under another" in lines[0]
    assert list(folder.read_config().base_paths) == ["digits"]


def test_read_config_invalid_names_the_file(folder: ModelsFolder) -> None:
    folder.root.mkdir()
    folder.config_path.write_text("models: []")
    with pytest.raises(ArtifactError, match=rf"^{folder.config_path}: invalid configuration"):
        folder.read_config()


def test_write_config_failure_keeps_the_old_file(folder: ModelsFolder) -> None:
    publish(folder)
    before = folder.config_path.read_text()
    (folder.root / ".models.config.new").mkdir()
    with folder.lock(), pytest.raises(OSError, match="Is a directory"):
        folder.write_config(ModelsConfig.empty())
    assert folder.config_path.read_text() == before


def test_lock_held_by_another_process_times_out(folder: ModelsFolder) -> None:
    publish(folder)
    blocked = pytest.raises(ArtifactError, match=r"locked by another process for 0\.2 s")
    with folder.lock(), blocked, folder.lock(timeout=0.2):
        pass
