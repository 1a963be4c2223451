import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from digit_training import registry


def content(text: str = "weights") -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "variables").mkdir()
        (directory / "variables" / "data").write_text(text)

    return write


def test_each_publication_is_the_next_number(tmp_path: Path) -> None:
    models = tmp_path / "models" / "digits"
    assert registry.latest(models) is None
    assert registry.publish(models, content()) == models / "1"
    assert registry.publish(models, content()) == models / "2"
    (models / "00009").mkdir()
    assert registry.publish(models, content()) == models / "10"
    assert registry.latest(models) == models / "10"


def test_only_whole_numbers_are_versions(tmp_path: Path) -> None:
    for name in (".publishing-1", "canary", "1.5", "-3", "²"):
        (tmp_path / name).mkdir()
    assert registry.latest(tmp_path) is None
    assert registry.publish(tmp_path, content()).name == "1"


def test_nothing_is_visible_before_it_is_whole(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        content()(directory)
        assert registry.latest(tmp_path) is None
        assert not directory.name.isdigit()

    registry.publish(tmp_path, write)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        content()(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.publish(tmp_path, write)
    assert list(tmp_path.iterdir()) == []


def test_publishers_at_once_lose_nothing(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def publish(text: str) -> None:
        def write(directory: Path) -> None:
            content(text)(directory)
            together.wait()

        registry.publish(tmp_path, write)

    threads = [threading.Thread(target=publish, args=(str(index),)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(number) for number in range(1, 9)]
    texts = {(path / "variables" / "data").read_text() for path in tmp_path.iterdir()}
    assert texts == {str(index) for index in range(8)}


def test_a_number_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        content("ours")(directory)

    registry.publish(tmp_path, content("theirs"))
    registry.publish(tmp_path, write)
    assert (tmp_path / "1" / "variables" / "data").read_text() == "theirs"


def test_a_server_of_another_user_can_read_it(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        version = registry.publish(tmp_path, content())
    finally:
        os.umask(umask)
    assert version.stat().st_mode & 0o777 == 0o755
