"""What spoke for an answer."""

import json
from typing import Any

from playwright.sync_api import Page, expect

from tests.e2e.page.pen import press, write
from tests.e2e.page.test_pictures import FIVE

# The heat map's pixels that are clearly blue, and clearly red.
COLOURS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const counts = { blue: 0, red: 0 };
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] < 128) continue;
    if (data[i + 2] > data[i] + 40) counts.blue++;
    if (data[i] > data[i + 2] + 40) counts.red++;
  }
  return counts;
}"""

# evidence.js on a picture of two strokes, of which only the left one makes it a 1.
EVIDENCE = """async () => {
  const { SIDE, evidence, inked, variants } = await import("/static/evidence.js");
  const pixels = Array.from({ length: SIDE * SIDE }, (_, pixel) => [8, 20].includes(pixel % SIDE) ? 255 : 0);
  const patches = inked(pixels);
  const instances = variants(pixels, patches);
  const answers = instances.map((instance) => {
    const left = instance.filter((value, pixel) => value && pixel % SIDE === 8).length / SIDE;
    const right = instance.filter((value, pixel) => value && pixel % SIDE === 20).length / SIDE;
    const probability = 0.4 + 0.5 * left - 0.3 * right;
    return Array.from({ length: 10 }, (_, digit) => digit === 1 ? probability : (1 - probability) / 9);
  });
  const values = evidence(patches, answers, 1);
  const at = (column) => values[14 * SIDE + column];
  return { count: instances.length, left: at(8), right: at(20), between: at(14) };
}"""


def test_what_makes_an_answer_likelier_speaks_for_it(page: Page) -> None:
    found: dict[str, Any] = page.evaluate(EVIDENCE)
    assert found["count"] <= 256
    assert found["left"] > 0 > found["right"]
    assert found["between"] == 0
    assert max(found["left"], -found["right"]) <= 1


def test_it_is_asked_in_one_request_and_painted_over_the_drawing(page: Page) -> None:
    why = page.get_by_role("button", name="Why?")
    expect(why).to_be_disabled()
    write(page, 4)
    expect(page.locator("#digit")).to_have_text("4")
    with page.expect_request(lambda request: request.headers["content-type"] == "application/json") as asked:
        why.click()
    assert 20 < len(json.loads(asked.value.post_data or "")["instances"]) <= 256
    expect(page.locator("main[data-why=strokes]")).to_be_visible()
    expect(page.get_by_text("Blue speaks for the answer")).to_be_visible()
    assert page.locator("#heat").evaluate(COLOURS)["blue"] > 1000
    why.click()
    expect(page.locator("main[data-why]")).to_have_count(0)


def test_it_follows_the_drawing(page: Page) -> None:
    page.get_by_role("button", name="Example: 1").click()
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-why]")).to_be_visible()
    press(page, [(0.2, 0.2), (0.3, 0.2)])
    expect(page.locator("main[data-why]")).to_have_count(0)
    page.mouse.up()
    expect(page.locator("main[data-why]")).to_be_visible()


def test_of_a_picture_it_shows_what_the_network_saw(page: Page) -> None:
    page.get_by_label("Image").set_input_files(FIVE)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-why=picture]")).to_be_visible()
    assert page.locator("#heat").evaluate(COLOURS)["blue"] > 1000
