"""Output of `digits predict` and `digits read`: tables and bars, rows of CSV, and JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from digit_core.errors import DigitError, ImageError
from digit_core.results import Line, Prediction, Reading, members

_BOX_COLUMNS = ("left", "top", "width", "height")
_WITHOUT_COLUMN = {"digit", "index", "predicted_labels", "probabilities", "box", "lines", "digits"}


def _with_new(columns: str, *kinds: type) -> tuple[str, ...]:
    """Append a column for each field that has none, so that programs can read columns by position."""
    names = [each.name for kind in kinds for each in members(kind) if each.name not in _WITHOUT_COLUMN]
    return tuple(dict.fromkeys([*columns.split(), *names]))


PREDICTION_COLUMNS = _with_new(
    "image label refusal best confidence is_digit count left top width height model_version error", Prediction
)
"""Columns of `predict --format csv`: a row for each image. `best` is the most probable class, even of
a refused image."""
READING_COLUMNS = _with_new(
    "image line text left top width height confidence refusal candidates orientation is_turned separators "
    "model_version error",
    Reading,
    Line,
)
"""Columns of `read --format csv`: a row for each line of an image, or for the image if it has none.

`line` counts from 1.
"""
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of a cell that a spreadsheet takes for a formula."""

# Number of the most probable labels in a chart; the ten digits are all shown, in order.
_CHART_LABELS = 5
# Largest number of classes that a line shows as bars.
_MAX_LINE_BARS = 10
# Characters that a probability of 1 fills.
_BAR_WIDTH = 24
# Block characters of zero to eight eighths of a character's width, and of one to eight eighths of its height.
_WIDTH_BLOCKS = " ▏▎▍▌▋▊▉█"
_HEIGHT_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Output:
    """Output format, its formatter of answers, and the columns of CSV."""

    name: str
    format_answer: Callable[[str, Any], str]
    columns: Sequence[str]

    def format_error(self, name: str, error: DigitError | OSError) -> str:
        """Return the line or row of an image without an answer."""
        # A request's ID helps with an error of the service, not with a broken picture.
        message = error.message if isinstance(error, ImageError) else str(error)
        if isinstance(error, OSError) and error.strerror:
            message = f"the file can't be read: {error.strerror}"
        match self.name:
            case "csv":
                return _format_rows(self.columns, {"image": name, "error": message})
            case "jsonl":
                code = error.code if isinstance(error, DigitError) else "unreadable"
                return json.dumps({"image": name, "error": {"code": code, "message": message}})
            case _:
                return f"{name}: {message}"


def prediction_output(name: str, is_only: bool) -> Output:
    """Return the output of predictions; the table of the only image is a chart."""
    table = format_chart if is_only else format_line
    formats = {"csv": format_prediction_row, "jsonl": format_json, "table": table}
    return Output(name, formats[name], PREDICTION_COLUMNS)


def reading_output(name: str, is_only: bool) -> Output:
    """Return the output of readings; the table of the only image has no name."""
    table = partial(format_lines, with_name=not is_only)
    formats: Any = {"csv": format_reading_rows, "jsonl": format_json, "table": table}
    return Output(name, formats[name], READING_COLUMNS)


def format_json(name: str, result: Prediction | Reading) -> str:
    """Return one JSON object: the image's name and the fields of the result."""
    return json.dumps({"image": name, **result.to_dict()})


def format_csv(*rows: Sequence[object]) -> str:
    """Return lines of CSV; None is an empty cell, a tuple a list in JSON.

    An apostrophe before a text that begins as a formula keeps spreadsheets from running it: OWASP, "CSV
    Injection".
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*map(_to_cell, row)] for row in rows)
    return text.getvalue().removesuffix("\n")


def _to_cell(value: object) -> object:
    if isinstance(value, tuple):
        return json.dumps(value) if value else None
    if isinstance(value, float):
        return float(f"{value:.7g}")  # The model's numbers are float32.
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _cells(result: Prediction | Reading | Line) -> dict[str, Any]:
    """Return the values of the fields, and of the box's columns."""
    cells = {each.name: getattr(result, each.name) for each in fields(result)}
    return cells | dict(zip(_BOX_COLUMNS, cells.get("box") or (), strict=False))


def _format_rows(columns: Sequence[str], *rows: dict[str, Any]) -> str:
    return format_csv(*([row.get(column) for column in columns] for row in rows))


def format_prediction_row(name: str, prediction: Prediction) -> str:
    """Return the CSV row of an image, with the cells of PREDICTION_COLUMNS."""
    named = {"image": name, "label": _named(prediction), "best": _best(prediction)}
    return _format_rows(PREDICTION_COLUMNS, _cells(prediction) | named)


