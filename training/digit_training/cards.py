"""Task cards of models to export: read from TOML, or made of labels, and completed from the model."""

import math
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import keras

from digit_core.artifact.task_card import CHANNELS, DIGITS, MULTI_LABEL, TaskCard, TaskCardError
from digit_training import classifier
from digit_training.errors import CardError

Document = Mapping[str, Any]
"""Parsed card, in which the entries that the model states may be missing."""

_NAME_LENGTH = 63
_CONVENTION_KEYS = ("mean", "std")
"""Keys of [input] that become part of the model when it is exported."""


def read(path: Path) -> Document:
    """Return the document in a TOML file. Raise CardError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CardError("the file does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"the file is not TOML: {error}") from error


def named_after(file: Path) -> Document:
    """Return a document whose name is that of the model's file, with letters for accented ones."""
    # NFKD puts each accent behind its letter.
    stem = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", file.stem))
    name = re.sub("[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:_NAME_LENGTH]
    return {"name": name or "model"}


def of_digits(model: keras.Model) -> Document:
    """Return the document of the digits' card, in the range of the model's pixels."""
    suggested = [*classifier.suggested_ranges(model), (0.0, 1.0)]
    pixels = {"shape": list(DIGITS.shape), "range": [*suggested[0]]}
    return DIGITS.to_document() | {"input": pixels}


def with_entries(document: Document, entries: Document) -> Document:
    """Return a document with other entries, of which a table has only the keys to change. Raise CardError."""
    merged = dict(document)
    for key, value in entries.items():
        table = document.get(key, {})
        if isinstance(value, Mapping) and not isinstance(table, Mapping):
            raise CardError(f"{key!r} must be a table")
        merged[key] = {**table, **value} if isinstance(value, Mapping) else value
    return merged


def complete(document: Document, model: keras.Model) -> tuple[TaskCard, classifier.Convention]:
    """Return the card, with input shape and range of the model where the document states none, and what the
    published version converts.

    Raise CardError if the document is invalid, or if neither it nor the model states shape or range.
    """
    output = document.get("output", "probabilities")
    if output not in get_args(classifier.Output):
        raise CardError(f"output must be {' or '.join(get_args(classifier.Output))}, not {output!r}")
    stated = {key: value for key, value in document.items() if key not in ("output", "output_name")}
    if output == MULTI_LABEL:
        stated["output"] = output
    try:
        # Check the keys before missing entries: a mistyped name of a table hides its keys.
        TaskCard.check_keys(stated, set(_CONVENTION_KEYS))
        prepare, pixels = dict(document.get("prepare", {})), dict(document.get("input", {}))
        scaling = {key: pixels.pop(key, []) for key in _CONVENTION_KEYS}
        if is_bgr := prepare.get("color") == "bgr":
            prepare["color"] = "rgb"
        is_of_digits = prepare.get("kind") == DIGITS.kind
        if "shape" not in pixels:
            pixels["shape"] = list(DIGITS.shape) if is_of_digits else _shape_of(model)
        suggested = classifier.suggested_ranges(model)
        if "range" not in pixels and not suggested:
            raise CardError(
                "the model's first layers do not tell the range of its pixels: say what it was trained with, "
                "by --range 0,1, --range=-1,1 or --range 0,255, or by range under [input] of the card"
            )
        if "range" not in pixels:
            pixels["range"] = [*suggested[0]]
        task = TaskCard.from_document({**stated, "input": pixels, "prepare": prepare})
    except TaskCardError as error:
        raise CardError(str(error)) from error
    mean, std = (_per_channel(key, scaling[key], task) for key in _CONVENTION_KEYS)
    return task, classifier.Convention(output, document.get("output_name"), mean, std, is_bgr)


def _per_channel(key: str, value: Any, task: TaskCard) -> tuple[float, ...]:
    """Return a mean or a deviation; empty if the card has none."""
    channels = task.input.channels
    values = value if isinstance(value, list) else [value]
    are_numbers = all(type(number) in (int, float) and math.isfinite(number) for number in values)
    if not are_numbers or len(values) not in (0, 1, channels) or (key == "std" and not all(values)):
        raise CardError(
            f"{key} must be one number, or one for each of {channels} channels, and std must not be 0"
        )
    return tuple(map(float, values))


def _shape_of(model: keras.Model) -> list[int]:
    """Return the model's input shape, channels last.

    Raise CardError if a size of it is free, or if it is a flat vector.
    """
    shape = classifier.input_shape(model)
    words = f"the model takes {classifier.format_shape(shape)}"
    if None in shape or len(shape) not in (2, 3):
        raise CardError(
            f"{words}: say by --shape, or shape under [input] of the card, which picture that is, such as "
            f"{_example(shape)}"
        )
    sizes = [size for size in shape if size is not None]
    if len(sizes) == 2 or sizes[2] in CHANNELS:
        return sizes
    if sizes[0] in CHANNELS:
        return [*sizes[1:], sizes[0]]
    raise CardError(
        f"{words}, and a picture has 1, 3 or 4 channels: export it behind a layer that makes its channels of "
        "these"
    )


def _example(shape: classifier.Shape) -> str:
    """Return the value of --shape for a model that takes pictures of any size, or flat ones."""
    if len(shape) == 1 and shape[0]:
        # Height and width of the most square picture.
        height = next(size for size in range(math.isqrt(shape[0]), 0, -1) if shape[0] % size == 0)
        return f"{height},{shape[0] // height}"
    channels = shape[2] if len(shape) == 3 and shape[2] else 3
    return f"224,224,{channels}"
