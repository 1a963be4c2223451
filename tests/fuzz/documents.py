"""Targets that parse documents: answers, configurations, cards, queries and feedback."""

import json
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from flask.testing import FlaskClient
from google.protobuf.message import DecodeError
from werkzeug import Request

from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.task_card import DIGITS, TaskCard, TaskCardError
from digit_core.artifact.versions import ArtifactError
from digit_core.results import Prediction
from digit_core.tfserving import codec
from digit_core.tfserving.protos import PredictResponse
from digit_serving.feedback.views import UnlabelledQuery
from digit_serving.gateway.errors import GatewayError
from digit_serving.gateway.parsing import PredictQuery, ReadQuery, parse_selection
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop

_QUERIES = (PredictQuery, ReadQuery, UnlabelledQuery)
_SETTINGS = Settings()


def response(data: bytes) -> None:
    """Decode a model server's response."""
    with suppress(ValueError, DecodeError):
        for answer in codec.decode(PredictResponse.FromString(data), DIGITS):
            if isinstance(answer, Prediction):
                assert 0 <= answer.index <= 9
                assert 0 <= answer.confidence <= 1.001


def config(data: bytes) -> None:
    """Parse a models.config, and ask it what a start asks."""
    with suppress(ArtifactError):
        parsed = ModelsConfig.parse(data.decode(errors="replace"))
        for name in parsed.base_paths:
            assert parsed.selected(name, {1, 2}) <= {1, 2}
            assert parsed.labels(name).keys() == set(parsed.labels(name))
            assert name not in parsed.without(name).base_paths
        assert ModelsConfig.parse(str(parsed)).message == parsed.message


def card(data: bytes) -> None:
    """Parse a task card, as a service's and as its author's."""
    with suppress(ValueError, RecursionError):
        document = json.loads(data)
        if isinstance(document, dict):
            for ignores_unknown in (True, False):
                with suppress(TaskCardError):
                    parsed = TaskCard.from_document(document, ignores_unknown=ignores_unknown)
                    assert TaskCard.from_document(parsed.to_document()) == parsed


def query(data: bytes) -> None:
    """Parse the query string of a request. The first byte selects the operation."""
    # The HTTP parser refuses other bytes.
    environment = {"REQUEST_METHOD": "GET", "QUERY_STRING": data[1:].decode("ascii", "ignore")}
    with suppress(GatewayError), Request(environment) as request:
        _, model = parse_selection(_QUERIES[sum(data[:1]) % len(_QUERIES)], request, _SETTINGS)
        assert model.name
        assert model.version is None or model.version_label is None


def feedback(data: bytes) -> None:
    """Send a body of feedback to the gateway. The first byte selects a form or JSON."""
    kind = "multipart/form-data; boundary=x" if sum(data[:1]) % 2 else "application/json"
    answer = _gateway().post("/v1/feedback", data=data[1:], content_type=kind)
    # The client compares the answer with the OpenAPI document.
    assert answer.status_code in (400, 404, 413, 422), answer.text


@cache
def _gateway() -> FlaskClient:
    """Test client of a gateway whose model takes no feedback, so that it answers without a model server."""
    folder = Path(tempfile.mkdtemp())
    file = folder / "models.toml"
    file.write_text("[digits]\nfeedback = false\n")
    store = f"sqlite:///{folder / 'feedback.db'}"
    return greenlet_loop.client(Settings(feedback=store, feedback_open=True, models_file=file))
