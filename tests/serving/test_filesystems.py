"""Filesystems of fsspec: errors of unknown and missing ones."""

import sys

import pytest

from digit_serving.filesystems import open_folder


@pytest.mark.parametrize("url", ["nonsense://bucket/photos", "gs://bucket/photos"])
def test_open_folder_unknown_or_missing_filesystem_raises_os_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(OSError, match=url):
        open_folder(url)
