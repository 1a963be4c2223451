"""Layout: header, tools, and the parts that are in view without scrolling."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (800, 600), (1280, 800)])
def test_layout_after_drawing_shows_prediction_and_network_input_without_scrolling(
    open_page: Callable[..., Page], width: int, height: int
) -> None:
    page = open_page(viewport={"width": width, "height": height}, has_touch=width < 800)
    page.get_by_role("button", name="Example: 5").click()
    expect(page.locator(".reading")).to_have_text("5")
    page.evaluate("scrollTo(0, 0)")
    for part in ("#drawing", ".reading", ".bars", ".answer img", "figcaption"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)


def test_tools_on_phone_have_visible_labels_in_one_row(open_page: Callable[..., Page]) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    tools = page.locator("#tools")
    assert tools.inner_text().split("\n") == ["Undo", "Clear", "Pen width", "Image", "Camera"]
    for tool in tools.locator("> *").all():
        expect(tool).to_be_in_viewport(ratio=1)
        assert tool.evaluate("element => element.scrollWidth <= element.clientWidth + 1")
    tops = tools.locator("> *").evaluate_all("tools => tools.map((tool) => tool.getBoundingClientRect().top)")
    assert len(set(tops)) == 1


def test_header_says_what_the_page_is_and_links_to_docs(page: Page) -> None:
    expect(page.locator("header")).to_contain_text("A neural network reads handwritten digits.")
    with page.expect_response("**/openapi.json") as response:
        page.get_by_role("link", name="API docs").click()
    assert response.value.ok
    expect(page.locator(".title")).to_contain_text("Digits")
    page.go_back()
    expect(page.get_by_role("link", name="OpenAPI")).to_have_attribute("href", "openapi.json")
