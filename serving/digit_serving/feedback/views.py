"""Feedback: views that store pictures with their labels, and that show stored pictures without one."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
from flask import Response, g, request
from pydantic import (
    Discriminator,
    Tag,
    TypeAdapter,
    ValidationError,
)
from werkzeug.exceptions import UnsupportedMediaType

from digit_core.artifact.task_card import DIGIT_LABELS, NO_CLASS, TaskCard
from digit_core.errors import ModelNotFoundError, UnavailableError
from digit_core.feedback.records import WHOLE, Record
from digit_core.feedback.store import Criteria
from digit_core.options import Option, whole_number
from digit_core.recognition import Recognition, drive
from digit_core.results import Box, Prediction, parse_box
from digit_core.schema import MAX_BOXES
from digit_serving.feedback.errors import FeedbackMismatchError, FeedbackUnknownError
from digit_serving.feedback.parts import Part, cut, to_records, to_whole
from digit_serving.feedback.schemas import (
    MAX_LABEL,
    FeedbackLabel,
    FeedbackPicture,
    FeedbackReceipt,
    HandLabel,
    LabellingReceipt,
    LabellingRecords,
)
from digit_serving.feedback.worker_store import WorkerStore
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.errors import ForbiddenError, MalformedBodyError
from digit_serving.gateway.parsing import (
    BodyParser,
    ModelQuery,
    check_values,
    from_base64,
    parse_selection,
    read_body,
)
from digit_serving.gateway.request import RequestContext, Route, json_response
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Upstream

_POOL = 10
"""Candidates for each picture that is shown: the random choice seldom gives two people the same one."""
_MAX_LABEL_BODY = 16 * 1024


class UnlabelledQuery(ModelQuery, total=False):
    """Query of pictures that wait for a label."""

    limit: Annotated[int | None, Option("Largest number of pictures.", whole_number(1, 100), 20)]


def _kind_of(document: object) -> str:
    return "picture" if isinstance(document, dict) and "image" in document else "request"


_FEEDBACK: TypeAdapter[FeedbackPicture | FeedbackLabel] = TypeAdapter(
    Annotated[
        Annotated[FeedbackPicture, Tag("picture")] | Annotated[FeedbackLabel, Tag("request")],
        Discriminator(_kind_of),
    ]
)
_HAND_LABEL = TypeAdapter(HandLabel)


@dataclass(frozen=True, slots=True)
class _Given:
    """A picture with its label, of any form of body."""

    image: bytes
    label: str
    boxes: Sequence[Box]


class FeedbackViews:
    """Views that store labelled pictures, and that show stored pictures without a label.

    Stored pictures are for API keys with the permission to label. They come without the model's answer,
    which would sway people.
    """

    def __init__(self, settings: Settings, upstream: Upstream, work: Work, store: WorkerStore) -> None:
        self._settings = settings
        self._upstream = upstream
        self._work = work
        self._parser = BodyParser(settings, work)
        self._store = store

    def give(self) -> Response:
        """Store a picture with its label, or the label of a stored picture of the same caller."""
        context: RequestContext = g.context
        # No other page has the caller's key.
        if not context.key:
            _require_own_page(self._settings.cors_origins)
        _, context.requested = parse_selection(ModelQuery, request, self._settings)
        given, route = self._parse(context), self._route(context)
        if isinstance(given, FeedbackLabel):
            records = self._labelled(given, context, route)
        else:
            records = self._answered(given, context, route)
        labelled = [each for each in records if each.position != WHOLE and each.label is not None]
        labelled = labelled or records[:1]
        others = [record for record in records if record not in labelled]
        self._store.use(self._store.saving(labelled, known=others))
        for record in labelled:
            agrees = str(record.label == record.predicted).lower()
            self._store.metrics.labelled(record.model, record.version, agrees).inc()
        content: FeedbackReceipt = {
            "feedback": {
                "request_id": records[0].request_id,
                "index": records[0].index,
                "pictures": len(labelled),
            },
            "request_id": context.request_id,
        }
        return json_response(content)

    def unlabelled(self) -> Response:
        """Show some of the pictures with the least confident answers, the least confident one first."""
        context = _permitted_context()
        query, context.requested = parse_selection(UnlabelledQuery, request, self._settings)
        model, limit = context.model, query["limit"]
        records, unlabelled = self._store.use(
            lambda store: (
                store.unlabelled(model, limit=limit, pool=limit * _POOL),
                store.count_unlabelled(model),
            )
        )
        content: LabellingRecords = {
            "records": [
                {
                    "picture": record.digest,
                    "image": base64.b64encode(record.picture).decode(),
                    "box": record.box,
                    "boxes": record.reading["boxes"] if record.reading else [],
                    "candidates": record.reading and record.reading["candidates"],
                }
                for record in records
            ],
            "unlabelled": unlabelled,
            "request_id": context.request_id,
        }
        # Pictures of other people must not remain in the browser's cache.
        return json_response(content, {"Cache-Control": "no-store"})

    def label(self) -> Response:
        """Label a picture; the latest label by hand counts."""
        context = _permitted_context()
        _, context.requested = parse_selection(ModelQuery, request, self._settings)
        given = _validate(_HAND_LABEL, read_body(_require_json(), _MAX_LABEL_BODY))
        model = context.model
        records = self._store.use(lambda store: store.latest(model=model, digest=given.picture))
        if not (records and records[0].reading and records[0].digest == given.picture):
            records = [replace(each, position=0) for each in records if each.digest == given.picture]
        if given.label:
            try:
                card = self._upstream.route(context, context.requested).served.card
            except ModelNotFoundError as error:
                # The version that answers by default decides: that of the record may be gone.
                raise UnavailableError(error.message) from error
            records = records and _label(records, given.label, card)
        else:
            records = [replace(record, label=given.label) for record in records]
        labels = {record.digest: record.label for record in records}
        if not self._store.use(lambda store: store.label(model, labels)):
            raise FeedbackUnknownError("No such picture is stored: it is unknown, or was deleted.")
        content: LabellingReceipt = {"label": given.label, "request_id": context.request_id}
        return json_response(content)

    def _parse(self, context: RequestContext) -> _Given | FeedbackLabel:
        """Return the parsed body. Raise MalformedBodyError, ImageError or HTTPException."""
        if request.mimetype == "multipart/form-data":
            files, fields = self._parser.parse_form(request, context)
            texts = fields.getlist("label")
            if len(files) != 1 or len(texts) != 1:
                raise MalformedBodyError("The form must have one file part `image` and one field `label`.")
            try:
                boxes = [parse_box(text) for text in fields.getlist("box")]
            except ValueError as error:
                raise MalformedBodyError(f"Field `box`: {error}.") from error
            document = {"image": "", "label": texts[0], "boxes": boxes}
            picture, image = _validate(_FEEDBACK, document), files[0]
        else:
            data = read_body(_require_json(), self._settings.max_body)
            # The label's commas and those of the other members count as well.
            check_values(data, 5 * MAX_BOXES + 2 * MAX_LABEL)
            picture = self._work.run_in_thread(context, _validate, _FEEDBACK, data)
            if isinstance(picture, FeedbackLabel):
                return picture
            image = _or_raise(from_base64(picture.image))
        if len(picture.boxes) > self._settings.max_digits:
            raise MalformedBodyError(f"A picture may have {self._settings.max_digits} boxes.")
        return _Given(image, picture.label, [tuple(box) for box in picture.boxes])

    def _labelled(self, given: FeedbackLabel, context: RequestContext, route: Route) -> list[Record]:
        """Return the stored records of the caller's latest picture of this request ID, with labels."""
        criteria: Criteria = {"request_id": given.request_id, "index": given.index}
        criteria |= {"caller": context.key, "model": context.model}
        found = self._store.use(lambda store: store.latest(**criteria))
        if not found:
            raise FeedbackUnknownError(
                "This request's picture is not stored: an ID stands for a picture of the sample, of the same "
                f"caller, for {self._settings.feedback_days:g} days. Send the picture with its label."
            )
        return _label(found, given.label, route.served.card)

    def _route(self, context: RequestContext) -> Route:
        if not self._settings.for_model(context.model).feedback:
            raise FeedbackUnknownError("This model takes no feedback.")
        return self._upstream.route(context, context.requested)

    def _answered(self, given: _Given, context: RequestContext, route: Route) -> list[Record]:
        """Return the records of a picture: the model answers each part, for the agreement."""
        card = route.served.card
        cutting = partial(
            cut, given.image, around=given.boxes, max_pixels=self._settings.max_pixels, exif=card.prepare.exif
        )
        parts: list[Part] = []
        pictures: Any = [given.image]
        if given.boxes:
            parts = self._work.run_in_thread(context, cutting, given.boxes)
            pictures = np.stack([part.prepare(card) for part in parts[1:]])
        asking = self._upstream.asking(context, route)
        steps = Recognition(card).predict(pictures)
        predictions: list[Prediction] = [
            _or_raise(outcome.result) for outcome in drive(steps, asking, partial(self._work.answer, context))
        ]
        card = asking.route.served.card
        parts = parts or self._work.run_in_thread(context, cutting, [predictions[0].box])
        digits = to_records(
            parts[1:],
            predictions,
            model=route.served.model.name,
            version=predictions[0].model_version,
            request_id=context.request_id,
            sent_at=datetime.now(UTC),
            caller=context.key,
        )
        records = [*digits]
        if card.reads_numbers:
            confidence = math.prod(record.confidence for record in records)
            records.insert(0, to_whole(parts[0], records, confidence, given.boxes))
        return _label(records, given.label, card)


