"""Two versions of a model, which answer side by side."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.accessibility import assert_accessible
from tests.e2e.page.pen import write
from tests.e2e.page.responses import reading_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    page = open_page("/?model=compared")
    expect(page.get_by_label("Compare with version")).to_have_value("3")
    return page


def test_one_version_has_no_menu_and_no_column(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.locator("body[data-ready]").wait_for()
    expect(page.get_by_label("Compare with version")).to_be_hidden()
    expect(page.locator(".answer")).to_have_count(1)


def test_both_versions_answer_side_by_side(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    menu = page.get_by_label("Compare with version")
    expect(menu.locator("option")).to_have_text(["none", "3 · convnet", "2 · canary · convnet"])
    write(page, "17")
    expect(page.locator(".reading")).to_have_text(["17", "17"])
    expect(page.locator(".source")).to_contain_text(["Version 1 · stable", "Version 3"])
    expect(page.locator(".bars .best span")).to_have_text(["7", "7"])
    page.get_by_role("radio", name="1, digit 1 of 2").first.check()
    expect(page.locator(".bars .best span")).to_have_text(["1", "1"])
    asked = {url.partition("?")[2] for url in requests if "/v1/read" in url}
    assert asked == {f"model=compared&version={version}&include=image" for version in (1, 3)}
    menu.select_option("2")
    expect(page.locator(".source")).to_contain_text(["Version 1 · stable", "Version 2 · canary"])
    with page.expect_request(lambda request: "/v1/read?model=compared&include" in request.url):
        menu.select_option("none")
    expect(page.locator(".reading")).to_have_text(["17"])
    # The menu keeps the choice when the page looks for new versions.
    with page.expect_response("**/v1/models*"):
        page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".answer")).to_have_count(1)


def test_columns_are_side_by_side_and_accessible(page: Page) -> None:
    page.get_by_role("button", name="Example: photo", exact=True).click()
    expect(page.locator(".reading p")).to_have_text(["2026", "17"] * 2)
    assert_accessible(page)
    # A line more in one column's sentence or name moves neither bars nor pictures of one column alone.
    page.locator(".source").first.evaluate("source => source.append('a longer name '.repeat(9))")
    tops = "all => all.map((each) => each.getBoundingClientRect().top)"
    for width in (320, 1440):
        page.set_viewport_size({"width": width, "height": 844})
        for part in (".answer", ".reading", "figure img", ".bars"):
            left, right = page.locator(part).evaluate_all(tops)
            assert left == right, part
    expect(page.get_by_text("What the network saw")).to_have_count(2)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".reading")).to_have_text(["", ""])


def test_versions_that_differ_are_named_with_network_and_accuracy_and_marked(page: Page) -> None:
    page.route("**/v1/read?*version=3*", lambda route: route.fulfill(json=reading_of("71")))
    page.route("**/v1/read?*version=1*", lambda route: route.fulfill(json=reading_of("77")))
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator("#difference")).to_have_text("They differ: 77 or 71?")
    expect(page.get_by_role("status").filter(has_text="These are 2 digits: 77.")).to_contain_text(
        "They differ"
    )
    expect(page.locator(".reading .differs")).to_have_text(["7", "1"])
    expect(page.locator(".source b")).to_contain_text(
        ["Convnet · test accuracy 9", "Convnet · test accuracy 9"]
    )
    page.get_by_label("Compare with version").select_option("2")
    expect(page.locator("#difference")).to_contain_text("They differ: 77 or 7?")
    page.get_by_label("Compare with version").select_option("")
    expect(page.locator("#difference")).to_be_empty()


def test_look_inside_shows_the_layers_of_both_versions(page: Page) -> None:
    inside = page.get_by_role("button", name="Look inside")
    page.get_by_role("button", name="Example: 4").click()
    inside.click()
    for place in (0, 1):
        layers = page.locator(".layers").nth(place)
        expect(layers.locator("li").first).to_have_text("Conv2D: 32 maps of 14×14")
        expect(layers).to_contain_text("probabilities: 10 units")
        assert layers.locator("img").first.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
            240,
            30,
        ]
    assert_accessible(page)
    inside.click()
    expect(page.locator(".layers").first).to_be_hidden()


def test_other_version_that_fails_leaves_the_answer(page: Page, expected_errors: list[str]) -> None:
    expected_errors += ["404", "503"]
    page.route("**/v1/read?*version=3*", lambda route: route.fulfill(status=503))
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator(".certainty")).to_contain_text(
        ["The network is sure.", "The service is unavailable."]
    )
    expect(page.locator(".reading")).to_have_text(["7", ""])
    problem = {"status": 404, "code": "model_not_found", "detail": "Version 3 is not loaded."}
    page.route("**/v1/read?*version=3*", lambda route: route.fulfill(status=404, json=problem))
    page.get_by_role("button", name="Example: 3").click()
    expect(page.locator(".reading")).to_have_text(["3"])
    expect(page.get_by_label("Compare with version")).to_have_value("")
