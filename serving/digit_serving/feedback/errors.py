"""Errors of requests for feedback."""

from digit_serving.gateway.errors import GatewayError


class FeedbackMismatchError(GatewayError):
    """The label does not suit the model, or the boxes."""

    status, code = 422, "feedback_mismatch"


class FeedbackFullError(GatewayError):
    """The store of feedback has no room for the picture."""

    status, code = 507, "feedback_full"


class FeedbackUnavailableError(GatewayError):
    """The store of feedback fails."""

    status, code = 503, "feedback_unavailable"


class FeedbackUnknownError(GatewayError):
    """No such picture is stored, or the model takes no feedback."""

    status, code = 404, "feedback_unknown"
