"""Images instead of a drawing: chosen, photographed, pasted and dropped."""

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
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

# Keeps the type, size and width of each picture that the page sends.
RECORD_SENT = """(() => {
  const { fetch } = window;
  window.fetch = async (path, options) => {
    if (options?.body instanceof Blob) {
      const { width } = await createImageBitmap(options.body);
      window.sent = [options.body.type, options.body.size, width];
    }
    return fetch(path, options);
  };
})()"""


def send(page: Page, file: Path) -> list[Any]:
    """Choose a file; return the type, size in bytes and width of what the page sends."""
    page.add_init_script(RECORD_SENT)
    page.reload()
    page.get_by_label("Image").set_input_files(file)
    expect(page.locator(".reading")).to_have_text(re.compile("[0-9]"))
    sent: list[Any] = page.evaluate("sent")
    return sent


def test_image_chosen_or_photographed_shows_prediction(page: Page) -> None:
    for button in ("Image", "Image", "Camera"):
        page.get_by_label(button).set_input_files(FIVE)
        expect(page.locator(".reading")).to_have_text("5")
        expect(page.locator("#placeholder")).to_be_hidden()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".reading")).to_be_empty()


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_image_pasted_or_dropped_shows_prediction(page: Page, kind: str) -> None:
    expect(page.get_by_role("heading", name="drop or paste a picture")).to_be_visible()
    page.evaluate(DISPATCH_FILE, [kind, base64.b64encode(FIVE.read_bytes()).decode()])
    expect(page.locator(".reading")).to_have_text("5")


def test_image_above_upload_limit_is_downscaled(page: Page, digits: Any, tmp_path: Path) -> None:
    """Noise around the digit keeps the file from compressing below the gateway's limit."""
    noise = np.random.default_rng(0).integers(200, 256, (3000, 3200, 3), np.uint8)
    noise[700:2380, 800:2480] = 255 - np.kron(digits.one(3), np.ones((60, 60), np.uint8))[:, :, None]
    file = tmp_path / "huge.png"
    file.write_bytes(to_png(noise))
    assert file.stat().st_size > 8 * 1024 * 1024
    kind, size, width = send(page, file)
    assert (kind, width) == ("image/jpeg", 1600)
    assert size < 2_000_000
    expect(page.locator(".reading")).to_have_text("3")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".bmp"])
def test_image_of_kind_that_the_service_knows_is_sent_as_it_is(
    page: Page, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"five{suffix}"
    Image.open(FIVE).save(file)
    assert send(page, file)[1] == file.stat().st_size
    expect(page.locator(".reading")).to_have_text("5")


def test_image_of_another_kind_is_sent_as_bounded_png(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "five.avif"
    Image.open(FIVE).resize((2400, 1800)).save(file)
    kind, _, width = send(page, file)
    assert (kind, width) == ("image/png", 1600)
    expect(page.locator(".reading")).to_have_text("5")


def test_image_undecodable_file_shows_error_and_keeps_drawing(page: Page, tmp_path: Path) -> None:
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    file = tmp_path / "notes.png"
    file.write_text("no image")
    page.get_by_label("Image").set_input_files(file)
    expect(page.locator("#error")).to_have_text("The browser can’t open this file as an image.")
    expect(page.locator(".reading")).to_have_text("1")


def test_image_with_problem_shows_its_detail(page: Page, console_errors: list[str]) -> None:
    respond_with_problem(page, "image_too_large", "The image is too large.")
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator("#error")).to_have_text("The image is too large.")
    expect(page.locator(".reading")).to_be_empty()
    # Chromium reports the response of status 422 as an error.
    assert all("422" in error for error in console_errors)
    console_errors.clear()
