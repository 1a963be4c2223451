"""Options of a call, each described once, in the annotation of its field.

Query, form fields, members of a JSON body, OpenAPI, the clients' keyword arguments, the command line and
`digits score` follow from these fields. A value may be a text, as in a query, or what Python and JSON have.
"""

import difflib
import json
import math
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypedDict, get_type_hints

from digit_core.results import MIN_IS_DIGIT, Box, parse_box
from digit_core.schema import MAX_BOXES, MAX_FORM_FIELDS, MAX_LABEL, MAX_NUMBERS, MAX_PATTERN

if TYPE_CHECKING:
    from digit_core.reading.expectations import Expectation


_MAX_NAME = 40
"""Characters of a field's name, and those of an unknown name that are compared with the known ones."""


class OptionError(ValueError):
    """An option is unknown, or has an invalid value; `reason` is a clause about it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True, slots=True)
class Option:
    """Description of an option, in the annotation of its field."""

    description: str
    """A sentence or two for callers, in every reference."""
    schema: Mapping[str, Any]
    """JSON Schema of the value."""
    default: Any = None
    metavar: str | None = None
    """Name of the value in the help of a command."""
    text_schema: Mapping[str, Any] | None = None
    """JSON Schema of the value in a query or a form, if it differs."""

    @property
    def repeats(self) -> bool:
        """True if a query, a form or a command may have the option several times, each with an item."""
        return self.text_schema is _BOX_TEXTS

    def parse(self, value: Any) -> Any:
        """Return the value in its one form: lists become tuples, except valid numbers. Raise ValueError."""
        schema = self.schema
        match schema.get("const", schema.get("type")):
            case "number":
                parsed = _to_number(float, value, schema)
                expected = f"a number from {schema['minimum']} to {schema['maximum']}"
            case "integer":
                parsed = _to_number(_to_whole, value, schema)
                expected = f"a whole number from {schema['minimum']} to {schema['maximum']}"
            case "string":
                longest = schema.get("maxLength", math.inf)
                parsed = _to_text(_from_whole(value) if schema is _CHECK else value, longest)
                expected = "a text" if longest == math.inf else f"a text of at most {longest} characters"
            case "array" if schema is _BOXES:
                return _to_boxes(value)
            case "array":
                parsed = _to_names(value, known := schema["items"]["enum"])
                expected = f"one or more of {', '.join(known)}"
            case "object":
                parsed = _to_form(value)
                expected = f"an object of 1 to {MAX_FORM_FIELDS} fields, such as {_FORM_EXAMPLE}"
            case "boolean":
                parsed = _BOOLEANS.get(value if isinstance(value, (bool, str)) else None)
                expected = "true or false"
            case None:
                parsed = _to_pattern(value)
                expected = f"a pattern of at most {MAX_PATTERN} characters, or a list of texts of digits"
            case only:
                parsed = only if value == only else None
                expected = f'"{only}"'
        if parsed is None:
            raise ValueError(f"must be {expected}, not {quoted(value)}")
        return parsed


def names(*known: str) -> dict[str, Any]:
    """Return the schema of a list of some of these values, separated by commas in a text."""
    return {"type": "array", "items": {"enum": [*known], "type": "string"}, "minItems": 1}


def whole_number(low: int, high: int) -> dict[str, Any]:
    """Return the schema of a whole number."""
    return {"type": "integer", "minimum": low, "maximum": high}


_BOOLEANS: Mapping[Any, bool] = {True: True, False: False, "true": True, "false": False}
_VERSION = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "format": "int64"}
_LABEL = {"type": "string", "maxLength": MAX_LABEL}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_BOX = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4}
_BOXES = {
    "type": "array",
    "items": _BOX,
    "minItems": 1,
    "maxItems": MAX_BOXES,
    "examples": [[[12, 8, 200, 40]]],
}
_BOX_TEXTS = {"type": "array", "items": {"type": "string", "examples": ["12,8,200,40"]}, "minItems": 1}
_FORM_EXAMPLE = '{"date": {"box": [12, 8, 200, 40]}}'
_FORM = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": MAX_FORM_FIELDS,
    "examples": [json.loads(_FORM_EXAMPLE)],
}
_PATTERN = {"type": "string", "maxLength": MAX_PATTERN, "examples": ["##/##/####"]}
_CHECK = {"type": "string", "maxLength": MAX_PATTERN, "examples": ["luhn"]}
_NUMBERS = {
    "type": "array",
    "items": {"type": "string", "pattern": "^[0-9]+$"},
    "minItems": 1,
    "maxItems": MAX_NUMBERS,
}


def _to_number(convert: Callable[[Any], Any], value: Any, schema: Mapping[str, Any]) -> Any:
    """Return the number, or None if the value is not one within the schema's bounds."""
    try:
        number = None if isinstance(value, bool) else convert(value)
    except (TypeError, ValueError):
        return None
    return number if number is not None and schema["minimum"] <= number <= schema["maximum"] else None


