"""Feedback: the view of /v1/feedback, which stores kept answers with the labels that callers give them."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import orjson
from flask import Response, g, request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
)
from werkzeug.exceptions import UnsupportedMediaType

from digit_client import ModelNotFoundError
from digit_client.artifact.task_card import NO_CLASS
from digit_client.tfserving.codec import ModelRef
from digit_serving.feedback.records import Record
from digit_serving.gateway import schemas
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import FeedbackMismatchError, FeedbackUnknownError, MalformedBodyError
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.request_parsing import check_names, read_body
from digit_serving.gateway.routing import Router

if TYPE_CHECKING:
    from digit_serving.gateway.answer_keeper import AnswerKeeper

_MAX_BODY = 16 * 1024


def _to_integer(value: object) -> object:
    """Convert 1.0 to 1: both are integers in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


RequestId = schemas.RequestId
Index = Annotated[schemas.Position, BeforeValidator(_to_integer)]
Label = Annotated[str, Field(max_length=schemas.MAX_LABEL, examples=["7"])]
BODY = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
"""Configuration of request bodies."""
_Body = TypeVar("_Body")


class _Feedback(BaseModel):
    model_config = BODY

    request_id: RequestId
    """Value of the header X-Request-ID of the answer."""
    index: Index = 0
    """Position of the picture in its request, from 0."""


class FeedbackLabel(_Feedback):
    """The right label of a picture."""

    label: Label
    """One of the model's labels; of a reading its right text, digits and white space, of any length. Empty if
    the picture shows none of the classes, or no digit."""


class FeedbackRight(_Feedback):
    """The answer to a picture was right."""

    is_: Annotated[Literal["right"], Field(alias="is")]


def _kind_of(document: object) -> str:
    return "is" if isinstance(document, dict) and "is" in document else "label"


_FEEDBACK: TypeAdapter[FeedbackLabel | FeedbackRight] = TypeAdapter(
    Annotated[
        Annotated[FeedbackLabel, Tag("label")] | Annotated[FeedbackRight, Tag("is")],
        Discriminator(_kind_of),
    ]
)


class FeedbackView:
    """View that stores feedback on answers of any worker."""

    def __init__(self, keeper: "AnswerKeeper", router: Router, metrics: Metrics) -> None:
        self._keeper = keeper
        self._router = router
        self._metrics = metrics

    def feedback(self) -> Response:
        context: RequestContext = g.context
        check_names(request.args, ())
        given = parse_body(_FEEDBACK)
        records = self._keeper.find(given.request_id, given.index, context.caller)
        if not records:
            raise FeedbackUnknownError(
                "No answer with this request ID and index is kept: it is unknown, or too old."
            )
        context.requested = ModelRef(records[0].model, version=records[0].version)
        labels = self._labels(given, records, context)
        now = datetime.now(UTC)
        labelled = [
            dataclasses.replace(record, label=label, labelled_at=now, source="feedback")
            for record, label in zip(records, labels, strict=True)
        ]
        if records[0].kind == "read":
            labelled[0] = dataclasses.replace(labelled[0], text=_text(given, records))
        self._keeper.save(labelled)
        for record in labelled:
            self._metrics.count_feedback(record.model, record.version, record.label == record.predicted)
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

    def _labels(
        self, given: FeedbackLabel | FeedbackRight, records: Sequence[Record], context: RequestContext
    ) -> Sequence[str | None]:
        """Return the label of each record.

        Records of a reading have none if the number has another length: which digits differ is unknown. Raise
        FeedbackMismatchError if the given label does not suit the answer, and what Router.task raises.
        """
        if isinstance(given, FeedbackRight):
            return [record.predicted for record in records]
        if given.label == NO_CLASS:
            return [NO_CLASS] * len(records)
        if records[0].kind == "read":
            digits = _digits(given.label)
            return [*digits] if len(digits) == len(records) else [None] * len(records)
        if given.label not in self._model_labels(context):
            raise FeedbackMismatchError("The label is none of the model's labels.")
        return [given.label]

    def _model_labels(self, context: RequestContext) -> Sequence[str]:
        try:
            return self._router.task(context).labels
        except ModelNotFoundError as error:
            raise FeedbackUnknownError("The version that answered is no longer served.") from error


def parse_body(kind: TypeAdapter[_Body]) -> _Body:
    """Return the request's body, a small JSON document. Raise MalformedBodyError or HTTPException."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Unsupported media type. Send application/json.")
    try:
        return kind.validate_json(read_body(request, _MAX_BODY))
    except ValidationError as error:
        first = error.errors()[0]
        # A document of several kinds has its kind in front.
        place = f"Field `{first['loc'][-1]}`: " if first["loc"] else ""
        raise MalformedBodyError(f"{place}{first['msg']}.") from error


def _digits(text: str) -> str:
    """Return the digits of a number, without white space. Raise FeedbackMismatchError for other text."""
    digits = "".join(text.split())
    if not (digits.isascii() and digits.isdigit()):
        raise FeedbackMismatchError("The label of a reading must consist of digits and white space.")
    return digits


def _text(given: FeedbackLabel | FeedbackRight, records: Sequence[Record]) -> str:
    """Return the right text of a reading."""
    return (
        given.label if isinstance(given, FeedbackLabel) else "".join(record.predicted for record in records)
    )
