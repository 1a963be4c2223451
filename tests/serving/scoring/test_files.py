"""Listing of images: local folders, links, and fsspec's in-memory filesystem in place of an object store."""

import os
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from digit_serving.scoring import files


def rows(source: object) -> dict[str, dict[str, Any]]:
    """Return the listing's rows by the names of their files."""
    images, _ = files.list_images(str(source))
    return {row["path"].rpartition("/")[2]: row for row in images.to_pylist()}


def test_list_images_returns_images_of_all_subfolders_and_counts_other_files(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", "b/f.SVG", "g.svg", "png", ".hidden.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "folder.png").mkdir()
    images, others = files.list_images(str(tmp_path))
    names = ("a.png", "b/c.JPG", "b/d/e.webp", ".hidden.gif")
    assert {*images["path"].to_pylist()} == {str(tmp_path / name) for name in names}
    assert others == {".svg": 2, "without suffix": 1}


def test_list_images_changed_file_has_another_etag(tmp_path: Path) -> None:
    def etag(content: bytes, time: int) -> str:
        (tmp_path / "a.png").write_bytes(content)
        os.utime(tmp_path / "a.png", (0, time))
        return str(rows(tmp_path)["a.png"]["etag"])

    before = etag(b"1", 100)
    assert etag(b"1", 100) == before
    assert before not in (etag(b"12", 100), etag(b"1", 101))


def test_list_images_link_has_etag_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    target = tmp_path / "target"
    target.write_bytes(b"123")
    (tmp_path / "in" / "a.png").symlink_to(target)
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "none")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    before = rows(tmp_path / "in")
    os.utime(target, (0, 100))
    after = rows(tmp_path / "in")
    assert after.keys() == {"a.png", "broken.png"}
    assert after["a.png"]["etag"] != before["a.png"]["etag"]


def test_list_images_name_that_is_no_utf8_is_escaped(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb"):  # noqa: PTH123
        pass
    assert rows(tmp_path).keys() == {r"caf\xe9.png"}


def test_list_images_elsewhere_returns_urls() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/bucket/digits/a[1].png", b"1")
    filesystem.pipe_file("/bucket/b.png", b"22")
    try:
        images, _ = files.list_images("memory://bucket")
        paths = {f"memory:///bucket/{name}" for name in ("b.png", "digits/a[1].png")}
        assert {*images["path"].to_pylist()} == paths
    finally:
        filesystem.rm("/bucket", recursive=True)


def test_list_images_foreign_error_is_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("no credentials")

    monkeypatch.setattr(LocalFileSystem, "ls", fail)
    with pytest.raises(OSError, match="no credentials"):
        files.list_images(str(tmp_path))


@pytest.mark.parametrize("url", ["nonsense://bucket/photos", "gs://bucket/photos"])
def test_open_folder_unknown_or_missing_filesystem_raises_os_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(OSError, match=url):
        files.open_folder(url)