def _to_whole(value: Any) -> int | None:
    """Return the whole number, or None for notations such as "+1" and "1_0", and for very long texts."""
    digits = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def _to_text(value: Any, longest: float) -> str | None:
    return value if isinstance(value, str) and len(value) <= longest else None


def _to_names(value: Any, known: Sequence[str]) -> tuple[str, ...] | None:
    given = value.split(",") if isinstance(value, str) else value
    chosen = [*given] if isinstance(given, Iterable) else []
    is_known = chosen and all(each in known for each in chosen)
    # Each name once: every picture looks for it.
    return tuple(name for name in known if name in chosen) if is_known else None


def _from_whole(value: Any) -> Any:
    """Return a whole number as a text, which patterns and checks are; others as they are."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _to_pattern(value: Any) -> str | list[Any] | None:
    """Return a pattern, or the list of valid numbers, which a text has on several lines.

    Raise ValueError for a list of another length.
    """
    if isinstance(value, str) and "\n" in value:
        value = value.split()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return _to_text(_from_whole(value), MAX_PATTERN)
    numbers = [*map(_from_whole, value)]
    if not 0 < len(numbers) <= MAX_NUMBERS:
        raise ValueError(f"a list has 1 to {MAX_NUMBERS:,} numbers, not {len(numbers):,}")
    return numbers


def _to_boxes(value: Any) -> tuple[Box, ...]:
    """Return one box or several; their numbers are checked as in a query."""
    several = [value] if isinstance(value, str) else [*value] if isinstance(value, Iterable) else [value]
    if several and not isinstance(several[0], (str, Iterable)):
        several = [several]
    if len(several) > MAX_BOXES:
        raise ValueError(f"a call has at most {MAX_BOXES:,} boxes, not {len(several):,}")
    texts = [
        # A fifth number is one too many; the others, and lists in place of numbers, would take long to write.
        ",".join("[]" if isinstance(each, list) else str(each) for each in islice(box, 5))
        if isinstance(box, Iterable) and not isinstance(box, str)
        else str(box)
        for box in several
    ]
    return tuple(map(parse_box, texts or [""]))


def _to_form(value: Any) -> dict[str, Any] | None:
    """Return the fields of a form by their names, each with its options; None for a value that is no form."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, Mapping) or not 0 < len(value) <= MAX_FORM_FIELDS:
        return None
    return {str(name): asdict(each) if isinstance(each, Field) else each for name, each in value.items()}


@dataclass(frozen=True, slots=True)
class Field:
    """Field of a form: a part of the picture, and what is expected there."""

    box: Box
    """Left, top, width and height in pixels of the picture as given."""
    expect: str | Sequence[str] | None = None
    """Pattern of the number, or the valid numbers."""
    check: str | None = None
    """Check of the number's digits."""
    valid: bool | None = None
    """True if the number is known to be as expected."""


class VersionOptions(TypedDict, total=False):
    """Options of all calls for answers."""

    version: Annotated[int | None, Option("Version of the model.", _VERSION, metavar="N")]
    label: Annotated[str | None, Option("Label of a version of the model; excludes `version`.", _LABEL)]
    min_is_digit: Annotated[
        float | None,
        Option(
            "Least `is_digit` of a digit; models of digits refuse a picture with less. A higher value "
            "refuses more pictures without a digit, and more digits.",
            _SHARE,
            MIN_IS_DIGIT,
            "SHARE",
        ),
    ]
    min_confidence: Annotated[
        float | None,
        Option(
            "Least certainty of an answer: its confidence, times `is_digit` of a prediction that has it. "
            "One with less is `unsure`.",
            _SHARE,
            metavar="SHARE",
        ),
    ]


