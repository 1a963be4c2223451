"""Explanation by "Why?": saliency, heat map and scale."""

import json
import math
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.pen import draw, draw_without_release

pytestmark = pytest.mark.e2e

# Counts the heat map's clearly blue and clearly red pixels.
COUNT_COLOURS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const counts = { blue: 0, red: 0 };
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] < 128) continue;
    if (data[i + 2] > data[i] + 40) counts.blue++;
    if (data[i] > data[i + 2] + 40) counts.red++;
  }
  return counts;
}"""

# Saliency of two vertical strokes for a synthetic model: the left stroke raises the probability of a 1, the
# right stroke lowers it.
SALIENCY = """async () => {
  const { saliency } = await import("/static/saliency.js");
  const { SIDE, inkedPatches, occlude } = await import("/static/written-occlusion.js");
  const pixels = Array.from({ length: SIDE * SIDE }, (_, pixel) => [8, 20].includes(pixel % SIDE) ? 255 : 0);
  const patches = inkedPatches(pixels);
  const instances = occlude(pixels, patches, [0, 1]);
  const probabilities = instances.map((instance) => {
    const left = instance.filter((value, pixel) => value && pixel % SIDE === 8).length / SIDE;
    const right = instance.filter((value, pixel) => value && pixel % SIDE === 20).length / SIDE;
    const probability = 0.4 + 0.5 * left - 0.3 * right;
    return Array.from({ length: 10 }, (_, digit) => digit === 1 ? probability : (1 - probability) / 9);
  });
  const [whole, ...covered] = probabilities;
  const { values, peak } = saliency(patches, whole, covered, 1, SIDE * SIDE);
  const at = (column) => values[14 * SIDE + column];
  return { count: instances.length, left: at(8), right: at(20), between: at(14), peak };
}"""


def test_saliency_of_helpful_and_harmful_strokes_has_opposite_signs_and_log_odds(
    page: Page,
) -> None:
    """Each patch over the left stroke covers 5 of its 28 pixels."""
    result: dict[str, Any] = page.evaluate(SALIENCY)
    assert result["count"] <= 256
    assert result["left"] > 0 > result["right"]
    assert result["between"] == 0
    assert max(result["left"], -result["right"]) <= 1
    whole, covered = 0.6, 0.6 - 0.5 * 5 / 28
    change = math.log(whole / (1 - whole)) - math.log(covered / (1 - covered))
    assert result["peak"] == pytest.approx(change)


def test_why_on_drawing_sends_one_request_and_paints_heat_map_with_scale(page: Page) -> None:
    why = page.get_by_role("button", name="Why?")
    expect(why).to_be_disabled()
    draw(page, 4)
    expect(page.locator(".reading")).to_have_text("4")
    with page.expect_request(
        lambda request: request.headers["content-type"] == "application/json"
    ) as request:
        why.click()
    assert 20 < len(json.loads(request.value.post_data or "")["instances"]) <= 256
    expect(page.locator("main[data-explained=strokes]")).to_be_visible()
    for text in ("Red: against", "Blue: for", "without that part, the odds of a 4 change by a factor of"):
        expect(page.get_by_text(text)).to_be_visible()
    assert page.locator("#heatmap").evaluate(COUNT_COLOURS)["blue"] > 1000
    why.click()
    expect(page.locator("main[data-explained]")).to_have_count(0)
    expect(page.locator("#scale")).to_be_hidden()


def test_why_while_drawing_hides_heat_map_until_stroke_ends(page: Page) -> None:
    page.get_by_role("button", name="Example: 1").click()
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    draw_without_release(page, [(0.2, 0.2), (0.3, 0.2)])
    expect(page.locator("main[data-explained]")).to_have_count(0)
    page.mouse.up()
    expect(page.locator("main[data-explained]")).to_be_visible()
