"""Listing of images on any fsspec filesystem: paths and ETags."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
"""Suffixes of image files; other files in a folder are skipped."""

LISTING = pa.schema(
    [pa.field("path", pa.string(), nullable=False), pa.field("etag", pa.string(), nullable=False)]
)
"""Columns of a listing. `path` is an absolute path, or the URL of a file elsewhere. `etag` is the object
store's ETag, or modification time and size where there is none: another value means another content."""

_MODIFIED = ("mtime", "LastModified", "last_modified", "updated")
"""Keys of the modification time, as the filesystems of fsspec name it."""


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


@contextlib.contextmanager
def as_os_errors(path: str) -> Iterator[None]:
    """Turn other errors into OSError: filesystems raise those of their libraries, for credentials say."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path}: {error}") from error


def to_url(filesystem: Any, path: str) -> str:
    """Return the path, with its protocol unless it is local."""
    return path if isinstance(filesystem, LocalFileSystem) else str(filesystem.unstrip_protocol(path))


def absolute(url: str) -> str:
    """Return the absolute path of a folder, or its URL."""
    return to_url(*open_folder(url)).rstrip("/")


def without(listing: pa.Table, keys: pa.Table) -> pa.Table:
    """Return the images whose path and ETag are not among the keys, by path (an anti-join)."""
    return listing.join(keys, ["path", "etag"], join_type="left anti").sort_by("path").cast(LISTING)


def list_images(source: str) -> pa.Table:
    """Return the images in the folder and its subfolders, in the columns of LISTING.

    Raise FileNotFoundError if there is no such folder, OSError if one can't be listed: a listing without its
    images would make them look removed.
    """
    filesystem, root = open_folder(source)
    tables = [
        pa.Table.from_pylist([_to_row(filesystem, info) for info in infos], LISTING)
        for infos in _walk(filesystem, root)
    ]
    return pa.concat_tables(tables) if tables else LISTING.empty_table()


def _walk(filesystem: Any, root: str) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the images of each folder: at most one folder's listing is in memory."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with as_os_errors(folder):
                infos = filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            if folder == root:
                raise
            # The subfolder was removed in the meantime.
            continue
        # Object stores may list a folder's own marker in it.
        infos = [info for info in infos if info["name"].rstrip("/") != folder.rstrip("/")]
        folders += [info["name"] for info in infos if info["type"] == "directory"]
        yield [info for info in infos if info["type"] != "directory" and _is_image(info["name"])]


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _to_row(filesystem: Any, info: Mapping[str, Any]) -> dict[str, str]:
    if info.get("islink"):
        # The listing has the link's own time. A broken link stays as listed; reading it fails.
        with contextlib.suppress(OSError):
            info = filesystem.info(info["name"])
    # A name that is no UTF-8 can't be in a table. Its escaped form can, and makes an error row.
    path = to_url(filesystem, info["name"]).encode(errors="surrogateescape").decode(errors="backslashreplace")
    modified = next((info[key] for key in _MODIFIED if info.get(key)), "")
    etag = info.get("ETag") or info.get("etag") or f"{modified}-{info.get('size')}"
    return {"path": path, "etag": str(etag).strip('"')}
