"""Images instead of a drawing: chosen, photographed, pasted and dropped."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from digit_client.images import to_png
from tests.e2e.page.pen import draw
from tests.e2e.page.responses import respond_with_problem
from tests.readme import ROOT

pytestmark = pytest.mark.e2e

FIVE = ROOT / "docs" / "five.jpg"

# Dispatches the event of a file that is dropped on the page, or of a pasted image.
DISPATCH_FILE = """([kind, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "five.jpg", { type: "image/jpeg" }));
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(kind === "paste"
    ? new ClipboardEvent(kind, { ...options, clipboardData: data })
    : new DragEvent(kind, { ...options, dataTransfer: data }));
}"""


def test_image_chosen_or_photographed_shows_prediction(page: Page) -> None:
    for button in ("Image", "Camera"):
        page.get_by_label(button).set_input_files(FIVE)
        expect(page.locator("#reading")).to_have_text("5")
        expect(page.locator("#placeholder")).to_be_hidden()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#reading")).to_be_empty()


def test_image_pasted_or_dropped_shows_prediction(page: Page) -> None:
    for kind in ("paste", "drop"):
        page.evaluate(DISPATCH_FILE, [kind, base64.b64encode(FIVE.read_bytes()).decode()])
        expect(page.locator("#reading")).to_have_text("5")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#reading")).to_be_empty()


def test_image_over_drawing_replaces_it_until_undo(page: Page) -> None:
    draw(page, 1)
    expect(page.locator("#reading")).to_have_text("1")
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator("#reading")).to_have_text("5")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#reading")).to_have_text("1")


def test_draw_over_image_replaces_it(page: Page) -> None:
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator("#reading")).to_have_text("5")
    draw(page, 1)
    expect(page.locator("#reading")).to_have_text("1")


def test_image_same_file_chosen_twice_shows_prediction_twice(page: Page) -> None:
    for _ in range(2):
        page.get_by_label("Image").set_input_files(FIVE)
        expect(page.locator("#reading")).to_have_text("5")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#reading")).to_be_empty()


def test_image_above_upload_limit_is_downscaled(page: Page, digits: Any, tmp_path: Path) -> None:
    """Noise around the digit keeps the file from compressing below the gateway's limit."""
    noise = np.random.default_rng(0).integers(200, 256, (3000, 3200, 3), np.uint8)
    noise[700:2380, 800:2480] = 255 - np.kron(digits.one(3), np.ones((60, 60), np.uint8))[:, :, None]
    file = tmp_path / "huge.png"
    file.write_bytes(to_png(noise))
    assert file.stat().st_size > 8 * 1024 * 1024
    with page.expect_request("**/v1/read*") as request:
        page.get_by_label("Image").set_input_files(file)
    assert len(request.value.post_data_buffer or b"") < 2_000_000
    expect(page.locator("#reading")).to_have_text("3")


def test_image_undecodable_file_shows_error_and_keeps_drawing(page: Page, tmp_path: Path) -> None:
    draw(page, 1)
    expect(page.locator("#reading")).to_have_text("1")
    file = tmp_path / "notes.png"
    file.write_text("no image")
    page.get_by_label("Image").set_input_files(file)
    expect(page.locator("#error")).to_have_text("The browser can’t open this file as an image.")
    expect(page.locator("#reading")).to_have_text("1")


def test_image_without_digit_shows_that_it_is_none(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "empty.png"
    file.write_bytes(to_png(np.full((100, 100), 255, np.uint8)))
    page.get_by_label("Image").set_input_files(file)
    expect(page.locator("#certainty")).to_have_text("That doesn't look like a digit.")
    expect(page.locator("#error")).to_be_empty()
    expect(page.locator("#reading")).to_be_empty()


def test_image_refused_for_another_reason_shows_detail_of_problem(page: Page) -> None:
    respond_with_problem(page, "image_too_large", "The image is too large.")
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator("#error")).to_have_text("The image is too large.")
    expect(page.locator("#reading")).to_be_empty()