_Image: TypeAlias = Literal["image"]
_ReadInclude: TypeAlias = Literal["image", "opinions"]


class PredictOptions(VersionOptions, total=False):
    """Options of a prediction; one that is missing or None has its default."""

    include: Annotated[
        _Image | Sequence[_Image] | None,
        Option("`image` adds the model's input, as a PNG file.", names("image"), ()),
    ]


class PartOptions(TypedDict, total=False):
    """Options of the parts of a picture that are read; a field of a form has its own."""

    expect: Annotated[
        str | Sequence[str] | None,
        Option(
            "Pattern of the number; the most probable number that fits is read, if there is one. `#` stands "
            "for a digit, `#{4}` and `#{4,6}` for that many, digits and signs stand for themselves, `|` "
            "separates alternatives; `date` and `amount` name common patterns, `date:dmy:1990..2030` also a "
            "form and the years. A list has the valid numbers.",
            {"oneOf": [_PATTERN, _NUMBERS]},
            metavar="PATTERN",
            text_schema=_PATTERN,
        ),
    ]
    check: Annotated[
        str | None,
        Option(
            "Check of the number's digits: `luhn`, `mod11`, `mod97`, or a range such as `0..9999` or "
            "`48210..`.",
            _CHECK,
            metavar="CHECK",
        ),
    ]
    valid: Annotated[
        bool | None,
        Option(
            "True if each picture certainly shows a number that fits `expect` and `check`: the most probable "
            "one is also read if it is 20 times as probable as all others that fit.",
            {"type": "boolean"},
            False,
        ),
    ]
    box: Annotated[
        Box | Sequence[Box] | None,
        Option(
            "Part of each image that is read: left, top, width and height in pixels of the image. Each of "
            "several parts has a reading, in order, image by image.",
            _BOXES,
            (),
            "LEFT,TOP,WIDTH,HEIGHT",
            _BOX_TEXTS,
        ),
    ]


class ReadOptions(VersionOptions, PartOptions, total=False):
    """Options of a reading; one that is missing or None has its default."""

    include: Annotated[
        _ReadInclude | Sequence[_ReadInclude] | None,
        Option(
            "`image` adds the model's input of each digit, as a PNG file; `opinions` adds the digit that "
            "each network alone sees.",
            names("image", "opinions"),
            (),
        ),
    ]
    form: Annotated[
        Mapping[str, Field | Mapping[str, Any]] | None,
        Option(
            "Form: the fields of each image by name, each with its `box`, and with `expect`, `check` and "
            "`valid` if something is expected there. Each field has a reading, in order, image by image.",
            _FORM,
            metavar="FILE.toml",
            text_schema={"type": "string", "contentMediaType": "application/json"},
        ),
    ]
    turn: Annotated[
        Literal["auto"] | None,
        Option(
            "`auto` turns an image that is not upright before it is read, by its `orientation`.",
            {"type": "string", "const": "auto"},
        ),
    ]


class Options(dict[str, Any]):
    """Checked options of a call, each in its one form; one that the call does not have has its default."""

    def __init__(
        self,
        values: Mapping[str, Any],
        given: Collection[str],
        expectation: "Expectation | None" = None,
        fields: "Mapping[str, Options] | None" = None,
    ) -> None:
        super().__init__(values)
        self.given = given
        """Names of the options that the call has."""
        self.expectation = expectation
        """Automaton of `expect` and `check`."""
        self.fields = fields or {}
        """Options of each field of a form, whose boxes are the call's."""
        self.field: str | None = None
        """Name of the only part, if it is a field of a form."""
        self.parts = len(self.get("box") or ()) or 1
        """Number of results of each picture."""

    def of_part(self, index: int) -> "Options":
        """Return the options of a part alone; parts are counted from 0, over all pictures."""
        if not self.get("box"):
            return self
        part, place = copy(self), index % self.parts
        if self.fields:
            part.field, own = [*self.fields.items()][place]
            part.update(own)
            part.expectation = own.expectation
        part["box"], part.parts = self["box"][place : place + 1], 1
        return part

    def form_to_json(self) -> str:
        """Return the form as a text for a body."""
        boxes = zip(self.fields.items(), self["box"], strict=True)
        return json.dumps(
            {name: {key: each[key] for key in each.given} | {"box": box} for (name, each), box in boxes}
        )

    @property
    def numbers(self) -> list[str] | None:
        """The valid numbers, if `expect` is a list of them."""
        expect = self.get("expect")
        return expect if isinstance(expect, list) else None

    def to_texts(self) -> list[tuple[str, str]]:
        """Return the options of the call as texts for a query, without a list of valid numbers."""
        texts = []
        for name in self.given:
            value = self[name]
            if name == "form":
                continue
            if name == "box":
                texts += [(name, ",".join(map(str, box))) for box in value]
            elif not isinstance(value, list):
                text = str(value).lower() if isinstance(value, bool) else str(value)
                texts.append((name, ",".join(value) if isinstance(value, tuple) else text))
        return texts