def _label(records: Sequence[Record], label: str, card: TaskCard) -> list[Record]:
    """Return the records of a picture with their labels: the whole reading its number, each digit its own.

    If a number has another length, its digits have no label. Raise FeedbackMismatchError.
    """
    # Digits that look the same share a record.
    first = records[0]
    count = len(first.reading["boxes"]) or 1 if first.reading else records[-1].position + 1
    labels: Sequence[str | None] = [label] * count
    if card.is_multi_label:
        raise FeedbackMismatchError("A model that gives a picture several labels takes no feedback.")
    if count > 1 and not card.reads_numbers:
        raise FeedbackMismatchError("Only a model that reads numbers takes several boxes.")
    if card.reads_numbers and label != NO_CLASS:
        letters = {character for character in label if character.isalnum()}
        if not letters or not letters <= {*DIGIT_LABELS}:
            raise FeedbackMismatchError("The label has to be a number: digits, and signs and white space.")
        label = "".join(character for character in label if character in letters)
        labels = label if len(label) == count else [None] * count
        if labels[0] is None and not first.reading:
            raise FeedbackMismatchError(f"The label needs {count} digits, as were read; it has {len(label)}.")
    elif label not in (*card.labels, NO_CLASS):
        raise FeedbackMismatchError("The label is none of the model's labels.")
    return [
        replace(each, label=label if each.position == WHOLE else labels[each.position]) for each in records
    ]


