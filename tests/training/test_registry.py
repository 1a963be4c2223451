"""Model registry: numbering, atomic publication and concurrent publishers."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from digit_training import registry


def writer(text: str = "weights") -> Callable[[Path], None]:
    """Return a function that writes a version with this text as its weights."""

    def write(directory: Path) -> None:
        (directory / "variables").mkdir()
        (directory / "variables" / "data").write_text(text)

    return write


def test_publish_numbers_the_version_after_the_highest(tmp_path: Path) -> None:
    models = tmp_path / "models" / "digits"
    assert registry.latest_version(models) is None
    assert registry.publish(models, writer()) == models / "1"
    assert registry.publish(models, writer()) == models / "2"
    (models / "00009").mkdir()
    assert registry.publish(models, writer()) == models / "10"
    assert registry.latest_version(models) == models / "10"


def test_latest_version_ignores_names_that_are_not_numbers(tmp_path: Path) -> None:
    for name in (".publishing-1", "canary", "1.5", "-3", "²"):
        (tmp_path / name).mkdir()
    assert registry.latest_version(tmp_path) is None
    assert registry.publish(tmp_path, writer()).name == "1"


def test_publish_shows_no_version_before_it_is_complete(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        writer()(directory)
        assert registry.latest_version(tmp_path) is None
        assert not directory.name.isdigit()

    registry.publish(tmp_path, write)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_publish_failure_leaves_no_files(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        writer()(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.publish(tmp_path, write)
    assert list(tmp_path.iterdir()) == []


def test_publish_concurrently_gives_each_publisher_a_version(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def publish(text: str) -> None:
        def write(directory: Path) -> None:
            writer(text)(directory)
            barrier.wait()

        registry.publish(tmp_path, write)

    threads = [threading.Thread(target=publish, args=(str(index),)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(number) for number in range(1, 9)]
    texts = {(path / "variables" / "data").read_text() for path in tmp_path.iterdir()}
    assert texts == {str(index) for index in range(8)}


def test_publish_number_taken_while_writing_leaves_the_other_version_alone(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        writer("ours")(directory)
        registry.publish(tmp_path, writer("theirs"))

    assert registry.publish(tmp_path, write) == tmp_path / "2"
    assert (tmp_path / "1" / "variables" / "data").read_text() == "theirs"


def test_publish_with_umask_022_makes_the_version_readable_by_others(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        version = registry.publish(tmp_path, writer())
    finally:
        os.umask(umask)
    assert version.stat().st_mode & 0o777 == 0o755
