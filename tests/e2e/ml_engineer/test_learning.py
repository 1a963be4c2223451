"""Corrections become the next version: crossed sevens, from wrong answers to right ones."""

import os
import re
from collections import Counter
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from digit_client import Client, Prediction
from digit_core.artifact import models_folder
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.images import to_png
from digit_training import cli
from digit_training.drawing.synthetic import draw_strokes, parse_strokes
from tests.conftest import Digits
from tests.processes import DIGITS, Ports, run, wait_until

pytestmark = pytest.mark.e2e

CROSSED_SEVENS = (
    "10,0 85,0 40,100 / 30,50 90,50",
    "10,15 10,0 85,0 40,100 / 30,50 90,50",
    "0,5 70,5 70,40 35,100 / 5,65 100,50",
)
"""Strokes in the format of digit_training.drawing.synthetic.STYLES."""
# The article's network sees MNIST only. The sample is a fifteenth of it, so that more epochs are needed.
TRAIN = ["--model", "perceptron", "--learning-rate", "0.5"]


def draw_crossed_sevens(count: int, seed: int) -> list[bytes]:
    """Return PNG pictures of crossed sevens, dark ink on white."""
    rng = np.random.default_rng(seed)
    strokes = [parse_strokes(CROSSED_SEVENS[index % len(CROSSED_SEVENS)]) for index in range(count)]
    return [to_png(_on_paper(draw_strokes(each, rng))) for each in strokes]


def _on_paper(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(255 - 255 * np.pad(ink, 20)).astype(np.uint8)


def share_of_sevens(predictions: list[Prediction]) -> float:
    return sum(prediction.digit == 7 for prediction in predictions) / len(predictions)


def predict(url: str, pictures: list[bytes], *, correct: bool = False) -> list[Prediction]:
    """Send each picture in a request of its own; with `correct`, send feedback that it is a seven."""
    with Client(url) as client:
        # Fixed IDs, which decide what is held out: each run fits the same digits.
        predictions = [
            client.predict(picture, request_id=f"{len(pictures)}-{number}")
            for number, picture in enumerate(pictures)
        ]
        for picture in pictures if correct else ():
            client.feedback(picture, 7)
        return predictions


def shadow_counts(url: str) -> Counter[str]:
    """Return the number of shadow predictions by `agrees`."""
    lines = re.findall(
        r'^digits_shadow_predictions_total\{agrees="(\w+)".* (\S+)$', httpx.get(f"{url}/metrics").text, re.M
    )
    return Counter({agrees: int(float(count)) for agrees, count in lines})


def test_corrected_crossed_sevens_are_right_in_the_next_version(
    digits: Digits, mnist_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports, models, store = Ports(), tmp_path / "models", f"sqlite:///{tmp_path / 'feedback.db'}"
    url = ports.url
    # Fits run in this process, without verification, which saves five imports of TensorFlow.
    monkeypatch.setattr(models_folder, "ModelsFolder", partial(ModelsFolder, verify=Mock()))

    def train(epochs: int, *options: object) -> None:
        places = ["--models", models, "--data", mnist_npz, "--report", tmp_path / f"{epochs}"]
        arguments = [*TRAIN, "--epochs", epochs, *places, *options]
        result = CliRunner().invoke(cli.train, [*map(str, arguments)])
        assert result.exit_code == 0, result.output

    def promote(*options: str) -> None:
        command = [*DIGITS, "models", "promote", "2", *options]
        run(*command, env=os.environ | ports.environment | {"DIGITS_MODELS": str(models)})

    train(40)
    settings = {"DIGITS_FEEDBACK": store, "DIGITS_FEEDBACK_OPEN": "1"}
    settings |= {"DIGITS_SHADOW_LABEL": "canary", "DIGITS_SHADOW_SHARE": "1"}
    with ports.up(models, **settings):
        unseen = draw_crossed_sevens(100, seed=2)
        before = share_of_sevens(predict(url, unseen))
        assert before < 0.85

        predict(url, draw_crossed_sevens(200, seed=1), correct=True)
        # Training refuses feedback of which most labels contradict the answers.
        predict(url, [to_png(image) for image in digits.typical(7, 60)], correct=True)
        feedback = ["--feedback", store, "--feedback-weight", 1]
        train(20, *feedback, "--from", "stable", "--min-gain", 0.05)

        # A canary gets no answer of its own: the shadow calls compare it with the stable version.
        promote("--version-label", "canary")
        wait_until(lambda: bool(predict(url, unseen[:1]) and shadow_counts(url)))
        assert {answer.model_version for answer in predict(url, unseen)} == {1}
        wait_until(lambda: shadow_counts(url).total() >= 100)
        assert shadow_counts(url)["false"] >= 20

        promote()
        wait_until(lambda: predict(url, unseen[:1])[0].model_version == 2)
        assert share_of_sevens(predict(url, unseen)) > before + 0.1
    # MNIST is no worse.
    served, learned = (ModelsFolder(models).version("digits", number).card() for number in (1, 2))
    assert learned["accuracy"] > served["accuracy"] - 0.03
