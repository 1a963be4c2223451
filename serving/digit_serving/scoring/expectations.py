"""Table of expectations: what `digits score --read` expects on each picture, from a CSV or Parquet file."""

import hashlib
import json
import posixpath

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from digit_core.options import OptionError, ReadOptions, parse
from digit_serving.errors import SettingError
from digit_serving.scoring import files

OWN = ("expect", "check")
"""Columns of the options that a picture may have of its own, both texts; null stands for none."""
_SCHEMA = pa.schema({name: pa.string() for name in ("path", *OWN)})


def read_expectations(file: str, source: str) -> pa.Table:
    """Return the table's paths, as a listing of `source` has them, and the options of each.

    Raise SettingError for a table without `path`, and one of `expect` and `check`; for two rows of a picture;
    and for an invalid value, with its path. Raise OSError if the file can't be read.
    """
    table = _read(file)
    if not {"path"} < {*table.column_names}:
        raise SettingError(f"{file} needs a column `path`, and `expect`, `check` or both")
    rows = [{name: value or None for name, value in row.items()} for row in table.to_pylist()]
    seen: set[str] = set()
    for row in rows:
        path = row["path"] or ""
        joined = path if "://" in path else posixpath.join(source, path)
        row["path"] = place = joined if "://" in joined else posixpath.normpath(joined)
        if place in seen:
            raise SettingError(f"{file} has two rows of {path!r}")
        seen.add(place)
        try:
            parse(ReadOptions, {name: row.get(name) for name in OWN})
        except OptionError as error:
            raise SettingError(f"{file}, {path!r}: {error}") from error
    return pa.Table.from_pylist(rows, _SCHEMA)


def with_expectations(listing: pa.Table, expectations: pa.Table) -> pa.Table:
    """Return the listing with the options of each picture; they are part of its ETag.

    A picture whose expectation has changed is scored again then.
    """
    table = listing.join(expectations, "path")
    etags = [
        f"{row['etag']}-{hashlib.sha256(json.dumps(own).encode()).hexdigest()[:16]}"
        if any(own)
        else row["etag"]
        for row in table.to_pylist()
        for own in [[row[name] for name in OWN]]
    ]
    return table.set_column(table.column_names.index("etag"), "etag", pa.array(etags, pa.string()))


def unmatched(listing: pa.Table, expectations: pa.Table) -> list[str]:
    """Return the table's paths that no picture has."""
    known = pc.is_in(expectations["path"], listing["path"].combine_chunks())
    return expectations["path"].filter(pc.invert(known)).to_pylist()  # type: ignore[no-any-return]


def _read(file: str) -> pa.Table:
    """Return the columns of the file's format, all as texts: `0042` keeps its zeros."""
    with files.as_os_errors(file), fsspec.open(file, "rb") as stream:
        data = pa.BufferReader(stream.read())
    try:
        if data.read_at(4, 0) == b"PAR1":
            table = parquet.read_table(data)
        else:
            texts = csv.ConvertOptions(column_types={name: pa.string() for name in _SCHEMA.names})
            table = csv.read_csv(data, convert_options=texts)
        names = [name for name in _SCHEMA.names if name in table.column_names]
        if floats := [name for name in names if pa.types.is_floating(table.schema.field(name).type)]:
            raise SettingError(f"{file}: the column `{floats[0]}` has numbers with a point; write texts")
        return table.select(names).cast(pa.schema([_SCHEMA.field(name) for name in names]))
    except pa.ArrowException as error:
        raise SettingError(f"{file} is no CSV or Parquet file with a header: {error}") from error
