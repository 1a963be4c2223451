"""Filesystems of fsspec: folders on this machine and in object stores, by path or URL."""

import os
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


def open_folder(url: str) -> tuple[Any, str]:
    """Return the filesystem of a path or URL, which caches no listings, and the folder's path on it.

    Raise OSError for an unknown protocol, or one whose package is not installed.
    """
    try:
        filesystem, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise OSError(f"{url}: {error}") from error
    is_local = isinstance(filesystem, LocalFileSystem)
    # Unlike Path.resolve, abspath keeps symbolic links: a link's new target has changed pictures, not others.
    return filesystem, os.path.abspath(path) if is_local else path  # noqa: PTH100
