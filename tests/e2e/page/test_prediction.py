"""The prediction's texts and bars."""

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.responses import respond_with_lines

pytestmark = pytest.mark.e2e


def respond_with(page: Page, probabilities: dict[int, float]) -> None:
    """Answer each picture with one digit of these probabilities by digit."""
    values = [probabilities.get(digit, 0.0) for digit in range(10)]
    respond_with_lines(page, str(np.argmax(values)), probabilities=values)


@pytest.mark.parametrize(
    ("probabilities", "text"),
    [
        ({5: 0.97, 3: 0.03}, "The network is sure."),
        ({5: 0.7, 3: 0.2, 8: 0.1}, "It could also be a 3."),
        ({3: 0.45, 8: 0.4, 5: 0.15}, "Hard to tell: it could also be an 8."),
    ],
)
def test_describe_certainty_by_probability_names_alternative(
    page: Page, probabilities: dict[int, float], text: str
) -> None:
    values = [probabilities.get(digit, 0.0) for digit in range(10)]
    call = (
        "async (values) => (await import('/static/messages.js')).describeCertainty(values, [...'0123456789'])"
    )
    assert page.evaluate(call, values) == text


def test_prediction_doubtful_names_answer_once_and_mutes_zero_bars(page: Page) -> None:
    respond_with(page, {4: 0.82, 9: 0.1797, 7: 0.0003})
    page.get_by_role("button", name="Example: 4").click()
    expect(page.locator("#reading")).to_have_text("4")
    expect(page.locator("#certainty")).to_have_text("It could also be a 9.")
    expect(page.locator("#bars .answer b")).to_have_text("82.0%")
    assert "82.0%" not in page.locator("#prediction").inner_text()
    expect(page.locator("#bars li:not(.zero) span")).to_have_text(["4", "9"])
    widths = page.locator("#bars b").evaluate_all("labels => labels.map((label) => label.offsetWidth)")
    assert [digit for digit, width in enumerate(widths) if width > 1] == [4, 9]


def test_prediction_of_certainty_below_one_shows_less_than_100_percent(page: Page) -> None:
    respond_with(page, {4: 0.99999, 9: 0.00001})
    page.get_by_role("button", name="Example: 4").click()
    expect(page.locator("#bars .answer b")).to_have_text("99.9%")