@cache
def described(kind: Any) -> dict[str, Option]:
    """Return the description of each option of a TypedDict."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def parse(kind: Any, given: Mapping[str, Any]) -> Options:
    """Return the options of a TypedDict's kind; None stands for a missing one. Raise OptionError."""
    known, values = described(kind), {}
    for name, value in given.items():
        if name not in known:
            raise OptionError(name, f"there is no such option; {nearest(name, known)}")
        if value is not None:
            try:
                values[name] = known[name].parse(value)
            except ValueError as error:
                raise OptionError(name, str(error)) from error
    if "version" in values and "label" in values:
        raise OptionError("label", "name a version or a label, not both")
    fields = _parse_fields(values)
    expectation = _parse_expectation(values.get("expect"), values.get("check"))
    defaults = {name: option.default for name, option in known.items()}
    boxes = {"box": tuple(each["box"][0] for each in fields.values())} if fields else {}
    return Options(defaults | values | boxes, values.keys(), expectation, fields)


def _parse_fields(values: Mapping[str, Any]) -> dict[str, Options]:
    """Return the options of each field of a form. Raise OptionError with the field in its name."""
    form = values.get("form") or {}
    if others := described(PartOptions).keys() & values.keys() if form else ():
        raise OptionError(min(others), "each field of a form has its own; leave it out beside `form`")
    fields = {}
    for name, given in form.items():
        place = f"form.{name}"
        if not 0 < len(name) <= _MAX_NAME:
            raise OptionError("form", f"a field's name has 1 to {_MAX_NAME} characters, not {len(name):,}")
        if not isinstance(given, Mapping):
            raise OptionError(place, f"must be a field with a box, not {quoted(given)}")
        try:
            fields[name] = parse(PartOptions, given)
        except OptionError as error:
            raise OptionError(f"{place}.{error.name}", error.reason) from error
        if len(fields[name]["box"]) != 1:
            raise OptionError(f"{place}.box", "a field has one box: left, top, width and height")
    if sum(len(each.numbers or ()) for each in fields.values()) > MAX_NUMBERS:
        raise OptionError("form", f"its lists have more than {MAX_NUMBERS:,} numbers together")
    return fields


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause with the known names, and the one that was probably meant."""
    listed = [*known]
    # The comparison takes time for each character.
    close = difflib.get_close_matches(name[:_MAX_NAME], listed, 1)
    meant = f"did you mean `{close[0]}`? " if close else ""
    return f"{meant}{'K' if meant else 'k'}nown: {', '.join(listed) or 'none'}"


def quoted(value: Any) -> str:
    """Return a value for a message, shortened before it is formatted, since it may be large."""
    return reprlib.Repr(maxstring=60, maxother=60, maxdict=1).repr(value)


def _parse_expectation(expect: str | list[str] | None, check: str | None) -> "Expectation | None":
    if expect is None and check is None:
        return None
    # Lazy import: it needs NumPy, which takes long.
    from digit_core.reading.expectations import parse_expectation

    name = "check"
    try:
        if check is not None:
            parse_expectation(None, check)
        name = "expect"
        return parse_expectation(expect, check)
    except ValueError as error:
        raise OptionError(name, str(error)) from error


DEFAULTS = parse(ReadOptions, {})
"""Options of a call that names none."""
