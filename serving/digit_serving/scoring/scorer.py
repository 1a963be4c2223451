"""Scorer: a function of a table of images to a table of their rows, for any pool of workers."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from operator import itemgetter
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from digit_client import ModelServerClient
from digit_core.tables import to_row
from digit_serving.scoring.expectations import OWN
from digit_serving.scoring.files import open_folder
from digit_serving.scoring.rows import PREDICTIONS, READINGS

_CALLS = 2
"""Calls at a time: images are read and prepared for one while the model server answers the other."""
_DOWNLOADS = 32
"""Images of an object store that are read at a time."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Function of a table of images, in the columns of `files.LISTING`, to a table of their rows.

    Columns `expect` and `check` have options of single images, in place of those of all.

    The images lie on the filesystem of `source`, a path or URL; `target` is the model server's gRPC address,
    `timeout` in seconds bounds a call with all its retries. `version` is in every row. With `read` the rows
    are readings, in the columns of `rows.READINGS`, or predictions, in those of `rows.PREDICTIONS`.

    Errors of an image, of reading it or of the model server are rows; none is raised. Few images are in
    memory. A Scorer can be pickled: pools and Spark send it to their workers.
    """

    source: str
    target: str
    model: str
    version: int
    read: bool = False
    timeout: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of each call, of CallOptions or ReadOptions."""

    def __call__(self, images: pa.Table) -> pa.Table:
        """Return a row for each image, or for each field of its form, in their order."""
        listed = images.to_pylist()
        client = _connect(self.target, self.model, self.timeout)
        ask: Any = partial(client.iter_read if self.read else client.iter_predict, **self.options)
        own = [{name: image[name] for name in OWN if image.get(name)} for image in listed]
        sources = zip(self._open([image["path"] for image in listed]), own, strict=True)
        answers = sorted(ask(sources, concurrency=_CALLS, version=self.version), key=itemgetter(0))
        fields = [{"field": name} for name in self.options.get("form") or (None,)]
        places = list(itertools.product(listed, fields))
        constant = {"model": self.model, "version": self.version}
        rows = [
            {**to_row(outcome), **picture, **field, **constant}
            for (picture, field), (_, outcome) in zip(places, answers, strict=True)
        ]
        return pa.Table.from_pylist(rows, READINGS if self.read else PREDICTIONS)

    def _open(self, paths: Sequence[str]) -> Iterator[Any]:
        """Yield each local path, which the client reads, and of other images the bytes or the OSError."""
        filesystem, _ = open_folder(self.source)
        if isinstance(filesystem, LocalFileSystem):
            yield from paths
            return
        for start in range(0, len(paths), _DOWNLOADS):
            # Concurrent. Unlike `cat`, it takes brackets and asterisks as parts of names.
            group = paths[start : start + _DOWNLOADS]
            for content in filesystem.cat_ranges(group, None, None, on_error="return"):
                yield content if isinstance(content, (bytes, OSError)) else OSError(str(content))


@cache
def _connect(target: str, model: str, timeout: float) -> ModelServerClient:
    """Return this process's client, which keeps its connection and the task card."""
    return ModelServerClient(target, name=model, timeout=timeout)
