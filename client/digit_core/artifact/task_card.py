"""Task card: description of a model's pictures and answers, which travels inside the artifact."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

import msgspec

from digit_core.schema import Schema, Share

Kind = Literal["digits", "resize", "none"]
Fit = Literal["crop", "pad", "stretch"]
Color = Literal["grey", "rgb", "rgba"]
CHANNELS: dict[int, Color] = {1: "grey", 3: "rgb", 4: "rgba"}
"""Colour of a picture by the number of its channels."""
MULTI_LABEL = "multi-label"
"""Output of a model that gives each label a probability of its own."""
_THRESHOLD = 0.5
"""Default of `threshold`: a label with at least this probability is named."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""Form of a model's name. A number is refused, because it is the name of a version's folder."""
READER_NAME = "reader"
"""Name of the model that finds digits on a page; it has no task card, because it classifies no picture."""
NAME_RULE = (
    "a model's name has 1 to 63 letters, digits, - and _, begins with a letter or a digit, and is neither a "
    f"number nor {READER_NAME!r}"
)
MAX_LABELS = 25_000
"""Largest number of labels of a card; ImageNet-21k has 21,843."""
MAX_SIDE = 2048
"""Largest height and width of a model's input, in pixels."""
DIGIT_LABELS = tuple("0123456789")
"""Labels of a task whose classes are the ten digits."""
NO_CLASS = ""
"""Label of an input that shows none of a task's classes, such as no digit."""

_FORMS = {
    "labels": "the names of the classes as a list of strings",
    "shape": "[height, width] or [height, width, channels]",
    "range": "the values of black and white, such as [0, 255]",
    "threshold": "one number from 0 to 1, or a list with one for each label",
    "refuse_below": "a number from 0 to 1",
}
"""Form of each member that authors get wrong, for the message."""
_OPTIONAL = {"optional": True}
"""Metadata of a field that a document omits at its default, so that older services read the card."""
_Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE), Schema(minimum=1)]
_Probability = Annotated[Share, msgspec.Meta(ge=0, le=1)]
_EACH_LABEL = Schema(minItems=2, maxItems=MAX_LABELS)


class TaskCardError(ValueError):
    """A task card is incomplete or contradictory; the message is one sentence for the card's author."""


@dataclass(frozen=True)
class CardInput:
    """Pictures that the model takes."""

    shape: Annotated[
        tuple[_Size, ...], msgspec.Meta(min_length=2, max_length=3), Schema(minItems=2, maxItems=3)
    ]
    """Height, width and, for one, three or four channels, their number."""
    range: Annotated[
        tuple[float, float], Schema(type="array", items={"type": "number"}, minItems=2, maxItems=2)
    ]
    """Values of black and white in the model's input."""

    def __post_init__(self) -> None:
        low, high = self.range
        if self.channels not in CHANNELS:
            raise TaskCardError(f"shape must have 1, 3 (rgb) or 4 (rgba) channels, not {self.channels}")
        if not -math.inf < low < high < math.inf:
            raise TaskCardError(
                f"range must rise from black to white, such as [0, 255], not be [{low:g}, {high:g}]"
            )

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[2] if len(self.shape) == 3 else 1


@dataclass(frozen=True)
class CardPreparation:
    """Preparation of a picture."""

    kind: Kind = "resize"
    """`digits` finds what is written and frames it as MNIST does, `resize` scales the picture, `none`
    requires the shape."""
    fit: Fit = "stretch"
    """Treatment of another aspect ratio by `resize`: `stretch`, as image_dataset_from_directory of Keras
    does, `crop` to the centre, or `pad` with black."""
    color: Color = field(default="grey", compare=False)
    """Colour of a prepared picture, which follows from the shape."""
    interpolation: Literal["area", "bilinear"] = field(default="area", metadata=_OPTIONAL)
    """Downscaling by `resize`: `area` averages pixels, `bilinear` takes the nearest four, as Keras does."""
    alpha: Literal["white", "ignore"] = field(default="white", metadata=_OPTIONAL)
    """Treatment of transparency: laid on `white`, or `ignore`, as Keras does."""
    exif: bool = field(default=True, metadata=_OPTIONAL)
    """True to turn a photograph as its EXIF orientation says; Keras does not."""


