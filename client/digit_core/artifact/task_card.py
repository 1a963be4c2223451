"""Task card: pictures and answers of a model. It travels inside the artifact, from export to callers."""

import math
import re
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, get_args

Kind = Literal["digits", "resize", "none"]
Fit = Literal["crop", "pad", "stretch"]
Interpolation = Literal["area", "bilinear"]
Alpha = Literal["white", "ignore"]
Color = Literal["grey", "rgb", "rgba"]
CHANNELS: dict[Color, int] = {"grey": 1, "rgb": 3, "rgba": 4}
MULTI_LABEL = "multi-label"
"""Output of a model that gives each label a probability of its own."""
THRESHOLD = 0.5
"""Default of the least probability of a label that is named."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""Form of a model's name; a number is none: it would be a version's folder."""
READER_NAME = "reader"
"""Name of the model that finds digits on a page; it has no task card, for it classifies no picture."""
NAME_RULE = (
    "a model's name has 1 to 63 letters, digits, - and _, begins with a letter or a digit, and is neither a "
    f"number nor {READER_NAME!r}"
)
MAX_LABELS = 25_000
"""Most labels of a card; ImageNet-21k has 21,843."""
MAX_SIDE = 2048
"""Largest height and width of a model's input, in pixels."""
DIGIT_LABELS = tuple("0123456789")
"""Labels of a task whose classes are the ten digits."""
NO_CLASS = ""
"""Label, in feedback, of an input that shows none of a task's classes: no digit, say."""

_MAX_BOUND = sys.float_info.max
_DIGIT_SHAPE = (28, 28)
_KEYS = {"name", "labels", "output", "threshold", "refuse_below", "input", "prepare"}
_INPUT_KEYS = {"shape", "range"}
_PREPARE_KEYS = {"kind", "fit", "color", "interpolation", "alpha", "exif"}


class TaskCardError(ValueError):
    """A task card is incomplete or contradictory; the message is one sentence for the card's author."""


