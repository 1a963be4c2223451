"""Listing of images: local folders, links, and fsspec's in-memory filesystem in place of an object store."""

import os
import sys
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from digit_serving.scoring import files


def rows(source: object) -> dict[str, dict[str, Any]]:
    """Return the listing's rows by the names of their files."""
    return {row["path"].rpartition("/")[2]: row for row in files.list_images(str(source)).images.to_pylist()}


def test_list_images_returns_images_of_all_subfolders(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", "b/notes.txt", "png", ".hidden.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "folder.png").mkdir()
    listed = rows(tmp_path)
    assert listed.keys() == {"a.png", "c.JPG", "e.webp", ".hidden.gif"}
    assert listed["e.webp"]["path"] == str(tmp_path / "b/d/e.webp")


def test_list_images_counts_other_files_by_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "a.pgm", "b.SVG", "b/c.svg", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    listing = files.list_images(str(tmp_path))
    assert len(listing.images) == 2
    assert listing.others == {".svg": 2, "without suffix": 1}


@pytest.mark.parametrize("change", ["content", "time"])
def test_list_images_changed_file_has_another_etag(tmp_path: Path, change: str) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"1")
    os.utime(file, (0, 100))
    before = rows(tmp_path)["a.png"]["etag"]
    assert rows(tmp_path)["a.png"]["etag"] == before
    file.write_bytes(b"12")
    os.utime(file, (0, 100 if change == "content" else 101))
    assert rows(tmp_path)["a.png"]["etag"] != before


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
        assert sorted(files.list_images("memory://bucket").images["path"].to_pylist()) == [
            "memory:///bucket/b.png",
            "memory:///bucket/digits/a[1].png",
        ]
    finally:
        filesystem.rm("/bucket", recursive=True)


def test_without_returns_images_of_other_path_or_etag() -> None:
    listing = pa.Table.from_pylist([{"path": path, "etag": "1"} for path in "cab"], files.LISTING)
    keys = pa.table({"path": ["a", "b"], "etag": ["1", "2"]})
    assert files.without(listing, keys)["path"].to_pylist() == ["b", "c"]


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
