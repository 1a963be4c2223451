"""Feedback: views that label answers, by the callers who got them and by people who label by hand."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

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

from digit_core.artifact.task_card import NO_CLASS
from digit_core.errors import ModelNotFoundError, UnavailableError
from digit_core.tfserving.codec import ModelRef
from digit_serving.feedback.records import Record
from digit_serving.gateway import schemas
from digit_serving.gateway.errors import (
    FeedbackMismatchError,
    FeedbackUnknownError,
    ForbiddenError,
    MalformedBodyError,
)
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.parsing import (
    ModelQuery,
    Query,
    UnlabelledQuery,
    parse_query,
    parse_selection,
    read_body,
)
from digit_serving.gateway.request import RequestContext, json_response
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Upstream

if TYPE_CHECKING:
    from digit_serving.gateway.observers.keeper import AnswerKeeper

_POOL = 10
"""Candidates for each answer that is shown: the random choice seldom gives two people the same one."""
_MAX_BODY = 16 * 1024


def _to_integer(value: object) -> object:
    """Convert 1.0 to 1: both are integers in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _kind_of(document: object) -> str:
    return "is" if isinstance(document, dict) and "is" in document else "label"


Label = Annotated[str, Field(max_length=schemas.MAX_LABEL, examples=["7"])]
_Document = TypeVar("_Document", bound="_Body")


class _Body(BaseModel):
    """Body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class _Feedback(_Body):
    request_id: schemas.RequestId
    """Value of the header X-Request-ID of the answer."""
    index: Annotated[schemas.Position, BeforeValidator(_to_integer)] = 0
    """Position of the picture in its request, from 0."""


class FeedbackLabel(_Feedback):
    """The right label of a picture."""

    label: Label
    """One of the model's labels; of a reading its right text, digits and white space, of any length. Empty if
    the picture shows none of the classes, or no digit."""


class FeedbackRight(_Feedback):
    """The answer to a picture was right."""

    is_: Annotated[Literal["right"], Field(alias="is")]


class HandLabel(_Body):
    """The label of an input, by hand."""

    input: schemas.Digest
    """SHA-256 of the input, as it was shown."""
    label: Label | None
    """One of the model's labels. Empty if the picture shows none of the classes, or no digit. Null withdraws
    the label."""


_FEEDBACK: TypeAdapter[FeedbackLabel | FeedbackRight] = TypeAdapter(
    Annotated[
        Annotated[FeedbackLabel, Tag("label")] | Annotated[FeedbackRight, Tag("is")],
        Discriminator(_kind_of),
    ]
)
_HAND_LABEL = TypeAdapter(HandLabel)


class FeedbackViews:
    """Views that store feedback on answers of any worker, and that show stored inputs without a label.

    For API keys with the permission to label. They do not tell what the model answered: people would be
    inclined to agree.
    """

    def __init__(
        self, settings: Settings, upstream: Upstream, keeper: "AnswerKeeper", metrics: Metrics
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._keeper = keeper
        self._metrics = metrics

    def give(self) -> Response:
        """Store feedback on an answer to the same caller."""
        context: RequestContext = g.context
        parse_query(Query, request)
        given = _parse_body(_FEEDBACK)
        records = self._keeper.find(given.request_id, given.index, context.key)
        if not records:
            raise FeedbackUnknownError(
                "No answer with this request ID and index is kept: it is unknown, or too old."
            )
        context.requested = ModelRef(records[0].model, version=records[0].version)
        labels = self._labels(given, records, context)
        now = datetime.now(UTC)
        labelled = [
            replace(record, label=label, labelled_at=now, source="feedback")
            for record, label in zip(records, labels, strict=True)
        ]
        if records[0].kind == "read":
            answered = "".join(record.predicted for record in records)
            text = given.label if isinstance(given, FeedbackLabel) else answered
            labelled[0] = replace(labelled[0], text=text)
        self._keeper.use_store(lambda store: store.save(labelled))
        for record in labelled:
            agrees = str(record.label == record.predicted).lower()
            self._metrics.feedback(record.model, record.version, agrees).inc()
        content: schemas.FeedbackReceipt = {
            "feedback": {
                "request_id": given.request_id,
                "index": given.index,
                "inputs": len(labelled),
                "original": any(record.original for record in labelled),
            },
            "request_id": context.request_id,
        }
        return json_response(content)

    def unlabelled(self) -> Response:
        """Answer some of the least confident answers, in random order."""
        context = _permitted_context()
        query, context.requested = parse_selection(UnlabelledQuery, request, self._settings)
        model, limit = context.model, query.limit
        records, unlabelled = self._keeper.use_store(
            lambda store: (
                store.unlabelled(model, limit=limit, pool=limit * _POOL),
                store.count_unlabelled(model),
            )
        )
        content: schemas.LabellingRecords = {
            "records": [
                {"input": record.digest, "image": base64.b64encode(record.input).decode()}
                for record in records
            ],
            "unlabelled": unlabelled,
            "request_id": context.request_id,
        }
        # Inputs of other people must not remain in the browser's cache.
        return json_response(content, {"Cache-Control": "no-store"})

    def label(self) -> Response:
        """Label an input; the latest label counts."""
        context = _permitted_context()
        _, context.requested = parse_selection(ModelQuery, request, self._settings)
        given = _parse_body(_HAND_LABEL)
        if given.label:
            try:
                self._require_label(given.label, context)
            except ModelNotFoundError as error:
                # The version that answers by default decides: that of the record may be gone.
                raise UnavailableError(error.message) from error
        model = context.model
        if not self._keeper.use_store(lambda store: store.label(model, given.input, given.label)):
            raise FeedbackUnknownError(
                "No such input waits for a label: it is unknown, was deleted, or its caller has labelled it."
            )
        content: schemas.LabellingReceipt = {"label": given.label, "request_id": context.request_id}
        return json_response(content)

    def _labels(
        self, given: FeedbackLabel | FeedbackRight, records: Sequence[Record], context: RequestContext
    ) -> Sequence[str | None]:
        """Return the label of each record.

        Records of a reading have none if the number has another length: which digits differ is unknown. Raise
        FeedbackMismatchError if the given label does not suit the answer, and what Upstream.route raises.
        """
        if isinstance(given, FeedbackRight):
            return [record.predicted for record in records]
        if given.label == NO_CLASS:
            return [NO_CLASS] * len(records)
        if records[0].kind == "read":
            digits = "".join(given.label.split())
            if not (digits.isascii() and digits.isdigit()):
                raise FeedbackMismatchError("The label of a reading must consist of digits and white space.")
            return [*digits] if len(digits) == len(records) else [None] * len(records)
        try:
            self._require_label(given.label, context)
        except ModelNotFoundError as error:
            raise FeedbackUnknownError("The version that answered is no longer served.") from error
        return [given.label]

    def _require_label(self, label: str, context: RequestContext) -> None:
        if label not in self._upstream.route(context, context.requested).served.card.labels:
            raise FeedbackMismatchError("The label is none of the model's labels.")


def _parse_body(kind: TypeAdapter[_Document]) -> _Document:
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


def _permitted_context() -> RequestContext:
    """Return the request's context. Raise ForbiddenError if the API key may not label."""
    context: RequestContext = g.context
    if not context.may_label:
        raise ForbiddenError("This API key may not label answers. Ask the operator for one that may.")
    return context
