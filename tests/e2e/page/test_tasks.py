"""Pages of other tasks than the digits: texts, pictures, bars, explanation, and the menu of models."""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, Request, expect

from digit_core import images
from tests.e2e.page.accessibility import assert_accessible
from tests.e2e.page.conftest import TASKS, TaskGateway
from tests.e2e.page.pen import draw
from tests.e2e.page.steps import explain

pytestmark = pytest.mark.e2e

OpenTask = Callable[..., Page]

# Mean of blue minus red in each quarter of the heat map: left top, right top, left bottom, right bottom.
BLUE_BY_QUARTER = """canvas => [[0, 0], [1, 0], [0, 1], [1, 1]].map(([column, row]) => {
  const [width, height] = [canvas.width / 2, canvas.height / 2];
  const { data } = canvas.getContext("2d").getImageData(column * width, row * height, width, height);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) sum += data[i + 2] - data[i];
  return sum / (data.length / 4);
})"""


def noise_file(folder: Path, low: int, high: int, shape: tuple[int, ...] = (150, 240, 3)) -> Path:
    """Write a picture of noise from `low` to `high`, by default of another aspect ratio than the models'."""
    file = folder / f"noise-{low}-{high}.png"
    file.write_bytes(images.to_png(np.random.default_rng(0).integers(low, high + 1, shape, np.uint8)))
    return file


def choose(page: Page, file: Path) -> None:
    page.locator("#file").set_input_files(file)


def test_task_of_pictures_has_its_texts_no_drawing_and_answers_a_picture(
    open_task: OpenTask, gateway: TaskGateway, tmp_path: Path
) -> None:
    page = open_task()
    expect(page.get_by_role("heading", level=1)).to_have_text("Flowers")
    expect(page).to_have_title("Flowers")
    expect(page.locator("header")).to_contain_text("A neural network tells apart daisy, rose and tulip.")
    expect(page.locator("#placeholder")).to_contain_text("Choose, drop or paste a picture")
    expect(page.get_by_text("or press 0 to 9")).to_be_hidden()
    expect(page.locator(".bars span")).to_have_text(["daisy", "rose", "tulip"])
    for part in ("#pen", "#examples"):
        expect(page.locator(part)).to_be_hidden()
    page.on("filechooser", lambda _: None)
    draw(page, 1)
    page.locator("main").press("5")
    expect(page.locator("#clear")).to_be_disabled()
    assert gateway.inputs("flowers") == []
    assert_accessible(page)
    with page.expect_file_chooser() as chooser:
        page.locator("#drawing").click()
    chooser.value.set_files(noise_file(tmp_path, 240, 255))
    expect(page.locator(".reading")).to_have_text("tulip")
    expect(page.locator(".bars .best span")).to_have_text("tulip")
    expect(page.locator(".source")).to_contain_text("Version 1 answered in")
    expect(page.locator(".answer img")).to_have_attribute("alt", "Input of the network, 48 by 64 pixels")
    expect(page.get_by_role("status").filter(has_text="This is “tulip”")).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".certainty")).to_have_text("The answer appears here once there is a picture.")


def test_picture_of_multi_label_task_shows_each_label_that_fits(open_task: OpenTask, tmp_path: Path) -> None:
    page = open_task("several")
    expect(page.locator("header")).to_contain_text("A neural network finds daisy, rose and tulip.")
    choose(page, noise_file(tmp_path, 240, 255))
    expect(page.locator(".reading")).to_have_text("rose, tulip")
    expect(page.locator(".certainty")).to_have_text("2 of 3 labels fit.")
    expect(page.locator(".bars .best span")).to_have_text(["rose", "tulip"])
    expect(page.get_by_role("status").filter(has_text="The picture shows: rose, tulip.")).to_have_count(1)


def test_model_of_many_classes_chosen_in_the_menu_is_in_address_and_requests_and_shows_five_best(
    open_task: OpenTask, gateway: TaskGateway, tmp_path: Path
) -> None:
    page = open_task()
    menu = page.get_by_label("Model")
    expect(menu).to_have_value("flowers")
    menu.select_option("many")
    expect(page).to_have_url(f"{gateway.url}/?model=many")
    expect(page).to_have_title("Many")
    expect(menu).to_have_value("many")
    expect(page.locator("#subject")).to_contain_text("100 classes, such as class 0, class 1 and class 2.")
    choose(page, noise_file(tmp_path, 108, 147))
    expect(page.locator(".reading")).to_have_text("class 49")
    labels = page.locator(".bars span").all_text_contents()
    shares = [float(text.rstrip("%")) for text in page.locator(".bars b").all_text_contents()]
    assert labels[0] == "class 49"
    assert len(set(labels)) == len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    explain(page)
    assert_accessible(page)
    assert set(gateway.models.versions) == {("many", 1)}
    page.go_back()
    expect(page).to_have_title("Flowers")
    expect(menu).to_have_value("flowers")