def format_reading_rows(name: str, reading: Reading) -> str:
    """Return the CSV rows of an image, with the cells of READING_COLUMNS."""
    candidates = tuple(candidate.text for candidate in reading.candidates)
    shared = _cells(reading) | {"image": name, "candidates": candidates}
    lines = [shared | _cells(line) | {"line": number} for number, line in enumerate(reading.lines, 1)]
    return _format_rows(READING_COLUMNS, *(lines or [shared]))


def format_lines(name: str, reading: Reading, with_name: bool) -> str:
    """Return the lines of the reading, each after the field's name, and the image's if `with_name`."""
    if reading.field:
        name, with_name = f"{name}: {reading.field}" if with_name else reading.field, True
    degrees = None if reading.is_turned else reading.orientation
    hint = f"{name}: turn the image by {degrees}° clockwise" if degrees else None
    lines = [f"{name}: {line.text}" if with_name else line.text for line in reading.lines]
    if reading.refusal and not (hint and reading.refusal == "no_digit"):
        lines = [f"{name}: {_reason(reading)}"]
    return "\n".join([*lines, hint] if hint else lines)


def format_chart(name: str, prediction: Prediction) -> str:
    """Return a headline, and a bar for each of the ten digits in order, or of the most probable labels.

    A model that tells whether an image shows a digit has a bar for that, too.
    """
    if prediction.has_digit_labels:
        shown = list(zip(prediction.labels, prediction.probabilities, strict=True))
    else:
        shown = prediction.top(_CHART_LABELS)
    if prediction.is_digit is not None:
        shown.append(("is digit", prediction.is_digit))
    width = max(len(label) for label, _ in shown)
    rows = [f"  {label:<{width}} {_bar(value)} {_percent(value):>6}" for label, value in shown]
    answer = _describe_refusal(prediction) or _named(prediction) or "none"
    sure = f" ({_percent(prediction.confidence)})" if _has_confidence(prediction) else ""
    return "\n".join([f"{name}: {answer}{sure}", *rows])


def format_line(name: str, prediction: Prediction) -> str:
    """Return one line: label, confidence, a small bar for each class unless there are many, and name.

    A refused image has no label; the refusal follows its name.
    """
    width = max(map(len, prediction.labels))
    sure = _percent(prediction.confidence) if _has_confidence(prediction) else ""
    columns = [f"{_named(prediction) or '-':<{width}}", f"{sure:>6}"]
    if len(prediction.labels) <= _MAX_LINE_BARS:
        columns.append("".join(_HEIGHT_BLOCKS[min(int(value * 8), 7)] for value in prediction.probabilities))
    refusal = _describe_refusal(prediction)
    return "  ".join([*columns, f"{name}: {refusal}" if refusal else name])


def _named(prediction: Prediction) -> str | None:
    """Return the label, or those of a multi-label model; None if there is none."""
    return prediction.label or ", ".join(prediction.predicted_labels or ()) or None


def _has_confidence(prediction: Prediction) -> bool:
    """True unless the picture shows no digit or several: the confidence presumes one digit."""
    return prediction.refusal not in ("no_digit", "several_digits")


def _best(prediction: Prediction) -> str:
    return prediction.labels[prediction.index]


def _describe_refusal(prediction: Prediction) -> str | None:
    return f"{_reason(prediction)}; most like {_best(prediction)}" if prediction.refusal else None


def _reason(result: Prediction | Reading) -> str | None:
    """Return why there is no answer; an unknown reason of a newer service stays as it is."""
    if result.refusal == "several_digits" and isinstance(result, Prediction):
        return f"{result.count} digits, which `digits read` reads"
    if result.refusal in ("unexpected", "unsure") and isinstance(result, Reading):
        texts = [(each.text.replace("\n", " / "), _percent(each.probability)) for each in result.candidates]
        seen = ", ".join(f"{text} ({share})" for text, share in texts)
        return f"{'nothing fits' if result.refusal == 'unexpected' else 'unsure'}; seen: {seen}"
    return "no digit" if result.refusal == "no_digit" else result.refusal


def _percent(share: float) -> str:
    """Format a share as a percentage. Only 1 is 100%."""
    return f"{share if share >= 1 else min(share, 0.999):.1%}"


def _bar(value: float) -> str:
    full, eighths = divmod(round(value * _BAR_WIDTH * 8), 8)
    return ("█" * full + _WIDTH_BLOCKS[eighths]).ljust(_BAR_WIDTH + 1)[: _BAR_WIDTH + 1]
