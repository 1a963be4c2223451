"""Settings of feedback; tests/serving/gateway/test_settings.py has what the command says of them."""

import sys

import pytest

from digit_serving.gateway.settings import Settings


def test_store_without_the_extra_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    monkeypatch.setitem(sys.modules, "digit_core.feedback.table", None)
    assert not Settings().feedback
    with pytest.raises(ValueError, match=r"needs the extra feedback; install it: pip"):
        Settings(feedback=sqlite_url, feedback_open=True)