@dataclass(frozen=True)
class TaskCard:
    """Name, labels and input of a classifier.

    A model takes pictures as uint8 [n, *shape] in its signature `images`, and as float32
    [n, *instance_shape] in the range `range` in `serving_default`.
    """

    name: str
    labels: tuple[str, ...]
    """Names of the classes, in the order of the model's output."""
    shape: tuple[int, ...]
    """Shape of a prepared picture: [h, w], or [h, w, c] with one, three or four channels."""
    range: tuple[float, float]
    """Values of black and white in the model's input."""
    kind: Kind = "resize"
    """Preparation: `digits` finds what is written and frames it as MNIST does, `resize` scales the picture,
    `none` takes pictures of exactly this shape."""
    fit: Fit = "stretch"
    """Treatment of another aspect ratio by `resize`: stretch, as image_dataset_from_directory of Keras does,
    cut to the centre, or pad with black."""
    thresholds: tuple[float, ...] = ()
    """Least probability of each label that is named, of a multi-label task: any number of labels may suit a
    picture. Empty if one label does."""
    refuse_below: float = 0.0
    """Confidence below which the answer is refused as unsure."""
    interpolation: Interpolation = "area"
    """Downscaling by `resize`: area averages pixels; bilinear takes the nearest four, as Keras does."""
    alpha: Alpha = "white"
    """Treatment of transparency: laid on white, or ignored, as Keras does."""
    exif: bool = True
    """True to turn a photograph as its EXIF orientation says; Keras does not."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, ignores_unknown: bool = False) -> Self:
        """Return the card of a parsed TOML or JSON document. Raise TaskCardError.

        `ignores_unknown` is for cards of services and models, which may be newer: it allows unknown keys.
        """
        if not ignores_unknown:
            cls.check_keys(document)
        _require(document, ("name", "labels", "input"), "the task card")
        pixels, prepare = _table(document, "input"), _table(document, "prepare")
        _require(pixels, ("shape", "range"), "[input]")
        kind = _choice(prepare, "kind", get_args(Kind), "resize")
        card = cls(
            _parse_name(document["name"]),
            _parse_labels(document["labels"]),
            _parse_shape(pixels["shape"], kind),
            _parse_range(pixels["range"]),
            kind,
            _choice(prepare, "fit", get_args(Fit), "stretch"),
            _parse_thresholds(document),
            _parse_probability("refuse_below", document.get("refuse_below", 0.0)),
            _choice(prepare, "interpolation", get_args(Interpolation), "area"),
            _choice(prepare, "alpha", get_args(Alpha), "white"),
            _choice(prepare, "exif", (True, False), True),
        )
        if (color := _choice(prepare, "color", get_args(Color), card.color)) != card.color:
            raise TaskCardError(f"color {color!r} contradicts the shape {list(card.shape)}")
        if card.refuse_below and card.reads_numbers:
            raise TaskCardError("refuse_below is for other labels: digits are refused by is_digit")
        if card.refuse_below and card.is_multi_label:
            raise TaskCardError(
                "refuse_below is for one label a picture; threshold says which labels are named"
            )
        return card

    @staticmethod
    def check_keys(document: Mapping[str, Any], more_input_keys: Set[str] = frozenset()) -> None:
        """Raise TaskCardError if a document, complete or not, has a key that no card has.

        `more_input_keys` are those of [input] that the caller takes out.
        """
        _check_keys(document, _KEYS, "the task card")
        _check_keys(_table(document, "input"), _INPUT_KEYS | more_input_keys, "[input]")
        _check_keys(_table(document, "prepare"), _PREPARE_KEYS, "[prepare]")

    def to_document(self) -> dict[str, Any]:
        """Return the card as JSON values, which `from_document` reads."""
        multi_label = {"output": MULTI_LABEL, "threshold": list(self.thresholds)}
        return {
            "name": self.name,
            "labels": list(self.labels),
            **(multi_label if self.is_multi_label else {}),
            **({"refuse_below": self.refuse_below} if self.refuse_below else {}),
            "input": {"shape": list(self.shape), "range": list(self.range)},
            "prepare": {"kind": self.kind, "fit": self.fit, "color": self.color} | self._switches,
        }

    @property
    def _switches(self) -> dict[str, Any]:
        """Return the switches that have not their default, so that older services read other cards."""
        fields = self.__dataclass_fields__
        switches = {name: getattr(self, name) for name in ("interpolation", "alpha", "exif")}
        return {name: value for name, value in switches.items() if value != fields[name].default}

    @property
    def color(self) -> Color:
        """Colour of a prepared picture."""
        channels = self.shape[2] if len(self.shape) == 3 else 1
        return next(color for color, count in CHANNELS.items() if count == channels)

    @property
    def instance_shape(self) -> tuple[int, ...]:
        """Shape of one row of `serving_default`; digits are flat vectors of pixels."""
        return (math.prod(self.shape),) if self.kind == "digits" else self.shape

    @property
    def has_digit_labels(self) -> bool:
        """True if the classes are the ten digits."""
        return self.labels == DIGIT_LABELS

    @cached_property
    def is_multi_label(self) -> bool:
        """True if any number of labels may suit a picture, each with a probability of its own."""
        return bool(self.thresholds)

    @cached_property
    def reads_numbers(self) -> bool:
        """True if several digits can be read from one picture."""
        return self.kind == "digits" and self.has_digit_labels and not self.is_multi_label

    @property
    def input_words(self) -> Sequence[str]:
        """Words for the pictures that the model takes, one for each property: size, colour, values, …"""
        ignored = {"white": "transparency laid on white", "ignore": "transparency ignored"}
        words = [
            f"{self.shape[0]}×{self.shape[1]} pictures",
            f"the colour {self.color}",
            f"values of {self.range[0]:g} to {self.range[1]:g}",
        ]
        if self.kind == "resize":
            words += [f"the fit {self.fit}", f"{self.interpolation} interpolation"]
        turned = "EXIF orientation applied" if self.exif else "EXIF orientation ignored"
        return [*words, ignored[self.alpha], turned]

    def prepares_as(self, other: "TaskCard") -> bool:
        """True if both cards prepare and answer a picture in the same way, whatever the names."""
        is_same_fit = self.fit == other.fit or self.kind != "resize"
        names = ("shape", "range", "kind", "reads_numbers", "_switches")
        return is_same_fit and all(getattr(self, name) == getattr(other, name) for name in names)


DIGITS = TaskCard("digits", DIGIT_LABELS, _DIGIT_SHAPE, (0.0, 1.0), "digits")
"""Card of the handwritten digits, and of every model without a card."""


def is_name(name: str) -> bool:
    """True for the name of a model: a classifier's, or the reader's."""
    return bool(NAME.fullmatch(name)) and not name.isdigit()


def _check_keys(table: Mapping[str, Any], known: Set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise TaskCardError(f"{where} has the unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")


def _require(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in keys:
        if key not in table:
            raise TaskCardError(f"{where} lacks {key!r}")


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, Mapping):
        raise TaskCardError(f"{key!r} must be a table")
    return table


def _choice(table: Mapping[str, Any], key: str, choices: tuple[Any, ...], default: Any) -> Any:
    value = table.get(key, default)
    if value not in choices:
        raise TaskCardError(f"{key} must be {' or '.join(map(repr, choices))}, not {value!r}")
    return value


def _parse_name(name: Any) -> str:
    if not isinstance(name, str) or not is_name(name) or name == READER_NAME:
        raise TaskCardError(f"{NAME_RULE}, unlike {name!r}")
    return name


def _parse_labels(labels: Any) -> tuple[str, ...]:
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise TaskCardError("labels must be a list of strings")
    if not 2 <= len(labels) <= MAX_LABELS:
        raise TaskCardError(f"labels must be 2 to {MAX_LABELS:,} names, not {len(labels)}")
    seen: set[str] = set()
    for label in labels:
        if not label.strip() or not label.isprintable():
            raise TaskCardError(f"a label must be a printable name, not {label!r}")
        if label in seen:
            raise TaskCardError(f"the label {label!r} occurs twice")
        seen.add(label)
    return tuple(labels)


def _parse_thresholds(document: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the threshold of each label of a multi-label task; none of another task."""
    if document.get("output") is None:
        if "threshold" in document:
            raise TaskCardError(f"threshold needs output = {MULTI_LABEL!r}")
        return ()
    _choice(document, "output", (MULTI_LABEL,), MULTI_LABEL)
    given, count = document.get("threshold", THRESHOLD), len(document["labels"])
    thresholds = given if isinstance(given, list) else [given] * count
    if len(thresholds) != count:
        raise TaskCardError(f"threshold must be one number, or one for each of {count} labels, not {given!r}")
    return tuple(_parse_probability("threshold", value) for value in thresholds)


