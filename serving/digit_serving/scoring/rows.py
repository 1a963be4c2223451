"""Sink of bulk scoring: schemas, atomic writes, and one row for each image."""

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.utils import get_protocol
from pyarrow import csv, parquet
from pyarrow.dataset import dataset

from digit_core.artifact import versions
from digit_core.errors import ImageError
from digit_core.results import Prediction, Reading
from digit_core.tables import least_sure_first, schema
from digit_serving.errors import DigitServingError
from digit_serving.scoring import files
from digit_serving.scoring.expectations import OWN

_PICTURE = {field.name: field.type for field in files.LISTING}
_ORIGIN = {"model": pa.string(), "version": pa.int64()}
PREDICTIONS, READINGS = (schema(kind, _PICTURE, _ORIGIN) for kind in (Prediction, Reading))
"""Columns of predictions, and of readings with `--read`."""

FINAL_CODES = {ImageError.code, *(error.code for error in ImageError.__subclasses__())}
"""Error codes of pictures that can't be taken. All others are retryable: the next run scores again."""

_RUN_FILE = "_score.json"
"""Readers of a folder of Parquet files ignore names that begin with an underscore or a dot."""
_DOUBTFUL_FILE = "_doubtful.csv"
_UNFINISHED = ".unfinished"
_KEYS = ("path", "etag")
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
"""Protocols of stores where an upload appears whole, and a renaming is a copy."""


