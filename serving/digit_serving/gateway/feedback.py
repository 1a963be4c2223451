"""Feedback: the view of /v1/feedback, which stores kept answers with the labels that callers give them."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

import orjson
from flask import Response, g, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from digit_client import ModelNotFoundError
from digit_client.artifact.feedback_table import NO_CLASS
from digit_client.images import MIN_IS_DIGIT
from digit_client.tfserving.codec import ModelRef
from digit_serving.feedback.records import Record
from digit_serving.gateway import schemas
from digit_serving.gateway.context import REQUEST_ID_PATTERN, RequestContext
from digit_serving.gateway.errors import FeedbackMismatchError, FeedbackUnknownError, MalformedBodyError
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.routing import Router

if TYPE_CHECKING:
    from digit_serving.gateway.answer_keeper import AnswerKeeper

MAX_INDEX = 2**31 - 1
MAX_LABEL = 1000
"""Longest label, in characters."""
_MAX_BODY = 16 * 1024


def _to_integer(value: object) -> object:
    """Convert 1.0 to 1: both are integers in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


RequestId = Annotated[str, Field(pattern=f"^{REQUEST_ID_PATTERN}$")]
Index = Annotated[int, Field(ge=0, le=MAX_INDEX), BeforeValidator(_to_integer)]
Label = Annotated[str, Field(max_length=MAX_LABEL)]
_Body = TypeVar("_Body", bound=BaseModel)


class Feedback(BaseModel):
    """Body of a request: the label of a picture of an earlier request, or that its answer was right."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: RequestId
    index: Index = 0
    label: Label = NO_CLASS
    is_: Annotated[Literal["right"], Field(alias="is")] = "right"

    @model_validator(mode="after")
    def _require_label_or_is(self) -> Self:
        if len({"label", "is_"} & self.model_fields_set) != 1:
            raise PydanticCustomError("label_or_is", "Feedback needs either `label` or `is`")
        return self

    @property
    def is_right(self) -> bool:
        """True if the answer was right."""
        return "is_" in self.model_fields_set


class FeedbackView:
    """View that stores feedback on answers of any worker."""

    def __init__(self, keeper: "AnswerKeeper", router: Router, metrics: Metrics) -> None:
        self._keeper = keeper
        self._router = router
        self._metrics = metrics

    def feedback(self) -> Response:
        context: RequestContext = g.context
        given = parse_body(Feedback)
        records = self._keeper.find(given.request_id, given.index, context.caller)
        if not records:
            raise FeedbackUnknownError(
                "No answer with this request ID and index is kept: it is unknown, or too old."
            )
        context.model = records[0].model
        labels = self._labels(given, records, context)
        now = datetime.now(UTC)
        labelled = [
            dataclasses.replace(record, label=label, labelled_at=now, source="feedback")
            for record, label in zip(records, labels, strict=True)
        ]
        self._keeper.save(labelled)
        for record in labelled:
            self._metrics.count_feedback(record.model, record.version, _agrees(record))
        content: schemas.FeedbackReceipt = {
            "feedback": {
                "request_id": given.request_id,
                "index": given.index,
                "inputs": len(labelled),
                "original": any(record.original for record in labelled),
            },
            "request_id": context.request_id,
        }
        return Response(orjson.dumps(content), content_type="application/json")

    def _labels(self, given: Feedback, records: Sequence[Record], context: RequestContext) -> Sequence[str]:
        """Return the label of each record.

        Raise FeedbackMismatchError if the given one does not suit the answer, and what Router.task raises.
        """
        if given.is_right:
            return [NO_CLASS if _is_refused(record) else record.predicted for record in records]
        if given.label == NO_CLASS:
            return [NO_CLASS] * len(records)
        if records[0].kind == "read":
            return _split_number(given.label, len(records))
        if given.label not in self._model_labels(records[0], context):
            raise FeedbackMismatchError("The label is none of the model's labels.")
        return [given.label]

    def _model_labels(self, record: Record, context: RequestContext) -> Sequence[str]:
        try:
            return self._router.task(ModelRef(record.model, version=record.version), context).labels
        except ModelNotFoundError as error:
            raise FeedbackUnknownError("The version that answered is no longer served.") from error


def parse_body(kind: type[_Body]) -> _Body:
    """Return the request's body, a small JSON document. Raise MalformedBodyError or HTTPException."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Unsupported media type. Send application/json.")
    if int(request.environ.get("CONTENT_LENGTH") or 0) > _MAX_BODY:
        raise RequestEntityTooLarge
    try:
        return kind.model_validate_json(request.environ["wsgi.input"].read())
    except ValidationError as error:
        first = error.errors()[0]
        place = f"Field `{first['loc'][0]}`: " if first["loc"] else ""
        raise MalformedBodyError(f"{place}{first['msg']}.") from error


def _agrees(record: Record) -> bool:
    """True if the label is the predicted one, or says like the answer that the input shows no digit."""
    return record.label == record.predicted or (record.label == NO_CLASS and _is_refused(record))


def _is_refused(record: Record) -> bool:
    """True if the answer was that the input shows no digit."""
    return record.is_digit is not None and record.is_digit < MIN_IS_DIGIT


def _split_number(text: str, count: int) -> Sequence[str]:
    """Return the digits of a number, without white space."""
    digits = "".join(text.split())
    if not (digits.isascii() and digits.isdigit()):
        raise FeedbackMismatchError("The label of a reading must consist of digits and white space.")
    if len(digits) != count:
        raise FeedbackMismatchError(
            f"The label has {len(digits)} digits, the reading has {count}; which ones differ is unknown."
        )
    return digits