def _parse_probability(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise TaskCardError(f"{name} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _parse_shape(shape: Any, kind: Kind) -> tuple[int, ...]:
    is_list = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not is_list or len(shape) not in (2, 3) or not all(1 <= size <= MAX_SIDE for size in shape[:2]):
        raise TaskCardError(
            f"shape must be [height, width] or [height, width, channels] of 1 to {MAX_SIDE} pixels, "
            f"not {shape!r}"
        )
    if len(shape) == 3 and shape[2] not in CHANNELS.values():
        raise TaskCardError(f"shape must have one channel (grey), three (rgb) or four (rgba), not {shape[2]}")
    if kind == "digits" and tuple(shape) != _DIGIT_SHAPE:
        raise TaskCardError(f"prepare kind 'digits' needs the shape {list(_DIGIT_SHAPE)}, not {shape!r}")
    return tuple(shape)


def _parse_range(bounds: Any) -> tuple[float, float]:
    is_pair = isinstance(bounds, list) and len(bounds) == 2
    # NaN, infinity and integers beyond the range of floats fail the comparison.
    if not is_pair or not all(type(bound) in (int, float) and abs(bound) <= _MAX_BOUND for bound in bounds):
        raise TaskCardError(f"range must be two numbers, such as [0, 255], not {bounds!r}")
    low, high = map(float, bounds)
    if low >= high:
        raise TaskCardError(f"range must rise from black to white, not be {bounds!r}")
    return low, high