def test_why_covers_parts_and_colours_those_that_matter(
    open_task: OpenTask, gateway: TaskGateway, tmp_path: Path
) -> None:
    height, width, _ = TASKS["halves"].shape
    page = open_task("halves")
    pixels = np.zeros((120, 120), np.uint8)
    pixels[:60, :60] = 255
    file = tmp_path / "quarter.png"
    file.write_bytes(images.to_png(pixels))
    choose(page, file)
    expect(page.locator(".reading")).to_have_text("bright")
    with page.expect_request("**/v1/predict*") as request:
        explain(page)
    picture, *covered = np.concatenate(gateway.inputs("halves")).reshape(-1, height, width)
    assert 30 < len(covered) <= 64
    document = json.loads(request.value.post_data or "")
    sizes = {images.decode(base64.b64decode(url.partition(",")[2])).shape[:2] for url in document["images"]}
    assert sizes == {(height, width)}
    changed = np.array([each != picture for each in covered])
    assert changed.any(axis=0).all()
    assert changed.mean(axis=(1, 2)).max() < 0.2
    quarters = page.locator("#heatmap").evaluate(BLUE_BY_QUARTER)
    assert quarters[0] > 10
    assert max(map(abs, quarters[1:])) < quarters[0] / 3
    expect(page.locator("#scale-text")).to_contain_text("the odds of “bright” change by a factor of")


def test_why_of_large_picture_sends_fewer_parts_and_of_too_large_one_keeps_answer_with_sentence(
    open_task: OpenTask, gateway: TaskGateway, tmp_path: Path
) -> None:
    """Noise makes the body too large; a black picture makes only the prepared pictures large."""
    shape = TASKS["large"].shape
    page = open_task("large")
    why, hint = page.get_by_role("button", name="Why?"), page.locator("#why-hint")
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if "/v1/predict" in request.url else None)
    choose(page, noise_file(tmp_path, 0, 0, shape))
    explain(page)
    _, *covered = np.concatenate(gateway.inputs("large"))
    assert 9 <= len(covered) < 64
    assert len(covered) * math.prod(shape) <= 16 * 1024 * 1024
    choose(page, noise_file(tmp_path, 0, 255, shape))
    expect(hint).to_contain_text("too large to be sent again with each part covered.")
    expect(why).to_be_disabled()
    expect(page.locator("main[data-explained]")).to_have_count(0)
    expect(page.locator(".reading")).not_to_be_empty()
    expect(page.locator("#error")).to_be_empty()
    assert len(sent) == 3
    page.get_by_role("button", name="Clear").click()
    expect(hint).to_contain_text("Colour the parts that speak for the answer")


def test_task_of_letters_is_drawn_and_explained_on_strokes(open_task: OpenTask, gateway: TaskGateway) -> None:
    low, high = TASKS["letters"].range
    page = open_task("letters")
    paths: list[str] = []
    page.on("request", lambda request: paths.append(request.url))
    expect(page).to_have_title("Letters")
    expect(page.locator("#pen")).to_be_visible()
    expect(page.locator("#examples")).to_be_hidden()
    draw(page, 4)
    expect(page.locator(".reading")).not_to_be_empty()
    expect(page.locator(".bars li")).to_have_count(5)
    explain(page)
    assert not any("/v1/read" in path for path in paths)
    *_, (whole, *covered) = [batch for batch in gateway.inputs("letters") if len(batch) > 1]
    source = page.get_by_alt_text("Input of the network, 28 by 28 pixels").get_attribute("src") or ""
    shown = images.decode(base64.b64decode(source.partition(",")[2]))
    assert np.allclose(whole, low + (high - low) * shown.reshape(whole.shape) / 255, atol=1e-3)
    for each in covered:
        assert set(each[each != whole]) == {np.float32(low)}


def test_model_in_address_unknown_shows_error_and_default(
    open_task: OpenTask, gateway: TaskGateway, expected_errors: list[str]
) -> None:
    expected_errors += ["404"]
    page = open_task("roses")
    expect(page).to_have_title("Flowers")
    expect(page.locator("#error")).to_contain_text("Parameter `model` must be one of: flowers, ")
    assert page.url == f"{gateway.url}/"
