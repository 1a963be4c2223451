"""JSON documents of feedback as types, as those of the gateway."""

from collections.abc import Sequence
from typing import Annotated, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# pydantic needs this one before Python 3.12.
from typing_extensions import TypedDict

from digit_core import results
from digit_core.schema import MAX_BOXES
from digit_serving.gateway.schemas import EncodedFile, Png, RequestId

_MAX_INDEX = 2**31 - 1
"""Largest position of a picture in a request, and of a digit in a reading."""
MAX_LABEL = 1000
"""Longest label, in characters."""


def _to_integer(value: object) -> object:
    """Convert 1.0 to 1: both are integers in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _count(boxes: object) -> object:
    """Refuse too many boxes before each is validated."""
    if isinstance(boxes, Sequence) and len(boxes) > MAX_BOXES:
        raise ValueError(f"a picture has at most {MAX_BOXES:,} boxes, not {len(boxes):,}")
    return boxes


Position = Annotated[int, Field(ge=0, le=_MAX_INDEX, json_schema_extra={"format": "int32"})]
_Place = Annotated[Position, BeforeValidator(_to_integer)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Label = Annotated[str, Field(max_length=MAX_LABEL, examples=["7"])]


class _Body(BaseModel):
    """Body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class FeedbackPicture(_Body):
    """A picture with its label."""

    image: EncodedFile
    label: Label
    """One of the model's labels, or a number; empty if the picture shows none of the classes, or no digit.
    Signs and white space of a number don't count. One with a digit for each box labels each of these, another
    one all that is around the boxes."""
    boxes: Annotated[
        Sequence[Annotated[Sequence[_Place], Field(min_length=4, max_length=4)]], BeforeValidator(_count)
    ] = ()
    """Parts that the label is about, as answers have them: left, top, width and height. Without any, it is
    the whole picture, or the digit that the service finds."""


class FeedbackLabel(_Body):
    """The label of a picture that the service has stored as a sample."""

    request_id: RequestId
    """Value of the header X-Request-ID of its answer."""
    index: _Place = 0
    """Position of the picture in its request, from 0."""
    label: Label
    """One of the model's labels, or empty; of a reading its number, of any length."""


class HandLabel(_Body):
    """The label of a stored picture, by hand."""

    picture: _Digest
    """Name of the picture, as it was shown."""
    label: Label | None
    """One of the model's labels, or of a reading its number, of any length. Empty if the picture shows none
    of the classes, or no digit. Null withdraws the label."""


class FeedbackForm(TypedDict):
    """A picture with its label as form parts."""

    image: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    label: Annotated[str, Field(max_length=MAX_LABEL)]
    """One of the model's labels, a number, or empty."""
    box: NotRequired[Sequence[Annotated[str, Field(pattern=r"^\d+,\d+,\d+,\d+$")]]]
    """Parts that the label is about: left,top,width,height."""


class FeedbackEntry(TypedDict):
    """Feedback that was stored."""

    request_id: RequestId
    """Request that brought the picture."""
    index: Position
    """Position of the picture in its request, from 0."""
    pictures: Annotated[int, Field(ge=1)]
    """Number of pictures that got a label: the digits of a number, or 1."""


class FeedbackReceipt(TypedDict):
    """Receipt of feedback."""

    feedback: FeedbackEntry
    request_id: RequestId


class LabellingRecord(TypedDict):
    """Stored picture that waits for a label."""

    picture: _Digest
    """Name of the picture: a SHA-256."""
    image: Png
    """The picture, or what is around its boxes."""
    box: results.Box | None
    """Part that the label is about, null if it is all of the image."""
    boxes: Sequence[results.Box]
    """Digits that were read there; none if the reading was refused, or if the label is no number."""
    candidates: Sequence[str] | None
    """Numbers that the picture may show, and that the call expected, which don't tell the answer: none if
    there is but one. Null unless the label is a number."""


class LabellingRecords(TypedDict):
    """Stored pictures that wait for a label."""

    records: Sequence[LabellingRecord]
    unlabelled: Annotated[int, Field(ge=0)]
    """Number of the model's pictures that wait for a label, each counted once."""
    request_id: RequestId


class LabellingReceipt(TypedDict):
    """Receipt of a label."""

    label: Annotated[str, Field(max_length=MAX_LABEL)] | None
    """Label of the picture now, null if it has none."""
    request_id: RequestId
