"""Task cards of models to export: read from TOML, or made of labels, and completed from the model."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import keras

from digit_core.artifact.task_card import DIGITS, MULTI_LABEL, TaskCard, TaskCardError
from digit_training import classifier
from digit_training.errors import CardError

Document = Mapping[str, Any]
"""Parsed card; what the model states may be missing."""

_BYTES = [0, 255]
_NAME_LENGTH = 63


def read(path: Path) -> Document:
    """Return the document in a TOML file. Raise CardError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CardError("the file does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"not TOML: {error}") from error


def minimal(file: Path, labels: str) -> Document:
    """Return a document of labels, separated by commas, named after the model's file."""
    name = re.sub("[^A-Za-z0-9_-]+", "-", file.stem).strip("-_")[:_NAME_LENGTH]
    return {"name": name or "model", "labels": [label.strip() for label in labels.split(",")]}


def output_of(document: Document) -> classifier.Output:
    """Return the document's `output`, what the model to export answers. Raise CardError."""
    output = document.get("output", "probabilities")
    if output not in get_args(classifier.Output):
        raise CardError(f"output must be {' or '.join(get_args(classifier.Output))}, not {output!r}")
    return output  # type: ignore[no-any-return]


def complete(document: Document, model: keras.Model, output: classifier.Output) -> TaskCard:
    """Return the card with the model's input shape and range where the document states none.

    What is published answers probabilities, so the card says of `output` only that it is multi-label. Raise
    CardError if the card is invalid, or if neither the card nor the model states shape or range.
    """
    document = {**document, "output": MULTI_LABEL if output == MULTI_LABEL else None}
    try:
        # Before what is missing: a mistyped name of a table hides its keys.
        TaskCard.check_keys(document)
        is_digits = document.get("prepare", {}).get("kind") == DIGITS.kind
        from_model = {
            "shape": list(DIGITS.shape) if is_digits else _shape_of(model),
            "range": _BYTES if classifier.takes_bytes(model) else None,
        }
        pixels = {key: value for key, value in from_model.items() if value} | document.get("input", {})
        _check_complete(pixels, model)
        return TaskCard.from_document({**document, "input": pixels})
    except TaskCardError as error:
        raise CardError(str(error)) from error


def renamed(task: TaskCard, name: str) -> TaskCard:
    """Return the card under another name. Raise CardError if it is none for a card."""
    try:
        return TaskCard.from_document(task.to_document() | {"name": name})
    except TaskCardError as error:
        raise CardError(f"--rename: {error}") from error


def _shape_of(model: keras.Model) -> list[int] | None:
    """Return the model's input shape, unless a size of it is free or it is a flat vector."""
    shape = classifier.input_shape(model)
    return list(shape) if len(shape) in (2, 3) and None not in shape else None  # type: ignore[arg-type]


def _check_complete(pixels: Mapping[str, Any], model: keras.Model) -> None:
    if "shape" not in pixels:
        shape = classifier.format_shape(classifier.input_shape(model))
        raise CardError(f"the model takes {shape}: state shape under [input] of the card (--task)")
    if "range" not in pixels:
        raise CardError(
            "the model's first layers do not tell the range of its pixels: state range under [input] of the "
            "card (--task); [0, 1], [-1, 1] and [0, 255] are usual"
        )
