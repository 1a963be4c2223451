"""Door of feedback without the extra."""

import sys

import pytest

from digit_serving.errors import SettingError
from digit_serving.feedback.door import Feedback
from digit_serving.gateway.settings import Settings


def test_check_without_the_extra_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    settings = Settings(feedback=sqlite_url, feedback_open=True)
    monkeypatch.setitem(sys.modules, "digit_core.feedback.table", None)
    with pytest.raises(SettingError, match=r"DIGITS_FEEDBACK: needs the extra feedback; install it: pip"):
        Feedback.check(settings)
