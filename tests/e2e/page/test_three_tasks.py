"""Three tasks in one service: digits, garments and stripes, from export to answers over HTTP and gRPC."""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from digit_client import (
    Client,
    ModelNotFoundError,
    ModelServerClient,
    Prediction,
    ReadingNotSupportedError,
)
from digit_client.images import to_png
from tests.processes import DIGITS, free_port, is_ready, running, wait_until

pytestmark = [
    pytest.mark.e2e,
    # Keras writes files with NumPy 1's protocol.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Debian's package dataset-fashion-mnist."""
GARMENTS = "T-shirt,trousers,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"
STRIPES_CARD = """
name = "stripes"
labels = ["across", "along", "checks", "plain"]
[input]
range = [-1, 1]
[prepare]
kind = "resize"
fit = "stretch"
"""
FIVE = Path(__file__).parents[3] / "docs" / "five.jpg"


@dataclass(frozen=True)
class Published:
    """Task as published: the accuracy that `digits export` printed, and its test pictures."""

    accuracy: float
    pictures: list[bytes] | NDArray[np.uint8]
    truth: list[int]


@dataclass(frozen=True)
class Service:
    """Addresses of the gateway and of the model server."""

    url: str
    grpc: str


def draw_stripes(kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture of a random size and two random colours: uint8 [h, w, 3]."""
    height, width = rng.integers(70, 200, 2)
    row, column = np.mgrid[:height, :width]
    period = int(rng.integers(24, 40))
    across, along = (row // period) % 2, (column // period) % 2
    pattern = {"across": across, "along": along, "checks": across ^ along, "plain": 0 * row}[kind]
    dark, light = rng.integers(0, 90, 3), rng.integers(160, 256, 3)
    return np.where(pattern[..., None] == 1, dark, light).astype(np.uint8)


def export(*arguments: str | Path) -> float:
    """Run `digits export`; return the accuracy that it prints."""
    done = subprocess.run([*DIGITS, "export", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = re.search(r"accuracy: ([\d.]+)", done.stdout)
    assert accuracy, done.stdout
    return float(accuracy[1])


def read_fashion(part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    content = [
        np.frombuffer(gzip.decompress((FASHION / f"{part}-{name}-ubyte.gz").read_bytes()), np.uint8)
        for name in ("images-idx3", "labels-idx1")
    ]
    return content[0][16:].reshape(-1, 28, 28), content[1][8:]


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the digits' model; the other fixtures add theirs before the service starts."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(models, folder / "digits")
    return folder


@pytest.fixture(scope="module")
def stripes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    work = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    names = ["across", "along", "checks", "plain"]
    drawn = [(draw_stripes(name, rng), index) for index, name in enumerate(names) for _ in range(40)]
    inputs = np.stack([cv2.resize(picture, (48, 64), interpolation=cv2.INTER_AREA) for picture, _ in drawn])
    model = keras.Sequential(
        [
            keras.Input((64, 48, 3)),
            layers.Conv2D(8, 5, strides=2, activation="relu"),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(inputs / 127.5 - 1, np.array([index for _, index in drawn]), epochs=12, verbose=0)
    model.save(work / "stripes.keras")
    (work / "stripes.toml").write_text(STRIPES_CARD)
    pictures, truth = [], []
    for index, name in enumerate(names):
        (work / "validation" / name).mkdir(parents=True)
        for number in range(25):
            path = work / "validation" / name / f"{number:02}.jpg"
            cv2.imwrite(str(path), draw_stripes(name, rng))
            pictures.append(path.read_bytes())
            truth.append(index)
    accuracy = export(
        work / "stripes.keras",
        "--task",
        work / "stripes.toml",
        "--data",
        work / "validation",
        "--models",
        folder,
        "--min-accuracy",
        "0.5",
    )
    return Published(accuracy, pictures, truth)


@pytest.fixture(scope="module")
def garments(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Published | None:
    """Fashion-MNIST, if it is installed."""
    if not FASHION.is_dir():
        return None
    work = tmp_path_factory.mktemp("garments")
    images, labels = read_fashion("train")
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=256, epochs=2, verbose=0)
    model.save(work / "garments.keras")
    options = ("--labels", GARMENTS, "--data", FASHION, "--models", folder)
    accuracy = export(work / "garments.keras", *options, "--min-accuracy", "0.5")
    tests, truth = read_fashion("t10k")
    return Published(accuracy, tests, truth.tolist())


@pytest.fixture(scope="module")
def service(folder: Path, stripes: Published, garments: Published | None) -> Iterator[Service]:
    port, grpc_port = free_port(), free_port()
    environment = {
        "DIGITS_PORT": str(port),
        "DIGITS_GRPC_PORT": str(grpc_port),
        "DIGITS_REST_PORT": str(free_port()),
        "DIGITS_MODELS": str(folder),
    }
    with running("up", environment=environment) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url), process)
        yield Service(url, f"127.0.0.1:{grpc_port}")


def share_right(published: Published, predict_many: Callable[..., list[Prediction]]) -> float:
    """Return the share of right answers, checking that both index and label name the class."""
    found = predict_many(published.pictures)
    right = [answer.index == truth for answer, truth in zip(found, published.truth, strict=True)]
    return sum(right) / len(right)


@pytest.mark.parametrize("task", ["stripes", "garments"])
def test_served_model_is_as_accurate_as_exported(
    task: str, service: Service, request: pytest.FixtureRequest
) -> None:
    published = request.getfixturevalue(task)
    if published is None:
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    with Client(service.url, model=task, timeout=120) as client:
        assert share_right(published, client.predict_many) == pytest.approx(published.accuracy, abs=5e-5)
    with ModelServerClient(service.grpc, name=task, timeout=120) as client:
        assert share_right(published, client.predict_many) == pytest.approx(published.accuracy, abs=5e-5)


def test_both_clients_answer_a_photograph_alike(service: Service, stripes: Published) -> None:
    with (
        Client(service.url, model="stripes") as over_http,
        ModelServerClient(service.grpc, name="stripes") as over_grpc,
    ):
        for picture in stripes.pictures[::20]:
            expected = over_grpc.predict(picture)
            assert over_http.predict(picture) == expected
            assert expected.label in ("across", "along", "checks", "plain")
            assert expected.digit is None


def test_digits_beside_other_tasks_are_read(service: Service) -> None:
    with Client(service.url) as client:
        answer = client.predict(FIVE)
        assert (answer.label, answer.digit) == ("5", 5)
        assert client.read(FIVE).text == "5"
    with Client(service.url, model="stripes") as client, pytest.raises(ReadingNotSupportedError):
        client.read(FIVE)
    with Client(service.url, model="rockets") as client, pytest.raises(ModelNotFoundError):
        client.predict(FIVE)


def test_models_of_service_carry_their_cards(service: Service) -> None:
    document = httpx.get(f"{service.url}/v1/models", params={"model": "stripes"}).json()
    assert document["name"] == "stripes"
    assert document["task"]["labels"] == ["across", "along", "checks", "plain"]
    assert document["task"]["input"] == {"shape": [64, 48, 3], "range": [-1.0, 1.0]}
    assert document["models"][0] == "digits"


def test_predict_command_prints_label_and_best_classes(service: Service, stripes: Published) -> None:
    done = subprocess.run(
        [*DIGITS, "predict", "--model", "stripes", "--url", service.url, "/dev/stdin"],
        input=bytes(stripes.pictures[0]),
        capture_output=True,
        env=os.environ,
    )
    headline, *bars = done.stdout.decode().splitlines()
    assert re.fullmatch(r"/dev/stdin: \w+ \(\d+\.\d%\)", headline), done
    assert len(bars) == 4


@pytest.mark.parametrize("task", ["stripes", "garments"])
def test_page_names_and_explains_a_picture(
    task: str, service: Service, new_page: Callable[..., Page], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    published = request.getfixturevalue(task)
    if published is None:
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    picture = published.pictures[0]
    file = tmp_path / "picture"
    file.write_bytes(picture if isinstance(picture, bytes) else to_png(picture))
    with Client(service.url, model=task) as client:
        expected = client.predict(file)
    assert expected.label
    page = new_page()
    page.goto(f"{service.url}/?model={task}")
    # Until the page knows the task, it takes pictures for numbers.
    page.locator("body[data-ready]").wait_for()
    page.locator("#file").set_input_files(file)
    expect(page.locator(".reading")).to_have_text(expected.label)
    expect(page.locator(".bars span")).to_have_text(list(expected.labels))
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("main[data-explained]")).to_be_visible()
