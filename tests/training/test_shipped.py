"""Networks that ship fitted: their cards belong to their weights, and their commands make them again."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from digit_core.artifact.task_card import DIGITS, READER_NAME
from digit_core.reading.certainty import log_odds, sigmoid
from digit_training import cli, shipped
from digit_training.classifier import predict
from digit_training.data import Dataset, read_hard_pictures
from digit_training.evaluation import are_right
from digit_training.models import PROBABILITIES


@pytest.mark.parametrize("name", [DIGITS.name, READER_NAME])
def test_card_has_checksum_command_and_seed_of_its_weights(name: str) -> None:
    card = shipped.read_card(name)
    weights = (shipped.FOLDER / f"{name}.weights.h5").read_bytes()
    assert card["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["command"].startswith("digits train ")
    assert f"--seed {card['fit']['seed']}" in card["command"]


@pytest.mark.parametrize(
    ("digit", "score", "omitted", "count", "low", "high"),
    [
        (0.9999, 0.999, 0.0, 4, 0.99, 1.0),
        (0.9999, 0.9, 0.0, 1, 0.94, 0.99),
        (0.98, 0.95, 0.05, 4, 0.85, 0.95),
        (0.6, 0.95, 0.05, 4, 0.5, 0.8),
        (0.9, 0.45, 0.3, 1, 0.1, 0.4),
    ],
    ids=["number", "lone digit", "usual", "doubtful digit", "doubtful score"],
)
def test_shipped_weights_say_how_sure_a_line_is(
    digit: float, score: float, omitted: float, count: int, low: float, high: float
) -> None:
    """Features: the least probable digit, the lowest score, a peak left out, and the number of digits."""
    odds, score_odds = log_odds(np.array([digit, score]))
    features = np.array([odds, score_odds, omitted, 1.0, np.log(count)])
    lines = shipped.read_card(READER_NAME)["lines"]
    assert low < sigmoid(features @ lines["weights"]) < high
    assert lines["command"].startswith("python -m benchmarks.certainty ")
    assert lines["source"]["git_revision"]


def test_shipped_classifier_reads_test_digits_and_hard_pictures(dataset: Dataset) -> None:
    network, hard = shipped.load_classifier(), read_hard_pictures()
    answers = predict(network, dataset.test.images, DIGITS)[PROBABILITIES]
    assert (answers.argmax(axis=1) == dataset.test.labels).mean() > 0.99
    assert are_right(predict(network, hard.images, DIGITS), hard.labels).mean() > 0.95


@pytest.mark.long
def test_command_of_shipped_classifier_makes_one_as_good(tmp_path: Path) -> None:
    """A network of the same command may differ from the shipped one by chance, not beyond it."""
    card = shipped.read_card(DIGITS.name)
    models = ["--models", str(tmp_path / "models")]
    assert CliRunner().invoke(cli.train, ["--if-needed", *models]).exit_code == 0
    options = card["command"].removeprefix("digits train ").split()
    result = CliRunner().invoke(cli.train, [*options, *models, "--report", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    assert f"Published: {tmp_path / 'models' / 'digits' / '2'}" in result.output
