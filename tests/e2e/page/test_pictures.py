"""Pictures in place of a drawing."""

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from digit_client.images import to_png
from tests.e2e.page.pen import write
from tests.readme import ROOT

FIVE = ROOT / "docs" / "five.jpg"

# What the system does when somebody lets go of a file over the page, or has copied a picture.
TRANSFER = """([kind, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "five.jpg", { type: "image/jpeg" }));
  const how = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(kind === "paste"
    ? new ClipboardEvent(kind, { ...how, clipboardData: data })
    : new DragEvent(kind, { ...how, dataTransfer: data }));
}"""


@pytest.mark.parametrize("button", ["Image", "Camera"])
def test_a_photograph_is_read(page: Page, button: str) -> None:
    page.get_by_label(button).set_input_files(FIVE)
    expect(page.locator("#digit")).to_have_text("5")
    expect(page.locator("#invitation")).to_be_hidden()


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_it_can_be_pasted_and_dropped(page: Page, kind: str) -> None:
    page.evaluate(TRANSFER, [kind, base64.b64encode(FIVE.read_bytes()).decode()])
    expect(page.locator("#digit")).to_have_text("5")


def test_it_takes_the_place_of_a_drawing_and_gives_it_back(page: Page) -> None:
    write(page, 1)
    expect(page.locator("#digit")).to_have_text("1")
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator("#digit")).to_have_text("5")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#digit")).to_have_text("1")


def test_who_draws_on_it_gets_new_paper(page: Page) -> None:
    page.get_by_label("Image").set_input_files(FIVE)
    expect(page.locator("#digit")).to_have_text("5")
    write(page, 1)
    expect(page.locator("#digit")).to_have_text("1")


def test_the_same_file_can_be_chosen_again(page: Page) -> None:
    for _ in range(2):
        page.get_by_label("Image").set_input_files(FIVE)
        expect(page.locator("#digit")).to_have_text("5")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#digit")).to_be_empty()


def test_a_huge_one_is_made_smaller_first(page: Page, digits: Any, tmp_path: Path) -> None:
    """Noise, which no file format makes smaller, around a digit: more than the gateway takes."""
    noise = np.random.default_rng(0).integers(200, 256, (3000, 3200, 3), np.uint8)
    noise[700:2380, 800:2480] = 255 - np.kron(digits.one(3), np.ones((60, 60), np.uint8))[:, :, None]
    file = tmp_path / "huge.png"
    file.write_bytes(to_png(noise))
    assert file.stat().st_size > 8 * 1024 * 1024
    with page.expect_request("**/v1/predict*") as sent:
        page.get_by_label("Image").set_input_files(file)
    assert len(sent.value.post_data_buffer or b"") < 2_000_000
    expect(page.locator("#digit")).to_have_text("3")


def test_what_is_no_picture_is_told_and_the_drawing_kept(page: Page, tmp_path: Path) -> None:
    write(page, 1)
    expect(page.locator("#digit")).to_have_text("1")
    file = tmp_path / "notes.png"
    file.write_text("no image")
    page.get_by_label("Image").set_input_files(file)
    expect(page.locator("#trouble")).to_have_text("This file is no picture that the browser can show.")
    expect(page.locator("#digit")).to_have_text("1")


def test_the_service_s_own_words_are_shown(page: Page, url: str, errors: list[str], tmp_path: Path) -> None:
    file = tmp_path / "empty.png"
    file.write_bytes(to_png(np.full((100, 100), 255, np.uint8)))
    page.get_by_label("Image").set_input_files(file)
    problem = httpx.post(f"{url}/v1/predict", content=file.read_bytes()).json()
    expect(page.locator("#trouble")).to_have_text(problem["detail"])
    expect(page.locator("#digit")).to_be_empty()
    # Chromium itself counts such an answer as an error.
    assert all("422" in error for error in errors)
    errors.clear()