@dataclass(frozen=True)
class TaskCard:
    """Task card: the classes of the model, and the pictures that it takes."""

    name: str
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=2, max_length=MAX_LABELS), _EACH_LABEL]
    """Names of the classes, in the order of the model's output."""
    output: Literal["multi-label"] | None = field(init=False, default=None, compare=False, metadata=_OPTIONAL)
    """`multi-label` if any number of labels may suit a picture; follows from `threshold`."""
    threshold: Annotated[tuple[_Probability, ...], _EACH_LABEL] = field(
        default=(), kw_only=True, metadata=_OPTIONAL
    )
    """Least probability of each label that is named, of a multi-label model."""
    refuse_below: _Probability = field(default=0.0, kw_only=True, metadata=_OPTIONAL)
    """Confidence below which an answer is refused as unsure."""
    input: CardInput
    prepare: CardPreparation = CardPreparation()

    def __post_init__(self) -> None:
        if not is_name(self.name) or self.name == READER_NAME:
            raise TaskCardError(f"{NAME_RULE}, unlike {self.name!r}")
        for label, occurrences in Counter(self.labels).items():
            if occurrences > 1:
                raise TaskCardError(f"the label {label!r} occurs twice")
            if not label.strip() or not label.isprintable():
                raise TaskCardError(f"a label must be a printable name, not {label!r}")
        count = len(self.labels)
        if len(self.threshold) not in (0, count):
            raise TaskCardError(f"threshold must be one number, or one for each of {count} labels")
        if self.kind == "digits" and self.shape != (28, 28):
            raise TaskCardError(f"kind 'digits' needs the shape [28, 28], not {[*self.shape]}")
        if self.refuse_below and (self.reads_numbers or self.is_multi_label):
            raise TaskCardError(
                "refuse_below is for other tasks: digits are refused by is_digit, and the threshold says "
                "which labels of a multi-label task are named"
            )
        prepare = replace(self.prepare, color=CHANNELS[self.input.channels])
        object.__setattr__(self, "prepare", prepare)
        object.__setattr__(self, "output", MULTI_LABEL if self.threshold else None)

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, ignores_unknown: bool = False) -> Self:
        """Return the card of a parsed TOML or JSON document. Raise TaskCardError.

        `ignores_unknown` is for cards of services and models, which may be newer: it allows unknown keys.
        """
        if not ignores_unknown:
            cls.check_keys(document)
        try:
            card = msgspec.convert(_with_thresholds(document), cls)
        except ValueError as error:
            raise TaskCardError(_sentence(error)) from error
        color = document.get("prepare", {}).get("color", card.prepare.color)
        if color != card.prepare.color:
            raise TaskCardError(f"color {color!r} contradicts the shape {[*card.shape]}")
        return card

    @staticmethod
    def check_keys(document: Mapping[str, Any], more_input_keys: Set[str] = frozenset()) -> None:
        """Raise TaskCardError if a document, complete or not, has a key that no card has.

        `more_input_keys` are those of [input] that the caller takes out.
        """
        for where, table, kind in (
            ("the task card", document, TaskCard),
            ("[input]", document.get("input", {}), CardInput),
            ("[prepare]", document.get("prepare", {}), CardPreparation),
        ):
            if not isinstance(table, Mapping):
                raise TaskCardError(f"{where} must be a table")
            known = {each.name for each in fields(kind)}
            known |= more_input_keys if kind is CardInput else set()
            if unknown := sorted(table.keys() - known):
                raise TaskCardError(
                    f"{where} has the unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}"
                )

    def to_document(self) -> dict[str, Any]:
        """Return the card as JSON values, which `from_document` reads."""
        return _to_document(self)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of a prepared picture: [h, w] or [h, w, c]."""
        return self.input.shape

    @cached_property
    def range(self) -> tuple[float, float]:
        """Values of black and white in the model's input."""
        return self.input.range

    @cached_property
    def kind(self) -> Kind:
        """Preparation of a picture."""
        return self.prepare.kind

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
        return bool(self.threshold)

    @cached_property
    def reads_numbers(self) -> bool:
        """True if several digits can be read from one picture."""
        return self.kind == "digits" and self.has_digit_labels and not self.is_multi_label

    @property
    def input_words(self) -> Sequence[str]:
        """Words for the pictures that the model takes: one for each property, such as size and colour."""
        prepare = self.prepare
        scaling = [f"the fit {prepare.fit}", f"{prepare.interpolation} interpolation"]
        return [
            f"{self.shape[0]}×{self.shape[1]} pictures",
            f"the colour {prepare.color}",
            f"values of {self.range[0]:g} to {self.range[1]:g}",
            *(scaling if self.kind == "resize" else []),
            f"transparency {'ignored' if prepare.alpha == 'ignore' else 'laid on white'}",
            f"EXIF orientation {'applied' if prepare.exif else 'ignored'}",
        ]

    def prepares_as(self, other: "TaskCard") -> bool:
        """True if both cards prepare and answer a picture in the same way, whatever the names."""
        theirs = other.prepare
        # Only `resize` has a fit.
        own = self.prepare if self.kind == "resize" else replace(self.prepare, fit=theirs.fit)
        return (self.input, own, self.reads_numbers) == (other.input, theirs, other.reads_numbers)


