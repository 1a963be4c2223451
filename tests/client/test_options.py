"""Timeouts and request IDs: defaults and limits."""

import pytest

from digit_client import _options


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 1e10])
def test_check_timeout_out_of_range_raises_value_error(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        _options.check_timeout(seconds)


def test_default_timeout_is_ten_seconds_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITS_TIMEOUT", raising=False)
    assert _options.default_timeout() == 10
    monkeypatch.setenv("DIGITS_TIMEOUT", "2.5")
    assert _options.default_timeout() == 2.5


@pytest.mark.parametrize("text", ["abc", "-1", "inf"])
def test_default_timeout_invalid_variable_raises_value_error_that_names_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_TIMEOUT", text)
    with pytest.raises(ValueError, match=f"DIGITS_TIMEOUT is .* not '{text}'"):
        _options.default_timeout()


@pytest.mark.parametrize("request_id", ["", "order 17", "ünï", "a\nb", "x" * 129])
def test_call_options_request_id_that_the_gateway_replaces_raises_value_error(request_id: str) -> None:
    with pytest.raises(ValueError, match="a request ID has"):
        _options.CallOptions(request_id=request_id)


def test_new_request_id_is_random_and_valid() -> None:
    first, second = _options.new_request_id(), _options.new_request_id()
    assert first != second
    assert _options.CallOptions(request_id=first).request_id == first


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_call_options_min_is_digit_out_of_range_raises_value_error(value: float) -> None:
    with pytest.raises(ValueError, match="min_is_digit is a probability"):
        _options.CallOptions(min_is_digit=value)
