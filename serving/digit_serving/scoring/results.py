"""Result files: schemas, formats, atomic writes, and removal of stale rows."""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, TypeAlias
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from digit_client import ImageError
from digit_serving.filesystems import open_folder
from digit_serving.scoring import files

Format: TypeAlias = Literal["parquet", "csv", "jsonl"]

_BOX = pa.struct([pa.field(name, pa.int32()) for name in ("left", "top", "width", "height")])
_DIGIT = pa.struct(
    [
        pa.field("digit", pa.int8()),
        pa.field("confidence", pa.float64()),
        pa.field("probabilities", pa.list_(pa.float64())),
        pa.field("box", _BOX),
    ]
)
_LINE = pa.struct(
    [pa.field("text", pa.string()), pa.field("box", _BOX), pa.field("digits", pa.list_(_DIGIT))]
)
_LAST_COLUMNS = [
    pa.field("model", pa.string(), nullable=False),
    pa.field("version", pa.int64(), nullable=False),
    pa.field("error_code", pa.string()),
    pa.field("error", pa.string()),
]

PREDICTIONS = pa.schema(
    [
        *files.LISTING,
        pa.field("label", pa.string()),
        pa.field("digit", pa.int8()),
        pa.field("refusal", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("is_digit", pa.float64()),
        pa.field("probabilities", pa.list_(pa.float64())),
        *_LAST_COLUMNS,
    ]
)
"""Columns of predictions. `digit` is null unless the labels are the ten digits, `is_digit` unless the model
gives it. `refusal` is null unless the picture shows no digit, or several: then `label` and `digit` are null.
A row with an error has no values but the picture's, `model` and `version`."""
READINGS = pa.schema(
    [
        *files.LISTING,
        pa.field("text", pa.string()),
        pa.field("refusal", pa.string()),
        pa.field("lines", pa.list_(_LINE)),
        *_LAST_COLUMNS,
    ]
)
"""Columns of readings, with `--read`."""

FINAL_CODES = {ImageError.code, *(error.code for error in ImageError.__subclasses__())}
"""Error codes of pictures that can't be taken. All others are retryable: the next run scores again."""

NOT_FOUND, UNREADABLE = READ_CODES = "not_found", "unreadable"
"""Error codes of files that are gone since they were listed, or that can't be read."""

_RUN_FILE = "_score.json"
"""Readers of a folder of Parquet files ignore names that begin with an underscore or a dot."""
_UNFINISHED = ".unfinished"
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
"""Protocols of stores where an upload appears whole, and a renaming is a copy."""
_READERS = 16
"""Result files that are read at a time."""


@dataclass(frozen=True, slots=True)
class Run:
    """Settings that all rows of a folder of results have in common."""

    source: str
    model: str
    version: int
    read: bool
    format: Format

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows."""
        return READINGS if self.read else PREDICTIONS


class InvalidResultsError(Exception):
    """The folder of results has files that `digits score` has not written, or that are damaged."""


@dataclass(frozen=True)
class ResultsFolder:
    """Folder of results at a path or URL of any fsspec filesystem. It can be pickled."""

    url: str

    def read_run(self) -> Run | None:
        """Return what the rows in the folder have in common, None for a new folder.

        Raise InvalidResultsError if the folder has files of another origin.
        """
        if _RUN_FILE in self._names():
            try:
                return Run(**json.loads(self._filesystem.cat_file(self._path(_RUN_FILE))))
            except (TypeError, ValueError) as error:
                raise InvalidResultsError(f"{self._path(_RUN_FILE)} is damaged: {error}") from error
        foreign = [name for name in self._names() if name.endswith((".parquet", ".csv", ".jsonl"))]
        if foreign:
            raise InvalidResultsError(
                f"{self.url} has {foreign[0]}, but no results of `digits score`; choose another folder"
            )
        return None

    def write_run(self, run: Run) -> None:
        """Write what the rows in the folder have in common."""
        self._write(_RUN_FILE, json.dumps(asdict(run), indent=1).encode())

    def write(self, rows: pa.Table, file_format: Format) -> str:
        """Write a file of rows, which appears when it is whole, and return its name.

        The name is a hash of the pictures: rows of the same pictures replace the file.
        """
        keys = zip(rows["path"].to_pylist(), rows["etag"].to_pylist(), strict=True)
        digest = hashlib.sha256(json.dumps(list(keys)).encode()).hexdigest()
        name = f"part-{digest[:16]}.{file_format}"
        self._write(name, _encode(rows, file_format))
        return name

    def names(self, file_format: Format) -> set[str]:
        """Return the names of the files of rows."""
        return {name for name in self._names() if name.startswith("part-") and name.endswith(file_format)}

    def remove_leftovers(self) -> None:
        """Delete what interrupted writes have left."""
        for name in self._names():
            if name.endswith(_UNFINISHED):
                # A worker of a killed run may finish its write in the meantime.
                with suppress(FileNotFoundError):
                    self._filesystem.rm_file(self._path(name))

    def remove_stale_rows(self, run: Run, listing: pa.Table, *, with_failures: bool) -> "Kept":
        """Rewrite files without the rows of pictures that are not in `listing`, or have another ETag there.

        With `with_failures`, rows of retryable errors are removed too. Of duplicate rows of a picture one
        stays, an answer or refusal rather than a retryable error.
        """
        names = sorted(self.names(run.format))
        with ThreadPoolExecutor(_READERS) as pool:
            keys = list(pool.map(lambda name: self._read(name, run, _KEYS), names))
        rows = pa.concat_tables(
            [
                table.append_column("file", pa.array([number] * len(table), pa.int32()))
                for number, table in enumerate(keys)
            ]
            or [_NO_KEYS]
        )
        final = pc.or_(pc.is_null(rows["error_code"]), pc.is_in(rows["error_code"], _FINAL_CODES))
        number = pa.array(np.arange(len(rows)))
        # Unique numbers of the rows, those of final rows first.
        rows = rows.append_column("rank", pc.if_else(final, number, pc.add(number, len(rows))))
        kept = (
            (rows.filter(final) if with_failures else rows)
            .join(listing.select(["path", "etag"]), ["path", "etag"], join_type="left semi")
            .group_by(["path", "etag"])
            .aggregate([("rank", "min")])
        )
        stays = pc.is_in(rows["rank"], kept["rank_min"].combine_chunks())
        for file in pc.unique(rows["file"].filter(pc.invert(stays))).to_pylist():
            mask = stays.filter(pc.equal(rows["file"], file))
            self._filter_rows(names[file], run, mask)
        files_left = {names[file] for file in pc.unique(rows["file"].filter(stays)).to_pylist()}
        removed = rows.join(listing.select(["path"]), "path", join_type="left anti")
        return Kept(kept.select(["path", "etag"]), files_left, len(pc.unique(removed["path"])))

    def _filter_rows(self, name: str, run: Run, mask: pa.ChunkedArray) -> None:
        if pc.any(mask).as_py():
            rows = self._read(name, run, run.schema.names)
            self._write(name, _encode(rows.filter(mask), run.format))
        else:
            self._filesystem.rm_file(self._path(name))

    def read(self, run: Run) -> pa.Table:
        """Return all rows."""
        tables = [self._read(name, run, run.schema.names) for name in sorted(self.names(run.format))]
        return pa.concat_tables(tables) if tables else run.schema.empty_table()

    def _read(self, name: str, run: Run, columns: Sequence[str]) -> pa.Table:
        try:
            data = self._filesystem.cat_file(self._path(name))
            return _decode(data, run, columns)
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise InvalidResultsError(
                f"{self._path(name)} is damaged; remove it and score again: {error}"
            ) from error

    def _write(self, name: str, data: bytes) -> None:
        filesystem = self._filesystem
        if not _OBJECT_STORES.isdisjoint(_protocols(filesystem)):
            filesystem.pipe_file(self._path(name), data)
            return
        unfinished = self._path(f".{name}.{uuid4().hex[:8]}{_UNFINISHED}")
        filesystem.makedirs(self._root, exist_ok=True)
        filesystem.pipe_file(unfinished, data)
        filesystem.mv(unfinished, self._path(name))

    def _names(self) -> list[str]:
        try:
            with files.as_os_errors(self._root):
                infos = self._filesystem.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        return [info["name"].rpartition("/")[2] for info in infos if info["type"] == "file"]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @cached_property
    def _filesystem(self) -> Any:
        return open_folder(self.url)[0]

    @cached_property
    def _root(self) -> str:
        return open_folder(self.url)[1].rstrip("/")


@dataclass(frozen=True, slots=True)
class Kept:
    """Keys (path and etag) and files of the rows that stay, and the number of pictures that are gone."""

    keys: pa.Table
    files: set[str]
    removed: int


_FINAL_CODES = pa.array(sorted(FINAL_CODES))
_KEYS = ("path", "etag", "error_code")
_NO_KEYS = pa.schema(
    [*(PREDICTIONS.field(name) for name in _KEYS), pa.field("file", pa.int32())]
).empty_table()


def _protocols(filesystem: Any) -> Iterable[str]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol


def _encode(rows: pa.Table, file_format: Format) -> bytes:
    buffer = io.BytesIO()
    if file_format == "parquet":
        parquet.write_table(rows, buffer)
    elif file_format == "csv":
        arrow_csv.write_csv(_with_json_text(rows), buffer)
    else:
        for row in rows.to_pylist():
            modified = row["modified"] and row["modified"].isoformat()
            buffer.write(json.dumps({**row, "modified": modified}).encode() + b"\n")
    return buffer.getvalue()


def _decode(data: bytes, run: Run, columns: Sequence[str]) -> pa.Table:
    """Return columns of a file's rows. Raise ValueError, KeyError or ArrowException if they are not there."""
    schema = pa.schema([run.schema.field(name) for name in columns])
    if run.format == "parquet":
        return parquet.read_table(io.BytesIO(data), columns=list(columns)).cast(schema)
    if run.format == "csv":
        types = {field.name: pa.string() if _is_nested(field) else field.type for field in schema}
        rows = arrow_csv.read_csv(
            io.BytesIO(data),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types, include_columns=list(columns), strings_can_be_null=True, null_values=[""]
            ),
        )
        return _from_json_text(rows, schema)
    dicts = [{name: row[name] for name in columns} for row in map(json.loads, data.splitlines())]
    for row in dicts:
        if row.get("modified"):
            row["modified"] = datetime.fromisoformat(row["modified"])
    return pa.Table.from_pylist(dicts, schema)


def _is_nested(field: pa.Field) -> bool:
    return bool(pa.types.is_nested(field.type))


def _with_json_text(rows: pa.Table) -> pa.Table:
    """Replace lists by JSON: CSV has none."""
    for position, field in enumerate(rows.schema):
        if _is_nested(field):
            texts = [None if value is None else json.dumps(value) for value in rows[field.name].to_pylist()]
            rows = rows.set_column(position, field.name, pa.array(texts, pa.string()))
    return rows


def _from_json_text(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    for position, field in enumerate(schema):
        if _is_nested(field):
            values = [text and json.loads(text) for text in rows[field.name].to_pylist()]
            rows = rows.set_column(position, field.name, pa.array(values, field.type))
    return rows.cast(schema)