def _or_raise(result: Any) -> Any:
    """Return the result, or raise it if it is an error."""
    if isinstance(result, Exception):
        raise result
    return result


def _require_own_page(origins: Sequence[str]) -> None:
    """Raise ForbiddenError for a page of another site (CSRF), whose form a browser sends without asking.

    Browsers send Sec-Fetch-Site over HTTPS and to this machine; without it, Origin must name the host.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    is_own = site in ("same-origin", "none") if site else origin and urlsplit(origin).netloc == request.host
    if origin and not is_own and origin not in origins:
        raise ForbiddenError(
            "Pages of other sites may not give feedback, unless DIGITS_CORS_ORIGINS has them."
        )


def _require_json() -> Any:
    """Return the request. Raise UnsupportedMediaType unless its body is JSON."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Unsupported media type. Send application/json.")
    return request


def _validate(kind: TypeAdapter[Any], document: Any) -> Any:
    """Return the document, JSON in bytes or its members. Raise MalformedBodyError."""
    try:
        if isinstance(document, bytes):
            return kind.validate_json(document)
        return kind.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        # The location begins with the kind of a document, and ends with the position in a list.
        names = [part for part in first["loc"] if isinstance(part, str)]
        place = f"Field `{names[-1]}`: " if names else ""
        raise MalformedBodyError(f"{place}{first['msg']}.") from error


def _permitted_context() -> RequestContext:
    """Return the request's context. Raise ForbiddenError if the API key may not label."""
    context: RequestContext = g.context
    if not context.may_label:
        raise ForbiddenError("This API key may not label pictures. Ask the operator for one that may.")
    return context
