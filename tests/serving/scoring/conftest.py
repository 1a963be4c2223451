"""Fixture: a model server in this process."""

from collections.abc import Iterator

import pytest

from tests.conftest import Digits
from tests.core.linear_model_server import LinearModelServer


@pytest.fixture(scope="session")
def server(digits: Digits) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000], with_is_digit=True) as server:
        yield server
