"""A service that asks for a key."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from digit_serving.gateway.auth import KeyFile
from tests.e2e.page.pen import write
from tests.processes import answers, free_port, running, wait_until


@dataclass(frozen=True)
class Locked:
    """A gateway, and a key that it knows."""

    url: str
    key: str


@pytest.fixture
def locked(model_server: str, tmp_path: Path) -> Iterator[Locked]:
    port, file = free_port(), KeyFile(tmp_path / "keys")
    key = file.add("pupil")
    settings = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": model_server}
    with running("gateway", environment={**settings, "DIGITS_API_KEYS": str(file.path)}) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), process)
        yield Locked(url, key)


def test_the_page_asks_until_the_key_is_right_and_keeps_it(browser: Browser, locked: Locked) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(locked.url)
        for key in ("wrong", locked.key):
            expect(page.get_by_role("dialog")).to_be_visible()
            page.get_by_label("This service asks for a key").fill(key)
            page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        write(page, 1)
        expect(page.locator("#digit")).to_have_text("1")
        page.reload()
        write(page, 1)
        expect(page.locator("#digit")).to_have_text("1")
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_who_has_none_is_told(browser: Browser, locked: Locked) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(locked.url)
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        write(page, 1)
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#trouble")).to_contain_text("Send a key of this service")
