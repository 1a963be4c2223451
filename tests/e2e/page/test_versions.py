"""Two versions of a model, which answer side by side."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from digit_core.images import to_png
from tests.e2e.page.accessibility import assert_accessible
from tests.e2e.page.pen import write
from tests.e2e.page.responses import reading_of

pytestmark = pytest.mark.e2e

# Mean colours, highest and lowest opacity of each of two maps of 28 pixels, side by side.
MEAN_COLOURS = """canvas => [0, 29].map((left) => {
  const { data } = canvas.getContext("2d").getImageData(left, 0, 28, 28);
  const painted = Array.from({ length: 784 }, (_, pixel) => [...data.slice(4 * pixel, 4 * pixel + 4)]);
  const mean = (channel) => painted.reduce((sum, colour) => sum + colour[channel], 0) / painted.length;
  const opacities = painted.map((colour) => colour[3]);
  return { red: mean(0), blue: mean(2), ink: Math.max(...opacities), paper: Math.min(...opacities) };
})"""


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
    expect(menu.locator("option")).to_have_text(
        ["none", "3 · convolutional network", "2 · canary · convolutional network"]
    )
    write(page, "17")
    expect(page.locator(".reading")).to_have_text(["17", "17"])
    expect(page.locator(".source")).to_contain_text(["Version 1 · stable", "Version 3"])
    expect(page.locator(".bars .best span")).to_have_text(["7", "7"])
    page.get_by_role("radio", name="1, digit 1 of 2").first.check()
    expect(page.locator(".bars .best span")).to_have_text(["1", "1"])
    asked = {url.partition("?")[2] for url in requests if "/v1/read" in url}
    assert asked == {f"model=compared&version={version}&include=image%2Copinions" for version in (1, 3)}
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
    expect(page.locator(".source b")).to_contain_text(["Convolutional network, test accuracy 9"] * 2)
    page.get_by_label("Compare with version").select_option("2")
    expect(page.locator("#difference")).to_contain_text("They differ: 77 or 7?")
    page.get_by_label("Compare with version").select_option("")
    expect(page.locator("#difference")).to_be_empty()


def test_columns_show_the_classifiers_alone_and_name_the_share_of_the_reader(page: Page) -> None:
    for version, alone in ((1, "17"), (3, "77")):
        respond(page, f"**/v1/read?*version={version}*", reading_of("17", reader="17", alone=alone))
    page.get_by_role("button", name="Example: 7").click()
    expect(page.locator("#difference")).to_have_text("They differ: 17 or 77?")
    expect(page.locator(".certainty")).to_contain_text(
        ["The reader agrees.", "The reader reads 17 and prevails."]
    )
    page.get_by_role("radio", name="1, digit 1 of 2").check()
    expect(page.locator(".bars .best span")).to_have_text(["1", "7"])


def test_blank_picture_is_no_digit_for_both_versions(page: Page, tmp_path: Path) -> None:
    (tmp_path / "blank.png").write_bytes(to_png(np.full((200, 200), 255, np.uint8)))
    page.get_by_label("Image").set_input_files(tmp_path / "blank.png")
    expect(page.locator("#difference")).to_have_text("Both read no digit.")
    expect(page.locator(".bars .best")).to_have_text(["none99%", "none99%"])


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1440, 900)])
def test_look_inside_is_a_panel_of_one_screen_whose_button_stays(page: Page, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.get_by_role("button", name="Example: 4").click()
    page.get_by_role("button", name="Look inside").click()
    expect(page.locator(".layers li").last).to_be_attached()
    page.locator("#networks").evaluate("networks => networks.scrollTo(0, networks.scrollHeight)")
    close = page.get_by_role("button", name="Close")
    expect(close).to_be_in_viewport(ratio=1)
    assert page.locator("#inside").evaluate("panel => panel.offsetHeight") <= height
    # The panel follows the drawing.
    first = page.locator(".layers img").first
    source = first.get_attribute("src") or ""
    page.get_by_role("button", name="Example: 7").dispatch_event("click")
    expect(first).not_to_have_attribute("src", source)
    close.click()
    expect(page.get_by_role("button", name="Look inside")).to_be_focused()
    page.get_by_role("button", name="Look inside").click()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#inside")).to_be_hidden()


def test_link_compares_an_example_by_both_networks(page: Page) -> None:
    page.get_by_label("Compare with version").select_option("")
    page.get_by_role("button", name="Compare networks").click()
    expect(page.locator(".reading p")).to_have_text(["2026", "17"] * 2)
    expect(page.get_by_label("Compare with version")).to_have_value("3")


def test_look_inside_shows_the_layers_of_both_versions(page: Page) -> None:
    inside = page.get_by_role("button", name="Look inside")
    page.get_by_role("button", name="Example: 4").click()
    inside.click()
    for place in (0, 1):
        layers = page.locator(".layers").nth(place)
        expect(layers.locator("li").first).to_contain_text(
            "Conv2D: 32 maps of 14×14 Each map is bright where"
        )
        expect(layers).to_contain_text("probabilities: 10 units A unit for each label")
        size = layers.locator("img").first.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert size == [120, 60]
    expect(page.locator(".layers").first).to_be_in_viewport()
    expect(page.locator("#inside h3")).to_contain_text(["Convolutional network"] * 2)
    # The map under the pointer is enlarged, and stays under it.
    picture = page.locator(".layers img").first
    width = picture.evaluate("image => image.getBoundingClientRect().width")
    picture.hover(position={"x": 40, "y": 20})
    expect(picture).to_have_css("transform", "matrix(3, 0, 0, 3, 0, 0)")
    assert picture.evaluate("image => image.getBoundingClientRect().width") == pytest.approx(3 * width)
    assert_accessible(page)
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".layers")).to_have_count(0)


def test_look_inside_paints_weights_on_pixels_over_the_drawing(page: Page) -> None:
    """The layer has two units: all ink speaks for the first one, and against the second one."""
    weights = np.full((29, 58), 128, np.uint8)
    weights[:28, :28], weights[:28, 29:57] = 255, 1
    layer = {"name": "Dense", "shape": [2], "peak": 1, "image": png(np.full((1, 2), 255, np.uint8))}
    for version, layers in ((1, [layer | {"weights": png(weights)}]), (3, [])):
        respond(page, f"**/v1/predict?*version={version}*", {"predictions": [{"layers": layers}]})
    page.get_by_role("button", name="Example: 4").click()
    page.get_by_role("button", name="Look inside").click()
    expect(page.locator(".layers li")).to_contain_text(
        ["Blue ink speaks for a label, red ink against it", "published without a look inside"]
    )
    first, second = page.locator(".layers canvas").evaluate(MEAN_COLOURS)
    assert first["blue"] > first["red"] + 50
    assert second["red"] > second["blue"] + 50
    assert first["ink"] > first["paper"] > 0
    assert_accessible(page)


def respond(page: Page, path: str, document: dict[str, Any]) -> None:
    """Answer requests of the path with the document."""
    page.route(path, lambda route: route.fulfill(json=document))


def png(pixels: NDArray[np.uint8]) -> str:
    """Return a PNG in base64."""
    return base64.b64encode(to_png(pixels)).decode()


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
