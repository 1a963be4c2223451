"""Tables of results: a row of Arrow for each picture, its columns from the fields of the result.

`digits score` writes these rows, and a list of results converts to them. (Extra `[arrow]`.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from os import PathLike
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from digit_core.errors import DigitError
from digit_core.results import Box, DigitNumber, Prediction, Reading, members

NOT_FOUND, UNREADABLE = READ_CODES = "not_found", "unreadable"
"""Error codes of files that are gone, or that can't be read."""

_TYPES: dict[Any, pa.DataType] = {
    Box: pa.struct({name: pa.int32() for name in ("left", "top", "width", "height")}),
    DigitNumber: pa.int8(),
    bool: pa.bool_(),
    float: pa.float64(),
    int: pa.int32(),
    str: pa.string(),
}
"""Type of a column by the annotation of its field."""
_ERROR = {"error_code": pa.string(), "error": pa.string()}


def _type(annotation: Any) -> pa.DataType:
    if annotation in _TYPES:
        return _TYPES[annotation]
    if is_dataclass(annotation):
        return pa.struct(_columns(annotation))
    inner = _type(get_args(annotation)[0])
    return pa.list_(inner) if get_origin(annotation) is tuple else inner


def _columns(kind: Any) -> dict[str, pa.DataType]:
    """Return the columns of a result, those of the fields that every answer may have."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        each.name: _type(hints[each.name]) for each in members(kind) if not each.metadata.get("on_request")
    }


def schema(kind: Any, picture: Mapping[str, Any], origin: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of predictions or readings, between those of the picture and of what answered.

    A row with an error has no values but the picture's, the origin's and those of the error.
    """
    return pa.schema({**picture, **_columns(kind), **origin, **_ERROR})


_PATH, _VERSION = {"path": pa.string()}, {"version": pa.int64()}
_SCHEMAS = {kind: schema(kind, _PATH, _VERSION) for kind in (Prediction, Reading)}


def to_row(outcome: Prediction | Reading | DigitError | OSError) -> dict[str, Any]:
    """Return the values of the outcome's columns, which are null by default, and of others."""
    match outcome:
        case Prediction() | Reading():
            return {**asdict(outcome), "version": outcome.model_version}
        case DigitError():
            return {"error_code": outcome.code, "error": outcome.message}
        case FileNotFoundError():
            return {"error_code": NOT_FOUND, "error": "the file does not exist"}
        case _:
            return {"error_code": UNREADABLE, "error": f"the file can't be read: {outcome}"}


def to_arrow(
    results: Sequence[Prediction | Reading | DigitError | OSError],
    pictures: Sequence[object] = (),
    sort: Literal["doubtful"] | None = None,
    kind: type[Prediction] | type[Reading] | None = None,
) -> pa.Table:
    """Return a row for each result of a call for many images, in the columns of `digits score`.

    `pictures` are those of the call, alone or with their options, in their order: `path` is null for one that
    is no path. Parts of a picture have a row each. `sort="doubtful"` begins with errors and refusals, then
    the least sure answers. `kind` decides on the columns if all results are errors, by default Prediction.
    """
    parts = len(results) // len(pictures) if pictures else 0
    if len(results) != parts * len(pictures) and pictures:
        raise ValueError(f"{len(results)} results are not those of {len(pictures)} pictures")
    sources = [each[0] if isinstance(each, tuple) else each for each in pictures]
    paths = [str(each) if isinstance(each, (str, PathLike)) else None for each in sources]
    repeated = [path for path in paths for _ in range(parts)] or [None] * len(results)
    kind = Reading if any(isinstance(each, Reading) for each in results) else kind or Prediction
    rows = [{**to_row(result), "path": path} for result, path in zip(results, repeated, strict=True)]
    table = pa.Table.from_pylist(rows, _SCHEMAS[kind])
    return least_sure_first(table) if sort else table


def least_sure_first(rows: pa.Table) -> pa.Table:
    """Return the rows with errors, then those with refusals, then the answers, each by their certainty."""
    certainty = rows["confidence"]
    if "is_digit" in rows.column_names:
        certainty = pc.multiply(certainty, pc.coalesce(rows["is_digit"], 1.0))
    answers = pc.if_else(pc.is_valid(rows["refusal"]), 1, 2)
    rank = pc.if_else(pc.is_valid(rows["error_code"]), 0, answers)
    keys = pa.table({"rank": rank, "certainty": certainty})
    return rows.take(pc.sort_indices(keys, [("rank", "ascending"), ("certainty", "ascending")]))
