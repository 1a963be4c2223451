"""Pages of other tasks than the digits: texts, pictures, bars, explanation, and the menu of models."""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, Request, expect

from digit_client import TaskCard
from digit_core import images
from tests.e2e.page.accessibility import assert_accessible
from tests.e2e.page.pen import draw
from tests.e2e.page.stub import ORIGIN, StubGateway, inputs_of

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


def task(
    name: str = "flowers",
    labels: tuple[str, ...] = ("daisy", "rose", "tulip"),
    shape: tuple[int, ...] = (64, 48, 3),
    **options: Any,
) -> TaskCard:
    return TaskCard(name, labels, shape, (0.0, 255.0), **options)


NUMBERED = tuple(f"class {number}" for number in range(100))
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
FLOWERS, MANY = task(), task("many", NUMBERED)
LETTERS_CARD = task("letters", LETTERS, (28, 28), kind="digits")


def picture_file(folder: Path, brightness: int = 255) -> Path:
    """Write a picture of noise around a brightness, of another aspect ratio than the models'."""
    noise = np.random.default_rng(0).integers(-20, 20, (150, 240, 3))
    file = folder / f"{brightness}.png"
    file.write_bytes(images.to_png((brightness + noise).clip(0, 255).astype(np.uint8)))
    return file


def noise_file(folder: Path, shape: tuple[int, ...], contrast: int) -> Path:
    """Write a picture of noise in 0..contrast - 1: black for 1, hard to compress for 256."""
    noise = np.random.default_rng(0).integers(0, contrast, shape, np.uint8)
    file = folder / f"noise-{contrast}.png"
    file.write_bytes(images.to_png(noise))
    return file


def choose(page: Page, file: Path) -> None:
    page.locator("#file").set_input_files(file)


def predict_requests(gateway: StubGateway) -> list[Request]:
    return [request for request in gateway.requests if "/v1/predict" in request.url]


def test_task_of_pictures_has_its_texts_no_drawing_and_answers_a_picture(
    open_task: OpenTask, tmp_path: Path
) -> None:
    gateway = StubGateway(FLOWERS)
    page = open_task(gateway)
    expect(page.get_by_role("heading", level=1)).to_have_text("Flowers")
    expect(page).to_have_title("Flowers")
    expect(page.locator("header")).to_contain_text("A neural network tells apart daisy, rose and tulip.")
    expect(page.locator("#placeholder")).to_contain_text("Choose, drop or paste a picture")
    expect(page.get_by_text("or press 0 to 9")).to_be_hidden()
    expect(page.locator(".bars span")).to_have_text(["daisy", "rose", "tulip"])
    for part in ("#pen", "#examples", "#model", "#feedback"):
        expect(page.locator(part)).to_be_hidden()
    page.on("filechooser", lambda _: None)
    draw(page, 1)
    page.locator("main").press("5")
    expect(page.locator("#clear")).to_be_disabled()
    assert predict_requests(gateway) == []
    assert_accessible(page)
    with page.expect_file_chooser() as chooser:
        page.locator("#drawing").click()
    chooser.value.set_files(picture_file(tmp_path))
    expect(page.locator(".reading")).to_have_text("tulip")
    expect(page.locator(".bars .best span")).to_have_text("tulip")
    expect(page.locator(".source")).to_contain_text("Version 1 answered in")
    expect(page.locator(".answer img")).to_have_attribute("alt", "Input of the network, 48 by 64 pixels")
    expect(page.get_by_role("status").filter(has_text="This is “tulip”")).to_have_count(1)
    assert inputs_of(predict_requests(gateway)[0], FLOWERS)[0].shape == (64, 48, 3)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".certainty")).to_have_text("The answer appears here once there is a picture.")


def test_picture_of_multi_label_task_shows_each_label_that_fits(open_task: OpenTask, tmp_path: Path) -> None:
    page = open_task(StubGateway(task(thresholds=(0.9, 0.1, 0.1))))
    expect(page.locator("header")).to_contain_text("A neural network finds daisy, rose and tulip.")
    choose(page, picture_file(tmp_path))
    expect(page.locator(".reading")).to_have_text("rose, tulip")
    expect(page.locator(".certainty")).to_have_text("2 of 3 labels fit.")
    expect(page.locator(".bars .best span")).to_have_text(["rose", "tulip"])
    expect(page.get_by_role("status").filter(has_text="The picture shows: rose, tulip.")).to_have_count(1)


def test_picture_of_many_classes_shows_five_best(open_task: OpenTask, tmp_path: Path) -> None:
    page = open_task(StubGateway(MANY, FLOWERS))
    expect(page.locator("#subject")).to_contain_text("100 classes, such as class 0, class 1 and class 2.")
    choose(page, picture_file(tmp_path, brightness=128))
    expect(page.locator(".reading")).to_have_text("class 49")
    labels = page.locator(".bars span").all_text_contents()
    shares = [float(text.rstrip("%")) for text in page.locator(".bars b").all_text_contents()]
    assert labels[0] == "class 49"
    assert len(set(labels)) == len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    assert_accessible(page)