@dataclass(frozen=True, slots=True)
class Run:
    """Settings that all rows of a folder of results have in common."""

    source: str
    model: str
    version: int
    read: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of PredictOptions or ReadOptions, as JSON values; of a list of numbers its size and hash."""
    expectations: bool = False
    """True if pictures have expectations of their own, which are part of their ETags."""


class ResultsFolder:
    """Folder of results at a path or URL of any fsspec filesystem. It can be pickled."""

    def __init__(self, url: str) -> None:
        self.url = url
        filesystem, root = files.open_folder(url)
        self._files = DirFileSystem(root, filesystem)

    def check_writable(self) -> None:
        """Raise OSError if this is a local folder that can't be written."""
        if get_protocol(self.url) == "file":
            versions.check_writable(Path(self.url))

    def read_run(self) -> Run | None:
        """Return what the rows in the folder have in common, None for a new folder.

        Raise DigitServingError if the folder has files of another origin, or damaged ones.
        """
        names = self._names()
        if _RUN_FILE in names:
            try:
                return Run(**json.loads(self._files.cat_file(_RUN_FILE)))
            except (TypeError, ValueError) as error:
                raise DigitServingError(f"{self.url}/{_RUN_FILE} is damaged: {error}") from error
        if foreign := [name for name in names if name.endswith(".parquet")]:
            raise DigitServingError(
                f"{self.url} has {foreign[0]}, but no results of `digits score`; choose another folder"
            )
        return None

    def write_run(self, run: Run) -> None:
        """Write what the rows in the folder have in common."""
        self._write(_RUN_FILE, json.dumps(asdict(run), indent=1).encode())

    def write(self, rows: pa.Table, name: str = "") -> None:
        """Write a file of rows, which appears when it is whole.

        By default its name is a hash of the pictures: rows of the same pictures replace the file.
        """
        pictures = json.dumps([rows[key].to_pylist() for key in _KEYS]).encode()
        buffer = io.BytesIO()
        parquet.write_table(rows, buffer)
        self._write(name or f"part-{hashlib.sha256(pictures).hexdigest()[:16]}.parquet", buffer.getvalue())

    def tidy(self, listing: pa.Table, parts: int = 1) -> tuple[pa.Table, int]:
        """Keep one row with an answer or a final error of each image in `listing`, and no other row.

        An image with a form has as many rows as the form has fields, or none. Return the images without rows,
        those with the same expectation after each other, and the number of pictures that are gone. Delete
        unfinished files.
        """
        for name in self._names():
            if name.endswith(_UNFINISHED):
                with suppress(FileNotFoundError):
                    self._files.rm_file(name)
        rows = self._read([*_KEYS, "field", "error_code"], READINGS)
        numbers = pa.array(np.arange(len(rows)))
        is_final = pc.or_(
            pc.is_null(rows["error_code"]), pc.is_in(rows["error_code"], pa.array(sorted(FINAL_CODES)))
        )
        # Workers of a killed run may have written rows that others have written too.
        kept = (
            rows.append_column("number", numbers)
            .filter(is_final)
            .join(listing, _KEYS, join_type="left semi")
            .group_by([*_KEYS, "field"])
            .aggregate([("number", "min")])
        )
        counts = kept.group_by(_KEYS).aggregate([("number_min", "count")])
        whole = counts.filter(pc.equal(counts["number_min_count"], parts))
        kept = kept.join(whole, _KEYS, join_type="left semi")
        stays = pc.is_in(numbers, kept["number_min"].combine_chunks())
        for name in pc.unique(rows["file"].filter(pc.invert(stays))).to_pylist():
            table = parquet.read_table(io.BytesIO(self._files.cat_file(name)))
            table = table.filter(stays.filter(pc.equal(rows["file"], name)))
            if len(table):
                self.write(table, name)
            else:
                self._files.rm_file(name)
        removed = rows.join(listing.select(["path"]), "path", join_type="left anti")
        # The pictures of a request have one expectation.
        order = [(name, "ascending") for name in (*OWN, "path") if name in listing.column_names]
        pending = listing.join(kept, _KEYS, join_type="left anti").sort_by(order)
        return pending, len(pc.unique(removed["path"]))

    def write_doubtful(self, share: float, read: bool, form: bool = False) -> tuple[str, int]:
        """Write the rows refused as unexpected or unsure, then the least sure share, 0 to 1, of the answers.

        Both begin with the least sure one. Return the path of the CSV file and its number of rows.
        """
        answer = ["text", "confidence", "candidates"] if read else ["label", "confidence", "is_digit"]
        columns = ["path", *answer, *(["field"] if form else [])]
        rows = self._read([*columns, "refusal", "error_code"], READINGS if read else PREDICTIONS)
        rows = least_sure_first(rows.filter(pc.is_null(rows["error_code"])))
        answered = rows.filter(pc.is_null(rows["refusal"]))
        refused = rows.filter(pc.is_in(rows["refusal"], pa.array(["unexpected", "unsure"])))
        doubtful = pa.concat_tables([refused, answered.slice(0, math.ceil(share * len(answered)))])
        doubtful = doubtful.select(columns)
        if read:
            texts = [[each["text"] for each in listed or ()] for listed in doubtful["candidates"].to_pylist()]
            doubtful = doubtful.set_column(3, "candidates", pa.array(map(json.dumps, texts), pa.string()))
        buffer = io.BytesIO()
        csv.write_csv(doubtful, buffer)
        self._write(_DOUBTFUL_FILE, buffer.getvalue())
        return f"{self.url}/{_DOUBTFUL_FILE}", len(doubtful)

    def _read(self, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
        """Return columns of all rows, and the name of their file as `file`."""
        parts = [name for name in sorted(self._names()) if name.startswith("part-")]
        schema = pa.schema([schema.field(name) for name in columns])
        rows = dataset(parts, schema, format="parquet", filesystem=self._files)
        try:
            return rows.to_table([*columns, "__filename"]).rename_columns([*columns, "file"])
        except (pa.ArrowException, ValueError) as error:
            raise DigitServingError(
                f"{self.url} has a damaged file; remove it and score again: {error}"
            ) from error

    def _write(self, name: str, data: bytes) -> None:
        if get_protocol(self.url) in _OBJECT_STORES:
            self._files.pipe_file(name, data)
            return
        unfinished = f".{name}.{uuid4().hex[:8]}{_UNFINISHED}"
        self._files.makedirs("", exist_ok=True)
        self._files.pipe_file(unfinished, data)
        self._files.mv(unfinished, name)

    def _names(self) -> list[str]:
        try:
            with files.as_os_errors(self.url):
                infos = self._files.ls("", detail=True)
        except FileNotFoundError:
            return []
        return [info["name"] for info in infos if info["type"] == "file"]
