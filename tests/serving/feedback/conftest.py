"""Fixtures: gateways with a store of feedback."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask.testing import FlaskClient

from digit_core.feedback.store import FeedbackStore
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.feedback.conftest import make_record, postgresql_server, postgresql_url, sqlite_url
from tests.serving.gateway.conftest import key_file, no_labels, stub
from tests.serving.gateway.helpers import StartGateway
from tests.serving.gateway.stub_model_server import StubModelServer

__all__ = [
    "key_file",
    "make_record",
    "no_labels",
    "postgresql_server",
    "postgresql_url",
    "sqlite_url",
    "stub",
]


@pytest.fixture
def start(stub: StubModelServer, sqlite_url: str) -> Iterator[StartGateway]:
    """Function that starts a gateway in front of the stub, with feedback, and returns a test client of it."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> FlaskClient:
            values: dict[str, Any] = {"model_server": stub.target, "feedback": sqlite_url}
            values |= {"feedback_open": True, **settings}
            return stack.enter_context(greenlet_loop.keeping(Settings(**values)))

        yield begin


@pytest.fixture
def feedback_http(start: StartGateway) -> FlaskClient:
    """Test client of the gateway in front of the stub, with feedback."""
    return start()


@pytest.fixture
def store(sqlite_url: str) -> FeedbackStore:
    """Store of feedback, empty."""
    return FeedbackStore(sqlite_url)


@pytest.fixture
def start_labelling(start: StartGateway, key_file: KeyFile) -> StartGateway:
    """Function that starts a gateway with these settings; its test client has a key that may label."""
    headers = {"HTTP_AUTHORIZATION": f"Bearer {key_file.add('lab', may_label=True)}"}

    def begin(**settings: Any) -> FlaskClient:
        client = start(**({"api_keys": key_file.path, "feedback_open": False} | settings))
        client.environ_base |= headers
        return client

    return begin


@pytest.fixture
def label_http(start_labelling: StartGateway) -> FlaskClient:
    """Test client, with a key that may label, of a gateway in front of the stub."""
    return start_labelling()
