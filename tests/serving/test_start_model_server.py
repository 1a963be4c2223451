"""Entry of the model server's container: the copy of models.config without damaged versions."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from tests.core.artifact.folders import write_files
from tests.processes import wait_until

SCRIPT = Path(__file__).parents[2] / "serving" / "config" / "start-model-server.sh"


@pytest.fixture
def folder(tmp_path: Path) -> ModelsFolder:
    """Models folder, which has been moved, with three versions of the digits and one of the reader."""
    folder = ModelsFolder(tmp_path / "before", verify=lambda _: None)
    for name in ("digits", "reader", "digits", "digits"):
        folder.publish(name, write_files)
    return ModelsFolder(folder.root.rename(tmp_path / "models"))


def start(folder: ModelsFolder, command: str) -> "subprocess.Popen[bytes]":
    """Start the script with a command in place of the server. Its log is the file `log`."""
    environment = {**os.environ, "DIGITS_MODELS": str(folder.root), "TMPDIR": str(folder.root.parent)}
    with (folder.root.parent / "log").open("w") as log:
        return subprocess.Popen(["bash", SCRIPT, "sh", "-c", command], env=environment, stderr=log)


def test_copy_names_whole_versions_and_folders_of_this_place(folder: ModelsFolder) -> None:
    digits, reader = folder.root / "digits", folder.root / "reader"
    (digits / "1").rename(digits / "0001")
    os.truncate(digits / "2" / "variables" / "variables.data-00000-of-00001", 1)
    shutil.rmtree(reader / "1" / "variables")
    assert start(folder, "exit 3").wait(20) == 3
    file = folder.root.parent / "models.config"
    copy, log = ModelsConfig.parse(file.read_text()), (folder.root.parent / "log").read_text()
    assert copy.base_paths == {"digits": digits}
    assert (copy.listed("digits"), copy.labels("digits")) == ({1, 3}, {"stable": 1})
    for path in (digits / "2", reader / "1"):
        assert f"{path} is missing or damaged, and not served: see `digits models ls`\n" in log


def test_copy_follows_the_file(folder: ModelsFolder) -> None:
    copy = folder.root.parent / "models.config"
    process = start(folder, "exec sleep 60")
    wait_until(copy.exists, process)
    with folder.lock():
        folder.write_config(folder.read_config().with_label("digits", "stable", 2))
    wait_until(lambda: ModelsConfig.parse(copy.read_text()).labels("digits") == {"stable": 2}, process)
    process.terminate()
    # The signal reaches the server itself.
    assert process.wait(20) == 128 + signal.SIGTERM


def test_versions_that_the_server_can_not_load_are_left_out_of_the_next_start(folder: ModelsFolder) -> None:
    copy = folder.root.parent / "models.config"
    error = "Failed to start server. Error: Unknown: 1 servable(s) did not become available: {{{name:"
    server = f"""
    grep -q 'versions: 3' {copy} && echo '{error} digits version: 3}} due to error: Not found}},
        {{{{name: reader version: 1}} due to error: Not found}}, }}' && exit 255
    grep -q 'versions: 2' {copy} && echo '{error} digits version: 2}} due to error: Lost}}, }}' && exit 255
    exit 7
    """
    assert start(folder, server).wait(20) == 7
    config = ModelsConfig.parse(copy.read_text())
    assert (config.listed("digits"), [*config.base_paths]) == ({1}, ["digits"])
    log = (folder.root.parent / "log").read_text()
    for name in ("digits/2", "digits/3", "reader/1"):
        assert f"{folder.root / name} can't be loaded, and is not served until the next start\n" in log


def test_foreign_file_is_copied_as_it_is(folder: ModelsFolder) -> None:
    folder.config_path.write_text("# Mine.\nmodel_config_list {}\n")
    error = "{name: digits version: 3} due to error: Not found"
    assert start(folder, f"echo '{error}'; exit 255").wait(20) == 255
    assert (folder.root.parent / "models.config").read_text() == "# Mine.\nmodel_config_list {}\n"
