"""A classifier of one's own, exported into a running service: asked by clients, and on the page."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from digit_client import Client, DigitError, ModelNotFoundError, ModelServerClient, ReadingNotSupportedError
from digit_core.images import to_png
from tests.e2e.page.conftest import Service
from tests.e2e.page.test_images import FIVE
from tests.e2e.page.test_tasks import BLUE_BY_QUARTER
from tests.processes import DIGITS, wait_until

pytestmark = pytest.mark.e2e

# Model of the mean colour, without training: "grey" is likely where no colour is brighter than the others.
MODEL = """
import sys, keras, numpy as np
pixels = keras.Input((64, 48, 3))
mean = keras.layers.GlobalAveragePooling2D()(pixels)
answer = keras.layers.Dense(4, activation="softmax")
model = keras.Model(pixels, answer(mean))
excess = 12 * np.eye(3) - 4
answer.set_weights([np.hstack((excess, np.zeros((3, 1)))), np.array([0, 0, 0, 2])])
model.save(sys.argv[1])
"""
CARD = """
name = "colors"
labels = ["red", "green", "blue", "grey"]
[input]
range = [-1, 1]
"""
COLORS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200), "grey": (120, 120, 120)}


@pytest.fixture(scope="module")
def colors(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A picture of each color, which the running service names."""
    work = tmp_path_factory.mktemp("colors")
    pictures = {name: work / "data" / name / "picture.png" for name in COLORS}
    for name, path in pictures.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(to_png(np.tile(np.array(COLORS[name], np.uint8), (100, 80, 1))))
    (work / "colors.toml").write_text(CARD)
    subprocess.run([sys.executable, "-c", MODEL, "colors.keras"], cwd=work, check=True)
    options = ["--task", "colors.toml", "--data", "data", "--models", str(service.models)]
    subprocess.run([*DIGITS, "export", "colors.keras", *options], cwd=work, check=True)
    with Client(service.url, model="colors") as client:
        wait_until(lambda: is_served(client, pictures["red"]))
    return pictures


def is_served(client: Client, picture: Path) -> bool:
    try:
        client.predict(picture)
    except DigitError:
        return False
    return True


def test_both_clients_name_pictures_and_digits_are_read_beside(
    service: Service, colors: dict[str, Path]
) -> None:
    with Client(service.url, model="colors") as over_http:
        assert [over_http.predict(picture).label for picture in colors.values()] == list(COLORS)
        with pytest.raises(ReadingNotSupportedError):
            over_http.read(FIVE)
    with ModelServerClient(service.grpc, name="colors") as over_grpc:
        assert [over_grpc.predict(picture).label for picture in colors.values()] == list(COLORS)
    with Client(service.url) as client:
        answer = client.predict(FIVE)
        assert (answer.label, answer.digit) == ("5", 5)
        assert client.read(FIVE).text == "5"
    with Client(service.url, model="rockets") as client, pytest.raises(ModelNotFoundError):
        client.predict(FIVE)


@pytest.mark.usefixtures("colors")
def test_page_names_and_explains_a_picture(open_page: Callable[..., Page], tmp_path: Path) -> None:
    """A red square in the left top quarter makes the picture red; its grey parts speak against that."""
    page = open_page("/?model=colors")
    expect(page).to_have_title("Colors")
    expect(page.locator(".bars span")).to_have_text(list(COLORS))
    pixels = np.full((320, 240, 3), 120, np.uint8)
    pixels[:160, :120] = 255, 0, 0
    file = tmp_path / "square.png"
    file.write_bytes(to_png(pixels))
    page.locator("#file").set_input_files(file)
    expect(page.locator(".reading")).to_have_text("red")
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
    quarters = page.locator("#heatmap").evaluate(BLUE_BY_QUARTER)
    assert quarters[0] > 10
    assert max(quarters[1:]) < 0
