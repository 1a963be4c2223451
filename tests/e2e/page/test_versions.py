"""The switch between the versions that are served."""

from playwright.sync_api import Browser, expect

from tests.e2e.page.conftest import Pair
from tests.e2e.page.pen import write


def test_the_chosen_version_answers(browser: Browser, pair: Pair) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(pair.url)
        switch = page.get_by_label("Model")
        expect(switch.locator("option")).to_have_text(["Default", "2 · canary", "1 · stable"])
        write(page, 1)
        expect(page.locator("#source")).to_contain_text("Version 2 answered")
        switch.select_option("1")
        expect(page.locator("#source")).to_contain_text("Version 1 answered")


def test_in_place_of_a_version_that_is_gone_the_service_s_choice_answers(
    browser: Browser, pair: Pair
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(pair.url)
        switch = page.get_by_label("Model")
        expect(switch.locator("option")).to_have_count(3)
        switch.evaluate("select => { select.append(new Option('9', '9')); select.value = '9'; }")
        write(page, 1)
        expect(page.locator("#source")).to_contain_text("Version 2 answered")
        expect(switch).to_have_value("")
        expect(switch.locator("option")).to_have_count(3)
