"""Source of bulk scoring: images in a folder of any fsspec filesystem, with their ETags."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from digit_core.inputs import IMAGE_SUFFIXES

LISTING = pa.schema({"path": pa.string(), "etag": pa.string()})
"""Columns of a listing. `path` is an absolute path, or the URL of a file elsewhere. `etag` is the object
store's ETag, or modification time and size where there is none: another value means another content."""

_MODIFIED = ("mtime", "LastModified", "last_modified", "updated")
"""Keys of the modification time, as the filesystems of fsspec name it."""


def list_images(source: str) -> tuple[pa.Table, Counter[str]]:
    """Return the images of the folder and its subfolders, and the number of its other files by suffix.

    Raise FileNotFoundError if there is no such folder, OSError if one can't be listed: a listing without its
    images would make them look removed.
    """
    filesystem, root = open_folder(source)
    tables, others = [LISTING.empty_table()], Counter[str]()
    with as_os_errors(source):
        # At most one folder's dictionaries are in memory.
        for folder, _, infos in filesystem.walk(root, detail=True, on_error="raise"):
            rows = []
            for info in infos.values():
                suffix = PurePosixPath(info["name"]).suffix.lower()
                # An object store may list the folder's own marker, whose name is that of the folder.
                if info["name"].rstrip("/") == folder.rstrip("/"):
                    continue
                if suffix in IMAGE_SUFFIXES:
                    rows.append(_to_row(filesystem, info))
                else:
                    others[suffix or "without suffix"] += 1
            tables.append(pa.Table.from_pylist(rows, LISTING))
    return pa.concat_tables(tables), others


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
    return filesystem, os.path.abspath(path) if is_local else path.rstrip("/")  # noqa: PTH100


def absolute(url: str) -> str:
    """Return the absolute path of a folder, or its URL."""
    return _to_url(*open_folder(url)).rstrip("/")


@contextlib.contextmanager
def as_os_errors(path: str) -> Iterator[None]:
    """Turn other errors into OSError: filesystems raise those of their libraries, such as for credentials."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path}: {error}") from error


def _to_url(filesystem: Any, path: str) -> str:
    return path if isinstance(filesystem, LocalFileSystem) else str(filesystem.unstrip_protocol(path))


def _to_row(filesystem: Any, info: Mapping[str, Any]) -> dict[str, str]:
    if info.get("islink"):
        # The listing has the link's own time. A broken link stays as listed; reading it fails.
        with contextlib.suppress(OSError):
            info = filesystem.info(info["name"])
    # A name that is not UTF-8 can't be in a table. Its escaped form can, and makes an error row.
    path = _to_url(filesystem, info["name"]).encode(errors="surrogateescape")
    modified = next((info[key] for key in _MODIFIED if info.get(key)), "")
    etag = info.get("ETag") or info.get("etag") or f"{modified}-{info.get('size')}"
    return {"path": path.decode(errors="backslashreplace"), "etag": str(etag).strip('"')}
