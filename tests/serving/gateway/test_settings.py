import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from digit_serving.gateway.cli import gateway
from digit_serving.gateway.settings import Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_PORT", "9000")
    monkeypatch.setenv("DIGITS_LABELS", "stable, next")
    settings = Settings()
    assert (settings.port, settings.labels, settings.max_images) == (9000, ("stable", "next"), 256)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_PORT", "eighty")
    result = CliRunner().invoke(gateway)
    assert result.exit_code == 2
    assert "DIGITS_PORT" in result.output


def test_a_canary_needs_somebody_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITS_CANARY_PERCENT", "5")
    result = CliRunner().invoke(gateway)
    assert result.exit_code == 2
    assert "DIGITS_CANARY_PERCENT: Value error, needs DIGITS_DEFAULT_LABEL" in result.output
    monkeypatch.setenv("DIGITS_DEFAULT_LABEL", "stable")
    assert Settings().canary_percent == 5


@pytest.mark.parametrize(
    ("variable", "value"), [("DIGITS_RATE_LIMIT", "often"), ("DIGITS_API_KEYS", "/nowhere/keys")]
)
def test_a_setting_of_no_use_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(gateway)
    assert result.exit_code == 2
    assert variable in result.output
