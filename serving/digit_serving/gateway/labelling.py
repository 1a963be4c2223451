"""Labelling: the views of people who label stored answers by hand, /v1/feedback/unlabelled and …/labels."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import orjson
from flask import Response, g, request
from pydantic import BaseModel, TypeAdapter

from digit_client import ModelNotFoundError, UnavailableError
from digit_client.tfserving.codec import ModelRef
from digit_serving.feedback.records import Record
from digit_serving.gateway import schemas
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import (
    FeedbackMismatchError,
    FeedbackUnknownError,
    ForbiddenError,
    LabelConflictError,
)
from digit_serving.gateway.feedback import BODY, Index, Label, RequestId, parse_body
from digit_serving.gateway.request_parsing import (
    UNLABELLED_PARAMETERS,
    ModelSelector,
    check_names,
    parse_integer,
    parse_probability,
)
from digit_serving.gateway.routing import Router

if TYPE_CHECKING:
    from digit_serving.gateway.answer_keeper import AnswerKeeper

MAX_LIMIT = 100
"""Largest value of `limit`."""
MAX_WITHIN = 10**9
"""Largest value of `within`, in seconds."""
LIMIT = 20
WITHIN = 24 * 60 * 60
_POOL = 10
"""Candidates for each answer that is shown: the random choice seldom gives two people the same one."""


class HandLabel(BaseModel):
    """The label of a stored answer as it was shown."""

    model_config = BODY

    request_id: RequestId
    """Value of the header X-Request-ID of the answer."""
    index: Index
    """Position of the picture in its request, from 0."""
    position: Index
    """Position of the digit in the reading of the picture, from 0; 0 if the picture was classified."""
    revision: str
    """`revision` as the answer was shown, or as its last label was received."""
    label: Label | None
    """One of the model's labels. Empty if the picture shows none of the classes, or no digit. Null withdraws
    the label."""


_HAND_LABEL = TypeAdapter(HandLabel)


class LabellingViews:
    """Views that show stored answers without a label and label them, for API keys with this permission.

    They do not tell what the model answered: people would be inclined to agree.
    """

    def __init__(self, selector: ModelSelector, keeper: "AnswerKeeper", router: Router) -> None:
        self._selector = selector
        self._keeper = keeper
        self._router = router

    def unlabelled(self) -> Response:
        """Answer some of the least confident answers, in random order."""
        context = _permitted_context()
        context.requested = self._selector.model(request.args)
        model = context.model
        query = request.args
        check_names(query, UNLABELLED_PARAMETERS)
        limit = parse_integer("limit", query["limit"], 1, MAX_LIMIT) if "limit" in query else LIMIT
        within = parse_integer("within", query["within"], 0, MAX_WITHIN) if "within" in query else WITHIN
        above = parse_probability("above", query["above"]) if "above" in query else None
        since = datetime.now(UTC) - timedelta(seconds=within)
        (records, following), (labelled, unlabelled) = self._keeper.use_store(
            lambda store: (
                store.unlabelled(model, above=above, limit=limit, pool=limit * _POOL),
                store.progress(model, since),
            )
        )
        content: schemas.LabellingRecords = {
            "records": [_describe(record) for record in records],
            "next": following,
            "labelled": labelled,
            "unlabelled": unlabelled,
            "request_id": context.request_id,
        }
        # Inputs of other people must not remain in the browser's cache.
        headers = {"Cache-Control": "no-store"}
        return Response(orjson.dumps(content), content_type="application/json", headers=headers)

    def label(self) -> Response:
        """Label an answer, unless it has changed since it was shown."""
        context = _permitted_context()
        check_names(request.args, ())
        given = parse_body(_HAND_LABEL)
        record = self._find(given)
        context.requested = ModelRef(record.model)
        if given.label and given.label not in self._labels(context):
            raise FeedbackMismatchError("The label is none of the model's labels.")
        labelled = self._keeper.use_store(lambda store: store.label(record, given.label))
        if labelled is None:
            raise _conflict()
        content: schemas.LabellingReceipt = {
            "label": given.label,
            "revision": _revision(labelled),
            "request_id": context.request_id,
        }
        return Response(orjson.dumps(content), content_type="application/json")

    def _find(self, given: HandLabel) -> Record:
        """Return the stored answer as it was shown: callers may have used the same request ID."""
        key = (given.index, given.position)
        stored = self._keeper.use_store(lambda store: [*store.records(request_id=given.request_id)])
        records = [record for record in stored if (record.index, record.position) == key]
        if not records:
            raise FeedbackUnknownError("No such answer is stored: it is unknown, or was deleted.")
        for record in records:
            if _revision(record) == given.revision:
                return record
        raise _conflict()

    def _labels(self, context: RequestContext) -> tuple[str, ...]:
        """Return the labels of the version that answers by default: that of the record may be gone."""
        try:
            return self._router.task(context).labels
        except ModelNotFoundError as error:
            raise UnavailableError(error.message) from error


def _permitted_context() -> RequestContext:
    """Return the request's context. Raise ForbiddenError if the API key may not label."""
    context: RequestContext = g.context
    if not context.may_label:
        raise ForbiddenError("This API key may not label answers. Ask the operator for one that may.")
    return context


def _describe(record: Record) -> schemas.LabellingRecord:
    return {
        "request_id": record.request_id,
        "index": record.index,
        "position": record.position,
        "revision": _revision(record),
        "image": base64.b64encode(record.input).decode(),
    }


def _revision(record: Record) -> str:
    """Return a token of the record's answer and label, which are replaced at other times."""
    return hashlib.sha256(f"{record.caller} {record.answered_at} {record.labelled_at}".encode()).hexdigest()[
        :16
    ]


def _conflict() -> LabelConflictError:
    return LabelConflictError(
        "This answer was labelled or replaced since it was shown; the new label was not stored."
    )
