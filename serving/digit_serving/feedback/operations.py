"""OpenAPI operations of feedback."""

from typing import Any

from digit_serving.feedback.errors import (
    FeedbackFullError,
    FeedbackMismatchError,
    FeedbackUnavailableError,
    FeedbackUnknownError,
)
from digit_serving.feedback.views import UnlabelledQuery
from digit_serving.gateway import openapi
from digit_serving.gateway.errors import ForbiddenError, TooManyImagesError, UnknownModelError
from digit_serving.gateway.parsing import ModelQuery

_ERRORS = (
    *(*openapi.KEYED, *openapi.UPSTREAM, *openapi.BODY),
    *(FeedbackUnknownError, FeedbackMismatchError, FeedbackUnavailableError, UnknownModelError),
)


def feedback() -> dict[str, Any]:
    """Return the operation that takes feedback, by its path."""
    content = openapi.json_content("FeedbackPicture", "FeedbackLabel")
    entry = openapi.operation(
        "giveFeedback",
        "Say what a picture shows.",
        openapi.json_content("FeedbackReceipt"),
        (*_ERRORS, *openapi.IMAGE, ForbiddenError, TooManyImagesError, FeedbackFullError),
        description="The service stores the picture with its label, to train later models: the part that "
        "the label is about, with a margin, or the whole picture, without metadata and with at most a "
        "megapixel. A number of another length than boxes, or digits that were read, labels all that is "
        "around them. A caller has one vote on a picture, its latest. A request ID in place of the picture "
        "stands for one that the service has stored as a sample.",
        parameters=openapi.parameters(ModelQuery),
        requestBody={
            "required": True,
            "content": {**content, "multipart/form-data": {"schema": openapi.ref("schemas", "FeedbackForm")}},
        },
    )
    return {"/v1/feedback": entry}


def labelling() -> dict[str, Any]:
    """Return the operations for people who label, by path."""
    permission = "The API key needs the permission to label."
    unlabelled = openapi.operation(
        "listUnlabelled",
        "Show some stored pictures that wait for a label.",
        openapi.json_content("LabellingRecords"),
        (*openapi.KEYED, ForbiddenError, UnknownModelError, FeedbackUnavailableError),
        description="They are chosen at random among those with the least confident answers, these first: "
        f"two people seldom get the same. They come without the label that the model answered. {permission}",
        parameters=openapi.parameters(UnlabelledQuery),
    )
    labels = openapi.operation(
        "labelPicture",
        "Label a stored picture by hand, or withdraw its label.",
        openapi.json_content("LabellingReceipt"),
        (*_ERRORS, ForbiddenError),
        description=f"The latest label by hand counts, before those of callers. {permission}",
        parameters=openapi.parameters(ModelQuery),
        requestBody={"required": True, "content": openapi.json_content("HandLabel")},
    )
    return {"/v1/feedback/unlabelled": unlabelled, "/v1/feedback/labels": labels}