def test_why_covers_parts_and_colours_those_that_matter(open_task: OpenTask, tmp_path: Path) -> None:
    """The answer of this model depends on the picture's left top quarter only."""
    height, width = 40, 160

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        bright = 0.2 + 0.6 * pixels[: height // 2, : width // 2].mean() / 255
        return np.array([bright, 1 - bright])

    card = task("halves", ("bright", "dark"), (height, width, 1), fit="stretch")
    gateway = StubGateway(card, classify=classify)
    page = open_task(gateway)
    pixels = np.zeros((120, 120), np.uint8)
    pixels[:60, :60] = 255
    file = tmp_path / "quarter.png"
    file.write_bytes(images.to_png(pixels))
    choose(page, file)
    expect(page.locator(".reading")).to_have_text("bright")
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    picture, covered = (inputs_of(request, card) for request in predict_requests(gateway))
    assert 30 < len(covered) <= 64
    document = json.loads(predict_requests(gateway)[1].post_data or "")
    sizes = {images.decode(base64.b64decode(url.partition(",")[2])).shape[:2] for url in document["images"]}
    assert sizes == {(height, width)}
    changed = np.array([(each != picture[0]).reshape(height, width, -1).any(axis=2) for each in covered])
    assert changed.any(axis=0).all()
    assert changed.mean(axis=(1, 2)).max() < 0.2
    quarters = page.locator("#heatmap").evaluate(BLUE_BY_QUARTER)
    assert quarters[0] > 10
    assert max(map(abs, quarters[1:])) < quarters[0] / 3
    expect(page.locator("#scale-text")).to_contain_text("the odds of “bright” change by a factor of")


def test_why_of_large_picture_sends_fewer_parts_and_of_too_large_one_keeps_answer_with_sentence(
    open_task: OpenTask, tmp_path: Path
) -> None:
    """Noise makes the body too large; a black picture makes only the prepared pictures large."""
    card = task("large", shape=(700, 700, 3))
    gateway = StubGateway(card)
    page = open_task(gateway)
    why, hint = page.get_by_role("button", name="Why?"), page.locator("#why-hint")
    choose(page, noise_file(tmp_path, card.shape, contrast=1))
    why.click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    count = len(inputs_of(predict_requests(gateway)[1], card))
    assert 9 <= count < 64
    assert count * math.prod(card.shape) <= 16 * 1024 * 1024
    choose(page, noise_file(tmp_path, card.shape, contrast=256))
    expect(hint).to_contain_text("too large to be sent again with each part covered.")
    expect(why).to_be_disabled()
    expect(page.locator("main[data-explained]")).to_have_count(0)
    expect(page.locator(".reading")).not_to_be_empty()
    expect(page.locator("#error")).to_be_empty()
    assert len(predict_requests(gateway)) == 3
    page.get_by_role("button", name="Clear").click()
    expect(hint).to_contain_text("Colour the parts that speak for the answer")


def test_task_of_letters_is_drawn_and_explained_on_strokes(open_task: OpenTask) -> None:
    card = replace(LETTERS_CARD, range=(0.1, 0.7))
    gateway = StubGateway(card)
    page = open_task(gateway)
    expect(page).to_have_title("Letters")
    expect(page.locator("#pen")).to_be_visible()
    expect(page.locator("#examples")).to_be_hidden()
    draw(page, 4)
    expect(page.locator(".reading")).not_to_be_empty()
    expect(page.locator(".bars li")).to_have_count(5)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained=strokes]")).to_be_visible()
    assert not any("/v1/read" in request.url for request in gateway.requests)
    inputs = [inputs_of(request, card) for request in predict_requests(gateway)]
    *_, picture = [pictures[0] for pictures in inputs if len(pictures) == 1]
    *_, (whole, *covered) = [pictures for pictures in inputs if len(pictures) > 1]
    assert np.array_equal(whole, picture)
    for each in covered:
        assert set(each[each != whole]) == {0}


def test_model_menu_choice_is_in_address_and_requests(open_task: OpenTask, tmp_path: Path) -> None:
    gateway = StubGateway(FLOWERS, MANY)
    page = open_task(gateway)
    menu = page.get_by_label("Model")
    expect(menu).to_have_value("flowers")
    menu.select_option("many")
    expect(page).to_have_url(f"{ORIGIN}/?model=many")
    expect(page).to_have_title("Many")
    expect(page.get_by_label("Model")).to_have_value("many")
    choose(page, picture_file(tmp_path))
    expect(page.locator(".reading")).to_contain_text("class 9")
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    queries = [parse_qs(urlsplit(request.url).query) for request in predict_requests(gateway)]
    assert [query["model"] for query in queries] == [["many"], ["many"]]
    page.go_back()
    expect(page).to_have_title("Flowers")
    expect(page.get_by_label("Model")).to_have_value("flowers")


def test_model_in_address_unknown_shows_error_and_default(
    open_task: OpenTask, expected_errors: list[str]
) -> None:
    expected_errors += ["404"]
    page = open_task(StubGateway(FLOWERS), "?model=roses")
    expect(page).to_have_title("Flowers")
    expect(page.locator("#error")).to_have_text("No model is named roses.")
    assert page.url == f"{ORIGIN}/"
