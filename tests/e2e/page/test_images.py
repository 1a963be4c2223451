"""Images instead of a drawing: chosen, photographed, pasted and dropped."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from digit_core.images import to_png
from tests.e2e.page.pen import draw
from tests.processes import wait_until
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


# Lets the browser decode an uploaded file once `release` is called.
DECODE_LATE = """() => {
  const decode = window.createImageBitmap.bind(window);
  window.createImageBitmap = async (file, ...options) => {
    if (file instanceof File) await new Promise((resolve) => (window.release = resolve));
    return decode(file, ...options);
  };
}"""


@pytest.fixture
def page(page: Page) -> Page:
    """The page, which keeps what it sends."""
    page.add_init_script(RECORD_SENT)
    page.reload()
    return page


def send(page: Page, file: Path, text: str) -> list[Any]:
    """Choose a file, which is read as the text; return the type, bytes and width of what the page sends."""
    page.get_by_label("Image").set_input_files(file)
    expect(page.locator(".reading")).to_have_text(text)
    sent: list[Any] = page.evaluate("sent")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".reading")).to_be_empty()
    return sent


@pytest.mark.parametrize(
    ("name", "degrees", "lines"),
    [("examples/numbers/display.jpg", 90, ["20734"]), ("number.jpg", 270, ["2026", "17"])],
)
def test_turned_picture_is_turned_back_by_a_button_and_read(
    page: Page, tmp_path: Path, name: str, degrees: int, lines: list[str]
) -> None:
    with Image.open(ROOT / "docs" / name) as picture:
        picture.rotate(degrees, expand=True).save(tmp_path / "number.png")
    page.get_by_label("Image").set_input_files(tmp_path / "number.png")
    hint = f"Turned by {degrees}° clockwise, it seems to show a number. Turn"
    expect(page.locator(".certainty")).to_have_text(hint)
    page.get_by_role("button", name="Turn").click()
    expect(page.locator(".reading p")).to_have_text(lines)
    expect(page.get_by_role("button", name="Turn")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".certainty")).to_have_text(hint)


def test_picture_that_opens_late_replaces_no_newer_content(page: Page, tmp_path: Path) -> None:
    with Image.open(ROOT / "docs" / "number.jpg") as picture:
        picture.resize((4000, 3000)).save(tmp_path / "large.jpg", quality=95)
    page.evaluate(DECODE_LATE)
    for newer in ("Example: five", "Example: 7", "drawing"):
        page.get_by_label("Image").set_input_files(tmp_path / "large.jpg")
        expect(page.locator("#paper[aria-busy=true]")).to_have_count(1)
        if newer == "drawing":
            draw(page, 1)
        else:
            page.get_by_role("button", name=newer).dispatch_event("click")
        expect(page.locator("#paper[aria-busy=true]")).to_have_count(0)
        wait_until(lambda: page.evaluate("Boolean(window.release)"))
        page.evaluate("window.release(), (window.release = null)")
        page.wait_for_timeout(1500)
        expect(page.locator(".reading")).to_have_text(
            {"drawing": "1"}.get(newer, newer[-1].replace("e", "5"))
        )
        page.get_by_role("button", name="Clear").click()


def test_picture_survives_a_reload_until_it_is_cleared(page: Page) -> None:
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator(".reading")).to_have_text("5")
    page.reload()
    expect(page.locator(".reading")).to_have_text("5")
    page.get_by_role("button", name="Clear").click()
    page.reload()
    page.locator("body[data-ready]").wait_for()
    expect(page.locator("#placeholder")).to_be_visible()


def test_image_chosen_photographed_pasted_or_dropped_shows_prediction(page: Page) -> None:
    expect(page.get_by_text("drop or paste a picture")).to_be_visible()
    for way in ("Image", "Image", "Camera", "paste", "drop"):
        if way in ("paste", "drop"):
            page.evaluate(DISPATCH_FILE, [way, base64.b64encode(FIVE.read_bytes()).decode()])
        else:
            page.get_by_label(way).set_input_files(FIVE)
        expect(page.locator(".reading")).to_have_text("5")
        expect(page.locator("#placeholder")).to_be_hidden()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".reading")).to_be_empty()


def test_image_above_upload_limit_is_downscaled(page: Page, digits: Any, tmp_path: Path) -> None:
    """Noise around the digit keeps the file from compressing below the gateway's limit."""
    noise = np.random.default_rng(0).integers(200, 256, (3000, 3200, 3), np.uint8)
    noise[700:2380, 800:2480] = 255 - np.kron(digits.one(3), np.ones((60, 60), np.uint8))[:, :, None]
    file = tmp_path / "huge.png"
    file.write_bytes(to_png(noise))
    assert file.stat().st_size > 8 * 1024 * 1024
    kind, size, width = send(page, file, "3")
    assert (kind, width) == ("image/jpeg", 1600)
    assert size < 2_000_000


def test_image_of_kind_that_the_service_knows_is_sent_as_it_is_and_another_as_bounded_png(
    page: Page, tmp_path: Path
) -> None:
    for suffix in (".png", ".jpg", ".webp", ".gif", ".bmp"):
        file = tmp_path / f"five{suffix}"
        Image.open(FIVE).save(file)
        assert send(page, file, "5")[1] == file.stat().st_size
    file = tmp_path / "five.avif"
    Image.open(FIVE).resize((2400, 1800)).save(file)
    kind, _, width = send(page, file, "5")
    assert (kind, width) == ("image/png", 1600)


def test_image_undecodable_file_shows_error_in_place_of_the_drawing_until_undo(
    page: Page, tmp_path: Path
) -> None:
    draw(page, 1)
    expect(page.locator(".reading")).to_have_text("1")
    file = tmp_path / "notes.png"
    file.write_text("no image")
    page.get_by_label("Image").set_input_files(file)
    error = page.locator("#error")
    expect(error).to_have_text(
        "The browser can’t open notes.png as a picture. Undo brings back what was here."
    )
    expect(page.locator(".reading")).to_be_empty()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".reading")).to_have_text("1")
    expect(error).to_be_empty()


def test_image_with_problem_shows_its_detail(page: Page, expected_errors: list[str]) -> None:
    expected_errors += ["422"]
    problem = {"status": 422, "code": "image_too_large", "detail": "The image is too large."}
    page.route("**/v1/read*", lambda route: route.fulfill(status=422, json=problem))
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator("#error")).to_have_text("The image is too large.")
    expect(page.locator(".reading")).to_be_empty()