def is_name(name: str) -> bool:
    """True for the name of a model: a classifier's, or the reader's."""
    return bool(NAME.fullmatch(name)) and not name.isdigit()


def _to_document(part: Any) -> dict[str, Any]:
    """Return the members of a dataclass as JSON values; an optional member is omitted at its default."""
    document: dict[str, Any] = {}
    for each in fields(part):
        value = getattr(part, each.name)
        if not each.metadata.get("optional") or value != each.default:
            plain = [*value] if isinstance(value, tuple) else value
            document[each.name] = _to_document(value) if is_dataclass(value) else plain
    return document


def _with_thresholds(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document with a threshold for each label of a multi-label task."""
    output, labels = document.get("output"), document.get("labels")
    if output not in (None, MULTI_LABEL):
        raise TaskCardError(f"output must be {MULTI_LABEL!r}, not {output!r}")
    if output is None and "threshold" in document:
        raise TaskCardError(f"threshold needs output = {MULTI_LABEL!r}")
    threshold = document.get("threshold", _THRESHOLD)
    if output is None or isinstance(threshold, list) or not isinstance(labels, list):
        return document
    return {**document, "threshold": [threshold] * len(labels)}


def _sentence(error: ValueError) -> str:
    """Return a sentence for the author of a card that can't be converted."""
    if isinstance(cause := error.__cause__ or error, TaskCardError):
        return str(cause)
    message, _, path = str(error).rstrip("`").partition(" - at `$.")
    name = path.rpartition(".")[2] or "the task card"
    if missing := re.fullmatch("Object missing required field `(.*?)`?", message):
        return f"{f'[{path}]' if path else name} lacks {missing[1]!r}"
    if message.startswith("Invalid enum value"):
        choices = " or ".join(map(repr, get_args(get_type_hints(CardPreparation)[name])))
        return f"{name} must be {choices}, not {message.removeprefix('Invalid enum value ')}"
    form = _FORMS.get(name.partition("[")[0])
    return f"{name} is invalid: {message[0].lower()}{message[1:]}" + (f"; write {form}" if form else "")


DIGITS = TaskCard("digits", DIGIT_LABELS, CardInput((28, 28), (0.0, 1.0)), CardPreparation("digits"))
"""Card of the handwritten digits, and of every model without a card."""
